"""Self-supervised encoders: the ViT, what trains it, and the extraction of embeddings."""
