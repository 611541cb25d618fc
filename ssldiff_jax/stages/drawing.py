"""A large image before, while and after it is drawn."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from ssldiff_jax.core import arrays
from ssldiff_jax.sampler import conditions, sampler, windows


@dataclasses.dataclass(frozen=True)
class LargeImage:
    """A synthetic image, and what it took."""

    image: arrays.ImageUint8
    unet_forwards: int
    decoder_calls: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class Start:
    """An image to begin from instead of noise alone.

    Attributes:
        image: as large as the drawing.
        keep: where the image stays, from 0 to 1; None draws all of it anew, from the image at the
            noise of the solver's first step (`sample.solver.t_start`).
        blank: whether what does not stay begins from noise alone.
    """

    image: arrays.ImageUint8
    keep: Float[np.ndarray, "H W"] | None = None
    blank: bool = True


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A large image before it is drawn: its size in px, where windows lie, what conditions them,
    the seed of its noise, and the latents it begins from."""

    size: tuple[int, int]
    plan: windows.WindowPlan
    condition: conditions.ConditionFn
    seed: int
    given: sampler.Given | None = None


class Program(NamedTuple):
    """A function of the models, and the shapes (or values) it is called with."""

    run: Callable[..., jax.Array]
    shapes: tuple[Any, ...]
