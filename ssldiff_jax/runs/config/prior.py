"""The sections `prior` and `tokens` of a config: which grids are learnt, their conditions, the
networks and their training."""

import dataclasses
import pathlib
from typing import Literal

from ssldiff_jax.core import schema
from ssldiff_jax.diffusion import guidance, process, schedule, solvers
from ssldiff_jax.diffusion import loss as diffusion_loss
from ssldiff_jax.formats import fingerprints, hub
from ssldiff_jax.prior import conditions, network
from ssldiff_jax.prior import loss as prior_loss
from ssldiff_jax.prior import tokens as tokens_lib
from ssldiff_jax.train import loop


@dataclasses.dataclass(frozen=True)
class GridsConfig:
    """`count` grids of `side` × `side` cells for training and `count_test` held-out ones, each
    out of a square of up to `max_cells` that its condition describes."""

    side: int
    max_cells: int
    count: int
    count_test: int

    def __post_init__(self):
        if not 1 <= self.side <= self.max_cells:
            raise schema.ConfigError(
                "config.prior.grids must have 1 ≤ side ≤ max_cells, got "
                f"side={self.side}, max_cells={self.max_cells}"
            )
        # Whitening and distances need a spread.
        if min(self.count, self.count_test) < 2:
            raise schema.ConfigError(
                "config.prior.grids must have count and count_test ≥ 2, got "
                f"{self.count} and {self.count_test}"
            )


@dataclasses.dataclass(frozen=True)
class ConditionSourcesConfig:
    """Where conditions come from: what is measured in pixels, tables by case, and texts, which a
    folder's encoder reads."""

    measure: Literal["none", "landcover", "stain", "earth", "annotations"]
    labels: str
    numbers: str
    captions: str
    text_encoder: str
    text_phrases: int

    def __post_init__(self):
        # Words that nothing reads, or a reader without words.
        if bool(self.captions) != bool(self.text_encoder):
            raise schema.ConfigError(
                "config.prior.conditions must have captions and text_encoder together, got "
                f"captions={self.captions!r}, text_encoder={self.text_encoder!r}"
            )
        if self.captions == "measured" and self.measure == "none":
            raise schema.ConfigError(
                "config.prior.conditions.captions=measured must come with a measure, got none"
            )
        # A grid has one list of labels.
        if self.measure != "none" and self.labels:
            raise schema.ConfigError(
                "config.prior.conditions takes labels from a table or from a measure, got "
                f"labels={self.labels!r} and measure={self.measure}"
            )

    def fingerprint(self) -> dict[str, object]:
        """Facts about the files it names."""
        files = {name: getattr(self, name) for name in ("labels", "numbers", "captions")}
        facts = {
            name: fingerprints.of_path(path, f"prior.conditions.{name}")
            for name, path in files.items()
            if path and path not in ("measured", "images")
        }
        encoder = pathlib.Path(self.text_encoder)
        if hub.is_address(self.text_encoder):
            facts["text_encoder"] = fingerprints.of_path(self.text_encoder)
        elif self.text_encoder:
            facts["text_encoder"] = sorted(
                # Sizes, no times: the same model copied again is the same.
                [p.name, p.stat().st_size]
                for p in encoder.glob("*")
                if p.is_file()
            )
        return facts


@dataclasses.dataclass(frozen=True)
class PriorRequestConfig:
    """What the tool `generate` asks of the prior: a grid as a text, labels and numbers
    ("name=value") describe it, or the cells beyond those of a reference."""

    text: str
    labels: tuple[str, ...]
    numbers: tuple[str, ...]
    anything: bool
    beyond: Literal["edge", "prior"]
    temperature: float

    def __post_init__(self):
        if not self.temperature > 0:
            raise schema.ConfigError(
                f"config.generate.prior.temperature must be above 0, got {self.temperature}"
            )
        if self.text and not self.text.strip():
            raise schema.ConfigError("config.generate.prior.text must have words, got spaces")
        for pairs in (self.labels, self.numbers):
            named_values(pairs)

    @property
    def is_grid(self) -> bool:
        """Whether a whole grid is requested, and not only cells beyond a reference."""
        has_condition = bool(self.text or self.labels or self.numbers)
        # With beyond=prior the condition is of the cells around a reference, not of a grid of its
        # own.
        return self.anything or (has_condition and self.beyond == "edge")


