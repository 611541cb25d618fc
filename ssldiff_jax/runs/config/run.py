"""The schema of a run: every section of configs/default.py as a frozen dataclass."""

import dataclasses
from typing import Literal

from ssldiff_jax.autoencoder import autoencoder
from ssldiff_jax.autoencoder import loss as autoencoder_loss
from ssldiff_jax.core import names, schema
from ssldiff_jax.data import config as data_config
from ssldiff_jax.data.precomputed import source
from ssldiff_jax.diffusion import cells, conditioning, guidance, process, schedule, solvers, unet
from ssldiff_jax.diffusion import loss as diffusion_loss
from ssldiff_jax.encoders import encoder
from ssldiff_jax.runs.config import evaluate as evaluate_config
from ssldiff_jax.runs.config import prior as prior_config
from ssldiff_jax.runs.config import study as study_config
from ssldiff_jax.sampler import decode, grid, windows
from ssldiff_jax.slides import pyramid
from ssldiff_jax.train import chips, loop, mesh

_ASIDE = {"digest": False}
"""Marks what may change without making other results."""


@dataclasses.dataclass(frozen=True)
class RuntimeConfig:
    """The machine: devices to make of a CPU (0: one), whether freed memory is kept, where
    compiled programs are kept, and whether this is one process of several: found from the
    environment (auto), or as JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID say;
    and a bucket for checkpoints, "" for the workdir."""

    cpu_devices: int
    keep_freed_memory: bool
    compilation_cache: str
    distributed: Literal["off", "auto", "given"]
    checkpoints: str


