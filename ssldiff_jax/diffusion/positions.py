"""Where patches of a window and tokens of its condition lie, told by sines of two axes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ssldiff_jax.core import arrays
from ssldiff_jax.diffusion import cells

_LONGEST = 1e4  # of the wavelengths, over 2π


@dataclasses.dataclass(frozen=True)
class PositionsConfig:
    """Where patches lie, as sines tell it: patch i of n along an axis at i · `base` / n / `scale`,
    or at i / `scale` where base is 0.

    With a `base`, windows of all sizes span the same positions, as where it was made for one size
    (diffusers); with 0 a larger window goes on counting.
    """

    base: int
    scale: float

    def __post_init__(self):
        if self.base < 0 or self.scale <= 0:
            raise ValueError(
                f"positions must have base ≥ 0 and scale > 0, got base={self.base}, "
                f"scale={self.scale}"
            )

    def along(self, centres: arrays.AnyArray, count: int) -> arrays.AnyArray:
        """Positions along an axis of `count` patches of what lies at `centres`, in patches from
        the first one's place."""
        return centres * ((self.base or count) / count / self.scale)


def sines(row: arrays.AnyArray, col: arrays.AnyArray, dim: int) -> Float[arrays.AnyArray, "*N D"]:
    """Sines, then cosines, of the column in the first half of `dim` channels, and of the row in
    the second; frequencies 10⁴^(−i/n), n a quarter of `dim`. What four does not divide ends with
    zeros."""
    xp = jnp if isinstance(row, jax.Array) else np
    count = dim // 4
    frequency = _LONGEST ** (-np.arange(count) / max(count, 1))
    angles = [axis[..., None] * frequency for axis in (col, row)]
    parts = [f(angle) for angle in angles for f in (xp.sin, xp.cos)]
    parts.append(xp.zeros((*row.shape, dim - 4 * count)))
    return xp.concatenate(parts, axis=-1).astype(np.float32)


def of_patches(config: PositionsConfig, rows: int, cols: int, dim: int) -> Float[np.ndarray, "L D"]:
    """Sines of where the patches of a window lie, row by row."""
    row, col = np.divmod(np.arange(rows * cols), cols)
    return sines(config.along(row, rows), config.along(col, cols), dim)


def of_tokens(
    config: PositionsConfig, place: cells.Places, rows: int, cols: int, dim: int
) -> Float[arrays.AnyArray, "B M D"]:
    """Sines of where the centres of tokens lie among the patches of a window; `place` from its
    centre, in sides of a window."""
    row = config.along((place[..., 0] + 0.5) * rows, rows)
    return sines(row, config.along((place[..., 1] + 0.5) * cols, cols), dim)
