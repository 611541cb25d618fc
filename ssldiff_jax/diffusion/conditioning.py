"""From an embedding to what the network is led by, and the denoiser that joins the two: a UNet
or a transformer (`dit`)."""

import dataclasses
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ssldiff_jax.core import arrays, layers, vectors
from ssldiff_jax.diffusion import cells as cells_lib
from ssldiff_jax.diffusion import control as control_lib
from ssldiff_jax.diffusion import dit as dit_lib
from ssldiff_jax.diffusion import unet as unet_lib

Length = Literal["one", "root_dim", "own"]
"""What an embedding is scaled to: 1, √D, or not at all."""


@dataclasses.dataclass(frozen=True)
class DenoiserConfig:
    """The network, a UNet or in its place a transformer, and how an embedding is scaled before it:
    to length 1 as published, to length √D, which gives every component unit variance, or not.

    With a `region_dim` an embedding is followed by that of the region around its patch, a second
    token; where the second is left out it is null. With more than one of `num_cells` a window is
    conditioned on the cells that it touches, packed with their places into one vector. With more
    than one of `tokens_per_side` a patch, or cell, has as many embeddings squared, packed row by
    row, each of a square of it. A student (`distillation`) is told where its step ends and how it
    is guided. Beside a transformer a ControlNet, `control`, may stand, which is shown a map.
    """

    unet: unet_lib.UNetConfig | None
    embedding_dim: int
    embedding_length: Length = "one"
    region_dim: int = 0
    num_cells: int = 1
    tokens_per_side: int = 1
    is_student: bool = False
    dit: dit_lib.DiTConfig | None = None
    control: control_lib.Control | None = None

    @property
    def network(self) -> unet_lib.UNetConfig | dit_lib.DiTConfig:
        """The one that is used."""
        return self.dit or self.unet

    @property
    def of_student(self) -> "DenoiserConfig":
        """Those of its student."""
        return dataclasses.replace(self, is_student=True)

    @property
    def cell_dim(self) -> int:
        """Length of what describes a patch, or cell: of all its tokens together."""
        return self.tokens_per_side**2 * self.embedding_dim

    @property
    def condition_dim(self) -> int:
        """Length of what conditions a window."""
        if self.num_cells == 1:
            return self.cell_dim
        return self.num_cells * (self.cell_dim + 2)

    @property
    def stored_bytes(self) -> int:
        """Of a condition of training as it is stored: beside tokens lies the embedding of each
        patch, or cell, in single precision."""
        beside = 0 if self.tokens_per_side == 1 else 4 * self.num_cells * self.embedding_dim
        return self.condition_dim * self.condition_dtype.itemsize + beside

    @property
    def condition_dtype(self) -> np.dtype:
        """What conditions of training are stored in: tokens are many numbers, and their directions
        need no more than half precision."""
        return np.dtype(np.float32 if self.tokens_per_side == 1 else np.float16)


# Centres of cells lie in (−1, 1]: over π·place no two of them have the same sine and cosine.
_WAVES = (1, 2)
# Of guidance, over doublings of its scale.
_SCALE_WAVES = (0.25, 0.5, 1)
# Those of their squares reach beyond, up to 3/2.
_TOKEN_WAVES = (0.5, 1, 2)


class Conditioner(nn.Module):
    """Embeddings (B, D) → a token of the patch, and one of the region where there is one; or
    those of cells and their squares (B, M, D) with their places → a token of each:
    (B, M, context_dim). `waves` are half waves of places over a window.

    The null embedding is the zero vector: its token is the bias of the linear layer.
    """

    context_dim: int
    embedding_dim: int
    length: Length = "one"
    region_dim: int = 0
    waves: tuple[float, ...] = _WAVES

    @nn.compact
    def __call__(
        self,
        embedding: Float[arrays.AnyArray, "B *M D"],
        place: Float[arrays.AnyArray, "_ M 2"] | None = None,
    ) -> Float[jax.Array, "B M context"]:
        if place is not None:
            features = _fourier_features(place, self.waves)
            at = nn.Dense(self.context_dim, name="place")(features)
            return nn.Dense(self.context_dim, name="token")(scaled(embedding, self.length)) + at
        patch, region = jnp.split(embedding, [self.embedding_dim], axis=-1)
        tokens = [nn.Dense(self.context_dim, name="token")(scaled(patch, self.length))]
        if self.region_dim:
            if region.shape[-1] == 0:
                # So the published 20× model is used: its second token was found useless and is fed
                # zeros.
                region = jnp.zeros((len(embedding), self.region_dim))
            tokens.append(
                nn.Dense(self.context_dim, name="token_region")(scaled(region, self.length))
            )
        return jnp.stack(tokens, axis=1)


def scaled(embedding: Float[arrays.AnyArray, "B *M D"], length: Length) -> arrays.AnyArray:
    """Embeddings at a length; the zero vector, which is the null embedding, stays zero."""
    match length:
        case "one":
            return vectors.unit(embedding)
        case "root_dim":
            return vectors.unit(embedding) * embedding.shape[-1] ** 0.5
        case "own":
            return embedding


