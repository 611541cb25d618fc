"""Diffusion in latent space, conditioned on an embedding; meets arrays, never data sets."""
