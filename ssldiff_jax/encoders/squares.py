"""An encoder that describes a patch by the embeddings of its squares, each seen alone."""

import dataclasses

import numpy as np
from jaxtyping import Float, UInt

from ssldiff_jax.encoders import encoder as encoder_lib

_MOST = 128  # squares that are embedded together


@dataclasses.dataclass(frozen=True, eq=False)
class SquaresEncoder:
    """Patches (N, H, W, bands) → the embeddings of their `per_side`² equal squares, packed row by
    row: (N, per_side²·D). A large patch is described so by an encoder of small ones."""

    encoder: encoder_lib.Encoder
    per_side: int

    def in_batches(self, size: int) -> "SquaresEncoder":
        """The same for callers that bring `size` patches at a time."""
        batched = self.encoder.in_batches(min(size * self.per_side**2, _MOST))
        return dataclasses.replace(self, encoder=batched)

    def computing_in(self, dtype: str) -> "SquaresEncoder":
        """The same, its network in float32 or bfloat16."""
        return dataclasses.replace(self, encoder=self.encoder.computing_in(dtype))

    def __call__(self, patches: UInt[np.ndarray, "N H W bands"]) -> Float[np.ndarray, "N E"]:
        """Embeddings, not normalised, float32.

        Raises ValueError for patches that are no whole squares, or of another size than the encoder
        takes.
        """
        (count, height, width, bands), k = patches.shape, self.per_side
        if height % k or width % k:
            raise ValueError(f"patches must be {k} × {k} squares, got {height} × {width} px")
        squares = patches.reshape(count, k, height // k, k, width // k, bands).swapaxes(2, 3)
        embedding = self.encoder(squares.reshape(-1, height // k, width // k, bands))
        return embedding.reshape(count, -1)
