"""The shapes of this codebase, named once.

Letters: B batch, H W pixels, h w latent pixels, C channels, L tokens, D embedding,
N windows, K windows of one chunk.
"""

from typing import TypeAlias

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped, UInt8

AnyArray: TypeAlias = jax.Array | np.ndarray

Image: TypeAlias = Float[AnyArray, "B H W 3"]
"""RGB in [−1, 1]."""
ImageUint8: TypeAlias = UInt8[np.ndarray, "H W 3"]
"""RGB in 0…255, as stored."""
Latents: TypeAlias = Float[AnyArray, "B h w C"]
"""Scaled autoencoder latents, unit variance."""
Canvas: TypeAlias = Float[AnyArray, "h w C"]
"""The latent field of one large image."""
Embedding: TypeAlias = Float[AnyArray, "B D"]
"""One self-supervised vector a patch."""
EmbeddingGrid: TypeAlias = Float[AnyArray, "rows cols D"]
"""Vectors on a lattice; one cell covers one patch."""
Tokens: TypeAlias = Float[AnyArray, "B L D"]
Scalar: TypeAlias = Float[AnyArray, ""]
PerExample: TypeAlias = Float[AnyArray, "B"]
Timestep: TypeAlias = Int[AnyArray, "B"]
"""0 … T−1, 0 carries the least noise."""
Mask: TypeAlias = Bool[AnyArray, "B"]
Key: TypeAlias = Shaped[Array, "..."]
"""A typed `jax.random.key`, or a batch of them."""
