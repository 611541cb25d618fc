"""InfoNCE (van den Oord et al. 2018; SimCLR's two views): what works in minutes on two cores."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from ssldiff_jax.core import arrays, collectives, layers, tasks, vectors
from ssldiff_jax.encoders import augment, vit


@dataclasses.dataclass(frozen=True)
class InfoNCEConfig:
    """Softmax temperature, and width and output of the projection head that is thrown away.

    Without a head (`head_dim` 0) the embedding itself is spread over the sphere: it then separates
    single patches, where features before a head separate kinds of patches.
    """

    temperature: float
    head_width: int
    head_dim: int


class ProjectedEncoder(nn.Module):
    """Encoder, then the projection head."""

    encoder: vit.ViT
    config: InfoNCEConfig

    @nn.compact
    def __call__(self, image: arrays.Image) -> arrays.Embedding:
        if self.config.head_dim == 0:
            return self.encoder(image)
        h = nn.Dense(self.config.head_width, name="head_in")(self.encoder(image))
        return nn.Dense(self.config.head_dim, name="head_out")(nn.gelu(h))


def infonce_loss(
    z1: arrays.Embedding, z2: arrays.Embedding, temperature: float
) -> Float[jax.Array, ""]:
    """Cross entropy of finding, among all second views, the one of the same patch; symmetric.

    Views are those of one device; they are contrasted with those of all devices.
    """
    # (B, B·devices) and (B·devices, B): own views against those of all.
    u1, u2, count = vectors.unit(z1), vectors.unit(z2), len(z1)
    row_logits = u1 @ collectives.all_gather(u2).T / temperature
    column_logits = collectives.all_gather(u1) @ u2.T / temperature
    # Columns of this device's own examples: their diagonal is the pairs of one patch.
    own = jax.lax.dynamic_slice_in_dim(row_logits, collectives.offset(count), count, axis=1)
    same = jnp.diagonal(own)
    # −log softmax of the pair, without the softmax, whose small values would be rounded to 0.
    rows = jnp.mean(jax.nn.logsumexp(row_logits, axis=1) - same)
    columns = jnp.mean(jax.nn.logsumexp(column_logits, axis=0) - same)
    return (rows + columns) / 2


@dataclasses.dataclass(frozen=True)
class InfoNCETask(tasks.Task):
    """Train on batches of `pixels` of `crop_px`, larger than the encoder's input, so that two
    views of one patch differ in position and colour."""

    encoder: vit.ViT
    config: InfoNCEConfig
    jitter: augment.ColorJitter
    crop_px: int

    def batch_spec(self) -> tasks.BatchSpec:
        """Crops."""
        return tasks.images(self.crop_px)

    @property
    def model(self) -> ProjectedEncoder:
        """Encoder and head."""
        return ProjectedEncoder(self.encoder, self.config)

    def init(self, key: arrays.Key, batch: Mapping[str, Any]) -> tuple[Any, Any]:
        """Parameters (the encoder's under `encoder`), and no further state."""
        px = self.encoder.config.image_px
        return self.model.init(key, jnp.zeros((1, px, px, 3)))["params"], {}

    def loss(
        self, params: Any, batch: Mapping[str, Any], key: arrays.Key, *, ema_params: Any, extra: Any
    ) -> tasks.LossOutput:
        """InfoNCE between two views of every patch."""
        image = layers.to_image(batch["pixels"])
        px, index = self.encoder.config.image_px, batch["index"]
        views = [
            augment.shifted_views(k, image, index, px, self.jitter) for k in jax.random.split(key)
        ]
        views = [layers.like(params, view) for view in views]
        z1, z2 = (self.model.apply({"params": params}, v).astype(jnp.float32) for v in views)
        loss = infonce_loss(z1, z2, self.config.temperature)
        return tasks.LossOutput(loss, {}, extra)
