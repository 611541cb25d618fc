"""A trained encoder as a function from images to embeddings, and how to judge one."""

import copy
import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import Float, UInt8

from ssldiff_jax.core import arrays, data_parallel, layers, vectors
from ssldiff_jax.encoders import augment, dino, infonce, known, vit

OWN = "own"

_ROUNDING = 1e-10  # variance of unit vectors that are the same in float32


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A ViT and what it expects of pixels.

    Attributes:
        vit: its sizes.
        input_px: side of the images it sees.
        takes: `input_px` patches only, or any, resized.
        mean: of RGB in [0, 1], subtracted.
        std: divided by.
    """

    vit: vit.ViTConfig
    input_px: int
    takes: Literal["input_px", "any"] = "input_px"
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    @classmethod
    def named(cls, name: str, own: vit.ViTConfig) -> "Architecture":
        """That of a published encoder, or, named own, a ViT of the sizes `own`.

        Raises ValueError for another name.
        """
        return cls(own, own.image_px) if name == OWN else cls.published(name)

    @classmethod
    def published(cls, name: str) -> "Architecture":
        """That of a published encoder.

        Raises ValueError for another name.
        """
        if name not in known.ENCODERS:
            raise ValueError(
                f"name must be {OWN!r} or one of {', '.join(known.ENCODERS)}, got {name!r}"
            )
        entry = known.ENCODERS[name]
        return cls(entry.vit, entry.input_px, "any", entry.mean, entry.std)

    def prepare(self, image: arrays.Image) -> arrays.Image:
        """Images in [−1, 1] as the network wants them: resized (linear, antialiased), its mean
        and deviation."""
        size = (image.shape[0], self.input_px, self.input_px, 3)
        if image.shape != size:
            image = jax.image.resize(image, size, "linear", antialias=True)
        return ((image + 1) / 2 - np.array(self.mean)) / np.array(self.std)

    def embed(self, params: Any, image: arrays.Image) -> arrays.Embedding:
        """Embeddings of images in [−1, 1], float32; the network computes in the dtype of params."""
        prepared = layers.like(params, self.prepare(image))
        return vit.ViT(self.vit).apply({"params": params}, prepared).astype(np.float32)

    def tokens(self, params: Any, image: arrays.Image) -> arrays.Tokens:
        """Patch tokens of images in [−1, 1]."""
        model = vit.ViT(self.vit)
        return model.apply({"params": params}, self.prepare(image), method=model.tokens)


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """The encoder, the objective that trains it, and what embeddings are measured from.

    `origin` zero leaves embeddings as the network gives them; mean subtracts their mean over
    training patches, so that cosines separate patches from each other, and not only patches from
    nothing.
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
        encoder, crop_px = vit.ViT(self.vit), self.vit.image_px + self.shift_px
        if self.objective == "infonce":
            return infonce.InfoNCETask(encoder, self.infonce, self.jitter, crop_px)
        return dino.DINOTask(encoder, self.dino, self.jitter, crop_px)


class Encoder:
    """Embeds any number of patches in batches of one size, so it is traced once; this process's
    devices share a batch.

    Embeddings are measured from `origin` `(D,)`.
    """

    def __init__(
        self, architecture: Architecture, params: Any, origin: Any = 0.0, batch_size: int = 128
    ):
        self.architecture = architecture
        self.params = params
        self.origin = np.asarray(origin, np.float32)
        self._batch_size = batch_size
        self._embed = self._program()

    def _program(self) -> data_parallel.DataParallel:
        embed = self.architecture.embed
        # Scaled on the device: uint8 is a quarter of what float32 would send there.
        program = lambda params, image_uint8: embed(params, layers.to_image(image_uint8))
        return data_parallel.DataParallel(program, data_parallel.local_mesh())

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self.architecture.vit.width

    def measured_from(self, origin: Float[np.ndarray, "D"]) -> "Encoder":
        """The same encoder with another origin; nothing is traced again."""
        moved = copy.copy(self)
        moved.origin = np.asarray(origin, np.float32)
        return moved

    def in_batches(self, size: int) -> "Encoder":
        """The same encoder for callers that bring `size` patches at a time."""
        batched = copy.copy(self)
        batched._batch_size = size
        return batched

    def computing_in(self, dtype: str) -> "Encoder":
        """The same encoder, its network in float32 or bfloat16."""
        if layers.dtype_of(self.params) == dtype:
            return self
        other = copy.copy(self)
        other.params = layers.cast(self.params, dtype)
        # Its own, so that the two do not push each other's parameters from the devices.
        other._embed = other._program()
        return other

    def __call__(self, patches: UInt8[np.ndarray, "N H W 3"]) -> Float[np.ndarray, "N D"]:
        """Embeddings, not normalised, float32.

        Raises ValueError for patches of another size than the encoder takes.
        """
        self._require_size(patches)
        run = functools.partial(self._embed, self.params)
        return self._measured(data_parallel.map_batches(run, (patches,), self._batch_size))

    def start(
        self, patches: UInt8[np.ndarray, "N H W 3"]
    ) -> Callable[[], Float[np.ndarray, "N D"]]:
        """The same begun, of a few batches, as all of them go to the devices; what it returns waits
        for the embeddings."""
        self._require_size(patches)
        run = functools.partial(self._embed.start, self.params)
        wait = data_parallel.start_batches(run, (patches,), self._batch_size)
        return lambda: self._measured(wait())

    def _require_size(self, patches: UInt8[np.ndarray, "N H W 3"]) -> None:
        px = self.architecture.input_px
        if self.architecture.takes == "input_px" and patches.shape[1:] != (px, px, 3):
            raise ValueError(f"patches must be {px}×{px}×3, got {patches.shape[1:]}")

    def _measured(self, batches: Iterable[np.ndarray]) -> Float[np.ndarray, "N D"]:
        """Batches of embeddings, from the origin."""
        embedding = [batch - self.origin for batch in batches]
        return np.concatenate(embedding) if embedding else np.zeros((0, self.dim), np.float32)


def effective_rank(embedding: Float[np.ndarray, "N D"]) -> float:
    """exp of the entropy of the covariance spectrum: 1 is collapse, D is white; of N vectors no
    more than N − 1. 1 too where all differ by no more than rounding.

    Roy and Vetterli 2007.
    """
    # Directions, not lengths: cosines are what embeddings are compared by.
    direction = vectors.unit(np.asarray(embedding, np.float64))
    centred = direction - direction.mean(axis=0)
    if np.sum(centred**2) < _ROUNDING * len(centred):
        return 1.0
    # Both products have the same eigenvalues but for zeros: the smaller one is taken.
    tall = centred if len(centred) >= centred.shape[1] else centred.T
    spectrum = np.maximum(np.linalg.eigvalsh(tall.T @ tall), 0)
    p = spectrum / spectrum.sum()
    # 0·log 0 counts as 0.
    return float(np.exp(-np.sum(p * np.log(np.maximum(p, 1e-12)))))


def top1(queries: Float[np.ndarray, "N D"], gallery: Float[np.ndarray, "N D"]) -> float:
    """How often the nearest of `gallery` by cosine is the one of the same index."""
    nearest = np.argmax(vectors.unit(queries) @ vectors.unit(gallery).T, axis=1)
    return float(np.mean(nearest == np.arange(len(queries))))
