"""The shapes of this codebase, named once.

Letters: B batch, H W pixels, h w latent pixels, C channels, L tokens, D embedding,
N windows, K windows of one chunk.
"""

from typing import Any, TypeAlias

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped, UInt, UInt8

AnyArray: TypeAlias = jax.Array | np.ndarray

Image: TypeAlias = Float[AnyArray, "B H W 3"]
"""RGB in [−1, 1]."""
ImageUint8: TypeAlias = UInt8[np.ndarray, "H W 3"]
"""RGB in 0…255, as stored."""
BandImage: TypeAlias = Float[AnyArray, "B H W bands"]
"""All bands in [−1, 1]: RGB, or what `config.data.reading.multiband` names."""
Pixels: TypeAlias = UInt[np.ndarray, "H W bands"]
"""All bands, 0…255 or 0…65535, as stored; RGB of 8 bits unless a config names other bands."""
Latents: TypeAlias = Float[AnyArray, "B h w C"]
"""Scaled autoencoder latents, unit variance."""
Canvas: TypeAlias = Float[AnyArray, "h w C"]
"""The latent field of one large image."""
Embedding: TypeAlias = Float[AnyArray, "B D"]
"""One self-supervised vector a patch."""
EmbeddingGrid: TypeAlias = Float[AnyArray, "rows cols D"]
"""Vectors on a lattice; one cell covers one patch."""
Tokens: TypeAlias = Float[AnyArray, "B L D"]
PerExample: TypeAlias = Float[AnyArray, "B"]
Timestep: TypeAlias = Int[AnyArray, "B"]
"""0 … T−1, 0 carries the least noise."""
Mask: TypeAlias = Bool[AnyArray, "B"]
Key: TypeAlias = Shaped[Array, "..."]
"""A typed `jax.random.key`, or a batch of them."""


def require_rgb(image: Any, name: str, size: tuple[int, int] | None = None) -> ImageUint8:
    """The pixels of `image`, an array or whatever NumPy makes one of.

    Raises ValueError, which calls it `name`, for another dtype than uint8, for another shape than
    (H, W, 3), or, where it is given, for another `size` (height, width).
    """
    pixels = np.asarray(image)
    height, width = size or ("H", "W")
    fits = pixels.ndim == 3 and pixels.shape[2] == 3 and size in (None, pixels.shape[:2])
    if pixels.dtype == np.uint8 and fits and 0 not in pixels.shape:
        return pixels
    shown = f"{pixels.dtype} of shape {pixels.shape}"
    # The range tells the usual mistakes apart: floats of 0…1, of −1…1, or 16 bits.
    if np.issubdtype(pixels.dtype, np.number) and pixels.size:
        shown += f" with values from {pixels.min():g} to {pixels.max():g}"
    raise ValueError(
        f"{name} must be RGB in 0…255, uint8 of shape ({height}, {width}, 3), got {shown}"
    )
