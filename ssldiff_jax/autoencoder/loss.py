"""What the autoencoder is trained on: pixels, gradients, features, and a little KL."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ssldiff_jax.autoencoder import autoencoder
from ssldiff_jax.core import arrays, layers, rng


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Weights beside the mean absolute error of pixels, which has weight 1."""

    gradient_weight: float = 1.0
    perceptual_weight: float = 0.1
    kl_weight: float = 1e-6


def gradient_loss(x: arrays.Image, y: arrays.Image, scales: int = 3) -> jax.Array:
    """Mean absolute difference of horizontal and vertical gradients, over halved scales."""
    total = 0.0
    for scale in range(scales):
        if scale > 0:
            x, y = _halve(x), _halve(y)
        for axis in (1, 2):
            total += jnp.mean(jnp.abs(jnp.diff(x, axis=axis) - jnp.diff(y, axis=axis)))
    return total / scales


def _halve(x: arrays.Image) -> jax.Array:
    b, h, w, c = x.shape
    return layers.pixel_unshuffle(x, 2).reshape(b, h // 2, w // 2, 4, c).mean(axis=3)


def feature_loss(features: Callable[[jax.Array], jax.Array], x: arrays.Image, y: arrays.Image):
    """Mean squared distance of L2-normalised feature tokens (B, L, D)."""
    unit = lambda f: f / (jnp.linalg.norm(f, axis=-1, keepdims=True) + 1e-6)
    return jnp.mean(jnp.sum((unit(features(x)) - unit(features(y))) ** 2, axis=-1))


@dataclasses.dataclass(frozen=True)
class AutoencoderTask:
    """Reconstruct batches of `image_uint8`; `features` (params, image) → tokens are the
    encoder's own, with `feature_params` held fixed."""

    config: autoencoder.AutoencoderConfig
    weights: LossConfig
    features: Callable[[Any, jax.Array], jax.Array]
    feature_params: Any

    def init(self, key: arrays.Key, batch: Mapping[str, Any]) -> tuple[Any, Any]:
        """Parameters; the frozen features travel as further state."""
        model, shape = autoencoder.Autoencoder(self.config), batch["image_uint8"].shape
        noise = jnp.zeros(self._latent_shape((1, *shape[1:])))
        params = model.init(key, jnp.zeros((1, *shape[1:])), noise)["params"]
        return params, {"features": self.feature_params}

    def loss(
        self, params: Any, ema_params: Any, extra: Any, batch: Mapping[str, Any], key
    ) -> tuple:
        """L1 + gradients + features + KL."""
        image = layers.to_image(batch["image_uint8"])
        shape = self._latent_shape(image.shape)
        noise = rng.per_example(key, batch["index"], jax.random.normal, shape[1:])
        model = autoencoder.Autoencoder(self.config)
        found, moments = model.apply({"params": params}, image, noise)
        features = lambda x: self.features(extra["features"], x)

        terms = {
            "l1": jnp.mean(jnp.abs(found - image)),
            "gradient": gradient_loss(found, image),
            "perceptual": feature_loss(features, found, image),
            "kl": autoencoder.kl_divergence(moments),
        }
        w = self.weights
        loss = (
            terms["l1"]
            + w.gradient_weight * terms["gradient"]
            + w.perceptual_weight * terms["perceptual"]
            + w.kl_weight * terms["kl"]
        )
        psnr = -10 * jnp.log10(jnp.mean((found - image) ** 2) / 4)
        return loss, (terms | {"psnr": psnr}, extra)

    def _latent_shape(self, image_shape: tuple[int, ...]) -> tuple[int, ...]:
        b, h, w, _ = image_shape
        f, c = self.config.chosen.downsample_factor, self.config.chosen.latent_channels
        return b, h // f, w // f, c
