"""Do embeddings belong to these patches, in this order? Checked with their pixels."""

import dataclasses

import numpy as np
from jaxtyping import Float, UInt

from ssldiff_jax.core import vectors

LEAST = 32
"""Patches below which an agreement says nothing."""

# With the own order among a hundred, the best of all has p = 0.01 by chance.
_SHUFFLES = 99
_BLOCK = 8  # px

Features = Float[np.ndarray, "N D"]


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How well embeddings agree with the pixels of their patches, and what others reach.

    Attributes:
        own: correlation, over all pairs of patches, of how alike their embeddings are with how
            alike their pixels are (Mantel 1967).
        shuffled: the most of 99 random orders.
        moved: the most of rows moved up and down, the sign of a list that lost its beginning.
    """

    own: float
    shuffled: float
    moved: float

    @property
    def holds(self) -> bool:
        """Whether no other order agrees better."""
        return self.own > self.shuffled and self.own >= self.moved


def look(patches: UInt[np.ndarray, "N H W bands"]) -> Float[np.ndarray, "N K"]:
    """What every encoder sees of a patch: mean of every band, its spread, and that within 8 px."""
    n, height, width, bands = patches.shape
    rows, cols = height // _BLOCK, width // _BLOCK
    pixels = patches[:, : rows * _BLOCK, : cols * _BLOCK].astype(np.float32)
    blocks = pixels.reshape(n, rows, _BLOCK, cols, _BLOCK, bands)
    fine = blocks.std(axis=(2, 4)).mean(axis=(1, 2))
    return np.concatenate([pixels.mean(axis=(1, 2)), pixels.std(axis=(1, 2)), fine], axis=1)


def agreement(own: Features, looks: Float[np.ndarray, "N K"], moved: list[Features]) -> Agreement:
    """Of embeddings with the looks of N patches; `moved` are those of rows some places away."""
    # Mantel's statistic: the correlation of two matrices of likeness over all pairs.
    embedding, pixels = _likeness(own), _likeness(looks)
    is_pair = ~np.eye(len(own), dtype=bool)

    def correlate(likeness: Float[np.ndarray, "N N"]) -> float:
        return float(np.corrcoef(likeness[is_pair], pixels[is_pair])[0, 1])

    generator = np.random.default_rng(0)
    orders = [generator.permutation(len(own)) for _ in range(_SHUFFLES)]
    return Agreement(
        correlate(embedding),
        max(correlate(embedding[np.ix_(order, order)]) for order in orders),
        max(correlate(_likeness(other)) for other in moved),
    )


def _likeness(x: np.ndarray) -> np.ndarray:
    """Cosines from the mean, components weighed alike."""
    # A component that never varies counts as 0, not as 0/0.
    x = (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-6)
    x = vectors.unit(x)
    return x @ x.T
