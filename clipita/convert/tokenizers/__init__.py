"""Make one `tokenizer.json` of the tokenizer files that checkpoints have."""
