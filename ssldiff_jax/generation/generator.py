"""A trained work directory as a Python object: embed, generate, regenerate."""

import copy
import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any, no_type_check

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, UInt

from ssldiff_jax.core import arrays
from ssldiff_jax.data import config as data_config
from ssldiff_jax.encoders import encoder
from ssldiff_jax.generation import (
    canvas,
    large_image,
    loading,
    models,
    patch_sampler,
    plan,
    prior_sampler,
    window_networks,
)
from ssldiff_jax.generation import finer as finer_lib
from ssldiff_jax.runs import artifacts as artifacts_lib
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.config import sample as sample_config
from ssldiff_jax.runs.workdir import folders
from ssldiff_jax.train import mesh as mesh_lib


class Generator:
    """Embeddings to images, with the models of one run or of published weights.

    What users bring is checked by hand, so that one line says what is wrong with it: no other check
    of annotations comes before (`no_type_check`).

    Attributes:
        config: of the run.
        trained: its models, as they were trained.
        mesh: the devices, all along data.
        embedding_dim: length of what describes a cell, the last axis of a grid: of an embedding, or
            of all its tokens.
        patch_px: pixels on the side of a cell.
        level: of what it generates, one of the config's.
        mpp: microns per pixel of what it generates.
        networks: the models as the config applies them.
        weights: their parameters on the devices.
        planner: plans images, also those of references larger than memory or begun from an image.
        renderer: renders plans.
        patches: samples single patches.
        source: what it was loaded from, of an address on the Hub with the commit.
    """

    def __init__(
        self, config: run_config.RunConfig, trained: models.Models, mesh: Mesh, source: str = ""
    ):
        # Weights are whole on every device here, whatever the mesh of training split.
        config = dataclasses.replace(config, sample=config.sample.as_called)
        self.config, self.trained, self.mesh = config, trained, mesh_lib.all_on_data(mesh)
        self.source = source
        model, params = trained.called(config.sample.student)
        self.patch_px = config.cell_px
        self.networks = window_networks.WindowNetworks.of(
            config, trained.autoencoder, model, params, self.mesh
        )
        self.weights = self.networks.weights(params)
        self.patches = patch_sampler.PatchSampler(self.networks)
        self._use_level()

    def _use_level(self) -> None:
        """Set what depends on the level that the config says."""
        self.level, number = self.config.level, self.config.level_number
        self.mpp = self.config.level_data.patch_mpp
        self.embedding_dim = self.networks.cell_dim(number)
        self.planner = plan.Planner(self.networks, self.trained.encoder, number)
        self.renderer = canvas.CanvasRenderer(self.networks, self.weights, self.mpp)

    @classmethod
    def load(
        cls, source: str | pathlib.Path, config: Mapping[str, Any] | str | None = None
    ) -> "Generator":
        """Load a run whose stages up to `denoiser` are done; what the tool `export` wrote of one;
        or, with the `config` of its sizes (or its name, such as `configs/tcga.py:paper`), a
        published checkpoint. The last two also by their address on the Hub,
        `hf://org/name[@revision]`.

        Raises ConfigError for the address of a bucket, CommandError for the name of no config,
        WorkdirError where there is no run, WeightsError for weights that do not fit or cannot be
        had.
        """
        return cls(*loading.load(source, config))

    @classmethod
    def of_run(
        cls, artifacts: artifacts_lib.Artifacts, mesh: Mesh, *, student: bool = False
    ) -> "Generator":
        """The generator of a run, on the devices of a mesh; its student where the config samples
        by it, or on request."""
        student = student or artifacts.config.sample.student != "off"
        return cls(artifacts.config, models.Models.of_run(artifacts, student=student), mesh)

    def with_params(self, params: Any) -> "Generator":
        """The same with other weights of the denoiser; nothing is traced again."""
        other = copy.copy(self)
        other.trained = dataclasses.replace(self.trained, params=params)
        other.weights = self.networks.weights(params)
        # The same networks, and with them their compiled programs.
        other.renderer = canvas.CanvasRenderer(self.networks, other.weights, self.mpp)
        return other

    def at_level(self, level: float) -> "Generator":
        """The same for images of another level that the denoiser knows; nothing is traced again.

        Raises ConfigError for one that it does not know.
        """
        other = copy.copy(self)
        other.config = self.config.at_level(level)
        other._use_level()
        return other

    def with_sample(self, sample: sample_config.SampleSection) -> "Generator":
        """The same models, sampled from in another way."""
        config = dataclasses.replace(self.config, sample=sample)
        return Generator(config, self.trained, self.mesh, self.source)

    @property
    def condition_encoder(self) -> plan.ConditionEncoder:
        """What embeds patches as the denoiser takes them: `encoder`, or the same giving the tokens
        of each, packed. Raises WeightsError where there is none."""
        return self.planner.condition_encoder

    @property
    def encoder(self) -> encoder.Encoder:
        """What embeds patches. Raises WeightsError where there is none."""
        return self.planner.require_encoder()

    @property
    def reading_data(self) -> data_config.DataConfig:
        """How images that it is given are read: at its scale, or at that of the first level where
        it is conditioned on patches of that."""
        return self.config.data if self.planner.finest.ratio > 1 else self.config.level_data

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels that `sample_grid` understands; none where no prior is trained."""
        return self.trained.prior.spec.labels if self.trained.prior else ()

    @property
    def numbers(self) -> tuple[str, ...]:
        """Names of the numbers that `sample_grid` understands; none where no prior is trained."""
        return self.trained.prior.spec.numbers if self.trained.prior else ()

    @property
    def prior(self) -> prior_sampler.PriorSampler:
        """What samples grids. Raises WorkdirError where none is trained, or for another level than
        the first, whose grids it learnt."""
        if self.trained.prior is None:
            raise folders.WorkdirError(
                "to sample a grid the stages grids and prior must be done, got no prior: "
                "--config.stages=grids,prior"
            )
        first = self.config.data.levels[0]
        if self.level != first and self.planner.finest.ratio == 1:
            raise folders.WorkdirError(
                f"the prior samples grids of level {first:g}, got config.sample.level="
                f"{self.level:g}: name a reference of that level (config.generate.reference)"
            )
        return self.trained.prior

    @no_type_check
    def embed(self, image: arrays.Pixels) -> arrays.EmbeddingGrid:
        """The grid of embeddings, or packed tokens, of an image's whole cells.

        Raises ValueError for what is not uint8 RGB, or smaller than a cell.
        """
        return self.planner.embed(image)

    @no_type_check
    def generate(
        self,
        embedding_grid: arrays.EmbeddingGrid,
        *,
        size: tuple[int, int] | None = None,
        seed: int = 0,
        control: arrays.Pixels | None = None,
    ) -> large_image.LargeImage:
        """An image of `size` (height, width) px that the grid spans; by default a cell is a
        patch. With a ControlNet it is led by a map as large, `control`."""
        image_plan = self.plan_from_grid(embedding_grid, size=size, seed=seed)
        return self.render(self._controlled(image_plan, control))

    def _controlled(
        self, image_plan: plan.ImagePlan, control: arrays.Pixels | None
    ) -> plan.ImagePlan:
        return image_plan if control is None else self.planner.with_control(image_plan, control)

    @no_type_check
    def regenerate(
        self,
        reference: arrays.Pixels,
        *,
        seed: int = 0,
        init: plan.InitImage | None = None,
        control: arrays.Pixels | None = None,
    ) -> large_image.LargeImage:
        """An image of the size of `reference`, conditioned on its embeddings as the config says;
        from noise alone, or from what `init` keeps of an image. With a ControlNet it is led by a
        map as large, `control`.

        Raises ValueError for what is not uint8 RGB.
        """
        image_plan = self.planner.from_image(reference, seed=seed, init=init)
        return self.render(self._controlled(image_plan, control))

    @no_type_check
    def plan_from_grid(
        self,
        embedding_grid: arrays.EmbeddingGrid,
        *,
        size: tuple[int, int] | None = None,
        spans: tuple[float, float] | None = None,
        seed: int = 0,
    ) -> plan.ImagePlan:
        """What `generate` renders: see Planner.from_grid."""
        grid = self.finer(embedding_grid, seed=seed)
        return self.planner.from_grid(grid, size=size, spans=spans, seed=seed)

    def require_finer(self) -> None:
        """Raises WorkdirError where grids of the prior lack tokens that the denoiser takes, and
        nothing samples these."""
        sizes = self.trained.denoiser.config
        if sizes.tokens_per_side > 1 and not self.config.cells_are_tokens:
            finer_lib.require(self.trained.tokens, sizes)

    @no_type_check
    def finer(
        self,
        embedding_grid: arrays.EmbeddingGrid,
        *,
        seed: int = 0,
        known: arrays.EmbeddingGrid | None = None,
        keep_mask: Bool[np.ndarray, "rows cols"] | None = None,
    ) -> arrays.EmbeddingGrid:
        """A grid of one embedding a cell, such as `sample_grid` gives, with the tokens that the
        denoiser takes, sampled to go with the `known` ones of cells in `keep_mask`; any other grid
        as it is.

        Raises ValueError for values that are not finite, WorkdirError where nothing samples tokens.
        """
        sizes, of_tokens = self.trained.denoiser.config, self.config.cells_are_tokens
        if of_tokens or not finer_lib.is_coarse(np.shape(embedding_grid), sizes):
            return embedding_grid
        tokens = finer_lib.require(self.trained.tokens, sizes)
        grid = np.asarray(embedding_grid, np.float32)
        window_networks.require_values(grid, "embedding_grid")
        border = self.config.sample.windows.border
        return tokens.sample(grid, seed=seed, border=border, known=known, keep_mask=keep_mask)

    def render(self, image_plan: plan.ImagePlan) -> large_image.LargeImage:
        """The image of a plan, in memory."""
        return self.renderer.render(image_plan)

    def sample_grid(
        self,
        size: tuple[int, int],
        *,
        text: str = "",
        labels: Mapping[str, float] | None = None,
        numbers: Mapping[str, float] | None = None,
        seed: int = 0,
        temperature: float = 1.0,
    ) -> arrays.EmbeddingGrid:
        """A grid for an image of `size` px, as a text, labels and numbers describe it; what is not
        said is free. It has one embedding a cell.

        Raises ValueError for a size below one cell, and for what the prior does not know.
        """
        plan.require_size(size)
        # Whole cells: the grid spans the image, whose cells are then a little larger.
        cells = tuple(px // self.patch_px for px in size)
        if min(cells) < 1:
            raise ValueError(f"size must hold a cell of {self.patch_px} px, got {size}")
        request = prior_sampler.PriorRequest.of(text, labels, numbers)
        return self.prior.sample(request, cells, seed=seed, temperature=temperature)

    @no_type_check
    def sample_patches(
        self, embedding: arrays.Embedding, *, seed: int = 0
    ) -> UInt[np.ndarray, "N H W bands"]:
        """One patch for each embedding, each alone; devices share them. Patch i is the same however
        many are sampled.

        Raises ValueError for embeddings of another dimension or with values that are not finite.
        """
        number = self.config.level_number
        return self.patches(self.weights, embedding, seed=seed, level=number)

    @no_type_check
    def variations(
        self, patch: arrays.Pixels, count: int = 4, *, seed: int = 0
    ) -> UInt[np.ndarray, "N H W bands"]:
        """`count` patches of the embedding of one real patch, each with other noise.

        Raises ValueError for what is not a patch of uint8 RGB.
        """
        side = self.networks.patch_px
        patch = self.networks.kind.require(patch, "patch", (side, side))
        # One embedding, many indices: noise is by index.
        embedding = np.repeat(self.condition_encoder(patch[None]), count, axis=0)
        return self.sample_patches(embedding, seed=seed)
