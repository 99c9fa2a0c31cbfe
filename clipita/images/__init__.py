"""Turn any image into the pixels that an image tower reads, and find the photographs in folders."""
