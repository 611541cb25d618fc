"""How many records slides, or a list of patches, will give, counted before any is written."""
