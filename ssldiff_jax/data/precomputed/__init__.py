"""Embeddings computed elsewhere: their files, and the patches that they belong to."""
