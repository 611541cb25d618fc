"""A trained encoder as a function from images to embeddings, and how to judge one."""

import copy
import dataclasses
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import Float, UInt8

from ssldiff_jax.core import arrays, layers
from ssldiff_jax.encoders import augment, dino, infonce, vit


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """The encoder, the objective that trains it, and what embeddings are measured from.

    `origin` zero leaves embeddings as the network gives them; mean subtracts their mean over
    training patches, so that cosines tell patches apart and not only patches from nothing.
    """

    vit: vit.ViTConfig
    objective: Literal["infonce", "dino"]
    infonce: infonce.InfoNCEConfig
    dino: dino.DINOConfig
    jitter: augment.ColorJitter
    shift_px: int
    origin: Literal["zero", "mean"]

    def task(self) -> infonce.InfoNCETask | dino.DINOTask:
        """The training task of the chosen objective."""
        encoder = vit.ViT(self.vit)
        if self.objective == "infonce":
            return infonce.InfoNCETask(encoder, self.infonce, self.jitter)
        return dino.DINOTask(encoder, self.dino, self.jitter)


class Encoder:
    """Embeds any number of patches in batches of one size, so it is traced once.

    Embeddings are measured from `origin` `(D,)`.
    """

    def __init__(
        self, config: vit.ViTConfig, params: Any, origin: Any = 0.0, batch_size: int = 128
    ):
        self.config = config
        self.params = params
        self.origin = np.asarray(origin, np.float32)
        self._batch_size = batch_size
        model = vit.ViT(config)
        self._embed = jax.jit(
            lambda params, image_uint8: model.apply(
                {"params": params}, layers.to_image(image_uint8)
            )
        )

    def measured_from(self, origin: Float[np.ndarray, "D"]) -> "Encoder":
        """The same encoder with another origin; nothing is traced again."""
        moved = copy.copy(self)
        moved.origin = np.asarray(origin, np.float32)
        return moved

    def __call__(self, patches: UInt8[np.ndarray, "N H W 3"]) -> Float[np.ndarray, "N D"]:
        """Embeddings, not normalised, float32.

        Raises ValueError for patches of another size than the encoder's.
        """
        px = self.config.image_px
        if patches.shape[1:] != (px, px, 3):
            raise ValueError(f"patches must be {px}×{px}×3, got {patches.shape[1:]}")
        found = []
        for start in range(0, len(patches), self._batch_size):
            batch = patches[start : start + self._batch_size]
            padding = self._batch_size - len(batch)
            padded = np.pad(batch, ((0, padding), (0, 0), (0, 0), (0, 0)))
            embedding = np.asarray(self._embed(self.params, padded))[: len(batch)]
            found.append(embedding - self.origin)
        return np.concatenate(found) if found else np.zeros((0, self.config.width), np.float32)


def unit(embedding: Float[arrays.AnyArray, "*B D"]) -> np.ndarray:
    """L2-normalised, a zero vector staying zero."""
    embedding = np.asarray(embedding)
    return embedding / np.maximum(np.linalg.norm(embedding, axis=-1, keepdims=True), 1e-12)


def effective_rank(embedding: Float[np.ndarray, "N D"]) -> float:
    """exp of the entropy of the covariance spectrum: 1 is collapse, D is white.

    Roy and Vetterli 2007.
    """
    centred = unit(embedding) - unit(embedding).mean(axis=0)
    spectrum = np.linalg.svd(centred, compute_uv=False) ** 2
    p = spectrum / max(spectrum.sum(), 1e-12)
    return float(np.exp(-np.sum(p * np.log(np.maximum(p, 1e-12)))))


def top1(queries: Float[np.ndarray, "N D"], gallery: Float[np.ndarray, "N D"]) -> float:
    """How often the nearest of `gallery` by cosine is the one of the same index."""
    nearest = np.argmax(unit(queries) @ unit(gallery).T, axis=1)
    return float(np.mean(nearest == np.arange(len(queries))))
