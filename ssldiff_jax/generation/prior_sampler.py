"""A trained prior: from words, labels and numbers to grids of embeddings of any size."""

import dataclasses
import functools
import logging
import math
import numbers as numbers_lib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Bool, Float

from ssldiff_jax.core import arrays, data_parallel, rng
from ssldiff_jax.diffusion import guidance, solvers
from ssldiff_jax.encoders import text as text_lib
from ssldiff_jax.evaluation.features import clip_texts
from ssldiff_jax.formats import atomic
from ssldiff_jax.prior import conditions, network, whitening
from ssldiff_jax.runs import artifacts as artifacts_lib
from ssldiff_jax.runs import region_labels
from ssldiff_jax.runs.config import prior as prior_config
from ssldiff_jax.sampler import field, sampler, windows

_LOG = logging.getLogger(__name__)

# Grids, or windows of a larger one, together: batches of one size are traced once.
_CHUNK = 32


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

    def __bool__(self) -> bool:
        return bool(self.text or self.labels or self.numbers)


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
    """

    section: prior_config.PriorSection
    side: int
    spec: conditions.ConditionSpec
    scales: Mapping[str, Any]
    white: whitening.Whitening
    params: Any
    text: text_lib.PhraseEncoder | clip_texts.PairTexts | None

    @classmethod
    def of_run(cls, artifacts: artifacts_lib.Artifacts) -> "PriorSampler":
        """The prior of a work directory."""
        # Not at the top: a machine that only computes need not have Orbax.
        from ssldiff_jax.train import checkpoint

        section, folder = artifacts.config.prior, artifacts.folders.of_stage("grids")
        stored = atomic.read_json(folder / "spec.json")
        return cls(
            section,
            stored["side"],
            artifacts_lib.condition_spec(stored["spec"]),
            stored["scales"],
            whitening.Whitening.load(folder / "whitening.npz"),
            checkpoint.load_params(artifacts.folders.checkpoints("prior")),
            region_labels.text_encoder(section.conditions),
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
            encoded = self.text([request.text])
            if encoded.truncated:
                _LOG.warning("the text has more than %d phrases: the rest is not read",
                             self.text.num_phrases)  # fmt: skip
            packed |= {"text": encoded.tokens, "text_known": encoded.known}
        return spec.pack(1, **packed)

    def sample_batch(
        self, condition: conditions.Condition, *, seed: int = 0
    ) -> Float[np.ndarray, "N k k D"]:
        """A grid of the size it was trained with for each condition."""
        batches = range(num_batches(len(condition)))
        return np.concatenate([self.sample_part(condition, i, seed=seed) for i in batches])

    def sample_part(
        self, condition: conditions.Condition, number: int, *, seed: int = 0
    ) -> Float[np.ndarray, "n k k D"]:
        """The grids of one batch of `sample_batch`, which has num_batches(N) of them."""
        # What no condition speaks of is no token: the same grids in less time.
        spec, condition = self.spec.restrict(condition)
        first = number * _CHUNK
        batch = condition[first : first + _CHUNK].astype(np.float32)
        # Keyed by the first index of a batch: more conditions leave the first grids as they are.
        key = rng.stream(seed, "prior/grids", first)
        grids = self._program(spec)(data_parallel.filled(batch, _CHUNK), key)
        return self.white.undo(np.asarray(grids)[: len(batch)])

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
        side, dim = self.side, len(self.white.mean)
        # The network knows grids of its own size alone; less is cut from one.
        canvas = tuple(max(n, side) for n in cells)
        spec, base = self.spec.restrict(self.condition(request))
        grid_sampler = self._sampler(spec, temperature)
        plan = self._plan(canvas, len(grid_sampler.table.t), seed)

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

    def _plan(self, canvas: tuple[int, int], steps: int, seed: int) -> windows.WindowPlan:
        side = self.side
        # A grid of one window is sampled as it was trained; others move by half a window.
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
            # Both sources of noise: that of the steps, and that it begins with.
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
    def _programs(self) -> dict[conditions.ConditionSpec, Callable[..., jax.Array]]:
        return {}

    def _program(self, spec: conditions.ConditionSpec) -> Callable[..., jax.Array]:
        """The compiled program for a batch of conditions of that kind."""
        if spec not in self._programs:
            table, denoise = self._tempered(1.0), self._denoiser(spec)
            shape = (_CHUNK, self.side, self.side, len(self.white.mean))

            def run(params, condition, key):
                guided = self._guided(functools.partial(denoise, params))
                return solvers.sample(guided, table, shape, condition, key)

            self._programs[spec] = self._on_devices(run)
        return self._programs[spec]

    def _on_devices(self, program: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
        """The program with the weights, its batch split over as many of this process's devices as
        share it evenly."""
        devices = jax.local_devices()
        mesh = Mesh(np.array(devices[: math.gcd(len(devices), _CHUNK)]), ("data",))
        split, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("data",), ()))
        jitted = jax.jit(program, out_shardings=split)

        def call(condition: np.ndarray, key: arrays.Key) -> jax.Array:
            # Put there by name: jit takes arrays of the host for those of all processes.
            put_key = jax.device_put(key, whole)
            return jitted(
                self._placed(self.params, whole), data_parallel.put(condition, split), put_key
            )

        return call

    @functools.cached_property
    def _placed(self) -> data_parallel.Placed:
        return data_parallel.Placed()


def num_batches(count: int) -> int:
    """In how many batches grids are sampled."""
    return -(-count // _CHUNK)


def _require_named(values: Mapping[str, float] | None, name: str) -> Mapping[str, float]:
    is_named = isinstance(values or {}, Mapping)
    if not is_named or not all(isinstance(v, numbers_lib.Real) for v in (values or {}).values()):
        raise ValueError(f"{name} must be numbers by name, got {values!r}")
    return values or {}
