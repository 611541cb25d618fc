"""Vector quantisation (van den Oord et al. 2017): every latent becomes the nearest of K codes."""

import dataclasses

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from ssldiff_jax.core import arrays

Codebook = Float[arrays.AnyArray, "K C"]


@dataclasses.dataclass(frozen=True)
class VQConfig:
    """Codes, and the weight of pulling latents to codes beside pulling codes to latents.

    A code used less often than `dead_below` times its even share, averaged with `usage_decay`
    over steps, is dead: it starts again at a latent of the batch. 0 lets it lie.
    """

    num_codes: int
    commitment: float
    usage_decay: float
    dead_below: float


class Quantised(flax.struct.PyTreeNode):
    """Quantised latents (the gradient passes straight through) and their codes."""

    z: arrays.Latents
    index: Int[arrays.AnyArray, "B h w"]
    loss: Float[arrays.AnyArray, ""]


class Quantiser(nn.Module):
    """The codebook, spread at first over a cube of side 2/K as published."""

    config: VQConfig
    dim: int

    @nn.compact
    def __call__(self, z: arrays.Latents) -> Quantised:
        k = self.config.num_codes
        codebook = self.param("codebook", _cube, (k, self.dim))
        z = z.astype(codebook.dtype)  # distances to codes are never rounded to 8 bits
        index = nearest_code(z, codebook)
        code = codebook[index]

        # Van den Oord et al., equation 3: codes to latents, and with weight β latents to codes.
        stop = jax.lax.stop_gradient
        to_codes = jnp.mean((stop(z) - code) ** 2)
        to_latents = jnp.mean((z - stop(code)) ** 2)
        loss = to_codes + self.config.commitment * to_latents
        # Straight through: the value of the code, the gradient of the latent.
        return Quantised(z + stop(code - z), index, loss)


def _cube(key: arrays.Key, shape: tuple[int, int]) -> Codebook:
    """K codes, uniform in the cube of side 2/K around 0."""
    side = 1 / shape[0]
    return jax.random.uniform(key, shape, minval=-side, maxval=side)


def nearest_code(z: arrays.Latents, codebook: Codebook) -> Int[jax.Array, "B h w"]:
    """argmin of |e|² − 2·z·e, one matrix product for all; |z|² is the same for every code."""
    # Codes lie closer together than an accelerator's default product rounds: bfloat16 would pick
    # another one for every fifth latent, TF32 for 3 % of them.
    products = jnp.einsum("bhwc,kc->bhwk", z, codebook, precision="highest")
    return jnp.argmin(jnp.sum(codebook**2, axis=-1) - 2 * products, axis=-1)


def usage(index: Int[arrays.AnyArray, "B h w"], num_codes: int) -> Float[jax.Array, "K"]:
    """How often each code is used, as a fraction of all latents."""
    counts = jnp.zeros(num_codes).at[index.reshape(-1)].add(1.0)
    return counts / index.size


def perplexity(fractions: Float[arrays.AnyArray, "K"]) -> Float[jax.Array, ""]:
    """exp of the entropy of code usage: 1 is collapse, K is even use."""
    # 0·log 0 counts as 0.
    return jnp.exp(-jnp.sum(fractions * jnp.log(jnp.maximum(fractions, 1e-12))))


def revive(
    codebook: Codebook,
    fractions: Float[arrays.AnyArray, "K"],
    latents: Float[arrays.AnyArray, "K C"],
    dead_below: float,
) -> Codebook:
    """Codes used less than `dead_below` of their even share are put where `latents` are."""
    dead = fractions * len(fractions) < dead_below
    return jnp.where(dead[:, None], latents, codebook)
