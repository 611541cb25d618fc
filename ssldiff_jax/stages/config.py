"""The schema of a run: every section of configs/default.py as a frozen dataclass."""

import dataclasses
from typing import Literal

from ssldiff_jax.autoencoder import autoencoder
from ssldiff_jax.autoencoder import loss as autoencoder_loss
from ssldiff_jax.core import config as config_lib
from ssldiff_jax.data import crops, loader, plan
from ssldiff_jax.diffusion import conditioning, schedule, solvers, unet
from ssldiff_jax.diffusion import loss as diffusion_loss
from ssldiff_jax.encoders import encoder
from ssldiff_jax.sampler import decode, grid, windows
from ssldiff_jax.slides import tissue
from ssldiff_jax.stages import imported
from ssldiff_jax.train import loop, mesh


@dataclasses.dataclass(frozen=True)
class RuntimeConfig:
    """The machine: devices to make of a CPU (0: one), whether freed memory is kept, where
    compiled programs are kept, and whether this is one process of several."""

    cpu_devices: int
    keep_freed_memory: bool
    compilation_cache: str
    distributed: Literal["off", "auto"]


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Slides to records, records to patches."""

    slides: str
    mpp: float
    patch_mpp: float
    tissue: tissue.TissueConfig
    holdout: plan.HoldoutConfig
    records: plan.RecordConfig
    regions: plan.RegionConfig
    crops: crops.CropConfig
    loader: loader.LoaderConfig

    def __post_init__(self):
        if self.records.record_px < self.crops.context_patch_px:
            raise config_lib.ConfigError(
                "config.data.records.record_px must hold a patch with its context, got "
                f"record_px={self.records.record_px}, patch_px={self.crops.patch_px}, "
                f"context_px={self.crops.context_px}"
            )


def _require_weights(weights: str, train: loop.TrainConfig) -> None:
    if train.num_steps == 0 and not weights:
        raise config_lib.ConfigError("train.num_steps=0 must come with weights, got none")


@dataclasses.dataclass(frozen=True)
class EncoderSection:
    """An encoder and its training: `name` own is a ViT of `model.vit`, any other a published one
    with its weights."""

    name: str
    weights: str
    model: encoder.EncoderConfig
    train: loop.TrainConfig

    def __post_init__(self):
        published = self.architecture.takes == "any"
        if published and (self.train.num_steps or not self.weights):
            raise config_lib.ConfigError(
                "a published encoder must have weights and train.num_steps=0, got "
                f"name={self.name}, weights={self.weights!r}, num_steps={self.train.num_steps}"
            )
        _require_weights(self.weights, self.train)

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
    latent_scaling: Literal["measured", "none"]
    train: loop.TrainConfig

    def __post_init__(self):
        _require_weights(self.weights, self.train)
        if self.train.method == "pmap" and self.model.kind == "vq" and self.model.vq.dead_below:
            raise config_lib.ConfigError(
                "train.method must be jit where dead codes start again (autoencoder.model.vq."
                "dead_below > 0), got pmap"
            )


@dataclasses.dataclass(frozen=True)
class DenoiserSection:
    """The denoiser and its training."""

    unet: unet.UNetConfig
    embedding_length: Literal["one", "root_dim"]
    region_dim: int
    weights: str
    schedule: schedule.Schedule
    loss: diffusion_loss.LossConfig
    train: loop.TrainConfig

    def __post_init__(self):
        _require_weights(self.weights, self.train)

    def model(self, embedding_dim: int) -> conditioning.DenoiserConfig:
        """Sizes of the network for embeddings of a given dimension."""
        return conditioning.DenoiserConfig(
            self.unet, embedding_dim, self.embedding_length, self.region_dim
        )


@dataclasses.dataclass(frozen=True)
class SampleSection:
    """How large images are drawn."""

    conditioning: Literal["dense", "interpolated"]
    interpolation: grid.Interpolation
    guidance_scale: float
    solver: solvers.SolverConfig
    windows: windows.WindowConfig
    chunk: int
    decode: decode.DecodeConfig
    num_variations: int


@dataclasses.dataclass(frozen=True)
class VariationsSection:
    """What the tool `variations` draws again."""

    image: str
    mpp: float
    num_patches: int
    num_draws: int
    num_regions: int

    def __post_init__(self):
        if self.num_patches < 1 or self.num_draws < 1 or self.num_regions < 0:
            raise config_lib.ConfigError(
                "config.variations must have num_patches and num_draws ≥ 1 and num_regions ≥ 0, "
                f"got {self.num_patches}, {self.num_draws} and {self.num_regions}"
            )


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """One run."""

    seed: int
    stages: str
    force: str
    runtime: RuntimeConfig
    mesh: mesh.MeshConfig
    data: DataConfig
    encoder: EncoderSection
    embeddings: imported.EmbeddingsSection
    autoencoder: AutoencoderSection
    denoiser: DenoiserSection
    sample: SampleSection
    variations: VariationsSection
    judge: EncoderSection

    def __post_init__(self):
        patch_px, factor = self.data.crops.patch_px, self.downsample_factor
        for name, section in (("encoder", self.encoder), ("judge", self.judge)):
            if section.name == encoder.OWN and section.model.vit.image_px != patch_px:
                raise config_lib.ConfigError(
                    f"config.{name}.model.vit.image_px must equal config.data.crops.patch_px, "
                    f"got {section.model.vit.image_px} and {patch_px}"
                )
            crop_px = patch_px + section.model.shift_px
            if crop_px > self.data.records.record_px:
                raise config_lib.ConfigError(
                    f"config.{name}.model.shift_px must leave crops inside a record, got "
                    f"image_px + shift_px = {crop_px}, record_px={self.data.records.record_px}"
                )
        coarsest = factor * 2 ** (len(self.denoiser.unet.channel_mult) - 1)
        if patch_px % coarsest or self.data.crops.context_px % factor:
            raise config_lib.ConfigError(
                f"config.data.crops.patch_px must be a multiple of {coarsest} (the autoencoder's "
                f"and the UNet's downsampling) and context_px of {factor}, got "
                f"patch_px={patch_px}, context_px={self.data.crops.context_px}"
            )
        if self.denoiser.unet.latent_channels != self.autoencoder.model.chosen.latent_channels:
            raise config_lib.ConfigError(
                "config.denoiser.unet.latent_channels must equal the autoencoder's, got "
                f"{self.denoiser.unet.latent_channels} and "
                f"{self.autoencoder.model.chosen.latent_channels}"
            )

        if self.embeddings.source:
            self._check_imported()

    def _check_imported(self) -> None:
        """Embeddings computed elsewhere are of whole patches as they lie, and there is no encoder
        to ask for more."""
        crops_, loss = self.data.crops, self.autoencoder.loss
        px = crops_.context_patch_px
        wrong = [
            f"{key}={found!r} (must be {wanted!r})"
            for key, found, wanted in (
                ("data.records.record_px", self.data.records.record_px, px),
                ("data.crops.num_crops", crops_.num_crops, 0),
                ("data.crops.dihedral", crops_.dihedral, False),
                ("sample.conditioning", self.sample.conditioning, "interpolated"),
            )
            if found != wanted
        ]
        needs_features = self.autoencoder.train.num_steps and loss.perceptual_weight
        if needs_features and loss.perceptual == "encoder":
            wrong.append("autoencoder.loss.perceptual='encoder' (must be 'lpips', or its weight 0)")
        if wrong:
            raise config_lib.ConfigError(
                f"with config.embeddings.source there is no encoder, got {', '.join(wrong)}"
            )

    @property
    def downsample_factor(self) -> int:
        """Pixels per latent."""
        return self.autoencoder.model.chosen.downsample_factor

    @property
    def window(self) -> int:
        """Latent pixels on the side of a patch."""
        return self.data.crops.patch_px // self.downsample_factor
