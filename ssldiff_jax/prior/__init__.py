"""p(grid of embeddings | condition): what gives a grid where no reference does."""
