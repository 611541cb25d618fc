"""DINO (Caron et al. 2021): a student matches the centred, sharpened output of its own EMA."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from ssldiff_jax.core import arrays, collectives, layers, tasks, vectors
from ssldiff_jax.encoders import augment, vit

Prototypes = Float[arrays.AnyArray, "B P"]


@dataclasses.dataclass(frozen=True)
class DINOConfig:
    """Temperatures, head and crops of DINO; two global views, `num_local` local ones."""

    teacher_temperature: float
    student_temperature: float
    center_momentum: float
    num_prototypes: int
    head_width: int
    bottleneck: int
    num_local: int
    local_px: int
    global_area: tuple[float, ...]
    local_area: tuple[float, ...]


class HeadedEncoder(nn.Module):
    """Encoder, MLP to an L2-normalised bottleneck, and unit-norm prototypes."""

    encoder: vit.ViT
    config: DINOConfig

    @nn.compact
    def __call__(self, image: arrays.Image) -> Prototypes:
        h = self.encoder(image)
        # Three layers with the bottleneck, as in the paper.
        for i in range(2):
            h = nn.gelu(nn.Dense(self.config.head_width, name=f"head_{i}")(h))
        h = nn.Dense(self.config.bottleneck, name="bottleneck")(h)
        shape = (self.config.bottleneck, self.config.num_prototypes)
        prototypes = self.param("prototypes", nn.initializers.normal(0.02), shape)
        # A last layer with weight norm, whose gain is fixed at 1.
        return vectors.unit(h) @ vectors.unit(prototypes, axis=0)


def dino_loss(
    teacher: list[Prototypes],
    student: list[Prototypes],
    center: Float[arrays.AnyArray, "P"],
    config: DINOConfig,
) -> Float[jax.Array, ""]:
    """Cross entropy between every teacher view and every other student view, averaged."""
    targets = [jax.nn.softmax((t - center) / config.teacher_temperature) for t in teacher]
    logs = [jax.nn.log_softmax(s / config.student_temperature) for s in student]
    # Equation 3: a view is never its own target. Global views come first in both lists.
    pairs = [(i, j) for i in range(len(targets)) for j in range(len(logs)) if i != j]
    return sum(-jnp.mean(jnp.sum(targets[i] * logs[j], axis=-1)) for i, j in pairs) / len(pairs)


@dataclasses.dataclass(frozen=True)
class DINOTask(tasks.Task):
    """Train on batches of `pixels` of `crop_px`; the teacher is the loop's average of the
    student."""

    encoder: vit.ViT
    config: DINOConfig
    jitter: augment.ColorJitter
    crop_px: int

    def batch_spec(self) -> tasks.BatchSpec:
        """Crops."""
        return tasks.images(self.crop_px)

    @property
    def model(self) -> HeadedEncoder:
        """Encoder and head."""
        return HeadedEncoder(self.encoder, self.config)

    def init(self, key: arrays.Key, batch: Mapping[str, Any]) -> tuple[Any, Any]:
        """Parameters (the encoder's under `encoder`), and the centre of the teacher's outputs."""
        px = self.encoder.config.image_px
        params = self.model.init(key, jnp.zeros((1, px, px, 3)))["params"]
        return params, {"center": jnp.zeros(self.config.num_prototypes)}

    def loss(
        self, params: Any, batch: Mapping[str, Any], key: arrays.Key, *, ema_params: Any, extra: Any
    ) -> tasks.LossOutput:
        """Loss of the student, and the centre moved towards this batch."""
        config, index = self.config, batch["index"]
        image = layers.to_image(batch["pixels"])
        keys = jax.random.split(key, 2 + config.num_local)

        def view(k: arrays.Key, px: int, area: tuple[float, float]) -> arrays.Image:
            return augment.resized_views(k, image, index, px, area, self.jitter)

        global_px = self.encoder.config.image_px
        global_views = [view(k, global_px, config.global_area) for k in keys[:2]]
        local_views = [view(k, config.local_px, config.local_area) for k in keys[2:]]

        def outputs(params: Any, views: list[jax.Array]) -> list[Prototypes]:
            resized = [layers.like(params, v) for v in views]
            return [self.model.apply({"params": params}, v).astype(jnp.float32) for v in resized]

        # Multi-crop (their section 3.1): the teacher sees global views alone, the student all.
        teacher = jax.lax.stop_gradient(outputs(ema_params, global_views))
        student = outputs(params, global_views + local_views)

        loss = dino_loss(teacher, student, extra["center"], config)
        # Equation 4, of the whole batch; this step's loss has the centre before it.
        batch_center = collectives.pmean(jnp.mean(jnp.concatenate(teacher), axis=0))
        m = config.center_momentum
        # 0 where one prototype takes all, log P where all are alike: both are collapse.
        entropy = -jnp.sum(jax.nn.softmax(batch_center) * jax.nn.log_softmax(batch_center))
        center = m * extra["center"] + (1 - m) * batch_center
        return tasks.LossOutput(loss, {"center_entropy": entropy}, {"center": center})
