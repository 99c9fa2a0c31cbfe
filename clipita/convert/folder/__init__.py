"""Find, open and identify the files of a checkpoint's folder."""
