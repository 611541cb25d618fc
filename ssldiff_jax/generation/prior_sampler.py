"""A trained prior: from words, labels and numbers to grids of embeddings of any size."""

import dataclasses
import functools
import logging
import numbers as numbers_lib
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from ssldiff_jax.core import arrays, digests, rng
from ssldiff_jax.data.annotations import captions
from ssldiff_jax.encoders import text as text_lib
from ssldiff_jax.evaluation.features import clip_texts
from ssldiff_jax.formats import atomic
from ssldiff_jax.generation import grid_network
from ssldiff_jax.generation import heard as heard_lib
from ssldiff_jax.prior import conditions, whitening
from ssldiff_jax.runs import artifacts as artifacts_lib
from ssldiff_jax.runs import region_labels
from ssldiff_jax.runs.config import prior as prior_config
from ssldiff_jax.sampler import sampler

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class PriorRequest:
    """What a grid shall be: a text, parts of labels (0…1), and numbers in their own units; what
    is left out is free."""

    text: str = ""
    labels: Mapping[str, float] = dataclasses.field(default_factory=dict)
    numbers: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(
        cls,
        text: str = "",
        labels: Mapping[str, float] | None = None,
        numbers: Mapping[str, float] | None = None,
    ) -> "PriorRequest":
        """A request as a caller writes it.

        Raises ValueError for labels or numbers that are no numbers by name.
        """
        return cls(text, _require_named(labels, "labels"), _require_named(numbers, "numbers"))

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of condition that it has."""
        return tuple(kind for kind in conditions.KINDS if getattr(self, kind))

    def __bool__(self) -> bool:
        return bool(self.kinds)


@dataclasses.dataclass(frozen=True)
class PriorSampler:
    """Samples grids.

    Attributes:
        section: its config.
        side: cells on the side of the grids it was trained with.
        spec: the conditions that it knows.
        scales: mean and deviation of its numbers.
        white: between embeddings and what it learnt.
        params: averaged weights.
        text: reads texts, None where it knows none.
        heard: how much of each kind of condition it hears, as far as that was measured.
    """

    section: prior_config.PriorSection
    side: int
    spec: conditions.ConditionSpec
    scales: Mapping[str, Any]
    white: whitening.Whitening
    params: Any
    text: text_lib.PhraseEncoder | clip_texts.PairTexts | None
    heard: heard_lib.Figures = dataclasses.field(default_factory=dict)

    @classmethod
    def of_run(cls, artifacts: artifacts_lib.Artifacts) -> "PriorSampler":
        """The prior of a work directory."""
        # Not at the top: a machine that only computes need not have Orbax.
        from ssldiff_jax.train import checkpoint

        section, folder = artifacts.config.prior, artifacts.folders.of_stage("grids")
        stored = atomic.read_json(folder / "spec.json")
        params = checkpoint.load_params(artifacts.folders.checkpoints("prior"))
        heard = heard_lib.of_run(artifacts.folders.of_stage("imagine"), digests.of_params(params))
        return cls(
            section,
            stored["side"],
            artifacts_lib.condition_spec(stored["spec"]),
            stored["scales"],
            whitening.Whitening.load(folder / "whitening.npz"),
            params,
            region_labels.text_encoder(section.conditions),
            heard,
        )

    def condition(self, request: PriorRequest) -> Float[np.ndarray, "1 E"]:
        """A request as the network's condition.

        Raises ValueError for labels, numbers or a text that it does not know.
        """
        spec, packed = self.spec, {}
        if request.labels:
            packed["labels"] = spec.label_values(request.labels)
        if request.numbers:
            values = spec.number_values(request.numbers)
            # Standardised by training cases, as the prior saw them.
            packed["numbers"] = (values - self.scales["mean"]) / self.scales["std"]
        if request.text:
            if self.text is None and spec.text_phrases:
                raise ValueError(
                    "to read a text, the folder of the text encoder "
                    f"{self.section.conditions.text_encoder} must lie beside the prior's file, got "
                    "none there"
                )
            if self.text is None:
                raise ValueError(
                    "this prior has learnt no texts (config.prior.conditions.captions), got "
                    f"{request.text!r}"
                )
            self._warn_of_words(request.text)
            encoded = self.text([request.text])
            if encoded.truncated:
                _LOG.warning("the text has more than %d phrases: the rest is not read",
                             self.text.num_phrases)  # fmt: skip
            packed |= {"text": encoded.tokens, "text_known": encoded.known}
        return spec.pack(1, **packed)

    def _warn_of_words(self, text: str) -> None:
        """Name the words that the text encoder does not have whole, but for those of training."""
        learnt = captions.words() if self.spec.reads_labels else frozenset()
        for word, pieces in self.text.split_words(text).items():
            if word.lower() in learnt:
                continue
            if len(pieces) > 1:
                parts = ", ".join(piece.removeprefix("##") for piece in pieces)
                _LOG.warning(
                    "the text encoder has no word %r and reads it in pieces (%s): it may be "
                    "misunderstood, and another word be safer", word, parts,
                )  # fmt: skip
            else:
                _LOG.warning("the text encoder does not know %r: it is not heard", word)

    def sample_batch(
        self, condition: conditions.Condition, *, seed: int = 0
    ) -> Float[np.ndarray, "N k k D"]:
        """A grid of the size it was trained with for each condition."""
        batches = range(grid_network.num_batches(len(condition)))
        return np.concatenate([self.sample_part(condition, i, seed=seed) for i in batches])

    def sample_part(
        self, condition: conditions.Condition, number: int, *, seed: int = 0
    ) -> Float[np.ndarray, "n k k D"]:
        """The grids of a batch of `sample_batch`, one of grid_network.num_batches(N)."""
        # What no condition speaks of is no token: the same grids in less time.
        spec, condition = self.spec.restrict(condition)
        first, batch = grid_network.batch_of(condition, number)
        # Keyed by the first index of a batch: more conditions leave the first grids as they are.
        key = rng.stream(seed, "prior/grids", first)
        return self.white.undo(self._network.grids(spec, self.side, batch, key))

    def sample(
        self,
        request: PriorRequest,
        cells: tuple[int, int],
        *,
        seed: int = 0,
        temperature: float = 1.0,
        known: arrays.EmbeddingGrid | None = None,
        keep_mask: Bool[np.ndarray, "rows cols"] | None = None,
    ) -> arrays.EmbeddingGrid:
        """A grid of any number of cells, which a request describes as a whole; sampled by windows
        of the size it was trained with, as large images are.

        Args:
            temperature: scales the noise; below 1 grids are more alike.
            known: embeddings (rows, columns, D), of which those marked in `keep_mask` stay.
        """
        heard_lib.warn(self.heard, request.kinds)
        side, dim = self.side, len(self.white.mean)
        # The network knows grids of its own size alone; less is cut from one.
        canvas = tuple(max(n, side) for n in cells)
        spec, base = self.spec.restrict(self.condition(request))
        grid_sampler = self._network.canvas_sampler(spec, temperature)
        steps = len(grid_sampler.table.t)
        plan = grid_network.plan(canvas, side, steps, seed, max_offset=side // 2)

        def condition(corners: np.ndarray) -> np.ndarray:
            of_windows = np.repeat(base, len(corners), axis=0)
            # Without a request nothing is known of the whole either, and so not where a window lies
            # in it.
            if request:
                position = conditions.GridPosition.of_cells(corners, cells)
                of_windows[:, : position.shape[1]] = position
            return of_windows

        init = None
        if known is not None:
            white, stay = np.zeros((*canvas, dim), np.float32), np.zeros(canvas, np.float32)
            here = np.s_[: cells[0], : cells[1]]
            # Beyond `cells` the canvas is free: it is cut off.
            white[here], stay[here] = self.white.apply(known), keep_mask
            init = sampler.InitLatents(white * stay[..., None], stay)
        elif temperature != 1:
            init = sampler.InitLatents(np.zeros((*canvas, dim), np.float32))
        key = rng.stream(seed, "prior/canvas")
        grid = grid_sampler(self.params, plan, condition, key, init)
        return self.white.undo(np.asarray(grid)[: cells[0], : cells[1]])

    @functools.cached_property
    def _network(self) -> grid_network.GridNetwork:
        section = self.section
        steps = grid_network.Steps(section.process, section.solver, section.guidance)
        return grid_network.GridNetwork(section.network, steps, self.params, len(self.white.mean))


def _require_named(values: Mapping[str, float] | None, name: str) -> Mapping[str, float]:
    is_named = isinstance(values or {}, Mapping)
    if not is_named or not all(isinstance(v, numbers_lib.Real) for v in (values or {}).values()):
        raise ValueError(f"{name} must be numbers by name, got {values!r}")
    return values or {}
