"""A trained encoder as a function from images to embeddings, and how to judge one."""

import copy
import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt, UInt8

from ssldiff_jax.core import arrays, bands, data_parallel, layers, vectors
from ssldiff_jax.encoders import attention_pool, known, pixels, vit

OWN = "own"


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A ViT and what it expects of pixels.

    Attributes:
        vit: its sizes.
        pixels: what it expects of them.
        takes: `pixels.input_px` patches only, or any, resized.
        head: what makes the embedding of tokens, where it is not the ViT's own pool.
    """

    vit: vit.ViTConfig
    pixels: pixels.Pixels
    takes: Literal["input_px", "any"] = "input_px"
    head: attention_pool.AttentionPool | None = None

    @classmethod
    def named(cls, name: str, own: vit.ViTConfig) -> "Architecture":
        """That of a published encoder, or, named own, a ViT of the sizes `own`.

        Raises ValueError for another name.
        """
        return cls(own, pixels.Pixels(own.image_px)) if name == OWN else cls.published(name)

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
        return cls(entry.vit, entry.pixels, "any", entry.head)

    @property
    def model(self) -> vit.ViT | attention_pool.AttentionPooledViT:
        """The network."""
        if self.head is None:
            return vit.ViT(self.vit)
        return attention_pool.AttentionPooledViT(self.vit, self.head)

    @property
    def dim(self) -> int:
        """Length of an embedding, and of each token beside it."""
        return self.vit.dim if self.head is None else self.head.dim

    @property
    def input_px(self) -> int:
        """Side of the images that the network sees."""
        return self.pixels.input_px

    @property
    def averages_tokens(self) -> bool:
        """Whether an embedding is the mean of the tokens beside it."""
        return self.head is None and self.vit.pool != "class"

    @property
    def of_one_token(self) -> "Architecture":
        """The same network, its embedding what a token of all patches together would be."""
        if self.head is not None:
            return dataclasses.replace(self, head=dataclasses.replace(self.head, tokens="patches"))
        pool = "mean" if self.vit.pool == "class" else self.vit.pool
        return dataclasses.replace(self, vit=dataclasses.replace(self.vit, pool=pool))

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides embeddings but the weights, for a digest; what later came to the
        settings and is as it was before is left out, so that old digests hold."""
        said = dataclasses.asdict(self)
        said |= said.pop("pixels")
        later = {"resize_px": 0, "filter": "linear", "head": None}
        return {k: v for k, v in said.items() if k not in later or v != later[k]}

    def embed(self, params: Any, image: arrays.Image) -> arrays.Embedding:
        """Embeddings of images in [−1, 1], float32; the network computes in the dtype of params."""
        prepared = layers.like(params, self.pixels.prepare(image))
        return self.model.apply({"params": params}, prepared).astype(np.float32)

    def embed_tokens(
        self, params: Any, image: arrays.Image, per_side: int
    ) -> Float[jax.Array, "B E"]:
        """Embeddings of images in [−1, 1], each followed by those of `per_side`² squares of its
        patch tokens, packed row by row, float32; the network computes in the dtype of params."""
        prepared, model = layers.like(params, self.pixels.prepare(image)), self.model
        method = functools.partial(type(model).whole_and_squares, per_side=per_side)
        both = model.apply({"params": params}, prepared, method=method)
        whole, tokens = (x.astype(np.float32) for x in both)
        return jnp.concatenate([whole, tokens.reshape(len(whole), -1)], axis=1)

    def require_tokens(self, per_side: int) -> None:
        """Raises ValueError where `per_side` tokens do not divide those along a side."""
        side = self.input_px // self.vit.patch_px
        if per_side < 1 or side % per_side:
            raise ValueError(
                f"tokens_per_side must divide the encoder's {side} tokens along a side "
                f"({self.input_px} px in patches of {self.vit.patch_px}), got {per_side}"
            )

    def tokens(self, params: Any, image: arrays.Image) -> arrays.Tokens:
        """Patch tokens of images in [−1, 1]."""
        model = self.model
        return model.apply({"params": params}, self.pixels.prepare(image), method=model.tokens)


