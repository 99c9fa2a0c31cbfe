"""Contrastive losses between image and text embeddings."""
