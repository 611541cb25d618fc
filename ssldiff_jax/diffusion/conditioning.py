"""From an embedding to what the UNet attends to, and the denoiser that joins the two."""

import dataclasses
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from ssldiff_jax.core import arrays
from ssldiff_jax.diffusion import unet as unet_lib


@dataclasses.dataclass(frozen=True)
class DenoiserConfig:
    """The UNet, and how an embedding is scaled before it: to length 1 as published, or to
    length √D, which gives every component unit variance."""

    unet: unet_lib.UNetConfig
    embedding_dim: int
    embedding_length: Literal["one", "root_dim"] = "one"


class Conditioner(nn.Module):
    """Embeddings (B, D) → one token each (B, 1, context_dim).

    The null embedding is the zero vector: its token is the bias of the linear layer.
    """

    context_dim: int
    length: Literal["one", "root_dim"] = "one"

    @nn.compact
    def __call__(self, embedding: arrays.Embedding) -> Float[jax.Array, "B 1 context"]:
        # The norm's gradient at a null embedding would be 0/0 without the floor under the root.
        norm = jnp.sqrt(jnp.maximum(jnp.sum(embedding**2, axis=-1, keepdims=True), 1e-24))
        unit = embedding / norm
        if self.length == "root_dim":
            unit = unit * embedding.shape[-1] ** 0.5
        return nn.Dense(self.context_dim, name="token")(unit)[:, None]


class Denoiser(nn.Module):
    """(x_t, t, embedding) → prediction."""

    config: DenoiserConfig

    @nn.compact
    def __call__(
        self, x_t: arrays.Latents, t: arrays.Timestep, embedding: arrays.Embedding
    ) -> arrays.Latents:
        context_dim = self.config.unet.context_dim
        tokens = Conditioner(context_dim, self.config.embedding_length, name="conditioner")(
            embedding
        )
        return unet_lib.UNet(self.config.unet, name="unet")(x_t, t, tokens)


def drop_condition(embedding: arrays.Embedding, drop: arrays.Mask) -> jax.Array:
    """Replace the embeddings marked in `drop` by the null embedding."""
    return jnp.where(drop[:, None], 0.0, embedding)
