"""The sections of the models: encoder and judge, autoencoder, denoiser."""

import dataclasses
import math
from typing import Literal, NoReturn

from ssldiff_jax.autoencoder import autoencoder
from ssldiff_jax.autoencoder import loss as autoencoder_loss
from ssldiff_jax.core import schema
from ssldiff_jax.diffusion import (
    conditioning,
    control,
    distillation,
    dit,
    embedding_transformer,
    guidance,
    process,
    schedule,
    solvers,
    unet,
)
from ssldiff_jax.diffusion import loss as diffusion_loss
from ssldiff_jax.encoders import config as encoder_config
from ssldiff_jax.encoders import encoder
from ssldiff_jax.train import loop
from ssldiff_jax.weights import lora


@dataclasses.dataclass(frozen=True)
class EncoderSection:
    """An encoder and its training: `name` own is a ViT of `model.vit`, any other a published one
    with its weights."""

    name: str
    weights: str
    model: encoder_config.EncoderConfig
    train: loop.TrainConfig

    def __post_init__(self):
        # Its pixels are prepared as it was published, which training here does not do.
        if self.is_published and self.train.num_steps:
            self._refuse()
        if not self.is_published:
            _require_weights(self.weights, self.train)

    @property
    def is_published(self) -> bool:
        """Whether it is another's, used as it is."""
        return self.architecture.takes == "any"

    def require_weights(self) -> None:
        """Raises ConfigError for a published encoder without its weights."""
        if self.is_published and not self.weights:
            self._refuse()

    def _refuse(self) -> NoReturn:
        raise schema.ConfigError(
            "a published encoder must have weights and train.num_steps=0, got "
            f"name={self.name}, weights={self.weights!r}, num_steps={self.train.num_steps}"
        )

    @property
    def architecture(self) -> encoder.Architecture:
        """The network and what it expects of pixels."""
        return encoder.Architecture.named(self.name, self.model.vit)


@dataclasses.dataclass(frozen=True)
class AutoencoderSection:
    """The first stage and its training."""

    model: autoencoder.AutoencoderConfig
    loss: autoencoder_loss.LossConfig
    weights: str
    latent_scaling: Literal["measured", "none", "published"]
    train: loop.TrainConfig

    def __post_init__(self):
        _require_weights(self.weights, self.train)
        if self.latent_scaling == "published" and not self.weights:
            raise schema.ConfigError(
                "latent_scaling=published must come with weights of an autoencoder, got none"
            )


@dataclasses.dataclass(frozen=True)
class ConditionerConfig:
    """From embeddings to tokens: a linear layer, or ZoomLDM's transformer, and of what patches its
    embeddings are."""

    name: Literal["linear", "transformer"]
    depth: int
    num_heads: int
    mlp_width: int
    of: Literal["own", "finest"]

    @property
    def transformer(self) -> embedding_transformer.TransformerConfig | None:
        """Its sizes; None of a linear layer."""
        if self.name == "linear":
            return None
        return embedding_transformer.TransformerConfig(self.depth, self.num_heads, self.mlp_width)

    def sides(self, levels: tuple[float, ...]) -> tuple[int, ...]:
        """Embeddings on the side of a patch of each level, where levels differ in it; else ()."""
        if self.name == "linear" or self.of == "own":
            return ()
        most = math.isqrt(embedding_transformer.PLACES)
        return tuple(min(round(level), most) for level in levels)


@dataclasses.dataclass(frozen=True)
class DenoiserSection:
    """The denoiser, `network`, and its training."""

    network: Literal["unet", "dit"]
    unet: unet.UNetConfig
    dit: dit.DiTConfig
    embedding_length: conditioning.Length
    region_dim: int
    conditioner: ConditionerConfig
    weights: str
    lora: lora.LoraConfig
    control: control.ControlConfig
    schedule: schedule.Schedule
    loss: diffusion_loss.LossConfig
    train: loop.TrainConfig

    @property
    def unused(self) -> tuple[str, ...]:
        """Fields of no effect, which no record counts."""
        return ("dit",) if self.network == "unet" else ("unet",)

    def __post_init__(self):
        _require_weights(self.weights, self.train)
        if self.network == "dit" and self.region_dim:
            raise schema.ConfigError(
                "config.denoiser.region_dim must be 0 with config.denoiser.network=dit, got "
                f"{self.region_dim}"
            )
        if self.network == "dit" and self.conditioner.transformer is not None:
            raise schema.ConfigError(
                "config.denoiser.conditioner.name must be linear with config.denoiser.network=dit, "
                f"got {self.conditioner.name}"
            )
        if self.lora.weights and not self.weights:
            raise schema.ConfigError(
                "config.denoiser.lora must come with denoiser.weights, got none"
            )
        if self.control.weights and not (self.is_published and self.network == "dit"):
            raise schema.ConfigError(
                "config.denoiser.control must come with a transformer that is used as it is "
                "(network=dit, weights, train.num_steps=0), got network="
                f"{self.network}, weights={self.weights!r}, num_steps={self.train.num_steps}"
            )

    @property
    def is_published(self) -> bool:
        """Whether it is another's, used as it is."""
        return bool(self.weights) and not self.train.num_steps

    @property
    def chosen(self) -> unet.UNetConfig | dit.DiTConfig:
        """Sizes of the network that is used."""
        return self.unet if self.network == "unet" else self.dit

    @property
    def process(self) -> process.Process:
        """Its schedule and what it predicts."""
        return process.Process(self.schedule, self.loss.prediction)

    def model(
        self,
        embedding_dim: int,
        num_cells: int = 1,
        tokens_per_side: int = 1,
        levels: tuple[float, ...] = (1.0,),
    ) -> conditioning.DenoiserConfig:
        """Sizes of the network for embeddings of a given dimension."""
        transformer = self.conditioner.transformer
        # Of one level there is nothing to say, but by the token that a transformer has for it.
        is_told = transformer is not None or len(levels) > 1
        return conditioning.DenoiserConfig(
            self.unet,
            embedding_dim,
            self.embedding_length,
            self.region_dim,
            num_cells,
            tokens_per_side,
            dit=self.dit if self.network == "dit" else None,
            num_levels=len(levels) if is_told else 0,
            transformer=transformer,
            sides=self.conditioner.sides(levels),
        )


@dataclasses.dataclass(frozen=True)
class DistillSection:
    """The student of the denoiser and its training; with visits=0 there is none."""

    visits: int
    steps: int
    scales: tuple[float, float]
    train: loop.TrainConfig

    def __post_init__(self):
        if self.visits < 0 or self.visits & (self.visits - 1):
            raise schema.ConfigError(
                f"config.distill.visits must be 0 or a power of 2, got {self.visits}"
            )
        low, high = self.scales
        if self.steps < 1 or not 1 <= low <= high:
            raise schema.ConfigError(
                "config.distill must have steps ≥ 1 and 1 ≤ least scale ≤ greatest, got "
                f"steps={self.steps} and scales={self.scales}"
            )

    def curriculum(
        self, guidance_: guidance.GuidanceConfig, solver: solvers.SolverConfig
    ) -> distillation.Curriculum:
        """What is learnt of a denoiser that is sampled so."""
        return distillation.Curriculum(
            self.visits, self.steps, self.scales, guidance_, solver.t_start
        )


def _require_weights(weights: str, train: loop.TrainConfig) -> None:
    # Random weights, which every later stage would take for a model.
    if train.num_steps == 0 and not weights:
        raise schema.ConfigError("train.num_steps=0 must come with weights, got none")
