"""The condition of a grid, packed into one vector in which zeros mean unknown.

So a prior has the signature of the denoiser, (x_t, t, condition) → prediction, and guidance,
solvers, windows and loaders need not know what a condition is made of.
"""

import dataclasses
import difflib
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from ssldiff_jax.core import arrays, rng

Condition = Float[arrays.AnyArray, "B E"]
Parts = dict[str, Float[arrays.AnyArray, "B _"]]
"""Of a condition, by name."""

KINDS = ("labels", "numbers", "text")
"""Of condition that a request has, and training leaves out one by one."""

_STEP = 4  # numbers of phrases that are traced are multiples of it


@dataclasses.dataclass(frozen=True)
class ConditionSpec:
    """The conditions that a prior knows.

    Attributes:
        labels: names of classes; several may hold at once, in parts from 0 to 1.
        numbers: names of real values, such as expressions of genes.
        text_phrases: the most phrases of a text; 0 has none.
        text_dim: length of a phrase's vector, whose entries vary by 1.
        embedding_dim: length of the one white embedding of all cells together; 0 has none.
        reads_labels: whether texts are worded from the labels of `areas`, and are read as these.
        areas: numbers of labels that are parts of an area: for each class that of the whole, of the
            north-west, the north-east, the south-west and the south-east. In each of these areas
            the parts of all classes are 1 together.
    """

    labels: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    text_phrases: int = 0
    text_dim: int = 0
    embedding_dim: int = 0
    reads_labels: bool = False
    areas: tuple[tuple[int, int, int, int, int], ...] = ()

    @property
    def sizes(self) -> dict[str, int]:
        """Length of every part of the vector, in order. `*_known` are 1 where something is said;
        `place` is where a grid lies in what the condition describes."""
        labels, numbers, tokens = len(self.labels), len(self.numbers), self.text_phrases
        return {
            "place": len(GridPosition.UNTOLD),
            "labels_known": labels,
            "labels": labels,
            "numbers_known": numbers,
            "numbers": numbers,
            "text_known": tokens,
            "text": tokens * self.text_dim,
            "embedding_known": min(self.embedding_dim, 1),
            "embedding": self.embedding_dim,
        }

    @property
    def dim(self) -> int:
        """Length of the vector."""
        return sum(self.sizes.values())

    def unpack(self, condition: Condition) -> Parts:
        """The parts by name."""
        ends = np.cumsum(list(self.sizes.values()))
        starts = [0, *ends[:-1]]
        return {
            name: condition[..., start:end]
            for name, start, end in zip(self.sizes, starts, ends, strict=True)
        }

    def kinds(self, condition: Condition) -> tuple[str, ...]:
        """The kinds of condition of which something is said."""
        parts = self.unpack(condition)
        return tuple(kind for kind in KINDS if (parts[f"{kind}_known"] != 0).any())

    def pack(
        self,
        count: int,
        *,
        labels: Float[np.ndarray, "B K"] | None = None,
        numbers: Float[np.ndarray, "B V"] | None = None,
        text: Float[np.ndarray, "B L D"] | None = None,
        text_known: Bool[np.ndarray, "B L"] | None = None,
        embedding: Float[np.ndarray, "B D"] | None = None,
        place: Float[np.ndarray, "B 4"] | None = None,
    ) -> Float[np.ndarray, "B E"]:
        """`count` conditions; what is None or NaN is not said.

        Raises ValueError for another number of labels, values, tokens or entries of an embedding
        than the prior knows.
        """
        parts = {name: np.zeros((count, size), np.float32) for name, size in self.sizes.items()}
        parts["place"][:] = GridPosition.UNTOLD if place is None else place
        for name, values in (("labels", labels), ("numbers", numbers)):
            if values is None:
                continue
            self._require(name, values.shape[-1])
            # `*_known` tells an unknown label from one that is absent: both have the value 0.
            known = np.isfinite(values)
            parts[f"{name}_known"][:] = known
            parts[name][:] = np.where(known, values, 0)
        if text is not None:
            self._require("text", text.shape[-2] * text.shape[-1])
            parts["text_known"][:] = text_known
            parts["text"][:] = (text * text_known[..., None]).reshape(count, -1)
        if embedding is not None:
            self._require("embedding", embedding.shape[-1])
            parts["embedding_known"][:] = 1
            parts["embedding"][:] = embedding
        return np.concatenate(list(parts.values()), axis=1)

    def keep_only(self, condition: Float[np.ndarray, "B E"], kind: str) -> Float[np.ndarray, "B E"]:
        """Conditions that say one kind of thing alone."""
        parts_kept = {
            # `place` says where, not what.
            name: value if name == "place" or name.removesuffix("_known") == kind else 0 * value
            for name, value in self.unpack(condition).items()
        }
        return np.concatenate(list(parts_kept.values()), axis=1)

    def restrict(
        self, condition: Float[np.ndarray, "B E"]
    ) -> tuple["ConditionSpec", Float[np.ndarray, "B n"]]:
        """A spec of only what these conditions speak of, with texts no longer than theirs, and the
        conditions in its form. A network finds the same by it, in less time."""
        parts = self.unpack(condition)
        is_known = {
            kind: parts[f"{kind}_known"].any(axis=0)
            for kind in ("labels", "numbers", "text", "embedding")
        }
        longest = int(np.flatnonzero(is_known["text"]).max(initial=-1)) + 1
        reads_labels = self.reads_labels and longest > 0
        has_labels = bool(is_known["labels"].any() or reads_labels)
        spec = dataclasses.replace(
            self,
            # A text is read as labels.
            labels=self.labels if has_labels else (),
            reads_labels=reads_labels,
            areas=self.areas if has_labels else (),
            numbers=self.numbers if is_known["numbers"].any() else (),
            text_phrases=min(-(-longest // _STEP) * _STEP, self.text_phrases),
            embedding_dim=self.embedding_dim if is_known["embedding"].any() else 0,
        )
        # A text is phrase after phrase, so that fewer of them are its beginning.
        columns = [parts[name][:, :size] for name, size in spec.sizes.items()]
        return spec, np.concatenate(columns, axis=1)

    def _require(self, name: str, length: int) -> None:
        if length != self.sizes[name]:
            raise ValueError(f"{name} must have {self.sizes[name]} values, got {length}")

    def label_values(self, values: Mapping[str, float]) -> Float[np.ndarray, "1 K"]:
        """Labels by name; the others are not said.

        Raises ValueError for a name that is not known.
        """
        return self._named("label", self.labels, values)

    def number_values(self, values: Mapping[str, float]) -> Float[np.ndarray, "1 V"]:
        """Numbers by name; the others are not said.

        Raises ValueError for a name that is not known.
        """
        return self._named("number", self.numbers, values)

    def _named(self, kind: str, names: Sequence[str], requested: Mapping[str, float]) -> np.ndarray:
        values = np.full((1, len(names)), np.nan, np.float32)
        for name, value in requested.items():
            if name not in names:
                raise ValueError(
                    f"unknown {kind} {name!r}, expected one of {_nearest(name, names)}"
                )
            values[0, names.index(name)] = value
        return values


class GridPosition:
    """Where a grid lies in what a condition describes: top, left, height and width of a cell, in
    parts of the whole."""

    # A cell of no size is what the network takes for an unknown place.
    UNTOLD = (0.0, 0.0, 0.0, 0.0)

    @staticmethod
    def of_cells(
        corners: Shaped[np.ndarray, "B 2"], described: tuple[float, float]
    ) -> Float[np.ndarray, "B 4"]:
        """Of grids whose first cells are at `corners` (row, column) of `described` cells."""
        size = np.array(described, np.float32)
        corner = np.asarray(corners, np.float32) / size
        return np.concatenate([corner, np.broadcast_to(1 / size, corner.shape)], axis=1)


@dataclasses.dataclass(frozen=True)
class DropRates:
    """How often training says nothing: of everything, of each kind of condition, and of each phrase
    of a text, of which one is always left; and noise on the vectors of phrases, so that others of
    their meaning are understood. An embedding comes alone, and is left out with everything."""

    all: float
    kind: float
    phrase: float
    text_noise: float

    def __call__(
        self,
        spec: ConditionSpec,
        condition: Condition,
        index: Int[arrays.AnyArray, "B"],
        key: arrays.Key,
    ) -> Condition:
        """Conditions of which some, decided by the index of the example, are left out."""
        key_kept, key_phrases, key_noise = jax.random.split(key, 3)
        # One number for all of it, then one for each kind.
        chance = rng.per_example(key_kept, index, jax.random.uniform, (1 + len(KINDS),))
        of_everything = chance[:, 0]
        parts = spec.unpack(condition)
        is_known = [(parts[f"{kind}_known"] != 0).any(axis=1) for kind in KINDS]
        kept = _kept(jnp.stack(is_known, axis=1), chance[:, 1:], self.kind)
        kept = {kind: kept[:, i] for i, kind in enumerate(KINDS)}
        parts |= self.some_phrases(spec, parts, index, key_phrases)
        # A text that is read as labels has noise for its reader alone: else the network would learn
        # to mistrust what is read.
        if not spec.reads_labels:
            parts["text"] = self.noisy_text(spec, parts, index, key_noise)
        for name, value in parts.items():
            kind = name.removesuffix("_known")
            if kind in kept:
                parts[name] = jnp.where(kept[kind][:, None], value, 0)
        is_kept = of_everything >= self.all
        # All zeros, the place too: the null condition of guidance.
        return jnp.where(is_kept[:, None], jnp.concatenate(list(parts.values()), axis=1), 0)

    def some_phrases(
        self,
        spec: ConditionSpec,
        parts: Parts,
        index: Int[arrays.AnyArray, "B"],
        key: arrays.Key,
    ) -> Parts:
        """The text of a condition's parts with some phrases left out: a request names some of what
        captions name."""
        known, text = parts["text_known"], parts["text"]
        if self.phrase and spec.text_phrases:
            chance = rng.per_example(key, index, jax.random.uniform, known.shape[1:])
            known = _kept(known != 0, chance, self.phrase) * known
            text = text * jnp.repeat(known, spec.text_dim, axis=1)
        return {"text_known": known, "text": text}

    def noisy_text(
        self,
        spec: ConditionSpec,
        parts: Parts,
        index: Int[arrays.AnyArray, "B"],
        key: arrays.Key,
    ) -> Float[arrays.AnyArray, "B _"]:
        """The text of a condition's parts with noise on the phrases that are there."""
        text = parts["text"]
        if not (self.text_noise and spec.text_phrases):
            return text
        noise = rng.per_example(key, index, jax.random.normal, text.shape[1:])
        # No noise where nothing is said: zeros mean unknown.
        known = jnp.repeat(parts["text_known"], spec.text_dim, axis=1)
        return text + self.text_noise * known * noise


def _kept(
    is_known: Bool[arrays.AnyArray, "B K"], chance: Float[arrays.AnyArray, "B K"], rate: float
) -> Bool[jax.Array, "B K"]:
    """Which kinds of what is said are kept: those with a chance of `rate` or more, and of those
    said the one with the highest."""
    # −1 lies below every chance and rate: what is not said is never the one that is left.
    chance = jnp.where(is_known, chance, -1)
    return (chance >= rate) | (chance == chance.max(axis=1, keepdims=True))


def _nearest(name: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, names, n=5, cutoff=0) or list(names[:5])
    return ", ".join(close) or "none (this prior knows no such condition)"
