"""Mean and covariance of vectors that come in batches, on any number of processes."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float, UInt8

from ssldiff_jax.core import blas

_ROWS = 4096  # that are copied to float64 at a time


class Moments:
    """Count, mean and centred second moment of vectors, in float64.

    Neither the order of batches nor how they are split over processes changes the result beyond
    rounding (Chan, Golub and LeVeque 1983), far from the origin either.

    Attributes:
        count: of the vectors.
        mean: (D,), of all so far; 0 for none.
        scatter: (D, D), the sum of (z − mean)(z − mean)ᵀ.
    """

    def __init__(self, dim: int):
        self.count = 0
        self.mean, self.scatter = np.zeros(dim), np.zeros((dim, dim))

    @classmethod
    def of(cls, z: Float[np.ndarray, "N D"], name: str = "vectors") -> "Moments":
        """Those of an array."""
        moments = cls(z.shape[1])
        moments.add(z, name)
        return moments

    @classmethod
    def merged(cls, parts: Iterable["Moments"]) -> "Moments":
        """Those of all parts, which stay as they are; at least one part."""
        merged = None
        for part in parts:
            merged = merged or cls(part.dim)
            merged.merge(part)
        if merged is None:
            raise ValueError("expected moments of at least one part, got none")
        return merged

    @classmethod
    def unpack(cls, packed: UInt8[np.ndarray, "P"]) -> "Moments":
        """What `pack` made bytes of."""
        numbers = np.ascontiguousarray(packed).view(np.float64)
        # 1 + D + D² numbers, solved for D.
        dim = int((np.sqrt(4 * len(numbers) - 3) - 1) / 2)
        moments = cls(dim)
        moments.count = int(numbers[0])
        moments.mean = numbers[1 : dim + 1].copy()
        moments.scatter = numbers[dim + 1 :].reshape(dim, dim).copy()
        return moments

    @property
    def dim(self) -> int:
        """D."""
        return len(self.mean)

    @property
    def covariance(self) -> Float[np.ndarray, "D D"]:
        """The unbiased one, over count − 1; ValueError for fewer than 2 vectors."""
        if self.count < 2:
            raise ValueError(f"expected at least 2 vectors for a covariance, got {self.count}")
        return self.scatter / (self.count - 1)

    def whitening(self, least: float) -> tuple[Float[np.ndarray, "D D"], Float[np.ndarray, "D D"]]:
        """W such that (z − mean) @ W is uncorrelated and of unit variance, and its inverse: V·Λ^−½
        of the covariance V·Λ·Vᵀ, float32. Directions with less than `least` of the largest variance
        are stretched as if they had that; ValueError where nothing varies."""
        # In ascending order: the last is the largest.
        values, directions = np.linalg.eigh(self.scatter / max(self.count, 1))
        if values[-1] <= 0:
            raise ValueError(f"expected vectors that differ, got {self.count} that are the same")
        scale = np.sqrt(np.maximum(values, least * values[-1]))
        # Λ^½·Vᵀ undoes it without inverting anything.
        return (directions / scale).astype(np.float32), (directions * scale).T.astype(np.float32)

    def add(self, z: Float[np.ndarray, "N D"], name: str = "vectors") -> None:
        """More of them, or none; ValueError, which calls them `name`, as `require_finite`'s."""
        self._require_dim(z.shape[1], name)
        require_finite(z, name)
        with blas.one_thread():
            for start in range(0, len(z), _ROWS):
                rows = z[start : start + _ROWS].astype(np.float64)
                mean = rows.mean(axis=0)
                # Centred first: sums of raw products lose their digits far from the origin.
                rows -= mean
                self._merge(len(rows), mean, rows.T @ rows)

    def merge(self, other: "Moments") -> None:
        """Count the vectors of `other` too, as if they had been added here."""
        self._require_dim(other.dim, "moments")
        self._merge(other.count, other.mean, other.scatter)

    def without(self, part: "Moments") -> "Moments":
        """Those of the vectors that are not in `part`, whose vectors were all added here."""
        left = Moments(self.dim)
        left.count = self.count - part.count
        if left.count < 1:
            raise ValueError(f"expected a part of {self.count} vectors, got {part.count}")
        # `_merge` solved for one of its sides.
        left.mean = self.mean + (self.mean - part.mean) * (part.count / left.count)
        shift = part.mean - left.mean
        between = np.outer(shift, shift) * (left.count * part.count / self.count)
        left.scatter = self.scatter - part.scatter - between
        return left

    def pack(self) -> UInt8[np.ndarray, "P"]:
        """All of it as 8·(1 + D + D²) bytes: gathered from other processes they are not rounded,
        as JAX does with float64."""
        numbers = np.concatenate([[float(self.count)], self.mean, self.scatter.ravel()])
        return numbers.view(np.uint8)

    def _merge(self, count: int, mean: np.ndarray, scatter: np.ndarray) -> None:
        if count == 0:
            return
        total = self.count + count
        # Chan, Golub and LeVeque 1983: the means' distance adds to the scatter of both parts.
        shift = mean - self.mean
        self.scatter += scatter + np.outer(shift, shift) * (self.count * count / total)
        self.mean = self.mean + shift * (count / total)
        self.count = total

    def _require_dim(self, dim: int, name: str) -> None:
        if dim != self.dim:
            raise ValueError(f"expected {name} of dimension {self.dim}, got {dim}")


def require_finite(z: Float[np.ndarray, "N D"], name: str) -> None:
    """ValueError that says how many rows, called `name`, have NaN or infinity."""
    bad = len(z) - int(np.isfinite(z).all(axis=1).sum())
    if bad:
        raise ValueError(f"expected finite {name}, got NaN or infinity in {bad} of {len(z)}")
