"""From an embedding to what the UNet attends to, and the denoiser that joins the two."""

import dataclasses
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from ssldiff_jax.core import arrays, vectors
from ssldiff_jax.diffusion import cells as cells_lib
from ssldiff_jax.diffusion import unet as unet_lib


@dataclasses.dataclass(frozen=True)
class DenoiserConfig:
    """The UNet, and how an embedding is scaled before it: to length 1 as published, or to
    length √D, which gives every component unit variance.

    With a `region_dim` an embedding is followed by that of the region around its patch, a second
    token; where the second is left out it is null. With more than one of `num_cells` a window is
    conditioned on the cells that it touches, packed with their places into one vector.
    """

    unet: unet_lib.UNetConfig
    embedding_dim: int
    embedding_length: Literal["one", "root_dim"] = "one"
    region_dim: int = 0
    num_cells: int = 1

    @property
    def condition_dim(self) -> int:
        """Length of what conditions a window."""
        if self.num_cells == 1:
            return self.embedding_dim
        return self.num_cells * (self.embedding_dim + 2)


class Conditioner(nn.Module):
    """Embeddings (B, D) → a token of the patch, and one of the region where there is one; or
    those of cells (B, M, D) with their places → a token of each: (B, M, context_dim).

    The null embedding is the zero vector: its token is the bias of the linear layer.
    """

    context_dim: int
    embedding_dim: int
    length: Literal["one", "root_dim"] = "one"
    region_dim: int = 0

    @nn.compact
    def __call__(
        self, embedding: Float[arrays.AnyArray, "B *M D"], place: cells_lib.Places | None = None
    ) -> Float[jax.Array, "B M context"]:
        if place is not None:
            at = nn.Dense(self.context_dim, name="place")(_fourier_features(place))
            return nn.Dense(self.context_dim, name="token")(self._scaled(embedding)) + at
        patch, region = jnp.split(embedding, [self.embedding_dim], axis=-1)
        tokens = [nn.Dense(self.context_dim, name="token")(self._scaled(patch))]
        if self.region_dim:
            if region.shape[-1] == 0:
                # So the published 20× model is used: its second token was found useless and is fed
                # zeros.
                region = jnp.zeros((len(embedding), self.region_dim))
            tokens.append(nn.Dense(self.context_dim, name="token_region")(self._scaled(region)))
        return jnp.stack(tokens, axis=1)

    def _scaled(self, embedding: Float[arrays.AnyArray, "B *M D"]) -> jax.Array:
        # The zero vector stays zero, so that a null embedding gives the bias and nothing else.
        unit = vectors.unit(embedding)
        if self.length == "root_dim":
            unit = unit * embedding.shape[-1] ** 0.5
        return unit


class Denoiser(nn.Module):
    """(x_t, t, embedding) → prediction."""

    config: DenoiserConfig

    @nn.compact
    def __call__(
        self, x_t: arrays.Latents, t: arrays.Timestep, embedding: arrays.Embedding
    ) -> arrays.Latents:
        c, place = self.config, None
        if c.num_cells > 1:
            embedding, place = cells_lib.unpack(embedding, c.num_cells)
        tokens = Conditioner(
            c.unet.context_dim, c.embedding_dim, c.embedding_length, c.region_dim,
            name="conditioner",
        )(embedding, place).astype(x_t.dtype)  # fmt: skip
        return unet_lib.UNet(self.config.unet, name="unet")(x_t, t, tokens, place)


def _fourier_features(place: cells_lib.Places) -> Float[jax.Array, "B M 8"]:
    """Sines and cosines of places, one and two half waves over the width of a window."""
    # Centres lie in (−1, 1]: over π·place no two of them have the same sine and cosine.
    angle = jnp.pi * jnp.concatenate([place, 2 * place], axis=-1)
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


def drop_condition(embedding: arrays.Embedding, drop: arrays.Mask) -> arrays.Embedding:
    """Replace the embeddings marked in `drop` by the null embedding."""
    return jnp.where(drop[:, None], 0.0, embedding)
