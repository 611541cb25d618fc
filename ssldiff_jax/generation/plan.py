"""What an image is before it is rendered: its windows, what conditions them, where it begins."""

import dataclasses
import functools
import logging
import numbers
from collections.abc import Sequence
from typing import Any, TypeAlias, no_type_check

import numpy as np
from jaxtyping import Float

from ssldiff_jax.core import arrays, patch_grid
from ssldiff_jax.encoders import encoder as encoder_lib
from ssldiff_jax.encoders import squares
from ssldiff_jax.formats import tensors
from ssldiff_jax.generation import finest as finest_lib
from ssldiff_jax.generation import held as held_lib
from ssldiff_jax.generation import window_networks
from ssldiff_jax.sampler import conditions, encode, hold, sampler, shrunk, windows

_LOG = logging.getLogger(__name__)

ConditionEncoder: TypeAlias = encoder_lib.Encoder | squares.SquaresEncoder
"""What makes conditions of patches."""


@dataclasses.dataclass(frozen=True)
class InitImage:
    """An image to begin from instead of noise alone.

    Attributes:
        image: as large as what is planned.
        keep_mask: where the image stays, from 0 to 1; None generates all of it again, from the
            image at the noise of the solver's first step (`sample.solver.t_start`).
        blank: whether what does not stay begins from noise alone.
    """

    image: arrays.Pixels
    keep_mask: Float[np.ndarray, "rows columns"] | None = None
    blank: bool = True


@dataclasses.dataclass(frozen=True)
class ImagePlan:
    """A large image before it is rendered.

    Attributes:
        size: height and width, px.
        windows: where they lie at every step.
        condition: of windows, by their corners.
        seed: of its noise.
        init: latents that it begins from; None for noise alone.
        held: the coarse image that it is held to, if any.
    """

    size: tuple[int, int]
    windows: windows.WindowPlan
    condition: conditions.ConditionFn
    seed: int
    init: sampler.InitLatents | None = None
    held: held_lib.Held | None = None

    @property
    def hold(self) -> hold.Hold | None:
        """What its canvas is held to."""
        return self.held and self.held.hold


