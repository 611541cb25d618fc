"""The denoising UNet of latent diffusion (Rombach et al. 2022), as learned
representation-guided diffusion conditions it: embedding tokens by cross attention. The
`scale_shift` variant feeds the embedding beside the timestep into every block instead."""

import dataclasses
import functools
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from ssldiff_jax.core import arrays, attention, layers
from ssldiff_jax.diffusion import cells


@dataclasses.dataclass(frozen=True)
class UNetConfig:
    """Sizes of the UNet; the config's defaults are the published 400.92 M parameters."""

    latent_channels: int
    channels: int
    channel_mult: tuple[int, ...]
    num_res_blocks: int
    attention_levels: tuple[int, ...]
    num_heads: int
    context_dim: int
    conditioning: Literal["cross_attention", "scale_shift"]

    @property
    def side_multiple(self) -> int:
        """What sides of a window are multiples of: they are halved at every level but the last."""
        return 2 ** (len(self.channel_mult) - 1)


Context = Float[arrays.AnyArray, "B M E"]


class ResBlock(nn.Module):
    """Norm, SiLU, convolution, twice; the timestep enters between.

    What enters may differ from token to token: `emb` (B, M, D) and where the tokens lie.
    """

    features: int
    scale_shift: bool

    @nn.compact
    def __call__(
        self,
        x: layers.FeatureMap,
        emb: Float[arrays.AnyArray, "B _ D"],
        layout: cells.Layout | None = None,
    ) -> Float[jax.Array, "B h w _"]:
        # 1e-5 in residual blocks and 1e-6 before attention, as in the published network.
        h = nn.silu(layers.group_norm(x.shape[-1], epsilon=1e-5, name="norm_in")(x))
        h = layers.conv(self.features, name="conv_in")(h)
        shift_width = 2 * self.features if self.scale_shift else self.features
        shift = nn.Dense(shift_width, name="emb")(nn.silu(emb))
        if emb.shape[1] == 1:
            shift = shift[:, None]
        else:
            shift = layout.spread(shift, *x.shape[1:3])
        norm_out = layers.group_norm(self.features, epsilon=1e-5, name="norm_out")
        if self.scale_shift:
            scale, shift = jnp.split(shift, 2, axis=-1)
            h = norm_out(h) * (1 + scale) + shift
        else:
            h = norm_out(h + shift)
        h = layers.conv(self.features, name="conv_out", zero=True)(nn.silu(h))
        if x.shape[-1] != self.features:
            x = layers.conv(self.features, kernel=1, name="skip")(x)
        return x + h


class Attention(nn.Module):
    """Queries from x, keys and values from `context`; q, k, v carry no bias."""

    num_heads: int

    @nn.compact
    def __call__(self, x: arrays.Tokens, context: Context) -> arrays.Tokens:
        width = x.shape[-1]
        if context.shape[1] == 1 and not self.is_initializing():
            # Softmax over one token is 1, whatever the query: the token's value for every pixel.
            # Queries and keys get no gradient then; they are made when parameters are, since
            # published files have them.
            v = nn.Dense(width, use_bias=False, name="v")(context)
            return jnp.broadcast_to(nn.Dense(width, name="out")(v), x.shape)
        q = nn.Dense(width, use_bias=False, name="q")(x)
        k = nn.Dense(width, use_bias=False, name="k")(context)
        v = nn.Dense(width, use_bias=False, name="v")(context)
        return nn.Dense(width, name="out")(attention.attend(q, k, v, self.num_heads))


class TransformerBlock(nn.Module):
    """Self attention, cross attention (where there are tokens), GEGLU, each residual."""

    num_heads: int

    @nn.compact
    def __call__(self, x: arrays.Tokens, tokens: Context | None) -> arrays.Tokens:
        norm = functools.partial(nn.LayerNorm, epsilon=1e-5)
        h = norm(name="norm_self")(x)
        x = x + Attention(self.num_heads, name="self_attention")(h, h)
        if tokens is not None:
            h = norm(name="norm_cross")(x)
            x = x + Attention(self.num_heads, name="cross_attention")(h, tokens)
        # Value and gate, each of four times the width.
        h = nn.Dense(8 * x.shape[-1], name="geglu")(norm(name="norm_ff")(x))
        value, gate = jnp.split(h, 2, axis=-1)
        return x + nn.Dense(x.shape[-1], name="ff_out")(value * nn.gelu(gate, approximate=False))


