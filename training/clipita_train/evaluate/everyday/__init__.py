"""Judge models on photographs as people take them: an archive to name and search, sentences, small label sets."""
