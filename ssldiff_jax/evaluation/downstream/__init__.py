"""What is learnt from embeddings and pixels, and how well it predicts."""
