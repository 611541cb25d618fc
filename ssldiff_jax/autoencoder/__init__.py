"""First stage: images to latents and back."""
