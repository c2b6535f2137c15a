"""Embeddings in and out: the directory that holds them, and what is recorded beside them."""