class Encoder:
    """Embeds any number of patches in batches of one size, so it is traced once; this process's
    devices share a batch.

    Embeddings are measured from `origin` `(D,)`, and multiplied by `whitening` `(D, D)` where there
    is one. `with_tokens` gives several tokens of each patch instead, each measured from
    `token_origin`: that of embeddings which are the mean of patch tokens; those of a class token
    have another, which None leaves unknown. Of patches of more bands it sees `view`.
    """

    def __init__(
        self,
        architecture: Architecture,
        params: Any,
        origin: Any = 0.0,
        batch_size: int = 128,
        *,
        token_origin: Any = None,
        whitening: Any = None,
        view: bands.View = bands.RGB,
    ):
        self.architecture = architecture
        self.view = view
        self.params = params
        self.origin = np.asarray(origin, np.float32)
        self.whitening = None if whitening is None else np.asarray(whitening, np.float32)
        self.tokens_per_side = 1
        self._token_origin = token_origin
        self._batch_size = batch_size
        self._embed = self._program()

    def _program(self) -> data_parallel.DataParallel:
        embed, per_side = self.architecture.embed, self.tokens_per_side
        if per_side > 1:
            embed = functools.partial(self.architecture.embed_tokens, per_side=per_side)
        # Scaled on the device: uint8 is a quarter of what float32 would send there.
        program = lambda params, image_uint8: embed(params, layers.to_image(image_uint8))
        return data_parallel.DataParallel(program, data_parallel.local_mesh())

    @property
    def dim(self) -> int:
        """Length of an embedding, and of each token."""
        return self.architecture.dim

    @property
    def token_origin(self) -> Float[np.ndarray, "..."] | None:
        """What tokens are measured from, `(D,)` or 0; None where it was not measured."""
        if self._token_origin is not None:
            return np.asarray(self._token_origin, np.float32)
        # What is not moved at all needs no mean.
        is_known = self.architecture.averages_tokens or not self.origin.any()
        return self.origin if is_known else None

    def with_tokens(self, per_side: int) -> "Encoder":
        """The same encoder, whose call gives the `per_side`² tokens of each patch, packed row by
        row: (N, per_side²·D). One a side is the embedding itself.

        Raises ValueError for a number that does not divide the encoder's tokens, and where their
        origin is not known.
        """
        if per_side == self.tokens_per_side:
            return self
        self.architecture.require_tokens(per_side)
        if per_side > 1 and self.token_origin is None:
            raise ValueError(
                "tokens_per_side must be 1 for an encoder whose tokens' mean was not measured "
                f"(no token_origin in encoder.json), got {per_side}; --config.force=encoder "
                "measures it"
            )
        averages = self.architecture.averages_tokens
        if per_side > 1 and self.whitening is not None and not averages:
            raise ValueError(
                "tokens_per_side must be 1 where class tokens are whitened (encoder.model.origin"
                f"=white, pool=class): tokens vary in other directions, got {per_side}"
            )
        other = copy.copy(self)
        other.tokens_per_side = per_side
        other._embed = other._program()
        return other

    def measured_from(
        self, origin: Float[np.ndarray, "..."], *, tokens: Float[np.ndarray, "D"] | None = None
    ) -> "Encoder":
        """The same encoder with another origin, and another one of its tokens where that is given;
        nothing is traced again."""
        moved = copy.copy(self)
        moved.origin = np.asarray(origin, np.float32)
        if tokens is not None:
            moved._token_origin = np.asarray(tokens, np.float32)
        return moved

    def whitened(self, whitening: Float[np.ndarray, "D D"]) -> "Encoder":
        """The same encoder, its measured embeddings multiplied by a matrix; nothing is traced
        again."""
        changed = copy.copy(self)
        changed.whitening = np.asarray(whitening, np.float32)
        return changed

    def seeing(self, view: bands.View) -> "Encoder":
        """The same encoder for patches of more bands, of which it sees three."""
        seeing = copy.copy(self)
        seeing.view = view
        return seeing

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

    def __call__(self, patches: UInt[np.ndarray, "N H W bands"]) -> Float[np.ndarray, "N D"]:
        """Embeddings, not normalised, float32.

        Raises ValueError for patches of another size than the encoder takes.
        """
        patches = self._seen(patches)
        run = functools.partial(self._embed, self.params)
        return self._measured(data_parallel.map_batches(run, (patches,), self._batch_size))

    def start(
        self, patches: UInt[np.ndarray, "N H W bands"]
    ) -> Callable[[], Float[np.ndarray, "N D"]]:
        """The same begun, of a few batches, as all of them go to the devices; what it returns waits
        for the embeddings."""
        patches = self._seen(patches)
        run = functools.partial(self._embed.start, self.params)
        wait = data_parallel.start_batches(run, (patches,), self._batch_size)
        return lambda: self._measured(wait())

    def start_with_whole(
        self, patches: UInt[np.ndarray, "N H W bands"]
    ) -> Callable[[], tuple[Float[np.ndarray, "N D"], Float[np.ndarray, "N E"]]]:
        """Likewise of an encoder that gives tokens: the embeddings, which `with_tokens(1)` gives,
        and the tokens."""
        patches = self._seen(patches)
        run = functools.partial(self._embed.start, self.params)
        wait = data_parallel.start_batches(run, (patches,), self._batch_size)
        return lambda: tuple(np.split(self._from_origin(wait()), [self.dim], axis=1))

    def _seen(self, patches: UInt[np.ndarray, "N H W bands"]) -> UInt8[np.ndarray, "N H W 3"]:
        px, patches = self.architecture.input_px, self.view(patches)
        if self.architecture.takes == "input_px" and patches.shape[1:] != (px, px, 3):
            raise ValueError(f"patches must be {px}×{px}×3, got {patches.shape[1:]}")
        return patches

    def _measured(self, batches: Iterable[np.ndarray]) -> Float[np.ndarray, "N D"]:
        """Batches of embeddings, from the origin; or of tokens."""
        embedding = self._from_origin(batches)
        return embedding if self.tokens_per_side == 1 else embedding[:, self.dim :]

    def _from_origin(self, batches: Iterable[np.ndarray]) -> Float[np.ndarray, "N E"]:
        """What the network gives, embeddings and tokens from their origins, and white."""
        origin = np.broadcast_to(self.origin, self.dim)
        if self.tokens_per_side > 1:
            of_token = np.broadcast_to(self.token_origin, self.dim)
            origin = np.concatenate([origin, *[of_token] * self.tokens_per_side**2])
        embedding = [self._white(batch - origin) for batch in batches]
        return np.concatenate(embedding) if embedding else np.zeros((0, len(origin)), np.float32)

    def _white(self, measured: Float[np.ndarray, "N E"]) -> Float[np.ndarray, "N E"]:
        if self.whitening is None:
            return measured
        # Each token by itself.
        return (measured.reshape(-1, self.dim) @ self.whitening).reshape(measured.shape)


def top1(queries: Float[np.ndarray, "N D"], gallery: Float[np.ndarray, "N D"]) -> float:
    """How often the nearest of `gallery` by cosine is the one of the same index."""
    nearest = np.argmax(vectors.unit(queries) @ vectors.unit(gallery).T, axis=1)
    return float(np.mean(nearest == np.arange(len(queries))))
