"""The schema of a run: every section of configs/default.py as a frozen dataclass."""

import dataclasses
import math

from ssldiff_jax.core import schema
from ssldiff_jax.data import config as data_config
from ssldiff_jax.data.precomputed import source
from ssldiff_jax.diffusion import cells, conditioning, distillation, embedding_transformer
from ssldiff_jax.encoders import encoder
from ssldiff_jax.runs.config import evaluate as evaluate_config
from ssldiff_jax.runs.config import models as models_config
from ssldiff_jax.runs.config import prior as prior_config
from ssldiff_jax.runs.config import runtime as runtime_config
from ssldiff_jax.runs.config import sample as sample_config
from ssldiff_jax.runs.config import study as study_config
from ssldiff_jax.runs.config import tools as tools_config
from ssldiff_jax.train import mesh


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """One run."""

    seed: int
    stages: str
    force: str
    models: str
    runtime: runtime_config.RuntimeConfig
    mesh: mesh.MeshConfig
    data: data_config.DataConfig
    encoder: models_config.EncoderSection
    embeddings: source.EmbeddingsSection
    autoencoder: models_config.AutoencoderSection
    denoiser: models_config.DenoiserSection
    distill: models_config.DistillSection
    prior: prior_config.PriorSection
    tokens: prior_config.TokensSection
    sample: sample_config.SampleSection
    imagine: prior_config.ImagineSection
    generate: tools_config.GenerateSection
    sweep: tools_config.SweepSection
    plan: tools_config.PlanSection
    bench: tools_config.BenchSection
    compile: tools_config.CompileSection
    variations: tools_config.VariationsSection
    study: study_config.StudySection
    judge: models_config.EncoderSection
    evaluate: evaluate_config.EvaluateSection
    compare: tools_config.CompareSection
    report: evaluate_config.ReportSection
    export: tools_config.ExportSection

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
        # A patch is halved by the autoencoder, then at every level of the UNet but the last.
        coarsest = factor * 2 ** (len(self.denoiser.unet.channel_mult) - 1)
        # Windows begin at whole latents, and so does the context around a patch.
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
            # Two sections that only fit together: neither can check it alone.
            self.sample.solver.require_within(self.denoiser.schedule)
        except ValueError as error:
            raise schema.ConfigError(f"config.sample.solver: {error}") from None
        if self.embeddings.source:
            self._check_imported()
        self._check_tokens()
        self._check_levels()
        if self.distill.visits * self.distill.steps > self.sample.solver.t_start + 1:
            raise schema.ConfigError(
                "config.distill must have visits · steps ≤ sample.solver.t_start + 1, got "
                f"{self.distill.visits} · {self.distill.steps} and "
                f"t_start={self.sample.solver.t_start}"
            )
        self.require_student(self.sample)

    @property
    def curriculum(self) -> distillation.Curriculum:
        """What a student of the denoiser learns, to be sampled as the config says."""
        return self.distill.curriculum(self.sample.guidance, self.sample.solver)

    def require_student(self, sample: sample_config.SampleSection) -> None:
        """Raise ConfigError where a way to sample asks for a student that is not taught so."""
        section, taught = self.distill, self.curriculum.taught
        if sample.student == "off":
            return
        if not section.visits:
            raise schema.ConfigError(
                f"config.sample.student={sample.student} must come with a student, "
                "config.distill.visits ≥ 1, got 0"
            )
        low, high = section.scales
        if not low <= sample.guidance.scale <= high:
            raise schema.ConfigError(
                "config.sample.guidance.scale must be one that the student learns, of "
                f"config.distill.scales={section.scales}, got {sample.guidance.scale}"
            )
        if sample.solver.spacing != "trailing" or sample.solver.time_offset:
            raise schema.ConfigError(
                "config.sample.solver must have trailing timesteps and not be paper with a "
                f"student, got spacing={sample.solver.spacing}, name={sample.solver.name}"
            )
        if sample.student == "strides" and sample.visits not in taught:
            raise schema.ConfigError(
                f"config.sample.visits must be one of {', '.join(map(str, taught))}, which "
                f"config.distill.visits={section.visits} teaches, got {sample.visits}"
            )
        own, others = self.curriculum, section.curriculum(sample.guidance, sample.solver)
        if own.imitated != others.imitated:
            raise schema.ConfigError(
                "config.sample.guidance and solver must be as the student learns them, (interval, "
                f"rescale, t_start) {own.imitated}, got {others.imitated}"
            )

    def _check_tokens(self) -> None:
        """Tokens of a patch are the run's encoder's, and there is no region's beside them."""
        per_side = self.embeddings.tokens_per_side
        try:
            self.encoder.architecture.require_tokens(per_side)
        except ValueError as error:
            raise schema.ConfigError(f"config.embeddings.{error}") from None
        if per_side > 1 and self.tokens.max_offset > per_side // 2:
            raise schema.ConfigError(
                "config.tokens.max_offset must be at most half of embeddings.tokens_per_side="
                f"{per_side}, got {self.tokens.max_offset}"
            )
        if per_side > 1 and self.denoiser.region_dim:
            raise schema.ConfigError(
                "config.denoiser.region_dim must be 0 where embeddings.tokens_per_side is above 1, "
                f"got {self.denoiser.region_dim}"
            )

    def _check_levels(self) -> None:
        """Images are of a level that the denoiser knows, and a transformer has a place for each of
        the embeddings of a patch."""
        levels, conditioner = self.data.levels, self.denoiser.conditioner
        if self.sample.level and self.sample.level not in levels:
            raise schema.ConfigError(
                "config.sample.level must be 0 or one of config.data.levels="
                f"({', '.join(f'{level:g}' for level in levels)}), got {self.sample.level:g}"
            )
        if conditioner.transformer is None:
            return
        is_finest, count = conditioner.of == "finest", self.embeddings.tokens_per_side**2
        wrong = [
            f"{key} must be {target}, got {value}"
            for key, value, target, is_right in (
                ("denoiser.unet.conditioning", self.denoiser.unet.conditioning, "cross_attention",
                 self.denoiser.unet.conditioning == "cross_attention"),
                ("data.crops.condition_on", self.data.crops.condition_on, "patch",
                 self.num_cells == 1),
                ("denoiser.region_dim", self.denoiser.region_dim, 0, not self.denoiser.region_dim),
                ("embeddings.tokens_per_side", f"{self.embeddings.tokens_per_side} ({count} "
                 "embeddings)", f"at most 8 ({embedding_transformer.PLACES} embeddings)",
                 count <= embedding_transformer.PLACES),
                ("embeddings.tokens_per_side", self.embeddings.tokens_per_side,
                 "1 where conditioner.of=finest", count == 1 or not is_finest),
                ("sample.conditioning", self.sample.conditioning,
                 "interpolated where conditioner.of=finest",
                 self.sample.conditioning == "interpolated" or not is_finest),
                ("data.levels", levels, "powers of 2 where conditioner.of=finest",
                 all(math.log2(level).is_integer() for level in levels) or not is_finest),
            )
            if not is_right
        ]  # fmt: skip
        if wrong:
            raise schema.ConfigError(
                f"with denoiser.conditioner.name=transformer config.{wrong[0]}"
            )

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
                ("embeddings.tokens_per_side", self.embeddings.tokens_per_side, 1),
                ("data.levels", self.data.levels, (1.0,)),
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

    def denoiser_sizes(self, embedding_dim: int) -> conditioning.DenoiserConfig:
        """Sizes of the denoiser for embeddings, or tokens, of a given dimension."""
        per_side, levels = self.embeddings.tokens_per_side, self.data.levels
        return self.denoiser.model(embedding_dim, self.num_cells, per_side, levels)

    @property
    def level(self) -> float:
        """Of what is generated, and evaluated."""
        return self.sample.level or self.data.levels[0]

    @property
    def level_number(self) -> int:
        """Its place among the levels of the models."""
        return self.data.levels.index(self.level)

    def at_level(self, level: float) -> "RunConfig":
        """The same for images of another level. Raises ConfigError for one that is not learnt."""
        return dataclasses.replace(self, sample=dataclasses.replace(self.sample, level=level))

    @property
    def level_data(self) -> data_config.DataConfig:
        """How data are read at the level of what is generated."""
        return self.data.at(self.level)

    @property
    def downsample_factor(self) -> int:
        """Pixels per latent."""
        return self.autoencoder.model.chosen.downsample_factor

    @property
    def window(self) -> int:
        """Latent pixels on the side of a patch."""
        return self.data.crops.patch_px // self.downsample_factor

    @property
    def context(self) -> int:
        """Latent pixels on each side of a patch that are encoded with it and cut off."""
        return self.data.crops.context_px // self.downsample_factor
