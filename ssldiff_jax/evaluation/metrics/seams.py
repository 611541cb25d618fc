"""Rulers of seams, from pixels alone: what a line, a phase or a border has that its surroundings
have not.

Steps are compared with those across other lines beside them, so that a texture that changes over
the image does not count; and only across multiples of `factor` px, where latents end, since a
decoder may make steps there whatever the windows.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float, Int, Num, UInt8

from ssldiff_jax.sampler import windows

Image = Num[np.ndarray, "H W C"]
"""Pixels, or a canvas of latents, `factor` 1."""

_FLOOR = 1e-6  # squared grey levels: far below rounding to uint8; a flat image is seamless


@dataclasses.dataclass(frozen=True)
class Lines:
    """Lines over an image, px from its top (`rows`) and its left (`cols`): line k is between the
    pixels k − 1 and k."""

    rows: tuple[int, ...]
    cols: tuple[int, ...]

    @classmethod
    def every(cls, period: int, size: tuple[int, int]) -> "Lines":
        """All multiples of `period` inside an image of `size`."""
        return cls(*(tuple(range(period, length, period)) for length in size))

    @classmethod
    def of_step(
        cls, plan: windows.WindowPlan, step: int, *, factor: int, size: tuple[int, int]
    ) -> "Lines":
        """Where windows of a step begin and end, inside an image of `size` px; `factor` px a
        latent."""
        latents = plan.borders(step)
        return cls(
            *(
                tuple(int(line) * factor for line in borders if line * factor < length)
                for borders, length in zip(latents, size, strict=True)
            )
        )


def of_last_steps(plan: windows.WindowPlan, *, factor: int, size: tuple[int, int]) -> list[Lines]:
    """The lines of the last three steps (or of all, where there are fewer), the last first."""
    steps = range(plan.num_steps - 1, max(plan.num_steps - 4, -1), -1)
    return [Lines.of_step(plan, step, factor=factor, size=size) for step in steps]


def step_ratio(
    image: Image,
    lines: Lines,
    *,
    factor: int,
    reach: int,
    besides: Sequence[Lines] = (),
    power: Literal[1, 2] = 2,
) -> float | None:
    """Mean |step|^power across `lines` over that across the others within `reach` px of each.

    1 is seamless, up to chance. Lines of `besides` are not among the others. None where no line
    lies inside the image, or none has another beside it.
    """
    at = beside = 0.0
    for axis, positions in enumerate((lines.rows, lines.cols)):
        steps = _Steps.across(image, axis, factor, power)
        besides_of_axis = (line for each in besides for line in (each.rows, each.cols)[axis])
        sums = steps.sums(positions, besides_of_axis, reach)
        # Sums before the ratio: a line through a flat place does not count as much as one through
        # texture.
        at, beside = at + sums[0], beside + sums[1]
    return float(at / beside) if beside else None


@dataclasses.dataclass(frozen=True)
class Phase:
    """Lines `px`, `px` + period, … of an axis, and their `step_ratio`."""

    ratio: float
    axis: Literal["rows", "cols"]
    px: int


def phases(image: Image, *, period: int, factor: int) -> list[Phase]:
    """Every phase of either axis, in steps of `factor` px, whose lines have others beside them.

    Raises ValueError where `period` is not whole latents.
    """
    if period % factor:
        raise ValueError(f"period must be whole latents of {factor} px, got period={period}")
    every_phase = []
    for axis, name in enumerate(("rows", "cols")):
        steps = _Steps.across(image, axis, factor, 2)
        # A window ends where a latent does.
        for px in range(0, period, factor):
            # The image's border is no line.
            positions = range(px or period, image.shape[axis], period)
            at, beside = steps.sums(positions, (), period // 2)
            if beside:
                every_phase.append(Phase(float(at / beside), name, px))
    return every_phase


def worst_phase(image: Image, *, period: int, factor: int) -> Phase | None:
    """The highest of `phases`; None where the image has none.

    The highest of many is above 1 where there are no seams too: it means something beside that of
    real images of the same size only.
    """
    every_phase = phases(image, period=period, factor=factor)
    return max(every_phase, key=lambda phase: phase.ratio, default=None)


def ring_profile(patches: UInt8[np.ndarray, "N s s 3"]) -> Float[np.ndarray, "N R"]:
    """Mean grey level of every ring of pixels along a patch's border, the outermost first, minus
    that of its middle (the inner half of its height and width). Rings end where the middle
    begins."""
    grey = patches.astype(np.float64).mean(axis=-1)
    side, rings = grey.shape[1], grey.shape[1] // 4
    middle = grey[:, rings : side - rings, rings : side - rings].mean(axis=(1, 2))
    # Sums of squares that shrink by a pixel on every side; a ring is what one has beyond the next.
    sums = [grey[:, k : side - k, k : side - k].sum(axis=(1, 2)) for k in range(rings + 1)]
    pixels = [(side - 2 * k) ** 2 for k in range(rings + 1)]
    profile = [(sums[k] - sums[k + 1]) / (pixels[k] - pixels[k + 1]) for k in range(rings)]
    return np.stack(profile, axis=1) - middle[:, None]


@dataclasses.dataclass(frozen=True, eq=False)
class _Steps:
    """Across each line of an axis: where it lies, px, and its mean |step|^power."""

    line: Int[np.ndarray, "K"]
    size: Float[np.ndarray, "K"]

    @classmethod
    def across(cls, image: Image, axis: int, factor: int, power: Literal[1, 2]) -> "_Steps":
        image = np.moveaxis(image, axis, 0)
        # No line at 0: there is no pixel before it.
        line = np.arange(factor, len(image), factor)
        # float64 before the difference: uint8 would go below 0 to 255.
        step = np.abs(image[line].astype(np.float64) - image[line - 1])
        return cls(line, np.mean(step**power, axis=(1, 2)) + _FLOOR)

    def sums(self, positions: Iterable[int], besides: Iterable[int], reach: int):
        """(their sum across the lines at `positions`, that of the means across the others beside
        each)."""
        is_wanted = np.isin(self.line, list(positions))
        is_other = ~is_wanted & ~np.isin(self.line, list(besides))
        at = beside = 0.0
        for i in np.flatnonzero(is_wanted):
            near = is_other & (np.abs(self.line - self.line[i]) <= reach)
            if near.any():
                at, beside = at + self.size[i], beside + self.size[near].mean()
        return at, beside
