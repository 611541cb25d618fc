"""An affine that makes embeddings uncorrelated and of unit variance, and its inverse."""

import dataclasses
import pathlib

import numpy as np
from jaxtyping import Float

from ssldiff_jax.core import moments

FLOOR = 1e-4
"""Directions with less than this part of the largest variance are not stretched further: they
are rounding, and a prior would spend itself on them."""


@dataclasses.dataclass(frozen=True, eq=False)
class Whitening:
    """(z − mean) @ matrix is white; `inverse` leads back."""

    mean: Float[np.ndarray, "D"]
    matrix: Float[np.ndarray, "D D"]
    inverse: Float[np.ndarray, "D D"]

    def __post_init__(self):
        # How a matrix lies in memory decides what its products are rounded to: one that was
        # computed, or read from any file, must give the same bits.
        for name in ("matrix", "inverse"):
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name)))

    @classmethod
    def of(cls, sums: moments.Moments) -> "Whitening":
        """That of the embeddings that were summed."""
        return cls(sums.mean.astype(np.float32), *sums.whitening(FLOOR))

    @classmethod
    def load(cls, path: pathlib.Path) -> "Whitening":
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            return cls(file["mean"], file["matrix"], file["inverse"])

    def save(self, path: pathlib.Path) -> None:
        """Write an .npz."""
        np.savez(path, mean=self.mean, matrix=self.matrix, inverse=self.inverse)

    def apply(self, z: Float[np.ndarray, "*B D"]) -> Float[np.ndarray, "*B D"]:
        """Embeddings → white."""
        return (z - self.mean) @ self.matrix

    def undo(self, white: Float[np.ndarray, "*B D"]) -> Float[np.ndarray, "*B D"]:
        """White → embeddings."""
        return white @ self.inverse + self.mean
