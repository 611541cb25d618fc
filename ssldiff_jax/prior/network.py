"""A diffusion transformer over the cells of a grid (Peebles and Xie 2023), conditioned on
tokens."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from ssldiff_jax.core import arrays, attention, layers
from ssldiff_jax.prior import conditions, reader

_BASE = 100.0  # of the rotary frequencies: grids are tens of cells wide
_WAVES = 4  # of the place in what is described


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """Sizes; S is 384, 12, 6, B 768, 12, 12, and L 1024, 24, 16. Heads have a multiple of four
    channels."""

    width: int
    depth: int
    num_heads: int

    def __post_init__(self):
        if self.width % (4 * self.num_heads):
            raise ValueError(
                "width must be a multiple of 4 × num_heads, got "
                f"width={self.width}, num_heads={self.num_heads}"
            )


LabelValues = Float[arrays.AnyArray, "B N"]


class ConditionTokens(nn.Module):
    """A condition → tokens, which of them say something, of which the first is always there, and
    the labels in them with which of these are known.

    A text that is worded from labels is read as these, unless they are given: then new words move
    no more than the labels that they are near to. Any other text is a token for each phrase.
    """

    spec: conditions.ConditionSpec
    width: int

    @nn.compact
    def __call__(
        self, parts: conditions.Parts
    ) -> tuple[arrays.Tokens, Bool[jax.Array, "B L"], tuple[LabelValues, LabelValues]]:
        small, count = nn.initializers.normal(0.02), len(parts["place"])
        # Always known: attention of cells to no token at all would be 0/0.
        rest = self.param("rest", small, (1, 1, self.width))
        tokens = [jnp.broadcast_to(rest, (count, 1, self.width))]
        known = [jnp.ones((count, 1), bool)]
        labels, labels_known = parts["labels"], parts["labels_known"] > 0
        if self.spec.labels:
            shape = len(self.spec.labels), self.width
            present = self.param("present", small, shape)
            absent = self.param("absent", small, shape)
            is_read = jnp.zeros_like(labels_known)
            if self.spec.reads_labels:
                in_quadrants = reader.TextReader(self.spec, self.width, name="reader")(parts)
                # It learns from labels alone: what it reads is what a text says, not what helps.
                in_quadrants = jax.lax.stop_gradient(in_quadrants).astype(labels.dtype)
                labels_hat = reader.labels_of_quadrants(self.spec, in_quadrants)
                is_read = (parts["text_known"] > 0).any(axis=1, keepdims=True) & ~labels_known
                labels = jnp.where(is_read, labels_hat, labels)
                labels_known = labels_known | is_read
            value = labels[..., None]
            # Labels hold in parts: a token between those of present and absent.
            label_tokens = value * present + (1 - value) * absent
            if self.spec.reads_labels:
                # What is read is less sure than what is given.
                read = self.param("read", small, (1, 1, self.width))
                label_tokens = label_tokens + is_read[..., None] * read
            tokens.append(label_tokens)
            known.append(labels_known)
        if self.spec.text_phrases and not self.spec.reads_labels:
            text = reader.phrases(self.spec, parts["text"])
            hidden = nn.gelu(nn.Dense(self.width, name="text_in")(text))
            tokens.append(nn.Dense(self.width, name="text_out")(hidden))
            known.append(parts["text_known"] > 0)
        if self.spec.numbers:
            numbers = jnp.concatenate([parts["numbers"], parts["numbers_known"]], axis=-1)
            hidden = nn.silu(nn.Dense(self.width, name="numbers_in")(numbers))
            tokens.append(nn.Dense(self.width, name="numbers_out")(hidden)[:, None])
            known.append((parts["numbers_known"] > 0).any(axis=-1, keepdims=True))
        if self.spec.embedding_dim:
            hidden = nn.gelu(nn.Dense(self.width, name="embedding_in")(parts["embedding"]))
            tokens.append(nn.Dense(self.width, name="embedding_out")(hidden)[:, None])
            known.append(parts["embedding_known"] > 0)
        dtype = rest.dtype
        tokens = jnp.concatenate([token.astype(dtype) for token in tokens], axis=1)
        said = labels * labels_known, labels_known.astype(labels.dtype)
        return tokens, jnp.concatenate(known, axis=1), said


def labels_of_cells(
    labels: LabelValues,
    areas: tuple[tuple[int, int, int, int, int], ...],
    place: Float[arrays.AnyArray, "B 4"],
    rows: int,
    cols: int,
) -> Float[jax.Array, "B L K"]:
    """For every cell the labels of the quadrants that it lies in, by its part in each; zeros where
    its place is unknown."""
    values = labels[:, np.array(areas)[:, 1:]].reshape(len(labels), -1, 2, 2)
    row, col = np.arange(rows), np.arange(cols)

    def halves(
        number: Int[np.ndarray, "n"],
        start: Float[arrays.AnyArray, "B"],
        size: Float[arrays.AnyArray, "B"],
    ) -> Float[jax.Array, "B n 2"]:
        first = start[:, None] + number * size[:, None]
        # How much of a cell lies before the middle.
        before = jnp.clip((0.5 - first) / jnp.maximum(size, 1e-6)[:, None], 0, 1)
        return jnp.stack([before, 1 - before], axis=-1) * (size > 0)[:, None, None]

    north_south = halves(row, place[:, 0], place[:, 2])
    west_east = halves(col, place[:, 1], place[:, 3])
    of_cells = jnp.einsum("bkrc,bir,bjc->bijk", values, north_south, west_east)
    return of_cells.reshape(len(labels), rows * cols, -1)


class Block(nn.Module):
    """Attention over cells, attention to the condition, MLP; norms and gates as `c` says, gates
    zero at the start."""

    num_heads: int

    @nn.compact
    def __call__(
        self,
        x: arrays.Tokens,
        c: Float[arrays.AnyArray, "B D"],
        tokens: Float[arrays.AnyArray, "B M D"],
        known: Bool[arrays.AnyArray, "B M"],
        angles: Float[np.ndarray, "L a"],
    ) -> arrays.Tokens:
        width = x.shape[-1]
        # adaLN-Zero (Peebles and Xie 2023, section 3.2): shift, scale and gate of three sublayers,
        # all 0 at first, so that a block starts as the identity.
        change = nn.Dense(9 * width, kernel_init=nn.initializers.zeros, name="change")(nn.silu(c))
        parts = jnp.split(change[:, None], 9, axis=-1)  # (B, 1, width) each
        shift, scale, gate = parts[:3], parts[3:6], parts[6:]

        h = _modulated(x, shift[0], scale[0])
        q, k, v = jnp.split(nn.Dense(3 * width, name="qkv")(h), 3, axis=-1)
        q, k = (rotate(heads, angles, self.num_heads) for heads in (q, k))
        h = attention.attend(q, k, v, self.num_heads)
        x = x + gate[0] * nn.Dense(width, name="proj")(h)

        q = nn.Dense(width, name="q")(_modulated(x, shift[1], scale[1]))
        k, v = jnp.split(nn.Dense(2 * width, name="kv")(tokens), 2, axis=-1)
        h = attention.attend(q, k, v, self.num_heads, known)
        x = x + gate[1] * nn.Dense(width, name="told")(h)

        h = nn.Dense(4 * width, name="mlp_in")(_modulated(x, shift[2], scale[2]))
        return layers.end_of_block(x + gate[2] * nn.Dense(width, name="mlp_out")(nn.gelu(h)))


class GridDenoiser(nn.Module):
    """(x_t, t, condition) → prediction, for white embeddings `(B, rows, cols, D)` on grids of any
    size; one cell is an MLP on a single embedding.

    Cells know each other by their distance (rotary positions in two dimensions, Su et al. 2021),
    and where they lie in what the condition describes.
    """

    config: NetworkConfig
    spec: conditions.ConditionSpec

    @nn.compact
    def __call__(
        self, x_t: arrays.Latents, t: arrays.Timestep, condition: conditions.Condition
    ) -> arrays.Latents:
        c, (count, rows, cols, dim) = self.config, x_t.shape
        parts = self.spec.unpack(condition)
        tokens, known, labels = ConditionTokens(self.spec, c.width, name="condition")(parts)

        weight = known[..., None].astype(tokens.dtype)
        # The mean of known tokens; of `rest` at least.
        summary = (tokens * weight).sum(axis=1) / weight.sum(axis=1)
        time = layers.timestep_embedding(t, c.width).astype(x_t.dtype)
        time = nn.Dense(c.width, name="time_out")(nn.silu(nn.Dense(c.width, name="time_in")(time)))
        change = time + nn.Dense(c.width, name="summary")(summary)

        x = nn.Dense(c.width, name="cell_in")(x_t.reshape(count, rows * cols, dim))
        place = fourier_features(parts["place"], rows, cols).astype(x_t.dtype)
        x = x + nn.Dense(c.width, name="place")(place)
        if self.spec.areas:
            # What a quadrant holds is told to its own cells: where they lie need not be learnt.
            local = [
                labels_of_cells(values, self.spec.areas, parts["place"], rows, cols)
                for values in labels
            ]
            local = jnp.concatenate(local, axis=-1).astype(x.dtype)
            x = x + nn.Dense(c.width, use_bias=False, name="quadrant")(local)
        if self.spec.embedding_dim:
            # What all cells are together is a part of what each is: told to each, not only attended
            # to. No bias, so that an unknown one is no vector.
            whole = nn.Dense(c.width, use_bias=False, name="whole")(parts["embedding"])
            x = x + whole[:, None].astype(x.dtype)
        angles = grid_angles(rows, cols, c.width // c.num_heads)
        for i in range(c.depth):
            x = Block(c.num_heads, name=f"block_{i}")(x, change, tokens, known, angles)

        zero = {"kernel_init": nn.initializers.zeros}
        shift, scale = jnp.split(
            nn.Dense(2 * c.width, name="change_out", **zero)(nn.silu(change))[:, None], 2, axis=-1
        )
        x = _modulated(x, shift, scale)
        return nn.Dense(dim, name="cell_out", **zero)(x).reshape(x_t.shape)


def grid_angles(rows: int, cols: int, head_dim: int) -> Float[np.ndarray, "L a"]:
    """Rotary angles of every cell: half of the pairs of channels turn with the row, half with the
    column."""
    # Two channels a pair, and half of the pairs for each axis.
    pairs = head_dim // 4
    frequency = _BASE ** (-np.arange(pairs) / pairs)
    row, col = np.divmod(np.arange(rows * cols), cols)
    angles = np.concatenate([row[:, None] * frequency, col[:, None] * frequency], axis=1)
    return angles.astype(np.float32)


def rotate(
    x: arrays.Tokens, angles: Float[arrays.AnyArray, "L a"], num_heads: int
) -> arrays.Tokens:
    """Turn pairs of channels of every head; then q·k depends on where two cells lie to each
    other alone."""
    heads = x.reshape(*x.shape[:2], num_heads, -1, 2)
    cos, sin = (f(angles)[:, None].astype(x.dtype) for f in (jnp.cos, jnp.sin))
    # (a + ib)·e^{iθ}, so that q·k has the difference of two angles alone.
    a, b = heads[..., 0], heads[..., 1]
    return jnp.stack([a * cos - b * sin, a * sin + b * cos], axis=-1).reshape(x.shape)


def fourier_features(
    place: Float[arrays.AnyArray, "B 4"], rows: int, cols: int
) -> Float[jax.Array, "B L 18"]:
    """Sines and cosines of where each cell's centre lies in what is described, and the size of a
    cell; zeros where the place is unknown."""
    row, col = np.divmod(np.arange(rows * cols), cols)
    steps = jnp.asarray(np.stack([row, col], axis=1) + 0.5, jnp.float32)
    corner, size = place[:, None, :2], place[:, None, 2:]
    centre = corner + steps * size
    angle = jnp.pi * centre[..., None] * 2.0 ** np.arange(_WAVES)
    angle = angle.reshape(*centre.shape[:2], -1)
    size = jnp.broadcast_to(size, centre.shape)
    # 2 axes × 4 waves × (sin, cos), and 2 sizes: 18.
    features = jnp.concatenate([jnp.sin(angle), jnp.cos(angle), size], axis=-1)
    return features * (size[..., :1] > 0)


def _modulated(
    x: arrays.Tokens, shift: Float[jax.Array, "B 1 D"], scale: Float[jax.Array, "B 1 D"]
) -> arrays.Tokens:
    """Layer norm, of which the condition gives scale and shift."""
    norm = nn.LayerNorm(epsilon=1e-6, use_bias=False, use_scale=False)
    return norm(x) * (1 + scale) + shift
