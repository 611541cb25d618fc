"""Learned representation-guided diffusion of gigapixel images, in JAX."""

from typing import Any

__all__ = ["Generator", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Imported on use: `python -m ssldiff_jax.main` sets up jax before anything imports it.
    if name == "Generator":
        from ssldiff_jax.generation import generator

        return generator.Generator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
