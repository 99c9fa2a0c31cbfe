"""The builder of data sets: from published files to shards, by the rules of a recipe."""
