"""CLIP (Radford et al. 2021): images and texts to vectors of one space, as transformers has it."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, UInt8

from ssldiff_jax.core import arrays, attention, convolution, data_parallel
from ssldiff_jax.encoders import vit

if TYPE_CHECKING:
    import tokenizers

Activation = Literal["quick_gelu", "gelu"]

# Config files of the first CLIPs name 2 as the end token; their vocabulary ends with the true one,
# which is therefore the highest number of a text.
_LEGACY_END = 2
_BATCH = 32  # texts


@dataclasses.dataclass(frozen=True)
class TowerConfig:
    """Sizes of one of the two transformers; `dim` is that of the space they share."""

    width: int
    depth: int
    num_heads: int
    mlp_width: int
    dim: int
    activation: Activation = "quick_gelu"
    epsilon: float = 1e-5

    def __post_init__(self):
        if self.width % self.num_heads:
            raise ValueError(
                f"num_heads must divide width, got width={self.width}, num_heads={self.num_heads}"
            )


@dataclasses.dataclass(frozen=True)
class ImageConfig:
    """The image tower: a ViT for images of `image_px`."""

    tower: TowerConfig
    image_px: int
    patch_px: int

    def __post_init__(self):
        if self.image_px % self.patch_px:
            raise ValueError(
                f"image_px must be a multiple of patch_px, got image_px={self.image_px}, "
                f"patch_px={self.patch_px}"
            )


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """The text tower. `end` is the token whose vector stands for a text; 2, as old configs have
    it, means the highest number of a text."""

    tower: TowerConfig
    vocab_size: int
    max_positions: int
    end: int


@dataclasses.dataclass(frozen=True)
class Pixels:
    """From uint8 images of any size to the square a tower sees: resized (bicubic, antialiased,
    rounded to uint8 after each axis, as Pillow does it), its middle, less mean, over std.

    Attributes:
        resize_px: what a side becomes.
        fit: the shorter side, proportions kept, or both sides.
        mean: of RGB in [0, 1], subtracted.
        std: divided by.
    """

    resize_px: int = 224
    fit: Literal["shorter", "both"] = "shorter"
    # OpenAI's, of the images that the first CLIP was trained on.
    mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)

    def prepare(
        self, image_uint8: UInt8[arrays.AnyArray, "B H W 3"], image_px: int
    ) -> Float[jax.Array, "B P P 3"]:
        """The middle `image_px` of the resized images, normalised."""
        size = image_uint8.shape[1:3]
        resized = (self.resize_px, self.resize_px)
        if self.fit == "shorter":
            # The longer side rounded down, as transformers does.
            resized = tuple(self.resize_px * n // min(size) for n in size)
        x = jnp.asarray(image_uint8, jnp.float32)
        # The width first, as Pillow does: each pass is rounded, so that their order shows.
        x = _bicubic(_bicubic(x, 2, resized[1]), 1, resized[0])
        top, left = ((n - image_px) // 2 for n in resized)
        x = x[:, top : top + image_px, left : left + image_px] / 255
        return (x - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)


def _bicubic(x: Float[arrays.AnyArray, "B h w 3"], axis: int, new: int) -> jax.Array:
    """One axis resized, values 0…255 rounded."""
    if x.shape[axis] == new:
        return x
    matrix = vit.resize_matrix(x.shape[axis], new, "timm")
    x = jnp.moveaxis(x, axis, -1)
    # One of 3072 values that is a level off moves features by 2e-5, a hundred times the network's
    # own error: products are not rounded, and halves go up as in Pillow (jnp.round: to even).
    x = jnp.moveaxis(jnp.matmul(x, matrix.T, precision="highest"), -1, axis)
    return jnp.clip(jnp.floor(x + 0.5), 0, 255)


class Block(nn.Module):
    """Attention and MLP, each behind a norm and residual."""

    config: TowerConfig
    attends: Literal["all", "earlier"]

    @nn.compact
    def __call__(self, x: arrays.Tokens) -> arrays.Tokens:
        c = self.config
        h = nn.LayerNorm(epsilon=c.epsilon, name="norm1")(x)
        q, k, v = jnp.split(nn.Dense(3 * c.width, name="qkv")(h), 3, axis=-1)
        if self.attends == "all":
            h = attention.attend(q, k, v, c.num_heads)
        else:
            # `attend` knows keys that are masked, not an order.
            heads = (attention.split_heads(y, c.num_heads) for y in (q, k, v))
            h = jax.nn.dot_product_attention(*heads, is_causal=True)
        x = x + nn.Dense(c.width, name="proj")(h.reshape(x.shape))
        h = nn.LayerNorm(epsilon=c.epsilon, name="norm2")(x)
        h = nn.Dense(c.mlp_width, name="fc1")(h)
        if c.activation == "quick_gelu":
            # The sigmoid's approximation of GELU (Hendrycks and Gimpel 2016), as OpenAI trained it.
            h = h * nn.sigmoid(1.702 * h)
        else:
            h = nn.gelu(h, approximate=False)
        return x + nn.Dense(c.width, name="fc2")(h)


class ImageTower(nn.Module):
    """Normalised images → vectors of the shared space, not of unit length."""

    config: ImageConfig

    @nn.compact
    def __call__(self, pixels: Float[arrays.AnyArray, "B P P 3"]) -> arrays.Embedding:
        c, t = self.config, self.config.tower
        size, small = (c.patch_px, c.patch_px), nn.initializers.normal(0.02)
        x = nn.Conv(
            t.width,
            size,
            size,
            padding="VALID",
            use_bias=False,
            conv_general_dilated=convolution.convolve,
            name="patch_embed",
        )(pixels)
        x = x.reshape(len(x), -1, t.width)
        first = jnp.broadcast_to(self.param("class_token", small, (t.width,)), (len(x), 1, t.width))
        places = (c.image_px // c.patch_px) ** 2 + 1
        position = self.param("position", small, (places, t.width))
        x = jnp.concatenate([first, x], axis=1) + position
        # Before the blocks as well, which other ViTs lack.
        x = nn.LayerNorm(epsilon=t.epsilon, name="norm_in")(x)
        for i in range(t.depth):
            x = Block(t, "all", name=f"blocks_{i}")(x)
        x = nn.LayerNorm(epsilon=t.epsilon, name="norm")(x[:, 0])
        return nn.Dense(t.dim, use_bias=False, name="projection")(x)


class TextTower(nn.Module):
    """Token numbers → vectors of the shared space, not of unit length; a token sees those before
    it, and the first that ends a text stands for it, so what follows does not matter."""

    config: TextConfig

    @nn.compact
    def __call__(self, tokens: Int[arrays.AnyArray, "B L"]) -> arrays.Embedding:
        c, t, small = self.config, self.config.tower, nn.initializers.normal(0.02)
        x = self.param("words", small, (c.vocab_size, t.width))[tokens]
        position = self.param("position", small, (c.max_positions, t.width))
        x = x + position[: tokens.shape[1]]
        for i in range(t.depth):
            x = Block(t, "earlier", name=f"blocks_{i}")(x)
        x = x[jnp.arange(len(x)), end_of(tokens, c.end)]
        x = nn.LayerNorm(epsilon=t.epsilon, name="norm")(x)
        return nn.Dense(t.dim, use_bias=False, name="projection")(x)


def end_of(tokens: Int[arrays.AnyArray, "B L"], end: int) -> Int[arrays.AnyArray, "B"]:
    """Where the token that stands for a text is."""
    scores = tokens if end == _LEGACY_END else (tokens == end).astype(np.int32)
    # The first of equal ones, as argmax gives it: what stands behind the end is not looked at.
    return scores.argmax(axis=1)


@dataclasses.dataclass(frozen=True)
class ImageEncoder:
    """A trained image tower and how it wants its images."""

    config: ImageConfig
    pixels: Pixels
    params: Any = dataclasses.field(repr=False)

    def embed(
        self, params: Any, image_uint8: UInt8[arrays.AnyArray, "B H W 3"]
    ) -> arrays.Embedding:
        """Vectors of images of any one size, not of unit length."""
        pixels = self.pixels.prepare(image_uint8, self.config.image_px)
        return ImageTower(self.config).apply({"params": params}, pixels)


class TextEncoder:
    """Texts → vectors of the shared space, not of unit length, in batches of one size."""

    def __init__(
        self,
        config: TextConfig,
        params: Any,
        tokenizer: "tokenizers.Tokenizer",
        *,
        source: str = "the tokenizer",
    ):
        self.config, self.params = config, jax.device_put(params)
        self._tokenizer, self._source = tokenizer, source
        tokenizer.no_padding()
        tokenizer.no_truncation()

    def __call__(self, texts: Sequence[str]) -> Float[np.ndarray, "N D"]:
        """Raises ValueError for a text without a word, or of more tokens than there are
        positions."""
        run = functools.partial(self._run, self.params)
        batches = data_parallel.map_batches(run, (self.tokens(texts),), _BATCH)
        return np.concatenate([np.zeros((0, self.config.tower.dim), np.float32), *batches])

    def tokens(self, texts: Sequence[str]) -> Int[np.ndarray, "N L"]:
        """Numbers of the tokens of each text, zero after its end."""
        # 0 after the end: below every end token, so that the highest number of a text is its own.
        numbers = np.zeros((len(texts), self.config.max_positions), np.int32)
        for row, text in enumerate(texts):
            if not text.strip():
                raise ValueError(f"a text must have at least one word, got {text!r}")
            ids = self._tokenizer.encode(text).ids
            if len(ids) > self.config.max_positions:
                raise ValueError(
                    f"a text must have at most {self.config.max_positions} tokens, got {len(ids)} "
                    f"of {text!r:.80}"
                )
            numbers[row, : len(ids)] = ids
            if end_of(numbers[row : row + 1], self.config.end) != len(ids) - 1:
                raise ValueError(
                    f"{self._source} must end every text with its end token "
                    f"(end={self.config.end}), and use it nowhere else, got {ids[-8:]} of "
                    f"{text!r:.80}"
                )
        return numbers

    @functools.cached_property
    def _run(self):
        def run(params: Any, tokens: jax.Array) -> jax.Array:
            # Scores of texts are compared across machines: a device's default product must not
            # show.
            with jax.default_matmul_precision("highest"):
                return TextTower(self.config).apply({"params": params}, tokens)

        return jax.jit(run)