def _require_weights(weights: str, train: loop.TrainConfig) -> None:
    if train.num_steps == 0 and not weights:
        raise schema.ConfigError("train.num_steps=0 must come with weights, got none")


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
            raise schema.ConfigError(
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

    @property
    def process(self) -> process.Process:
        """Its schedule and what it predicts."""
        return process.Process(self.schedule, self.loss.prediction)

    def model(self, embedding_dim: int, num_cells: int = 1) -> conditioning.DenoiserConfig:
        """Sizes of the network for embeddings of a given dimension."""
        return conditioning.DenoiserConfig(
            self.unet, embedding_dim, self.embedding_length, self.region_dim, num_cells
        )


@dataclasses.dataclass(frozen=True)
class OutputConfig:
    """The files that a large image is written as, and the JPEG quality inside them, 1…100."""

    formats: tuple[str, ...]
    quality: int

    def __post_init__(self):
        for name in self.formats:
            if name not in pyramid.FORMATS:
                raise schema.ConfigError(
                    f"config.sample.output.formats must be of {', '.join(pyramid.FORMATS)}, "
                    f"got {name!r}"
                )
        if not 1 <= self.quality <= 100:
            raise schema.ConfigError(
                f"config.sample.output.quality must be 1…100, got {self.quality}"
            )


@dataclasses.dataclass(frozen=True)
class SampleSection:
    """How large images are drawn."""

    conditioning: Literal["dense", "interpolated", "cells"]
    interpolation: grid.Interpolation
    guidance: guidance.GuidanceConfig
    solver: solvers.SolverConfig
    windows: windows.WindowConfig
    compute_dtype: Literal["float32", "bfloat16"]
    canvas_dtype: Literal["float32", "bfloat16"]
    split: Literal["windows", "rows"] = dataclasses.field(metadata=_ASIDE)
    window_batch: int = dataclasses.field(metadata=_ASIDE)
    decode: decode.DecodeConfig
    output: OutputConfig
    checkpoint_minutes: float = dataclasses.field(metadata=_ASIDE)
    dry_run: bool = dataclasses.field(metadata=_ASIDE)
    num_variations: int


@dataclasses.dataclass(frozen=True)
class GenerateSection:
    """What the tool `generate` draws, what it begins from, and the name of its folder."""

    reference: str
    mpp: float
    size: tuple[int, ...]
    strength: float
    mask: str
    outpaint_px: int
    prior: prior_config.PriorRequestConfig
    blend_with: str
    blend_amount: float
    edits: tuple[str, ...]
    name: str = dataclasses.field(metadata=_ASIDE)

    def __post_init__(self):
        names.require("generate.name", self.name)
        if len(self.size) not in (0, 2) or any(px < 1 for px in self.size):
            raise schema.ConfigError(
                f"config.generate.size must be (height, width) of at least 1 px, or (), got "
                f"{self.size}"
            )
        if not 0 < self.strength <= 1 or not 0 <= self.blend_amount <= 1 or self.outpaint_px < 0:
            raise schema.ConfigError(
                "config.generate must have 0 < strength ≤ 1, 0 ≤ blend_amount ≤ 1 and "
                "outpaint_px ≥ 0, got "
                f"{self.strength}, {self.blend_amount} and {self.outpaint_px}"
            )


@dataclasses.dataclass(frozen=True)
class SweepSection:
    """Ways of drawing that the tool `sweep` compares, as changes of the section sample, and how
    often each region is drawn."""

    variants: tuple[str, ...]
    num_generated: int

    def __post_init__(self):
        if not self.variants or self.num_generated < 1:
            raise schema.ConfigError(
                f"config.sweep must have variants and num_generated ≥ 1, got {self.variants} and "
                f"{self.num_generated}"
            )


BENCH_PARTS = ("network", "weights", "archive", "input", "images", "training", "evaluation")
TRAINED = ("denoiser", "autoencoder", "encoder", "prior")


def _require_known(key: str, names: tuple[str, ...], known: tuple[str, ...]) -> None:
    for name in names:
        if name not in known:
            raise schema.ConfigError(f"config.{key} must be of {', '.join(known)}, got {name!r}")


@dataclasses.dataclass(frozen=True)
class BenchSection:
    """What the tool `bench` measures: sides of the large images it draws, how many of the
    published algorithm's 50 steps it does to compare (0: none), whose training steps at which
    batches (0: the config's)."""

    parts: tuple[str, ...]
    train: tuple[str, ...]
    batch_size: tuple[int, ...]
    profile: bool
    sizes: tuple[int, ...]
    paper_steps: int

    def __post_init__(self):
        _require_known("bench.parts", self.parts, BENCH_PARTS)
        _require_known("bench.train", self.train, TRAINED)
        if any(px < 1 for px in self.sizes) or not 0 <= self.paper_steps <= 50:
            raise schema.ConfigError(
                "config.bench must have sizes of at least 1 px and 0 ≤ paper_steps ≤ 50, got "
                f"{self.sizes} and {self.paper_steps}"
            )


@dataclasses.dataclass(frozen=True)
class CompileSection:
    """What the tool `compile` compiles: programs, for slices (v5e:16x16, h200:8) and global
    batches (0: the config's); for TPUs at a level of optimisation."""

    topology: tuple[str, ...]
    programs: tuple[str, ...]
    batch_size: tuple[int, ...]
    optimization_level: Literal["O0", "O1", "O2", "O3"]

    def __post_init__(self):
        for topology in self.topology:
            chips.Slice.named(topology)
        _require_known("compile.programs", self.programs, (*TRAINED, "sampler"))


@dataclasses.dataclass(frozen=True)
class VariationsSection:
    """What the tool `variations` draws again."""

    image: str
    mpp: float
    num_patches: int
    num_generated: int
    num_regions: int

    def __post_init__(self):
        if self.num_patches < 1 or self.num_generated < 1 or self.num_regions < 0:
            raise schema.ConfigError(
                "config.variations must have num_patches and num_generated ≥ 1 and num_regions ≥ "
                "0, "
                f"got {self.num_patches}, {self.num_generated} and {self.num_regions}"
            )


@dataclasses.dataclass(frozen=True)
class ExportSection:
    """What the tool `export` says of the models: their licence, "" where none is stated."""

    licence: str


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """One run."""

    seed: int
    stages: str
    force: str
    models: str
    runtime: RuntimeConfig
    mesh: mesh.MeshConfig
    data: data_config.DataConfig
    encoder: EncoderSection
    embeddings: source.EmbeddingsSection
    autoencoder: AutoencoderSection
    denoiser: DenoiserSection
    prior: prior_config.PriorSection
    sample: SampleSection
    imagine: prior_config.ImagineSection
    generate: GenerateSection
    sweep: SweepSection
    bench: BenchSection
    compile: CompileSection
    variations: VariationsSection
    study: study_config.StudySection
    judge: EncoderSection
    evaluate: evaluate_config.EvaluateSection
    compare: evaluate_config.CompareSection
    report: evaluate_config.ReportSection
    export: ExportSection

    def __post_init__(self):
        patch_px, factor = self.data.crops.patch_px, self.downsample_factor
        for name, section in (("encoder", self.encoder), ("judge", self.judge)):
            if section.name == encoder.OWN and section.model.vit.image_px != patch_px:
                raise schema.ConfigError(
                    f"config.{name}.model.vit.image_px must equal config.data.crops.patch_px, "
                    f"got {section.model.vit.image_px} and {patch_px}"
                )
            crop_px = patch_px + section.model.shift_px
            if crop_px > self.data.records.record_px:
                raise schema.ConfigError(
                    f"config.{name}.model.shift_px must leave crops inside a record, got "
                    f"image_px + shift_px = {crop_px}, record_px={self.data.records.record_px}"
                )
        coarsest = factor * 2 ** (len(self.denoiser.unet.channel_mult) - 1)
        if patch_px % coarsest or self.data.crops.context_px % factor:
            raise schema.ConfigError(
                f"config.data.crops.patch_px must be a multiple of {coarsest} (the autoencoder's "
                f"and the UNet's downsampling) and context_px of {factor}, got "
                f"patch_px={patch_px}, context_px={self.data.crops.context_px}"
            )
        if self.denoiser.unet.latent_channels != self.autoencoder.model.chosen.latent_channels:
            raise schema.ConfigError(
                "config.denoiser.unet.latent_channels must equal the autoencoder's, got "
                f"{self.denoiser.unet.latent_channels} and "
                f"{self.autoencoder.model.chosen.latent_channels}"
            )

        if self.num_cells > 1 and self.denoiser.region_dim:
            raise schema.ConfigError(
                "config.denoiser.region_dim must be 0 where data.crops.condition_on=cells, got "
                f"{self.denoiser.region_dim}"
            )
        if self.sample.conditioning == "cells" and self.num_cells == 1:
            raise schema.ConfigError(
                "config.sample.conditioning=cells must come with data.crops.condition_on=cells, "
                "got "
                f"{self.data.crops.condition_on}"
            )
        try:
            self.sample.solver.require_within(self.denoiser.schedule)
        except ValueError as error:
            raise schema.ConfigError(f"config.sample.solver: {error}") from None
        if self.embeddings.source:
            self._check_imported()

    def _check_imported(self) -> None:
        """Embeddings computed elsewhere are of whole patches as they lie, and there is no encoder
        to ask for more."""
        crops_, loss = self.data.crops, self.autoencoder.loss
        px = crops_.context_patch_px
        wrong = [
            f"{key}={value!r} (must be {target!r})"
            for key, value, target in (
                ("data.records.record_px", self.data.records.record_px, px),
                ("data.crops.num_crops", crops_.num_crops, 0),
                ("data.crops.dihedral", crops_.dihedral, False),
                ("data.crops.condition_on", crops_.condition_on, "patch"),
                ("sample.conditioning", self.sample.conditioning, "interpolated"),
            )
            if value != target
        ]
        needs_features = self.autoencoder.train.num_steps and loss.perceptual_weight
        if needs_features and loss.perceptual == "encoder":
            wrong.append("autoencoder.loss.perceptual='encoder' (must be 'lpips', or its weight 0)")
        if wrong:
            raise schema.ConfigError(
                f"with config.embeddings.source there is no encoder, got {', '.join(wrong)}"
            )

    @property
    def num_cells(self) -> int:
        """Cells that condition a window."""
        return cells.CELLS_PER_WINDOW if self.data.crops.condition_on == "cells" else 1

    @property
    def downsample_factor(self) -> int:
        """Pixels per latent."""
        return self.autoencoder.model.chosen.downsample_factor

    @property
    def window(self) -> int:
        """Latent pixels on the side of a patch."""
        return self.data.crops.patch_px // self.downsample_factor
