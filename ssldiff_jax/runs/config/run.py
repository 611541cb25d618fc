"""The schema of a run: every section of configs/default.py as a frozen dataclass."""

import dataclasses

from ssldiff_jax.core import schema
from ssldiff_jax.data import config as data_config
from ssldiff_jax.data.precomputed import source
from ssldiff_jax.diffusion import cells, conditioning, distillation
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
        network = self.denoiser.chosen
        # A patch is made smaller by the autoencoder, then by the network.
        coarsest = factor * network.side_multiple
        # Windows begin at whole latents, and so does the context around a patch.
        if patch_px % coarsest or self.data.crops.context_px % factor:
            raise schema.ConfigError(
                f"config.data.crops.patch_px must be a multiple of {coarsest} (the autoencoder's "
                f"and the {self.denoiser.network}'s downsampling) and context_px of {factor}, got "
                f"patch_px={patch_px}, context_px={self.data.crops.context_px}"
            )
        if network.latent_channels != self.autoencoder.model.chosen.latent_channels:
            raise schema.ConfigError(
                f"config.denoiser.{self.denoiser.network}.latent_channels must equal the "
                f"autoencoder's, got {network.latent_channels} and "
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
        if self.cells_are_tokens:
            self._check_squares()
            return
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

    def _check_squares(self) -> None:
        """Squares of a patch are whole latents, and their encoder takes patches of any size."""
        per_side, px = self.embeddings.tokens_per_side, self.data.crops.patch_px
        if per_side < 1 or self.window % per_side:
            raise schema.ConfigError(
                "config.embeddings.tokens_per_side must divide the latents on the side of a patch, "
                f"{self.window} ({px} px), got {per_side}"
            )
        if (
            self.encoder.architecture.takes != "any"
            or self.num_cells > 1
            or self.denoiser.region_dim
        ):
            raise schema.ConfigError(
                "config.embeddings.tokens_of=squares must come with a published encoder, "
                "data.crops.condition_on=patch and denoiser.region_dim=0, got encoder.name="
                f"{self.encoder.name}, condition_on={self.data.crops.condition_on}, "
                f"region_dim={self.denoiser.region_dim}"
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
        return self.denoiser.model(embedding_dim, self.num_cells, self.embeddings.tokens_per_side)

    @property
    def cells_are_tokens(self) -> bool:
        """Whether a grid has a cell for each token of a window, and not for each window."""
        return self.embeddings.tokens_of == "squares"

    @property
    def cell_px(self) -> int:
        """Pixels on the side of a cell of a grid."""
        per_side = self.embeddings.tokens_per_side if self.cells_are_tokens else 1
        return self.data.crops.patch_px // per_side

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
