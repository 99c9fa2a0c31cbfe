"""A tagger of Italian parts of speech, small enough to come with the package, to find proper nouns in captions."""
