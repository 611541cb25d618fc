"""How many directions embeddings take, and whether they have collapsed."""

import dataclasses

import numpy as np
from jaxtyping import Float

from ssldiff_jax.core import moments, vectors
from ssldiff_jax.encoders import encoder

# The rank of fewer vectors is bounded by their number, not by what they are.
_PER_DIMENSION = 10
_LEAST_RANK = 2.0  # 1 is a single direction: embeddings on a line
_LEAST_SPREAD = 0.01  # of the length of the embeddings
_ROUNDING = 1e-10  # variance of unit vectors that are the same in float32


@dataclasses.dataclass(frozen=True)
class Variety:
    """How embeddings differ from each other.

    Attributes:
        effective_rank: the function of that name: 1 is one direction.
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
            effective_rank(embedding),
            effective_rank(noise),
            float(apart / max(size, 1e-30)),
            *embedding.shape,
        )

    @classmethod
    def of_encoder(cls, embedding: Float[np.ndarray, "N D"], model: encoder.Encoder) -> "Variety":
        """Of embeddings, or tokens, as an encoder gives them; before they were made white, which
        would hide that they lie on a line."""
        origin = model.origin if model.tokens_per_side == 1 else model.token_origin
        if model.whitening is not None:
            embedding = embedding @ np.linalg.inv(model.whitening.astype(np.float64))
        return cls.of(embedding, origin)

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


def effective_rank(embedding: Float[np.ndarray, "N D"]) -> float:
    """exp of the entropy of the covariance spectrum: 1 is collapse, D is white; of N vectors no
    more than N − 1. 1 too where all differ by no more than rounding.

    Roy and Vetterli 2007.
    """
    # Directions, not lengths: cosines are what embeddings are compared by.
    direction = vectors.unit(np.asarray(embedding, np.float64))
    centred = direction - direction.mean(axis=0)
    if np.sum(centred**2) < _ROUNDING * len(centred):
        return 1.0
    # Both products have the same eigenvalues but for zeros: the smaller one is taken.
    tall = centred if len(centred) >= centred.shape[1] else centred.T
    spectrum = np.maximum(np.linalg.eigvalsh(tall.T @ tall), 0)
    p = spectrum / spectrum.sum()
    # 0·log 0 counts as 0.
    return float(np.exp(-np.sum(p * np.log(np.maximum(p, 1e-12)))))


def num_ranked(dim: int) -> int:
    """How many embeddings an effective rank should be of: with as many as dimensions, white noise
    itself seems to have half of them."""
    return _PER_DIMENSION * dim


def white_facts(embedding: Float[np.ndarray, "N D"], model: encoder.Encoder) -> dict[str, float]:
    """The rank of what an encoder gives, where that was made white; else nothing."""
    if model.whitening is None:
        return {}
    return {"effective_rank_white": effective_rank(embedding)}
