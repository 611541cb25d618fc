"""The networks of a generator as the config applies them: to windows, tiles and canvases."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float

from ssldiff_jax.autoencoder import autoencoder
from ssldiff_jax.core import arrays, bands, data_parallel, layers
from ssldiff_jax.diffusion import cells, conditioning, distillation, guidance, solvers
from ssldiff_jax.generation import shown_maps
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.sampler import decode, encode, field, memory_estimate, sampler


class NetworkCall(NamedTuple):
    """A function of the networks, and the shapes (or values) it is called with."""

    run: Callable[..., jax.Array]
    shapes: tuple[Any, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Weights:
    """Parameters of the denoiser, in the dtype it computes in, and of the decoder."""

    denoiser: Any
    decoder: Any
    mesh: Mesh

    @functools.cached_property
    def on_devices(self) -> tuple[Any, Any]:
        """Both on every device; brought there once, when they are first used."""
        # Committed to one device as to several, as restored weights are: so nothing is compiled
        # again for weights that come from a file.
        whole = NamedSharding(self.mesh, PartitionSpec()) if self.mesh.size > 1 else None
        # Put there, because arrays of the host are copied with every call.
        return data_parallel.Placed()((self.denoiser, self.decoder), whole)


@dataclasses.dataclass(frozen=True, eq=False)
class WindowNetworks:
    """Denoiser, guidance, solver and autoencoder of a run. What is compiled here takes the
    denoiser's parameters as an argument, so that other ones need no other programs.

    Attributes:
        params_like: shapes of the denoiser's parameters, in the dtype it computes in.
        mesh: the devices, all along data.
    """

    config: run_config.RunConfig
    autoencoder: autoencoder.TrainedAutoencoder
    denoiser: conditioning.Denoiser
    params_like: Any
    mesh: Mesh

    @classmethod
    def of(
        cls,
        config: run_config.RunConfig,
        stage: autoencoder.TrainedAutoencoder,
        denoiser: conditioning.Denoiser,
        params: Any,
        mesh: Mesh,
    ) -> "WindowNetworks":
        """The networks of trained models, on the devices of a mesh; the denoiser or its student."""
        params = layers.cast(params, config.sample.network_dtype)
        like = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), params)
        return cls(config, stage, denoiser, like, mesh)

    @property
    def patch_px(self) -> int:
        """Pixels on the side of a window."""
        return self.config.data.crops.patch_px

    @property
    def cell_px(self) -> int:
        """Pixels on the side of a cell of a grid."""
        return self.config.cell_px

    def cell_dim(self, level: int = 0) -> int:
        """Length of what describes a cell of a grid of a level, from 0: all tokens of a window, or
        one of them."""
        sizes = self.denoiser.config.at(level)
        return sizes.embedding_dim if self.config.cells_are_tokens else sizes.cell_dim

    @property
    def latent_channels(self) -> int:
        """Of a canvas."""
        return self.autoencoder.config.chosen.latent_channels

    @property
    def kind(self) -> bands.Kind:
        """Of images."""
        return self.config.data.reading.multiband.kind

    @property
    def shared_mesh(self) -> Mesh | None:
        """The devices where there are several, else None."""
        return self.mesh if self.mesh.size > 1 else None

    def weights(self, params: Any) -> Weights:
        """Parameters of the denoiser beside those of the decoder."""
        dtype = self.config.sample.network_dtype
        return Weights(layers.cast(params, dtype), self.decoder_params, self.mesh)

    def denoise(self, params: Any, x_t, t, condition) -> jax.Array:
        """The network's prediction, float32."""
        # To the weights' dtype: else bfloat16 weights meet float32 latents, and all is computed in
        # float32.
        x_t = layers.like(params, x_t)
        told = conditioning.Step(*self._step(t)) if self.denoiser.config.is_student else None
        condition, shown = self._maps.parted(condition)
        variables = {"params": params}
        prediction = self.denoiser.apply(variables, x_t, t, condition, told, shown)
        # The solver's differences are small ones of large numbers: float32 from here on.
        return prediction.astype(np.float32)

    @property
    def _maps(self) -> shown_maps.ShownMaps:
        sizes = self.denoiser.config
        channels = 0 if sizes.control is None else self.latent_channels
        return shown_maps.ShownMaps(sizes.condition_dim, self.config.window, channels, sizes.null)

    def _step(self, t: arrays.Timestep) -> tuple[jax.Array, jax.Array]:
        """Where a student's step from t ends, and how it is guided."""
        sample, until = self.config.sample, t
        if sample.student == "strides":
            num_timesteps = self.config.denoiser.schedule.num_timesteps
            until = jnp.asarray(distillation.until_of(self.table.t, num_timesteps))[t]
        return until, jnp.full(t.shape, sample.guidance.scale, jnp.float32)

    def guided(self, denoise: guidance.DenoiseFn) -> guidance.GuidedX0:
        """x_t → x0_hat, guided as the config says."""
        sample, process = self.config.sample, self.config.denoiser.process
        # A student's prediction is a guided one.
        own = sample.guidance if sample.student == "off" else guidance.UNGUIDED
        return guidance.GuidedX0(denoise, process, own, sample.solver.time_offset, self._maps.null)

    def x0_hat(self, params: Any, x_t, t, condition) -> jax.Array:
        """Clean latents that the guided network finds."""
        return self.guided(functools.partial(self.denoise, params))(x_t, t, condition)

    @functools.cached_property
    def table(self) -> solvers.SolverTable:
        """The solver's coefficients."""
        return solvers.solver_table(self.config.sample.solver, self.config.denoiser.schedule)

    @functools.cached_property
    def window_batch(self) -> int:
        """Windows evaluated together: as the config says, rounded up so that devices have as many
        each; or as many as memory holds."""
        if self.config.sample.window_batch:
            return -(-self.config.sample.window_batch // self.mesh.size) * self.mesh.size
        shapes = (self.params_like, *self._window_shapes(1))
        # Of one window, traced alone: nothing is compiled or run to know it.
        live = memory_estimate.peak_live_bytes(jax.make_jaxpr(self.x0_hat)(*shapes).jaxpr)
        return memory_estimate.max_windows(live) * self.mesh.size

    @functools.cached_property
    def sampler(self) -> sampler.GridSampler:
        """From noise to canvases."""
        sample = self.config.sample
        canvas = field.CanvasConfig(
            self.latent_channels, sample.canvas_dtype, self.shared_mesh, sample.split
        )
        return sampler.GridSampler(self.denoise, self.guided, self.table, self.window_batch, canvas)

    @functools.cached_property
    def decoder(self) -> decode.TiledDecoder:
        """Canvases to pixels."""
        factor, tiles = self.autoencoder.downsample_factor, self.config.sample.decode
        return decode.TiledDecoder(
            self.autoencoder.decode, factor, tiles, self.shared_mesh, self.kind
        )

    def decode_patches(self, params: Any, latents: arrays.Latents) -> arrays.BandImage:
        """Patches, each decoded alone.

        Latents that were encoded with what lies around them know no border, and a decoder that saw
        zeros there would darken the patch's: they are mirrored as far. Those that were encoded
        alone are decoded alone.
        """
        beyond, factor = self.config.context, self.autoencoder.downsample_factor
        around = ((0, 0), (beyond, beyond), (beyond, beyond), (0, 0))
        image = self.autoencoder.decode(params, jnp.pad(latents, around, "reflect"))
        px, side = beyond * factor, self.patch_px
        return image[:, px : px + side, px : px + side]

    def encode_image(self, image: arrays.Pixels, canvas: tuple[int, int]) -> arrays.Canvas:
        """The canvas of an image, tile by tile, mirrored beyond its border."""
        return self._encoder(self.autoencoder.params, image, canvas)

    @functools.cached_property
    def _encoder(self) -> encode.TiledEncoder:
        factor, overlap = self.autoencoder.downsample_factor, self.config.sample.decode.overlap
        return encode.TiledEncoder(self.autoencoder.encode, factor, self.config.window, overlap)

    def window_call(self, params: Any, count: int | None = None) -> NetworkCall:
        """The network on one window, without guidance; or on `count` with it."""
        if count is None:
            return NetworkCall(self.denoise, (params, *self._window_shapes(1)))
        return NetworkCall(self.x0_hat, (params, *self._window_shapes(count)))

    def blank_chunk(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """x_t and conditions of `count` windows, all zero: what a chunk is tried with."""
        x_t, _, condition = (np.zeros(s.shape, s.dtype) for s in self._window_shapes(count))
        return x_t, condition

    def tile_call(self) -> NetworkCall:
        """The decoder on one tile."""
        side = self.config.sample.decode.tile
        tile = jax.ShapeDtypeStruct((1, side, side, self.latent_channels), np.float32)
        return NetworkCall(self.autoencoder.decode, (self.decoder_params, tile))

    @functools.cached_property
    def decoder_params(self) -> Any:
        """Of the decoder, in the dtype that it computes in."""
        return layers.cast(self.autoencoder.params, self.config.sample.network_dtype)

    def _window_shapes(self, count: int) -> tuple[jax.ShapeDtypeStruct, ...]:
        side, dim = self.config.window, self._maps.dim
        return (
            jax.ShapeDtypeStruct((count, side, side, self.latent_channels), np.float32),
            jax.ShapeDtypeStruct((count,), np.int32),
            jax.ShapeDtypeStruct((count, dim), np.float32),
        )

    def single_cell(self, embedding: np.ndarray) -> np.ndarray:
        """The condition of windows that are one cell each."""
        return cells.single_cell(embedding) if self.config.num_cells > 1 else np.asarray(embedding)

    def condition(self, embedding: np.ndarray, level: int) -> np.ndarray:
        """The condition of windows that are one cell each, at a level, from 0."""
        return self.denoiser.config.with_level(self.single_cell(embedding), level)

    def require_grid(self, grid: Any, name: str, level: int = 0) -> np.ndarray:
        """`grid` as an array of shape (rows, columns, D), of a level, from 0.

        Raises ValueError, which calls it `name`, likewise.
        """
        return self._require(grid, name, "rows, columns", self.cell_dim(level))

    def require_embeddings(self, embedding: Any, name: str, level: int = 0) -> np.ndarray:
        """`embedding` as an array of shape (N, D), or of packed tokens, (N, k²·D), as many as a
        patch of a level has.

        Raises ValueError, which calls it `name`, for another shape, for none, and for values that
        are not finite.
        """
        return self._require(embedding, name, "N", self.denoiser.config.at(level).cell_dim)

    def _require(self, embedding: Any, name: str, axes: str, dim: int) -> np.ndarray:
        array, sizes = np.asarray(embedding), self.denoiser.config
        if array.ndim != axes.count(",") + 2 or array.shape[-1] != dim:
            k = round((dim // sizes.embedding_dim) ** 0.5)
            tokens = f" ({k} × {k} tokens of {sizes.embedding_dim})" if k > 1 else ""
            raise ValueError(f"{name} must be of shape ({axes}, {dim}){tokens}, got {array.shape}")
        return require_values(array, name)


def require_values(embedding: Float[np.ndarray, "*B D"], name: str) -> Float[np.ndarray, "*B D"]:
    """Raises ValueError where there is no embedding, or one that is not finite."""
    if 0 in embedding.shape:
        raise ValueError(f"{name} must hold an embedding, got shape {embedding.shape}")
    # One NaN would spread over all windows that overlap its cell.
    bad = ~np.isfinite(embedding).all(axis=-1)
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"{name} must be finite, got {int(bad.sum())} embeddings that are not, first {first}"
        )
    return embedding