def named_values(pairs: tuple[str, ...]) -> dict[str, float]:
    """ "name=value" by name.

    Raises ConfigError for what does not read so.
    """
    values = {}
    for pair in pairs:
        # At the last =: the name of a label may have another.
        name, _, value = pair.rpartition("=")
        try:
            values[name.strip()] = float(value)
        except ValueError:
            name = ""
        if not name.strip():
            raise schema.ConfigError(
                f"config.generate.prior must read 'name=value' with a number, got {pair!r}"
            )
    return values


@dataclasses.dataclass(frozen=True)
class ImagineSection:
    """How many held-out conditions are generated as images, to measure whether these show them."""

    count: int

    def __post_init__(self):
        if self.count < 0:
            raise schema.ConfigError(f"config.imagine.count must be at least 0, got {self.count}")


@dataclasses.dataclass(frozen=True)
class TokensSection:
    """The second level of the prior, from the embedding of a cell to its tokens: its training, and
    how tokens are sampled. Without a cell's tokens (embeddings.tokens_per_side=1) there is none."""

    network: network.NetworkConfig
    cond_drop_rate: float
    schedule: schedule.Schedule
    loss: diffusion_loss.ObjectiveConfig
    solver: solvers.SolverConfig
    guidance: guidance.GuidanceConfig
    max_offset: int
    train: loop.TrainConfig

    def __post_init__(self):
        self.solver.require_within(self.schedule)
        if self.max_offset < 0:
            raise schema.ConfigError(
                f"config.tokens.max_offset must be at least 0, got {self.max_offset}"
            )
        if not 0 <= self.cond_drop_rate <= 1:
            raise schema.ConfigError(
                f"config.tokens.cond_drop_rate must lie in [0, 1], got {self.cond_drop_rate}"
            )

    @property
    def process(self) -> process.Process:
        """Its schedule and what it predicts."""
        return process.Process(self.schedule, self.loss.prediction)

    def task(
        self,
        per_side: int,
        dim: int,
        num_cells: int,
        white: tokens_lib.WhiteTokens | None = None,
    ) -> tokens_lib.TokensTask:
        """What is trained, on `per_side`² tokens of `dim` of each of `num_cells` cells."""
        drop = conditions.DropRates(self.cond_drop_rate, kind=0.0, phrase=0.0, text_noise=0.0)
        model = network.GridDenoiser(self.network, tokens_lib.spec(dim))
        prior = prior_loss.PriorTask(
            model, self.process, drop, self.loss.min_snr_gamma, (per_side, per_side, dim)
        )
        return tokens_lib.TokensTask(prior, num_cells, white)


@dataclasses.dataclass(frozen=True)
class PriorSection:
    """The prior, its training, and how grids are sampled from it."""

    grids: GridsConfig
    conditions: ConditionSourcesConfig
    network: network.NetworkConfig
    drop: conditions.DropRates
    schedule: schedule.Schedule
    loss: diffusion_loss.ObjectiveConfig
    solver: solvers.SolverConfig
    guidance: guidance.GuidanceConfig
    train: loop.TrainConfig

    def __post_init__(self):
        # Now: the stage samples after hours of training.
        self.solver.require_within(self.schedule)

    @property
    def process(self) -> process.Process:
        """Its schedule and what it predicts."""
        return process.Process(self.schedule, self.loss.prediction)

    def task(
        self, spec: conditions.ConditionSpec, grid_shape: tuple[int, int, int]
    ) -> prior_loss.PriorTask:
        """What is trained, on grids of a shape (k, k, D)."""
        model = network.GridDenoiser(self.network, spec)
        return prior_loss.PriorTask(
            model, self.process, self.drop, self.loss.min_snr_gamma, grid_shape
        )
