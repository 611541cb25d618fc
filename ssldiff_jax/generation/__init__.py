"""Trained models as a library: embeddings, large images and grids that a prior samples."""
