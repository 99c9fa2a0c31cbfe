"""Rate the quality of translated captions by human raters."""
