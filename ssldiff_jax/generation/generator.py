"""A trained work directory as a Python object: embed, generate, redraw."""

import copy
import dataclasses
import functools
import logging
import numbers as numbers_lib
import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import UInt8

from ssldiff_jax.core import arrays, data_parallel, layers, machine, patch_grid, rng, schema
from ssldiff_jax.diffusion import cells, guidance, solvers
from ssldiff_jax.encoders import encoder
from ssldiff_jax.formats import tensors
from ssldiff_jax.generation import exported, models, prior_sampler
from ssldiff_jax.generation import plan as drawing_lib
from ssldiff_jax.runs import artifacts
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.config import sample as sample_config
from ssldiff_jax.runs.workdir import folders, stored_config
from ssldiff_jax.sampler import (
    conditions,
    decode,
    encode,
    field,
    memory_estimate,
    programs,
    sampler,
    windows,
)
from ssldiff_jax.train import mesh as mesh_lib

_LOG = logging.getLogger(__name__)

_SPLIT = PartitionSpec("data")


class Generator:
    """Embeddings to images, with the models of one run or of published weights."""

    def __init__(self, config: run_config.RunConfig, trained: models.Models, mesh: Mesh):
        self.config = config
        self.autoencoder = trained.autoencoder
        self.denoiser = trained.denoiser
        mesh = mesh_lib.all_on_data(mesh)
        self._trained, self._devices = trained, mesh
        self._encoder = trained.encoder
        self.params = layers.cast(trained.params, config.sample.compute_dtype)
        self._mesh = mesh if mesh.size > 1 else None

    @property
    def mesh(self) -> Mesh:
        """The devices, all along data."""
        return self._devices

    @classmethod
    def load(
        cls, source: str | pathlib.Path, config: Mapping[str, Any] | None = None
    ) -> "Generator":
        """Load a run whose stages up to `denoiser` are done; what the tool `export` wrote of one;
        or, with the `config` of its sizes (a file of configs/), a published checkpoint.

        Raises WorkdirError where there is no run, WeightsError for weights that do not fit.
        """
        path = pathlib.Path(source).expanduser()
        machine.look_for_no_tpu()
        if config is not None:
            values = config.to_dict() if hasattr(config, "to_dict") else config
            run = schema.build(run_config.RunConfig, values)
            machine.keep_compiled(run.runtime.compilation_cache)
            return cls(run, models.Models.of_weights(path, run), mesh_lib.make_mesh(run.mesh))
        if not (path / "config.json").exists():
            return cls._of_export(path)
        run = schema.build(run_config.RunConfig, stored_config.of_run(path))
        machine.keep_compiled(run.runtime.compilation_cache)
        made = artifacts.Artifacts(run, folders.Folders.of(run, path))
        return cls.of_run(made, mesh_lib.make_mesh(run.mesh))

    @classmethod
    def _of_export(cls, path: pathlib.Path) -> "Generator":
        file = exported.find(path)
        if file is None:
            raise folders.WorkdirError(
                f"no run in {path}: expected a config.json; published weights need a config"
            )
        run, trained = exported.load(file)
        machine.keep_compiled(run.runtime.compilation_cache)
        return cls(run, trained, mesh_lib.make_mesh(mesh_lib.MeshConfig(-1, 1, 1, ())))

    @classmethod
    def of_run(cls, made: artifacts.Artifacts, mesh: Mesh) -> "Generator":
        """The generator of a run, on the devices of a mesh."""
        return cls(made.config, models.Models.of_run(made), mesh)

    def with_params(self, params: Any) -> "Generator":
        """The same with other weights of the denoiser; nothing is traced again."""
        other = copy.copy(self)
        other.params = layers.cast(params, self.config.sample.compute_dtype)
        other._trained = dataclasses.replace(self._trained, params=params)
        other.__dict__.pop("placed", None)
        return other

    @property
    def encoder(self) -> encoder.Encoder:
        """What embeds patches.

        Raises WeightsError where there is none: weights were loaded without an encoder's, or a
        run was trained on embeddings computed elsewhere.
        """
        if self._encoder is None:
            elsewhere = self.config.embeddings.source
            told = f"embeddings computed elsewhere ({elsewhere})" if elsewhere else "none"
            raise tensors.WeightsError(
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

    @property
    def mpp(self) -> float:
        """Microns per pixel of what it draws."""
        return self.config.data.patch_mpp

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels that `sample_grid` understands; none where no prior is trained."""
        return self._trained.prior.spec.labels if self._trained.prior else ()

    @property
    def numbers(self) -> tuple[str, ...]:
        """Names of the numbers that `sample_grid` understands; none where no prior is trained."""
        return self._trained.prior.spec.numbers if self._trained.prior else ()

    @property
    def prior(self) -> prior_sampler.PriorSampler:
        """What draws grids.

        Raises WorkdirError where none is trained.
        """
        if self._trained.prior is None:
            raise folders.WorkdirError(
                "to draw a grid the stages grids and prior must be done, got no prior: "
                "--config.stages=grids,prior"
            )
        return self._trained.prior

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
        said is free.

        Raises ValueError for a size below one cell, and for what the prior does not know.
        """
        drawing_lib.require_size(size)
        cells = tuple(px // self.patch_px for px in size)
        if min(cells) < 1:
            raise ValueError(f"size must hold a cell of {self.patch_px} px, got {size}")
        asked = prior_sampler.PriorRequest(
            text, _named(labels, "labels"), _named(numbers, "numbers")
        )
        return self.prior.draw(asked, cells, seed=seed, temperature=temperature)

    def with_sample(self, sample: sample_config.SampleSection) -> "Generator":
        """The same models, drawing in another way."""
        config = dataclasses.replace(self.config, sample=sample)
        return Generator(config, self._trained, self._devices)

    def embed(self, image: arrays.ImageUint8) -> arrays.EmbeddingGrid:
        """The grid of embeddings of an image's whole cells.

        Raises ValueError for what is not uint8 RGB, or smaller than a cell.
        """
        image = arrays.require_rgb(image, "image")
        rows, cols = image.shape[0] // self.patch_px, image.shape[1] // self.patch_px
        if not rows or not cols:
            raise ValueError(
                f"the image must hold a cell of {self.patch_px} px, got {image.shape[:2]}"
            )
        return self.encoder(patch_grid.cut_cells(image, self.patch_px)).reshape(rows, cols, -1)

    def generate(
        self,
        embedding_grid: arrays.EmbeddingGrid,
        *,
        size: tuple[int, int] | None = None,
        seed: int = 0,
    ) -> drawing_lib.LargeImage:
        """Draw an image of `size` (height, width) px that the grid spans; by default a cell is a
        patch."""
        return self.draw(self.plan_from_grid(embedding_grid, size=size, seed=seed))

    def redraw(
        self,
        reference: arrays.ImageUint8,
        *,
        seed: int = 0,
        start: drawing_lib.InitImage | None = None,
    ) -> drawing_lib.LargeImage:
        """Draw an image of the size of `reference`, conditioned on its embeddings as the config
        says; from noise alone, or from what `start` keeps of an image.

        Raises ValueError for what is not uint8 RGB.
        """
        reference = arrays.require_rgb(reference, "reference")
        read = conditions.array_reader(reference)
        drawing = self.plan_from_reference(read, reference.shape[:2], seed=seed)
        return self.draw(drawing if start is None else self.started(drawing, start))

    def plan_from_grid(
        self,
        embedding_grid: arrays.EmbeddingGrid,
        *,
        size: tuple[int, int] | None = None,
        spans: tuple[float, float] | None = None,
        seed: int = 0,
    ) -> drawing_lib.ImagePlan:
        """What `generate` draws. The grid's cells cover `spans` px from the top left corner, which
        may lie beyond the image; by default its `size`.

        Raises ValueError for a grid of another dimension or with values that are not finite.
        """
        embedding_grid = self._require_embeddings(embedding_grid, "embedding_grid", "rows, columns")
        rows, cols, _ = embedding_grid.shape
        size = size or (rows * self.patch_px, cols * self.patch_px)
        spans = size if spans is None or self._wraps else spans
        plan, sample = self.plan(size, seed), self.config.sample
        border = sample.windows.border
        lattice = conditions.Lattice(
            embedding_grid, self._spanned(spans), plan.window, border, sample.interpolation
        )
        told = sample.conditioning
        if self.config.num_cells > 1 and told != "interpolated":
            return drawing_lib.ImagePlan(size, plan, conditions.CellsCondition(lattice), seed)
        return drawing_lib.ImagePlan(
            size, plan, conditions.InterpolatedCondition(lattice, self._alone), seed
        )

    def _require_embeddings(self, embedding: Any, name: str, axes: str) -> np.ndarray:
        found = np.asarray(embedding)
        if found.ndim != axes.count(",") + 2 or found.shape[-1] != self.embedding_dim:
            raise ValueError(
                f"{name} must be of shape ({axes}, {self.embedding_dim}), got {found.shape}"
            )
        if 0 in found.shape:
            raise ValueError(f"{name} must hold an embedding, got shape {found.shape}")
        bad = ~np.isfinite(found).all(axis=-1)
        if bad.any():
            at = tuple(int(i) for i in np.argwhere(bad)[0])
            raise ValueError(
                f"{name} must be finite, got {int(bad.sum())} embeddings that are not, first {at}"
            )
        return found

    def plan_from_reference(
        self, read: conditions.ReadFn, size: tuple[int, int], *, seed: int = 0
    ) -> drawing_lib.ImagePlan:
        """What `redraw` draws, of a reference that may be larger than memory."""
        if self.config.sample.conditioning != "dense":
            grid = self.embed_all(read, size)
            spans = tuple(n * self.patch_px for n in grid.shape[:2])
            return self.plan_from_grid(grid, size=size, spans=spans, seed=seed)
        plan, border = self.plan(size, seed), self.config.sample.windows.border
        embed = self.encoder.in_batches(self.chunk)
        condition = conditions.DenseCondition(
            read, size, embed, self.patch_px, self.config.downsample_factor, border,
            self._alone,
        )  # fmt: skip
        return drawing_lib.ImagePlan(size, plan, condition, seed)

    def embed_all(self, read: conditions.ReadFn, size: tuple[int, int]) -> arrays.EmbeddingGrid:
        """The grid of embeddings of a reference, row by row of cells; those that cross its right
        or lower border are mirrored there."""
        rows, cols = (-(-px // self.patch_px) for px in size)
        factor = self.config.downsample_factor
        dense = conditions.DenseCondition(read, size, self.encoder, self.patch_px, factor)
        corner = lambda row: np.stack([np.full(cols, row), np.arange(cols)], 1) * self.config.window
        return np.stack([dense(corner(row)) for row in range(rows)])

    def started(
        self, drawing: drawing_lib.ImagePlan, start: drawing_lib.InitImage
    ) -> drawing_lib.ImagePlan:
        """The drawing, begun from an image at the noise of the solver's first step.

        Raises ValueError for an image or a mask of another size.
        """
        image = arrays.require_rgb(start.image, "start.image", tuple(drawing.size))
        if start.keep_mask is not None and start.keep_mask.shape != tuple(drawing.size):
            raise ValueError(
                f"start.keep_mask must be {drawing.size} px like the drawing, got "
                f"{start.keep_mask.shape}"
            )
        canvas = drawing.plan.canvas
        latents = self._encoder_of_images(self.autoencoder.params, image, canvas)
        keep = None
        if start.keep_mask is not None:
            keep = encode.keep_of(start.keep_mask, canvas, self.config.downsample_factor)
            latents = latents * (keep[..., None] > 0) if start.blank else latents
        return dataclasses.replace(drawing, given=sampler.InitLatents(latents, keep))

    def draw(self, drawing: drawing_lib.ImagePlan) -> drawing_lib.LargeImage:
        """The image of a drawing, in memory."""
        began = time.monotonic()
        key = rng.stream(drawing.seed, "sample/canvas")
        params, _ = self.placed
        state = self.sampler.run(params, drawing.plan, drawing.condition, key, drawing.given)
        image = np.concatenate(list(self.strips(drawing, state)))
        seconds = time.monotonic() - began
        forwards = self.sampler.unet_forwards(drawing.plan)
        decodes = self.decoder_calls(drawing.plan)
        return drawing_lib.LargeImage(image, self.mpp, forwards, decodes, seconds)

    def strips(
        self, drawing: drawing_lib.ImagePlan, state: programs.State
    ) -> Iterator[arrays.ImageUint8]:
        """The image of a canvas from top to bottom, of exactly the size of the drawing."""
        (height, width), plan = drawing.size, drawing.plan
        beyond, done = self._beyond(plan), 0
        first = beyond * self.config.downsample_factor
        rows = lambda top, count: self.sampler.rows(plan, state, top - beyond, count, beyond)
        _, params = self.placed
        for strip in self.decoder.strips(params, rows, self._decoded(plan)):
            kept = strip[max(first - done, 0) : first + height - done, first : first + width]
            done += len(strip)
            if len(kept):
                yield kept

    def decoder_calls(self, plan: windows.WindowPlan) -> int:
        """Tiles that are decoded for a canvas."""
        return self.decoder.num_tiles(self._decoded(plan))

    def _decoded(self, plan: windows.WindowPlan) -> tuple[int, int]:
        """Height and width of what the decoder sees."""
        return tuple(size + 2 * self._beyond(plan) for size in plan.canvas)

    def _beyond(self, plan: windows.WindowPlan) -> int:
        """Latent pixels that the decoder sees beyond every side, so that it knows no border."""
        return min(self.config.sample.decode.overlap, plan.margin)

    @property
    def _wraps(self) -> bool:
        return self.config.sample.windows.border == "wrap"

    def _spanned(self, size: tuple[float, float]) -> tuple[float, float]:
        """Latent pixels of an area of `size` px."""
        return tuple(px / self.config.downsample_factor for px in size)

    def _alone(self, embedding: np.ndarray) -> np.ndarray:
        """The condition of windows that are one cell each."""
        return cells.single_cell(embedding) if self.config.num_cells > 1 else np.asarray(embedding)

    def variations(
        self, patch: arrays.ImageUint8, count: int = 4, *, seed: int = 0
    ) -> UInt8[np.ndarray, "N H W 3"]:
        """`count` patches of the embedding of one real patch, each drawn anew.

        Raises ValueError for what is not a patch of uint8 RGB.
        """
        patch = arrays.require_rgb(patch, "patch", (self.patch_px, self.patch_px))
        embedding = np.repeat(self.encoder(patch[None]), count, axis=0)
        return self.sample_patches(embedding, seed=seed)

    def sample_patches(
        self, embedding: arrays.Embedding, *, seed: int = 0
    ) -> UInt8[np.ndarray, "N H W 3"]:
        """One patch for each embedding, each drawn alone; devices share them. Patch i is the same
        however many are drawn.

        Raises ValueError for embeddings of another dimension or with values that are not finite.
        """
        embedding = self._require_embeddings(embedding, "embedding", "N")
        count, condition, devices = len(embedding), self._alone(embedding), self._devices.size
        size = -(-self.chunk // devices) * devices
        key, found = rng.stream(seed, "sample/patches"), []
        for start in range(0, count, size):
            batch = condition[start : start + size]
            batch = np.pad(batch, ((0, size - len(batch)), (0, 0)), mode="edge")
            found.append(np.asarray(self._patches(*self.placed, batch, key, start)))
        return np.concatenate(found)[:count]

    def plan(self, size: tuple[int, int], seed: int = 0) -> windows.WindowPlan:
        """The windows for an image of `size` px; what does not fill a window is drawn with it and
        cut off.

        Raises ValueError for a size below one pixel.
        """
        drawing_lib.require_size(size)
        sample, window = self.config.sample, self.config.window
        factor = self.config.downsample_factor
        canvas = tuple(max(-(-int(px) // factor), window) for px in size)
        if any(length * factor != px for length, px in zip(canvas, size, strict=True)):
            _LOG.info(
                "%d × %d px are drawn as %d × %d and cut off",
                *size, *(length * factor for length in canvas),
            )  # fmt: skip
        if self._wraps:
            canvas = tuple(-(-length // window) * window for length in canvas)
            drawn = tuple(length * self.config.downsample_factor for length in canvas)
            if drawn != tuple(size):
                raise ValueError(
                    f"an image that wraps must be whole cells of {self.patch_px} px, got {size}"
                )
        return windows.plan_windows(sample.windows, canvas, window, len(self.table.t), seed)

    @functools.cached_property
    def table(self) -> solvers.SolverTable:
        """The solver's coefficients."""
        return solvers.solver_table(self.config.sample.solver, self.config.denoiser.schedule)

    @functools.cached_property
    def sampler(self) -> sampler.GridSampler:
        """Draws canvases."""
        canvas = field.CanvasConfig(
            self.autoencoder.config.chosen.latent_channels,
            self.config.sample.canvas_dtype,
            self._mesh,
            self.config.sample.split,
        )
        return sampler.GridSampler(self._denoise, self._guided, self.table, self.chunk, canvas)

    @functools.cached_property
    def chunk(self) -> int:
        """Windows evaluated together."""
        if self.config.sample.window_batch:
            return self.config.sample.window_batch
        alive = memory_estimate.peak_live_bytes(
            jax.make_jaxpr(self._x0_hat)(*self._window_shapes(1)).jaxpr
        )
        return memory_estimate.max_windows(alive) * (self._mesh.size if self._mesh else 1)

    def window_program(self, count: int | None = None) -> drawing_lib.Program:
        """The network on one window, without guidance; or on `count` with it."""
        if count is None:
            return drawing_lib.Program(self._denoise, self._window_shapes(1))
        return drawing_lib.Program(self._x0_hat, self._window_shapes(count))

    def tile_program(self) -> drawing_lib.Program:
        """The decoder on one tile."""
        side, channels = self.config.sample.decode.tile, self.sampler.canvas.channels
        tile = jax.ShapeDtypeStruct((1, side, side, channels), np.float32)
        return drawing_lib.Program(self.autoencoder.decode, (self.autoencoder.params, tile))

    def _window_shapes(self, count: int) -> tuple[Any, ...]:
        side, channels = self.config.window, self.autoencoder.config.chosen.latent_channels
        condition = (count, self.denoiser.config.condition_dim)
        shapes = (
            ((count, side, side, channels), np.float32),
            ((count,), np.int32),
            (condition, np.float32),
        )
        return self.params, *(jax.ShapeDtypeStruct(*s) for s in shapes)

    def _x0_hat(self, params: Any, x_t, t, condition) -> jax.Array:
        return self._guided(functools.partial(self._denoise, params))(x_t, t, condition)

    def _guided(self, denoise: guidance.DenoiseFn) -> guidance.GuidedX0:
        sample, process = self.config.sample, self.config.denoiser.process
        return guidance.GuidedX0(denoise, process, sample.guidance, sample.solver.time_offset)

    def _denoise(self, params: Any, x_t, t, embedding) -> jax.Array:
        x_t = layers.like(params, x_t)
        return self.denoiser.apply({"params": params}, x_t, t, embedding).astype(np.float32)

    @functools.cached_property
    def _patches(self):
        channels = self.autoencoder.config.chosen.latent_channels

        def draw(params, decoder_params, embedding, key, first):
            shape = (len(embedding), self.config.window, self.config.window, channels)
            guided = self._guided(functools.partial(self._denoise, params))
            latents = solvers.sample(guided, self.table, shape, embedding, key, first)
            return layers.to_uint8(self.autoencoder.decode(decoder_params, latents))

        if self._mesh is None:
            return jax.jit(draw)
        split, whole = (NamedSharding(self._mesh, spec) for spec in (_SPLIT, PartitionSpec()))
        return jax.jit(draw, in_shardings=(whole, whole, split, whole, whole), out_shardings=split)

    @functools.cached_property
    def placed(self) -> tuple[Any, Any]:
        """Weights of the denoiser and of the decoder, on every device; brought there once."""
        sharding = None if self._mesh is None else NamedSharding(self._mesh, PartitionSpec())
        return data_parallel.Placed()((self.params, self.autoencoder.params), sharding)

    @functools.cached_property
    def decoder(self) -> decode.TiledDecoder:
        """Canvases to pixels."""
        return decode.TiledDecoder(
            self.autoencoder.decode,
            self.autoencoder.downsample_factor,
            self.config.sample.decode,
            self._mesh,
        )

    @functools.cached_property
    def _encoder_of_images(self) -> encode.TiledEncoder:
        trained = self.autoencoder
        overlap = self.config.sample.decode.overlap
        return encode.TiledEncoder(
            trained.encode, trained.downsample_factor, self.config.window, overlap
        )


def _named(values: Mapping[str, float] | None, what: str) -> Mapping[str, float]:
    is_named = isinstance(values or {}, Mapping)
    if not is_named or not all(isinstance(v, numbers_lib.Real) for v in (values or {}).values()):
        raise ValueError(f"{what} must be numbers by name, got {values!r}")
    return values or {}
