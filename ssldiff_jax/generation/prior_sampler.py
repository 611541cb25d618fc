"""A trained prior: from words, labels and numbers to grids of embeddings of any size."""

import dataclasses
import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float

from ssldiff_jax.core import arrays, rng
from ssldiff_jax.diffusion import guidance, solvers
from ssldiff_jax.encoders import text as text_lib
from ssldiff_jax.evaluation.features import clip_texts
from ssldiff_jax.formats import atomic
from ssldiff_jax.prior import conditions, network, whitening
from ssldiff_jax.runs import artifacts, region_labels
from ssldiff_jax.runs.config import prior as prior_config
from ssldiff_jax.sampler import field, sampler, windows
from ssldiff_jax.train import checkpoint

_LOG = logging.getLogger(__name__)

_CHUNK = 32


@dataclasses.dataclass(frozen=True)
class PriorRequest:
    """What a grid shall be: a text, parts of labels (0…1), and numbers in their own units; what
    is left out is free."""

    text: str = ""
    labels: Mapping[str, float] = dataclasses.field(default_factory=dict)
    numbers: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.text or self.labels or self.numbers)


@dataclasses.dataclass(frozen=True)
class PriorSampler:
    """Draws grids.

    Attributes:
        section: its config.
        side: cells on the side of the grids it was trained with.
        spec: what it can be asked for.
        scales: mean and deviation of its numbers.
        white: between embeddings and what it learnt.
        params: averaged weights.
        text: reads texts, None where it knows none.
    """

    section: prior_config.PriorSection
    side: int
    spec: conditions.ConditionSpec
    scales: Mapping[str, Any]
    white: whitening.Whitening
    params: Any
    text: text_lib.PhraseEncoder | clip_texts.PairTexts | None

    @classmethod
    def of_run(cls, made: artifacts.Artifacts) -> "PriorSampler":
        """The prior of a work directory."""
        section, folder = made.config.prior, made.folders.of_stage("grids")
        told = atomic.read_json(folder / "spec.json")
        return cls(
            section,
            told["side"],
            artifacts.condition_spec(told["spec"]),
            told["scales"],
            whitening.Whitening.load(folder / "whitening.npz"),
            checkpoint.load_params(made.folders.checkpoints("prior")),
            region_labels.text_encoder(section.conditions),
        )

    def condition(self, asked: PriorRequest) -> Float[np.ndarray, "1 E"]:
        """What is asked for, as the network is told it.

        Raises ValueError for labels, numbers or a text that it does not know.
        """
        spec, packed = self.spec, {}
        if asked.labels:
            packed["labels"] = spec.label_values(asked.labels)
        if asked.numbers:
            values = spec.number_values(asked.numbers)
            packed["numbers"] = (values - self.scales["mean"]) / self.scales["std"]
        if asked.text:
            if self.text is None and spec.text_phrases:
                raise ValueError(
                    "to read a text, the folder of the text encoder "
                    f"{self.section.conditions.text_encoder} must lie beside the prior's file, got "
                    "none there"
                )
            if self.text is None:
                raise ValueError(
                    "this prior has learnt no texts (config.prior.conditions.captions), got "
                    f"{asked.text!r}"
                )
            encoded = self.text([asked.text])
            if encoded.truncated:
                _LOG.warning("the text has more than %d phrases: the rest is not read",
                             self.text.num_phrases)  # fmt: skip
            packed |= {"text": encoded.tokens, "text_known": encoded.known}
        return spec.pack(1, **packed)

    def sample(
        self, condition: conditions.Condition, *, seed: int = 0
    ) -> Float[np.ndarray, "N k k D"]:
        """A grid of the size it was trained with for each condition."""
        found = []
        spec, condition = self.spec.restrict(condition)
        draw = self._grids(spec)
        for start in range(0, len(condition), _CHUNK):
            batch = condition[start : start + _CHUNK].astype(np.float32)
            padded = np.pad(batch, ((0, _CHUNK - len(batch)), (0, 0)))
            key = rng.stream(seed, "prior/grids", start)
            found.append(np.asarray(draw(self.params, padded, key))[: len(batch)])
        return self.white.undo(np.concatenate(found))

    def draw(
        self,
        asked: PriorRequest,
        cells: tuple[int, int],
        *,
        seed: int = 0,
        temperature: float = 1.0,
        known: arrays.EmbeddingGrid | None = None,
        keep: Bool[np.ndarray, "rows cols"] | None = None,
    ) -> arrays.EmbeddingGrid:
        """A grid of any number of cells, which what is asked for describes as a whole; drawn by
        windows of the size it was trained with, as large images are.

        Args:
            temperature: scales the noise; below 1 grids are more alike.
            known: embeddings (rows, columns, D), of which those marked in `keep` stay.
        """
        side, dim = self.side, len(self.white.mean)
        canvas = tuple(max(n, side) for n in cells)
        spec, base = self.spec.restrict(self.condition(asked))
        draws = self._sampler(spec, temperature)
        plan = self._plan(canvas, len(draws.table.t), seed)

        def told(corners: np.ndarray) -> np.ndarray:
            found = np.repeat(base, len(corners), axis=0)
            if asked:
                place = conditions.GridPosition.of_cells(corners, cells)
                found[:, : place.shape[1]] = place
            return found

        given = None
        if known is not None:
            white, stay = np.zeros((*canvas, dim), np.float32), np.zeros(canvas, np.float32)
            here = np.s_[: cells[0], : cells[1]]
            white[here], stay[here] = self.white.apply(known), keep
            given = sampler.InitLatents(white * stay[..., None], stay)
        elif temperature != 1:
            given = sampler.InitLatents(np.zeros((*canvas, dim), np.float32))
        drawn = draws(self.params, plan, told, rng.stream(seed, "prior/canvas"), given)
        return self.white.undo(np.asarray(drawn)[: cells[0], : cells[1]])

    def _plan(self, canvas: tuple[int, int], steps: int, seed: int) -> windows.WindowPlan:
        side = self.side
        moves = 0 if canvas == (side, side) else side // 2
        config = windows.WindowConfig("offset", side, moves, "uniform", "margin")
        return windows.plan_windows(config, canvas, side, steps, seed)

    def _sampler(self, spec: conditions.ConditionSpec, temperature: float) -> sampler.GridSampler:
        """One for each temperature and kind of condition, so that a size is traced once."""
        if (spec, temperature) not in self._samplers:
            canvas = field.CanvasConfig(len(self.white.mean))
            self._samplers[spec, temperature] = sampler.GridSampler(
                self._denoiser(spec), self._guided, self._tempered(temperature), _CHUNK, canvas
            )
        return self._samplers[spec, temperature]

    def _tempered(self, temperature: float) -> solvers.SolverTable:
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got temperature={temperature}")
        table = solvers.solver_table(self.section.solver, self.section.schedule)
        return dataclasses.replace(
            table,
            noise=table.noise * np.float32(temperature),
            sigma_start=table.sigma_start * temperature,
        )

    @functools.cached_property
    def _samplers(self) -> dict[tuple[conditions.ConditionSpec, float], sampler.GridSampler]:
        return {}

    def _denoiser(self, spec: conditions.ConditionSpec) -> Callable[..., jax.Array]:
        model = network.GridDenoiser(self.section.network, spec)

        def denoise(params: Any, x_t, t, condition) -> jax.Array:
            return model.apply({"params": params}, x_t, t, condition).astype(np.float32)

        return denoise

    def _guided(self, denoise: guidance.DenoiseFn) -> guidance.GuidedX0:
        section = self.section
        return guidance.GuidedX0(
            denoise, section.process, section.guidance, section.solver.time_offset
        )

    @functools.cached_property
    def _drawn(self) -> dict[conditions.ConditionSpec, Any]:
        return {}

    def _grids(self, spec: conditions.ConditionSpec) -> Any:
        """The compiled program for a batch of conditions of that kind."""
        if spec not in self._drawn:
            table, denoise = self._tempered(1.0), self._denoiser(spec)
            shape = (_CHUNK, self.side, self.side, len(self.white.mean))

            def run(params, condition, key):
                guided = self._guided(functools.partial(denoise, params))
                return solvers.sample(guided, table, shape, condition, key)

            self._drawn[spec] = jax.jit(run)
        return self._drawn[spec]
