"""How good a synthetic image is, by figures whose counts and encoders are named."""
