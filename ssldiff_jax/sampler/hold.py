"""A canvas held to a coarse image: at the end of every step its clean estimate is given the coarse
image's colours, by the linear twins of the autoencoder, and no network is called.

    x0_hat ← x0_hat + encode ∗ spread(y − shrink(decode ∗ x0_hat + offset))

y being the coarse image, and spread a way back from its pixels to latents (`shrunk`). Were the
twins exact and inverses, this would be the conditional mean of a field whose finer detail knows
nothing of the colours (Wang et al. 2023, DDNM: range and null space); the windows of the next step
see what was changed, and fit the detail to it.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, UInt

from ssldiff_jax.core import arrays, layers
from ssldiff_jax.sampler import field, shrunk, twins, windows


@dataclasses.dataclass(frozen=True, eq=False)
class Hold:
    """What a canvas is held to.

    Attributes:
        twins: of the autoencoder.
        colours: of every square of the canvas: of `side` latents, or, packed, of the parts of one.
        side: latents along a square.
    """

    twins: twins.LinearTwins
    colours: UInt[np.ndarray, "h w Q"]
    side: int

    @classmethod
    def of(
        cls,
        coarse: arrays.Pixels,
        twins_: twins.LinearTwins,
        canvas: tuple[int, int],
        *,
        factor: int,
        px: int,
    ) -> "Hold":
        """To an image `factor` times smaller than that of a canvas with `px` pixels a latent, one
        of the two a multiple of the other; mirrored where the canvas is larger."""
        rows, cols = (
            shrunk.mirrored(np.arange(size * px // factor), given)
            for size, given in zip(canvas, coarse.shape[:2], strict=True)
        )
        colours = twins.packed(coarse[rows][:, cols], max(px // factor, 1))
        return cls(twins_, colours, max(factor // px, 1))

    def target(self, plan: windows.WindowPlan) -> UInt[np.ndarray, "H W Q"]:
        """Colours of every square of the field; beyond the canvas its mirror image."""
        rows, cols = (self._shown(plan, axis) for axis in (0, 1))
        return self.colours[rows][:, cols]

    def row(self, plan: windows.WindowPlan) -> dict[str, Any]:
        """What every step is given of it."""
        inside = []
        for canvas, whole in zip(plan.canvas, plan.field, strict=True):
            # Without a margin nothing is denoised beyond the canvas: nothing is wanted there.
            end = whole if plan.margin else canvas
            at = np.arange((whole + plan.window) // self.side)
            inside.append((at % (whole // self.side) < end // self.side).astype(np.float32))
        own = {name: getattr(self.twins, name) for name in ("decode", "offset", "encode")}
        return own | {"rows_inside": inside[0], "cols_inside": inside[1]}

    def _shown(self, plan: windows.WindowPlan, axis: int) -> Int[np.ndarray, "n"]:
        """Which square of the canvas each of the field shows: half of what lies beyond follows the
        canvas's end, half leads to its beginning."""
        size, whole = plan.canvas[axis] // self.side, plan.field[axis] // self.side
        at = np.arange(whole)
        return shrunk.mirrored(np.where(at >= (size + whole + 1) // 2, at - whole, at), size)


@dataclasses.dataclass(frozen=True)
class HeldField:
    """The device's part, of a field with a layout and squares of `side` latents."""

    layout: field.Layout
    side: int

    def lacks(self, x0_hat: field.Rows, target: field.Rows, row: dict) -> "Lacks":
        """What a field, whose ghosts and halos are up to date, lacks of its colours."""
        layout, coarse = self.layout, self._coarse
        before = layout.before(x0_hat, twins.REACH)

        def band(number, changed, given):
            around = layout.rows_around(x0_hat, before, number)[:, self._columns(twins.REACH, 1)]
            colours = twins.apply(around.astype(jnp.float32), row["decode"]) + row["offset"]
            lack = layers.to_image(given[0]) - shrunk.shrink(colours, self.side)
            at = (number * len(lack),)
            inside = jax.lax.dynamic_slice(row["rows_inside"], at, (len(lack),))
            return (lack * inside[:, None, None] * row["cols_inside"][:, None],)

        blank = jnp.zeros(target.shape, layout.config.dtype)
        (lack,) = layout.map_row_blocks(band, (blank,), (target,))
        if self.side > 1:
            return Lacks(coarse.gather(lack), None)
        lack = coarse.exchange_halo(lack)
        return Lacks(lack, coarse.before(lack, twins.REACH))

    def change(self, lacks: "Lacks", row: dict, number: jax.Array) -> Float[jax.Array, "w W C"]:
        """What takes a row of blocks to its colours."""
        if lacks.before is not None:
            around = self.layout.rows_around(lacks.whole, lacks.before, number)
            around = around[:, self._columns(twins.REACH, 1)]
        else:
            around = self._spread(lacks.whole, number)
        return twins.apply(around.astype(jnp.float32), row["encode"])

    def _spread(self, whole: field.Rows, number: jax.Array) -> Float[jax.Array, "h w Q"]:
        """Of a row of blocks and REACH of the twins around it."""
        count, beyond = self._coarse.window, math.ceil(twins.REACH / self.side)
        reach = shrunk.REACH + beyond
        rows = (number * count + jnp.arange(-reach, count + reach)) % (self.layout.rows * count)
        around = jnp.take(whole, rows, axis=0)[:, self._columns(reach, self.side)]
        wide = shrunk.spread(around.astype(jnp.float32), self.side)
        cut = beyond * self.side - twins.REACH
        return wide[cut : len(wide) - cut, cut : wide.shape[1] - cut]

    def _columns(self, reach: int, side: int) -> Int[np.ndarray, "n"]:
        """Of the storage and `reach` on either side of it, where they are in the field."""
        layout = self.layout.coarser(side)
        stored = (layout.cols + 1) * layout.window
        return np.arange(-reach, stored + reach) % (layout.cols * layout.window)

    @property
    def _coarse(self) -> field.Layout:
        return self.layout.coarser(self.side)


@dataclasses.dataclass(frozen=True)
class Lacks:
    """What squares lack of their colours: of all devices, or a device's own with the rows before
    them."""

    whole: field.Rows
    before: field.Rows | None
