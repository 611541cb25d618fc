"""How many directions embeddings take, and whether they have collapsed."""

import dataclasses

import numpy as np
from jaxtyping import Float

from ssldiff_jax.core import moments
from ssldiff_jax.encoders import encoder

# The rank of fewer vectors is bounded by their number, not by what they are.
_PER_DIMENSION = 10
_LEAST_RANK = 2.0  # 1 is a single direction: embeddings on a line
_LEAST_SPREAD = 0.01  # of the length of the embeddings


@dataclasses.dataclass(frozen=True)
class Variety:
    """How embeddings differ from each other.

    Attributes:
        effective_rank: `encoder.effective_rank`: 1 is one direction.
        effective_rank_of_noise: that of as many vectors of white noise, which is the most that
            there can be and shows nothing by itself: noise has it too.
        spread: how far embeddings are from their mean over their length, both root mean squares;
            measured from zero, whatever their origin.
        num_ranked: how many embeddings.
        dim: D.
    """

    effective_rank: float
    effective_rank_of_noise: float
    spread: float
    num_ranked: int
    dim: int

    @classmethod
    def of(cls, embedding: Float[np.ndarray, "N D"], origin: float | np.ndarray = 0.0) -> "Variety":
        """Of embeddings that are measured from `origin`; `num_ranked` says how many are enough.

        Raises ValueError for NaN and infinity.
        """
        moments.require_finite(embedding, "embeddings")
        raw = np.asarray(embedding, np.float64) + origin
        size = np.sqrt(np.mean(np.sum(raw**2, axis=1)))
        apart = np.sqrt(np.mean(np.sum((raw - raw.mean(axis=0)) ** 2, axis=1)))
        noise = np.random.default_rng(0).normal(size=embedding.shape)
        return cls(
            encoder.effective_rank(embedding),
            encoder.effective_rank(noise),
            float(apart / max(size, 1e-30)),
            *embedding.shape,
        )

    @property
    def facts(self) -> dict[str, float]:
        """For a manifest: all but the dimension."""
        values = dataclasses.asdict(self)
        del values["dim"]
        return values

    @property
    def collapse(self) -> str | None:
        """One line where all embeddings are the same or lie on a line; None where they do not, or
        lie on one because they are so few that white noise hardly has more directions."""
        is_flat = self.effective_rank < _LEAST_RANK <= self.effective_rank_of_noise / 2
        if self.num_ranked < 2 or (not is_flat and self.spread >= _LEAST_SPREAD):
            return None
        return (
            f"embeddings have collapsed: {self.num_ranked} have an effective rank of "
            f"{self.effective_rank:.3g} of {self.dim} (white noise: "
            f"{self.effective_rank_of_noise:.3g}) and differ by {self.spread:.2g} of their length; "
            f"expected a rank of {_LEAST_RANK:g} or more and a difference of {_LEAST_SPREAD:g}"
        )


def num_ranked(dim: int) -> int:
    """How many embeddings an effective rank should be of: with as many as dimensions, white noise
    itself seems to have half of them."""
    return _PER_DIMENSION * dim