@dataclasses.dataclass(frozen=True)
class Planner:
    """Plans images of a level, from 0, for the networks of a run. Without an encoder it plans from
    grids alone."""

    networks: window_networks.WindowNetworks
    encoder: encoder_lib.Encoder | None
    level: int = 0

    @no_type_check
    def from_grid(
        self,
        embedding_grid: arrays.EmbeddingGrid,
        *,
        size: tuple[int, int] | None = None,
        spans: tuple[float, float] | None = None,
        seed: int = 0,
    ) -> ImagePlan:
        """An image of `size` px whose conditions lie between the cells of a grid. The cells cover
        `spans` px from the top left corner, which may lie beyond the image; by default its `size`.

        A denoiser that is conditioned on the patches of the first level takes a grid of those at
        every level. Raises ValueError for a grid of another dimension or with values that are not
        finite.
        """
        networks, sample = self.networks, self.networks.config.sample
        if self.finest.takes(embedding_grid):
            area = self.finest.of_grid(embedding_grid, size, spans)
            embedding_grid, size, spans = area.grid, area.size, area.spans
        grid = networks.require_grid(embedding_grid, "embedding_grid", self.level)
        sizes = networks.denoiser.config.at(self.level)
        size = size or tuple(n * networks.cell_px for n in grid.shape[:2])
        window_plan = self.plan_windows(size, seed, of_grid=True)
        border = sample.windows.border
        # What wraps must end where it begins: the last cell ends at the border.
        spans = size if spans is None or border == "wrap" else spans
        lattice = conditions.Lattice(
            grid,
            # Latent px, in which windows have their places.
            tuple(px / networks.config.downsample_factor for px in spans),
            window_plan.window,
            border,
            sample.interpolation,
            sizes.tokens_per_side,
            "tokens" if networks.config.cells_are_tokens else "windows",
        )
        if networks.config.num_cells > 1 and sample.conditioning != "interpolated":
            finish = functools.partial(networks.denoiser.config.with_level, level=self.level)
            condition = conditions.CellsCondition(lattice, finish)
        else:
            condition = conditions.InterpolatedCondition(lattice, self._alone)
        return ImagePlan(size, window_plan, condition, seed)

    def from_reference(
        self, read: conditions.ReadFn, size: tuple[int, int], *, seed: int = 0
    ) -> ImagePlan:
        """The image of a reference, which may be larger than memory, conditioned on its embeddings
        as the config says."""
        networks, config = self.networks, self.networks.config
        if config.sample.conditioning != "dense":
            grid = self.embed_all(read, size)
            spans = tuple(n * networks.cell_px for n in grid.shape[:2])
            size, spans = self.finest.size_of(size), self.finest.spans_of(spans)
            return self.from_grid(grid, size=size, spans=spans, seed=seed)
        # As many as a chunk has windows: each chunk is one call.
        embed = self._in_network_dtype(self.condition_encoder).in_batches(networks.window_batch)
        window_plan = self.plan_windows(size, seed)
        condition = conditions.DenseCondition(
            read, size, embed, networks.patch_px, config.downsample_factor,
            config.sample.windows.border, self._alone,
            conditions.CACHE_BYTES if window_plan.returns else 0,
        )  # fmt: skip
        return ImagePlan(size, window_plan, condition, seed)

    @no_type_check
    def from_image(
        self, reference: arrays.Pixels, *, seed: int = 0, init: InitImage | None = None
    ) -> ImagePlan:
        """The image of a reference in memory; begun from noise alone, or from an image.

        Raises ValueError for what is not uint8 RGB.
        """
        reference = self.networks.kind.require(reference, "reference")
        read = conditions.array_reader(reference)
        image_plan = self.from_reference(read, reference.shape[:2], seed=seed)
        return image_plan if init is None else self.with_init_image(image_plan, init)

    def with_init_image(self, plan: ImagePlan, init: InitImage) -> ImagePlan:
        """The plan, begun from an image at the noise of the solver's first step.

        Raises ValueError for an image or a mask of another size.
        """
        image = self.networks.kind.require(init.image, "init.image", tuple(plan.size))
        if init.keep_mask is not None and init.keep_mask.shape != tuple(plan.size):
            raise ValueError(
                f"init.keep_mask must be {plan.size} px like the image, got {init.keep_mask.shape}"
            )
        canvas, keep = plan.windows.canvas, None
        latents = self.networks.encode_image(image, canvas)
        if init.keep_mask is not None:
            factor = self.networks.config.downsample_factor
            keep = encode.keep_of(init.keep_mask, canvas, factor)
            # Zero, the latents' mean: what does not stay must not shine through the noise.
            latents = latents * (keep[..., None] > 0) if init.blank else latents
        return dataclasses.replace(plan, init=sampler.InitLatents(latents, keep))

    def with_control(self, plan: ImagePlan, image: arrays.Pixels) -> ImagePlan:
        """The plan, led by a map of what should lie where, such as white nuclei on black.

        Raises ValueError for a map of another size, and for models without a ControlNet.
        """
        networks = self.networks
        if networks.denoiser.config.control is None:
            raise ValueError(
                "a map (control) must come with a ControlNet, config.denoiser.control.weights, got "
                "none"
            )
        image = self.networks.kind.require(image, "control", tuple(plan.size))
        latents = networks.encode_image(image, plan.windows.canvas)
        border = networks.config.sample.windows.border
        condition = conditions.MappedCondition(plan.condition, latents, plan.windows.window, border)
        return dataclasses.replace(plan, condition=condition)

    @no_type_check
    def held_to(self, plan: ImagePlan, coarse: arrays.Pixels, name: str = "held_to") -> ImagePlan:
        """The plan, held to an image that shows the same in fewer pixels; unchanged by one of as
        many.

        Raises ValueError, which calls it `name`, for what is not uint8 RGB, and for sizes that are
        no whole number of times smaller, or more than a window.
        """
        coarse = self.networks.kind.require(coarse, name)
        factor = shrunk.factor_between(plan.size, coarse.shape[:2], name)
        if factor == 1:
            return plan
        networks, px = self.networks, self.networks.config.downsample_factor
        held_lib.require_factor(factor, plan.windows.window, px, name)
        held = held_lib.Held.of(networks, plan.windows, coarse, factor)
        return dataclasses.replace(plan, held=held)

    def plan_windows(
        self, size: tuple[int, int], seed: int = 0, *, of_grid: bool = False
    ) -> windows.WindowPlan:
        """The windows for an image of `size` px; what does not fill a window is generated with it
        and cut off. Where conditions are the tokens `of_grid`, windows begin where these do: what
        lies between two tokens is like neither.

        Raises ValueError for a size below one pixel.
        """
        require_size(size)
        config = self.networks.config
        factor, window = config.downsample_factor, config.window
        # The network sees whole windows only, and a latent covers `factor` px.
        canvas = tuple(max(-(-int(px) // factor), window) for px in size)
        if any(length * factor != px for length, px in zip(canvas, size, strict=True)):
            _LOG.info(
                "%d × %d px are generated as %d × %d and cropped",
                *size, *(length * factor for length in canvas),
            )  # fmt: skip
        if config.sample.windows.border == "wrap":
            canvas = tuple(-(-length // window) * window for length in canvas)
            if tuple(length * factor for length in canvas) != tuple(size):
                raise ValueError(
                    "an image that wraps must be whole cells of "
                    f"{self.networks.patch_px} px, got {size}"
                )
        num_steps = len(self.networks.table.t)
        per_side = self.networks.denoiser.config.at(self.level).tokens_per_side
        # One token is as large as a window; cells have their own places, wherever a window stands.
        is_moved = of_grid and per_side > 1 and config.num_cells == 1 and not window % per_side
        unit = window // per_side if is_moved else 1
        return windows.plan_windows(
            config.sample.windows, canvas, window, num_steps, seed, unit=unit
        )

    @no_type_check
    def embed(self, image: arrays.Pixels) -> arrays.EmbeddingGrid:
        """The grid of embeddings, or packed tokens, of an image's whole cells.

        Raises ValueError for what is not uint8 RGB, or smaller than a cell.
        """
        image, px = self.networks.kind.require(image, "image"), self.networks.cell_px
        rows, cols = image.shape[0] // px, image.shape[1] // px
        if not rows or not cols:
            raise ValueError(f"the image must hold a cell of {px} px, got {image.shape[:2]}")
        return self.cell_encoder(patch_grid.cut_cells(image, px)).reshape(rows, cols, -1)

    def embed_all(self, read: conditions.ReadFn, size: tuple[int, int]) -> arrays.EmbeddingGrid:
        """The grid of embeddings of a reference, row by row of cells; those that cross its right
        or lower border are mirrored there."""
        cell_px, factor = self.networks.cell_px, self.networks.config.downsample_factor
        # Rounded up: half a cell at the border has an embedding too.
        rows, cols = (-(-px // cell_px) for px in size)
        embed = self._in_network_dtype(self.cell_encoder)
        dense = conditions.DenseCondition(read, size, embed, cell_px, factor)
        # (rows, columns, 2), latent px.
        corners = np.stack(np.indices((rows, cols)), axis=-1) * (cell_px // factor)
        return np.stack([dense(of_row) for of_row in corners])

    def _alone(self, embedding: np.ndarray) -> np.ndarray:
        """The condition of windows that are one cell each."""
        return self.networks.condition(embedding, self.level)

    @functools.cached_property
    def finest(self) -> finest_lib.Finest:
        """Where grids are of patches of the first level, what becomes of them at this one."""
        config = self.networks.config
        is_finest = bool(self.networks.denoiser.config.sides)
        ratio = round(config.data.levels[self.level]) if is_finest else 1
        sizes = self.networks.denoiser.config.at(self.level)
        return finest_lib.Finest(
            ratio, sizes.tokens_per_side, sizes.embedding_dim, self.networks.patch_px
        )

    def _in_network_dtype(self, encoder: ConditionEncoder) -> ConditionEncoder:
        """What embeds references window by window, in the dtype of the denoiser."""
        return encoder.computing_in(self.networks.config.sample.network_dtype)

    @functools.cached_property
    def condition_encoder(self) -> ConditionEncoder:
        """What embeds patches as the denoiser is conditioned on them: the encoder, or the same
        giving tokens. Raises WeightsError where there is none."""
        per_side = self.networks.denoiser.config.tokens_per_side
        if self.networks.config.cells_are_tokens:
            return squares.SquaresEncoder(self.require_encoder(), per_side)
        return self.require_encoder().with_tokens(per_side)

    @property
    def cell_encoder(self) -> ConditionEncoder:
        """What embeds the cells of a grid. Raises WeightsError where there is none."""
        if self.networks.config.cells_are_tokens:
            return self.require_encoder()
        return self.condition_encoder

    def require_encoder(self) -> encoder_lib.Encoder:
        """What embeds patches.

        Raises WeightsError where there is none: weights were loaded without an encoder's, or a
        run was trained on embeddings computed elsewhere.
        """
        if self.encoder is None:
            source = self.networks.config.embeddings.source
            got = f"embeddings computed elsewhere ({source})" if source else "none"
            raise tensors.WeightsError(
                f"to embed images, config.encoder.weights must name the encoder's file, got {got}"
            )
        return self.encoder


def require_size(size: Any) -> None:
    """Raises ValueError for what is no (height, width) in whole px, one or more."""
    # NumPy's integers count; a float that happens to be whole does not.
    is_pair = isinstance(size, Sequence | np.ndarray) and len(size) == 2
    if not is_pair or not all(isinstance(length, numbers.Integral) for length in size):
        raise ValueError(f"size must be (height, width) in whole px, got {size!r}")
    if min(size) < 1:
        raise ValueError(f"size must be at least 1 × 1 px, got {size[0]} × {size[1]}")
