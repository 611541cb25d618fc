"""From images to features: the networks, and the files that features are taken of."""
