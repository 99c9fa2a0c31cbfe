"""Turn texts into tokens, and give Italian nouns their articles."""
