"""Give photographs labels, in words or by example, and write them beside the photographs."""