class Step(NamedTuple):
    """What a student is told of its step, for each example: where it ends, a timestep (−1 where no
    noise is left), and the scale of its guidance."""

    until: arrays.Timestep
    scale: Float[arrays.AnyArray, "B"]


class StepEmbedding(nn.Module):
    """A step → what is added to the embedding of the timestep, of `width`; nothing in the
    beginning, so that a student with its teacher's parameters is its teacher."""

    channels: int
    width: int

    @nn.compact
    def __call__(self, step: Step) -> Float[jax.Array, "B D"]:
        until = layers.timestep_embedding(step.until + 1, self.channels)
        # log 1 is no guidance; half and double are as far from it.
        angle = jnp.pi * jnp.log2(step.scale)[:, None] * jnp.array(_SCALE_WAVES)
        features = jnp.concatenate([until, jnp.sin(angle), jnp.cos(angle)], axis=-1)
        hidden = nn.silu(nn.Dense(self.width, name="step_in")(features))
        zeros = nn.initializers.zeros_init()
        return nn.Dense(self.width, kernel_init=zeros, name="step_out")(hidden)


class Denoiser(nn.Module):
    """(x_t, t, embedding) → prediction; a student's is of the step that it is told."""

    config: DenoiserConfig

    @nn.compact
    def __call__(
        self,
        x_t: arrays.Latents,
        t: arrays.Timestep,
        embedding: arrays.Embedding,
        step: Step | None = None,
        latents_map: arrays.Latents | None = None,
    ) -> arrays.Latents:
        c, layout = self.config, None
        # Stored tokens are float16, in which their squares may be infinite.
        embedding = jnp.asarray(embedding, jnp.float32)
        if c.num_cells > 1:
            embedding, place = cells_lib.unpack(embedding, c.num_cells)
            layout = cells_lib.CellTokens(place, c.tokens_per_side)
        elif c.tokens_per_side > 1:
            layout = cells_lib.PatchTokens(c.tokens_per_side)
        if c.tokens_per_side > 1:
            embedding = embedding.reshape(len(embedding), -1, c.embedding_dim)
        if c.dit is None:
            return self._unet(x_t, t, embedding, layout, step)
        return self._dit(x_t, t, embedding, layout, step, latents_map)

    def _unet(self, x_t, t, embedding, layout, step) -> arrays.Latents:
        c = self.config
        tokens = Conditioner(
            c.unet.context_dim, c.embedding_dim, c.embedding_length, c.region_dim,
            _WAVES if c.tokens_per_side == 1 else _TOKEN_WAVES,
            name="conditioner",
        )(embedding, layout and layout.place).astype(x_t.dtype)  # fmt: skip
        beside_t = self._beside_t(step, c.unet.channels, 4 * c.unet.channels, x_t.dtype)
        return unet_lib.UNet(c.unet, name="unet")(x_t, t, tokens, layout, beside_t)

    def _dit(self, x_t, t, embedding, layout, step, latents_map) -> arrays.Latents:
        c, per_cell = self.config, self.config.tokens_per_side**2
        embedding = embedding.reshape(len(embedding), -1, c.embedding_dim)
        embedding = scaled(embedding, c.embedding_length)
        conditioner = dit_lib.Conditioner(c.dit, per_cell, name="conditioner")
        tokens = conditioner(embedding, layout, *c.dit.patches(x_t)).astype(x_t.dtype)
        width = c.dit.shape.width
        beside_t = self._beside_t(step, dit_lib.TIME_CHANNELS, width, x_t.dtype)
        controls = None
        if c.control is not None:
            net = control_lib.ControlNet(c.dit, c.control.depth, per_cell, name="control")
            controls = c.control.scale * net(x_t, t, embedding, layout, latents_map)
        return dit_lib.DiT(c.dit, name="dit")(x_t, t, tokens, layout, beside_t, controls)

    def _beside_t(
        self, step: Step | None, channels: int, width: int, dtype: jnp.dtype
    ) -> Float[jax.Array, "B D"] | None:
        if not self.config.is_student:
            return None
        return StepEmbedding(channels, width, name="step")(step).astype(dtype)


def _fourier_features(
    place: Float[arrays.AnyArray, "B M 2"], waves: tuple[float, ...]
) -> Float[jax.Array, "B M _"]:
    """Sines and cosines of places, so many half waves over the width of a window."""
    angle = jnp.pi * jnp.concatenate([n * place for n in waves], axis=-1)
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


def drop_condition(embedding: arrays.Embedding, drop: arrays.Mask) -> arrays.Embedding:
    """Replace the embeddings marked in `drop` by the null embedding."""
    return jnp.where(drop[:, None], 0.0, embedding)


def embedding_dim_of(params: Any) -> int:
    """Length of the embeddings that parameters of a denoiser are for."""
    of_tokens = params["conditioner"]
    return of_tokens["token" if "token" in of_tokens else "token_in"]["kernel"].shape[0]
