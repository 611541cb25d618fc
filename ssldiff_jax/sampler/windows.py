"""The window plan: where the denoiser looks at every step. Static, NumPy, no image in sight."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float, Int

Numbers: TypeAlias = Int[np.ndarray, " N"]
Borders: TypeAlias = Int[np.ndarray, " L"]


@dataclasses.dataclass(frozen=True)
class LastSteps:
    """The last `steps` of mode `offset`: their windows overlap by `overlap` of a window or a little
    more, and are blended, so that no border of the windows stays in the image."""

    steps: int
    overlap: float


SIDE_BY_SIDE = LastSteps(0, 0.0)
"""No windows overlap."""


@dataclasses.dataclass(frozen=True)
class WindowConfig:
    """How a canvas is covered, in latent pixels.

    `offset`: windows side by side, the whole grid moved at every step by up to `max_offset`
    (SpotDiffusion, arXiv 2407.15507); those of the `last` steps overlap. `overlap`: every window at
    every step, `stride` apart. `paper`: overlapping by three quarters and unweighted, as published.

    `border` says what lies beyond the canvas where the grid moves: a margin of one window that is
    sampled with it, so that the canvas has no border, or the other side of the canvas (`wrap`).
    """

    mode: Literal["offset", "overlap", "paper"]
    stride: int
    max_offset: int
    weights: Literal["uniform", "tapered"]
    border: Literal["margin", "wrap"]
    last: LastSteps


@dataclasses.dataclass(frozen=True)
class StepWindows:
    """The windows of one step, on a lattice of N rows and M columns; counted row by row.

    Attributes:
        rows: where each row of windows begins, in the field.
        cols: where each column of windows begins.
        row_weights: weight of a window's rows among all windows that see them; the weight of a
            pixel is that of its row times that of its column, and sums to 1 over windows.
        col_weights: likewise of columns.
    """

    rows: Int[np.ndarray, "N"]
    cols: Int[np.ndarray, "M"]
    row_weights: Float[np.ndarray, "N w"]
    col_weights: Float[np.ndarray, "M w"]

    @property
    def count(self) -> int:
        """Windows."""
        return len(self.rows) * len(self.cols)

    def corners(self, numbers: Numbers | None = None) -> Int[np.ndarray, "N 2"]:
        """Top left corners in the field of the windows of these numbers; of all where none are
        named."""
        row, col = self._lines(numbers)
        return np.stack([self.rows[row], self.cols[col]], axis=1)

    def shares(self, numbers: Numbers | None = None) -> Float[np.ndarray, "N 2 w"]:
        """Row and column weights of windows, likewise."""
        row, col = self._lines(numbers)
        return np.stack([self.row_weights[row], self.col_weights[col]], axis=1)

    def _lines(self, numbers: Numbers | None) -> tuple[Numbers, Numbers]:
        """The row and the column of the lattice that windows stand in."""
        every = np.arange(self.count) if numbers is None else numbers
        return np.divmod(every, len(self.cols))


@dataclasses.dataclass(frozen=True)
class WindowPlan:
    """Windows of all steps over a field: the canvas at its top left, and what lies beyond.

    The field is a torus: what leaves it on the right or below comes back on the other side.

    Attributes:
        canvas: height and width that will be kept.
        field: height and width that are denoised, whole windows.
        window: side of a window.
        steps: where windows stand at each solver step.
        margin: pixels beyond every side of the canvas that continue the picture.
    """

    canvas: tuple[int, int]
    field: tuple[int, int]
    window: int
    steps: tuple[StepWindows, ...]
    margin: int = 0

    @property
    def num_steps(self) -> int:
        """Solver steps."""
        return len(self.steps)

    @property
    def num_windows(self) -> int:
        """Windows of all steps."""
        return sum(step.count for step in self.steps)

    @property
    def returns(self) -> bool:
        """Whether windows stand at some step where they stood before."""
        lattices = {(tuple(step.rows), tuple(step.cols)) for step in self.steps}
        return len(lattices) < self.num_steps

    def borders(self, step: int) -> tuple[Borders, ...]:
        """Rows and columns of the canvas, in latent pixels, at which a window of a step begins or
        ends; its own border is none of them."""
        of_step = self.steps[step]
        return tuple(
            _borders(starts, self.window, field, size)
            for starts, field, size in zip(
                (of_step.rows, of_step.cols), self.field, self.canvas, strict=True
            )
        )

    def places(self, corners: Int[np.ndarray, "N 2"]) -> Int[np.ndarray, "N 2"]:
        """Corners in canvas coordinates: what lies in the half of the margin that touches the
        canvas's top or left is negative."""
        beyond = (np.array(self.field) - self.canvas + self.window) // 2
        last = np.array(self.canvas) - self.window + beyond
        return np.where(corners > last, corners - self.field, corners)


def plan_windows(
    config: WindowConfig,
    canvas: tuple[int, int],
    window: int,
    num_steps: int,
    seed: int = 0,
    *,
    unit: int = 1,
) -> WindowPlan:
    """Plan `num_steps` steps over a canvas of any height and width. In mode `offset` windows begin
    at multiples of `unit`, which divides a window; a grid that moves does so by one at the least.

    Raises ValueError for a canvas that no whole window fits, or a stride, an offset or a border
    that does not fit the window.
    """
    if min(canvas) < window:
        raise ValueError(
            f"the canvas must hold a whole window, got canvas={canvas[0]}×{canvas[1]}, "
            f"window={window} (latent pixels)"
        )
    if window % unit:
        raise ValueError(f"unit must divide the window, got unit={unit}, window={window}")
    if config.mode == "offset":
        return _offset(config, canvas, window, num_steps, seed, unit)
    return _overlap(config, canvas, window, num_steps)


