"""Serve a page and an API over a model and the indexes of folders; needs the extra clipita[serve]."""
