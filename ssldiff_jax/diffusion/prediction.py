"""What the network predicts: eps, x0 or v = alpha·eps − sigma·x0, and the ways between them."""

from typing import Literal, TypeAlias

import jax

from ssldiff_jax.core import arrays

Prediction: TypeAlias = Literal["eps", "x0", "v"]


def target(
    prediction: Prediction,
    x0: arrays.AnyArray,
    eps: arrays.AnyArray,
    alpha: arrays.AnyArray,
    sigma: arrays.AnyArray,
) -> jax.Array:
    """What a network of that `prediction` should output."""
    match prediction:
        case "eps":
            return eps
        case "x0":
            return x0
        case "v":
            return alpha * eps - sigma * x0


def to_x0(
    prediction: Prediction,
    output: arrays.AnyArray,
    x_t: arrays.AnyArray,
    alpha: arrays.AnyArray,
    sigma: arrays.AnyArray,
) -> jax.Array:
    """The clean latents that `output` implies."""
    match prediction:
        case "eps":
            return (x_t - sigma * output) / alpha
        case "x0":
            return output
        case "v":
            return alpha * x_t - sigma * output