class SpatialTransformer(nn.Module):
    """A transformer block over the pixels of a feature map."""

    num_heads: int

    @nn.compact
    def __call__(self, x: layers.FeatureMap, tokens: Context | None) -> layers.FeatureMap:
        b, h, w, c = x.shape
        y = layers.group_norm(c, epsilon=1e-6, name="norm")(x)
        y = layers.conv(c, kernel=1, name="proj_in")(y).reshape(b, h * w, c)
        y = TransformerBlock(self.num_heads, name="block")(y, tokens)
        y = layers.conv(c, kernel=1, name="proj_out", zero=True)(y.reshape(b, h, w, c))
        return x + y


class UNetBlock(nn.Module):
    """A residual block, then attention where the level has it."""

    features: int
    attend: bool
    config: UNetConfig

    @nn.compact
    def __call__(
        self,
        h: layers.FeatureMap,
        emb: Float[arrays.AnyArray, "B _ D"],
        tokens: Context | None,
        layout: cells.Layout | None = None,
    ) -> Float[jax.Array, "B h w _"]:
        scale_shift = self.config.conditioning == "scale_shift"
        h = ResBlock(self.features, scale_shift, name="res")(h, emb, layout)
        if self.attend:
            h = SpatialTransformer(self.config.num_heads, name="attention")(h, tokens)
        return layers.end_of_block(h)


class UNet(nn.Module):
    """(x_t, t, tokens) → prediction, at the shape of x_t.

    Sides of x_t must be divisible by 2^(levels − 1). With a `layout`, tokens have places: with
    `scale_shift` each leads the pixels that it covers, with `cross_attention` pixels attend to all
    of them. `beside_t` is added to the embedding of t.
    """

    config: UNetConfig

    @nn.compact
    def __call__(
        self,
        x_t: arrays.Latents,
        t: arrays.Timestep,
        tokens: Context,
        layout: cells.Layout | None = None,
        beside_t: Float[arrays.AnyArray, "B D"] | None = None,
    ) -> arrays.Latents:
        config, levels = self.config, len(self.config.channel_mult)
        emb = layers.timestep_embedding(t, config.channels).astype(x_t.dtype)
        emb = nn.Dense(4 * config.channels, name="time_in")(emb)
        emb = nn.Dense(4 * config.channels, name="time_out")(nn.silu(emb))
        if beside_t is not None:
            emb = emb + beside_t
        # (B, 1, 4·channels), and (B, M, 4·channels) once tokens differ.
        emb = emb[:, None]
        if config.conditioning == "scale_shift":
            condition_on = tokens if layout is not None else tokens.mean(axis=1, keepdims=True)
            emb = emb + nn.Dense(4 * config.channels, name="token_in")(condition_on)
            tokens = None

        h = layers.conv(config.channels, name="conv_in")(x_t)
        at = None if layout is None else layout.coordinates(*x_t.shape[1:3])
        if at is not None:
            h = h + nn.Dense(config.channels, name="place_in")(at.astype(h.dtype))
        # One for every block of the way up: num_res_blocks + 1 a level, with conv_in and the
        # halvings.
        skips = [h]
        for level in range(levels):
            for block in range(config.num_res_blocks):
                h = self._stage(level, f"down_{level}_{block}")(h, emb, tokens, layout)
                skips.append(h)
            if level < levels - 1:
                h = layers.conv(h.shape[-1], stride=2, name=f"downsample_{level}")(h)
                skips.append(h)

        h = self._stage(levels - 1, "middle_in", attend=True)(h, emb, tokens, layout)
        h = ResBlock(h.shape[-1], config.conditioning == "scale_shift", name="middle_out")(
            h, emb, layout
        )

        for level in reversed(range(levels)):
            for block in range(config.num_res_blocks + 1):
                h = jnp.concatenate([h, skips.pop()], axis=-1)
                h = self._stage(level, f"up_{level}_{block}")(h, emb, tokens, layout)
            if level > 0:
                h = layers.conv(h.shape[-1], name=f"upsample_{level}")(layers.upsample_nearest(h))

        h = nn.silu(layers.group_norm(h.shape[-1], epsilon=1e-5, name="norm_out")(h))
        # Starts at a prediction of 0, as published.
        return layers.conv(x_t.shape[-1], name="conv_out", zero=True)(h)

    def _stage(self, level: int, name: str, attend: bool = False) -> UNetBlock:
        features = self.config.channels * self.config.channel_mult[level]
        return UNetBlock(
            features, attend or level in self.config.attention_levels, self.config, name=name
        )