def _overlap(config, canvas, window, num_steps) -> WindowPlan:
    if config.border != "margin":
        raise ValueError(f"border={config.border} must come with mode=offset, got {config.mode}")
    stride = max(window // 4, 1) if config.mode == "paper" else config.stride
    if not 1 <= stride <= window:
        raise ValueError(f"stride must lie in [1, window], got stride={stride}, window={window}")
    weights = "uniform" if config.mode == "paper" else config.weights
    starts = [covering_starts(size, window, stride) for size in canvas]
    ramp = _tent(window) if weights == "tapered" else np.ones(window)
    step = _blended(starts, ramp, canvas)
    field = tuple(-(-size // window) * window for size in canvas)
    return WindowPlan(canvas, field, window, (step,) * num_steps)


def _offset(config, canvas, window, num_steps, seed, unit) -> WindowPlan:
    _require_offset(config, canvas, window)
    goes_round = config.border == "wrap" or config.max_offset > 0
    # A grid that never moves needs no margin; one that does reaches beyond the canvas.
    beyond = 1 if goes_round and config.border == "margin" else 0
    field = tuple((-(-size // window) + beyond) * window for size in canvas)
    at_rest = [_ring_starts(size, window) for size in field]
    # A window of one latent has nothing to share.
    stride = window - min(math.ceil(config.last.overlap * window), window // 2)
    in_units = max(stride // unit, 1)
    if goes_round:
        last = [unit * _ring_starts(size // unit, in_units) for size in field]
    else:
        last = [covering_starts(size, window, unit * in_units) for size in canvas]
    # Squared: what a window knows least of, its outermost pixels, hardly counts.
    ramp = _tent(window) ** 2
    farthest = max(config.max_offset // unit, min(config.max_offset, 1))
    moves = _halton(num_steps, seed) * (2 * farthest + 1) - farthest
    steps = []
    for step, move in enumerate(unit * np.floor(moves).astype(int)):
        starts = last if step >= num_steps - config.last.steps else at_rest
        moved = [np.sort((s + m) % n) for s, m, n in zip(starts, move, field, strict=True)]
        steps.append(_blended(moved, ramp, field))
    return WindowPlan(canvas, field, window, tuple(steps), window // 2 if goes_round else 0)


def _require_offset(config: WindowConfig, canvas: tuple[int, int], window: int) -> None:
    if not 0 <= config.max_offset <= window // 2:
        raise ValueError(
            f"max_offset must lie in [0, window / 2], got max_offset={config.max_offset}, "
            f"window={window}"
        )
    if config.last.steps < 0 or not 0 <= config.last.overlap <= 0.5:
        raise ValueError(
            "last.steps must be 0 or more and last.overlap lie in [0, 0.5], got "
            f"last.steps={config.last.steps}, last.overlap={config.last.overlap}"
        )
    if config.border == "wrap" and (canvas[0] % window or canvas[1] % window):
        raise ValueError(
            "a canvas that wraps must be whole windows, got "
            f"canvas={canvas[0]}×{canvas[1]}, window={window} (latent pixels)"
        )


def mirrored(at: np.ndarray, size: int) -> np.ndarray:
    """Places on a line, brought into [0, size) by mirrors at its first and last pixel."""
    period = max(2 * (size - 1), 1)
    return (size - 1) - np.abs(at % period - (size - 1))


def covering_starts(size: int, window: int, stride: int) -> np.ndarray:
    """Starts `stride` apart that cover [0, size); the last is moved back to end at `size`."""
    starts = np.arange(0, size - window + 1, stride)
    return starts if starts[-1] == size - window else np.append(starts, size - window)


def _borders(starts: Numbers, window: int, field: int, size: int) -> Borders:
    """Starts and ends of windows on a torus of length `field` that lie inside (0, size)."""
    lines = np.unique(np.concatenate([starts, starts + window]) % field)
    return lines[(lines > 0) & (lines < size)]


def _ring_starts(size: int, stride: int) -> np.ndarray:
    """Starts on a torus of length `size`, equally far apart to a pixel, by `stride` at the most."""
    count = -(-size // stride)
    return np.arange(count) * size // count


def _blended(
    starts: Sequence[np.ndarray], ramp: Float[np.ndarray, "w"], sizes: tuple[int, int]
) -> StepWindows:
    """Windows whose weights follow `ramp`, on a canvas or a torus of `sizes`."""
    starts = [s.astype(np.int32) for s in starts]
    shares = [_shares(s, ramp, size) for s, size in zip(starts, sizes, strict=True)]
    return StepWindows(*starts, *shares)


def _shares(starts: np.ndarray, ramp: np.ndarray, size: int) -> Float[np.ndarray, "N w"]:
    """Weights along one axis, over their sum at every pixel."""
    at = (starts[:, None] + np.arange(len(ramp))) % size
    total = np.zeros(size)
    np.add.at(total, at, np.broadcast_to(ramp, at.shape))
    return (ramp / total[at]).astype(np.float32)


def _tent(window: int) -> Float[np.ndarray, "w"]:
    """The distance of a window's pixels from its border, over the largest there is."""
    return 1 - np.abs((np.arange(window) + 0.5) / window * 2 - 1)


def _halton(count: int, seed: int) -> Float[np.ndarray, "S 2"]:
    """Halton points in [0, 1)² (bases 2 and 3), shifted as a whole by the seed."""
    shift = np.random.default_rng(seed).random(2)
    points = np.stack([[_radical_inverse(i + 1, base) for i in range(count)] for base in (2, 3)], 1)
    return (points + shift) % 1.0


def _radical_inverse(number: int, base: int) -> float:
    value, scale = 0.0, 1.0 / base
    while number:
        number, digit = divmod(number, base)
        value += digit * scale
        scale /= base
    return value
