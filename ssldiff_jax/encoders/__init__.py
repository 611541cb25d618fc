"""Encoders of images and texts: the ViT and what trains it, CLIP and BERT, FID's Inception."""
