"""A trained work directory as a Python object: embed, generate, redraw."""

import dataclasses
import functools
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, UInt8

from ssldiff_jax.core import arrays, files, layers, rng
from ssldiff_jax.core import config as config_lib
from ssldiff_jax.diffusion import guidance, solvers
from ssldiff_jax.encoders import encoder
from ssldiff_jax.evaluation import images
from ssldiff_jax.sampler import decode, grid, sampler, windows
from ssldiff_jax.stages import config as run_config
from ssldiff_jax.stages import models, runner
from ssldiff_jax.train import mesh as mesh_lib
from ssldiff_jax.weights import reader


@dataclasses.dataclass(frozen=True)
class LargeImage:
    """A synthetic image, and what it took."""

    image: arrays.ImageUint8
    unet_forwards: int
    decoder_calls: int
    seconds: float


class Generator:
    """Embeddings to images, with the models of one run or of published weights."""

    def __init__(self, config: run_config.RunConfig, trained: models.Models, mesh: Mesh):
        self.config = config
        self.autoencoder = trained.autoencoder
        self.denoiser = trained.denoiser
        self._encoder, self._params = trained.encoder, trained.params
        self._mesh = mesh if mesh.size > 1 else None

    @classmethod
    def load(
        cls, source: str | pathlib.Path, config: Mapping[str, Any] | None = None
    ) -> "Generator":
        """Load a run whose stages up to `denoiser` are done; or, with the `config` of its sizes
        (a file of configs/), a published checkpoint.

        Raises WorkdirError where there is no run, WeightsError for weights that do not fit.
        """
        path = pathlib.Path(source)
        if config is not None:
            values = config.to_dict() if hasattr(config, "to_dict") else config
            run = config_lib.build(run_config.RunConfig, values)
            return cls(run, models.Models.of_weights(path, run), mesh_lib.make_mesh(run.mesh))
        if not (path / "config.json").exists():
            raise runner.WorkdirError(
                f"no run in {source}: expected a config.json; published weights need a config"
            )
        run = config_lib.build(run_config.RunConfig, files.read_json(path / "config.json"))
        context = runner.Context(run, path, mesh_lib.make_mesh(run.mesh))
        return cls.of_run(context)

    @classmethod
    def of_run(cls, context: runner.Context) -> "Generator":
        """The generator of a run."""
        return cls(context.config, models.Models.of_run(context), context.mesh)

    @property
    def encoder(self) -> encoder.Encoder:
        """What embeds patches.

        Raises WeightsError where there is none: weights were loaded without an encoder's, or a
        run was trained on embeddings computed elsewhere.
        """
        if self._encoder is None:
            elsewhere = self.config.embeddings.source
            told = f"embeddings computed elsewhere ({elsewhere})" if elsewhere else "none"
            raise reader.WeightsError(
                f"to embed images, config.encoder.weights must name the encoder's file, got {told}"
            )
        return self._encoder

    @property
    def embedding_dim(self) -> int:
        """Length of the embeddings it draws from."""
        return self.denoiser.config.embedding_dim

    @property
    def patch_px(self) -> int:
        """Pixels on the side of a cell."""
        return self.config.data.crops.patch_px

    def embed(self, image: arrays.ImageUint8) -> arrays.EmbeddingGrid:
        """The grid of embeddings of an image's whole cells."""
        rows, cols = image.shape[0] // self.patch_px, image.shape[1] // self.patch_px
        if not rows or not cols:
            raise ValueError(
                f"the image must hold a cell of {self.patch_px} px, got {image.shape[:2]}"
            )
        return self.encoder(images.cut_cells(image, self.patch_px)).reshape(rows, cols, -1)

    def generate(
        self,
        embedding_grid: arrays.EmbeddingGrid,
        *,
        size: tuple[int, int] | None = None,
        seed: int = 0,
    ) -> LargeImage:
        """Draw an image of `size` (height, width) px that the grid spans; by default a cell is a
        patch. Windows take the embedding interpolated at their centres."""
        rows, cols, dim = embedding_grid.shape
        if dim != self.embedding_dim:
            raise ValueError(f"embeddings must have {self.embedding_dim} dimensions, got {dim}")
        size = size or (rows * self.patch_px, cols * self.patch_px)
        plan = self.plan(size, seed)
        per_cell = np.array(size) / self.config.downsample_factor / (rows, cols)
        points = plan.centres() / per_cell
        embeddings = grid.interpolate(
            embedding_grid, points.reshape(-1, 2), self.config.sample.interpolation
        )
        return self._draw(plan, embeddings.reshape(*points.shape[:2], -1), size, seed)

    def redraw(self, reference: arrays.ImageUint8, *, seed: int = 0) -> LargeImage:
        """Draw an image of the size of `reference`, every window conditioned on the embedding of
        the reference at its very place; beyond the border the reference is mirrored."""
        size = reference.shape[:2]
        plan = self.plan(size, seed)
        corners = self._embedding_corners(plan)
        unique, inverse = np.unique(corners.reshape(-1, 2), axis=0, return_inverse=True)
        beyond = self.patch_px + plan.margin * self.config.downsample_factor
        padded = np.pad(reference, ((beyond, beyond), (beyond, beyond), (0, 0)), "reflect")
        side = self.patch_px
        patches = np.stack([padded[y : y + side, x : x + side] for y, x in unique + beyond])
        embeddings = self.encoder(patches)[inverse.reshape(-1)]
        return self._draw(plan, embeddings.reshape(*corners.shape[:2], -1), size, seed)

    def variations(
        self, patch: arrays.ImageUint8, count: int = 4, *, seed: int = 0
    ) -> UInt8[np.ndarray, "N H W 3"]:
        """`count` patches of the embedding of one real patch, each drawn anew."""
        embedding = np.repeat(self.encoder(patch[None]), count, axis=0)
        return self.sample_patches(embedding, seed=seed)

    def sample_patches(
        self, embedding: arrays.Embedding, *, seed: int = 0
    ) -> UInt8[np.ndarray, "N H W 3"]:
        """One patch for each embedding, each drawn alone."""
        chunk, count = self.config.sample.chunk, len(embedding)
        key, found = rng.stream(seed, "sample/patches"), []
        for start in range(0, count, chunk):
            batch = embedding[start : start + chunk]
            batch = np.pad(batch, ((0, chunk - len(batch)), (0, 0)), mode="edge")
            step_key = jax.random.fold_in(key, start)
            found.append(
                np.asarray(self._patches(self._params, self.autoencoder.params, batch, step_key))
            )
        return np.concatenate(found)[:count]

    def plan(self, size: tuple[int, int], seed: int = 0) -> windows.WindowPlan:
        """The windows for an image of `size` px."""
        sample = self.config.sample
        canvas = tuple(-(-px // self.config.downsample_factor) for px in size)
        steps = len(self.table.t)
        return windows.plan_windows(sample.windows, canvas, self.config.window, steps, seed)

    @functools.cached_property
    def table(self) -> solvers.SolverTable:
        """The solver's coefficients."""
        return solvers.solver_table(self.config.sample.solver, self.config.denoiser.schedule)

    def _embedding_corners(self, plan: windows.WindowPlan) -> np.ndarray:
        """Top left px of the patch around every window's centre."""
        centres = plan.centres() * self.config.downsample_factor
        return np.round(centres - self.patch_px / 2).astype(int)

    def _draw(
        self,
        plan: windows.WindowPlan,
        embeddings: Float[arrays.AnyArray, "S N D"],
        size: tuple[int, int],
        seed: int,
    ) -> LargeImage:
        began = time.monotonic()
        key = rng.stream(seed, "sample/canvas")
        canvas = self._sampler(self._params, plan, embeddings, key)
        image, calls = self._decoder(self.autoencoder.params, canvas)
        seconds = time.monotonic() - began
        forwards = self._sampler.unet_forwards(plan)
        return LargeImage(image[: size[0], : size[1]], forwards, calls, seconds)

    @functools.cached_property
    def _sampler(self) -> sampler.GridSampler:
        return sampler.GridSampler(
            self._denoise,
            self._guided,
            self.table,
            self.autoencoder.config.chosen.latent_channels,
            self.config.sample.chunk,
            self._mesh,
        )

    def _guided(self, denoise: guidance.DenoiseFn) -> guidance.GuidedX0:
        section = self.config.denoiser
        sample = self.config.sample
        return guidance.GuidedX0(
            denoise,
            section.schedule,
            section.loss.prediction,
            sample.guidance_scale,
            sample.solver.time_offset,
        )

    def _denoise(self, params: Any, x_t, t, embedding) -> jax.Array:
        return self.denoiser.apply({"params": params}, x_t, t, embedding)

    @functools.cached_property
    def _patches(self):
        channels = self.autoencoder.config.chosen.latent_channels
        shape = (self.config.sample.chunk, self.config.window, self.config.window, channels)

        def draw(params, decoder_params, embedding, key):
            guided = self._guided(functools.partial(self._denoise, params))
            latents = solvers.sample(guided, self.table, shape, embedding, key)
            return layers.to_uint8(self.autoencoder.decode(decoder_params, latents))

        return jax.jit(draw)

    @functools.cached_property
    def _decoder(self) -> decode.TiledDecoder:
        return decode.TiledDecoder(
            self.autoencoder.decode, self.autoencoder.downsample_factor, self.config.sample.decode
        )
