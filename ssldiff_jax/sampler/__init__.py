"""Large images: a plan of windows, the sampler that denoises them together, the decoder."""
