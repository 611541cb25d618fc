"""The window plan: where the denoiser looks at every step. Static, NumPy, no image in sight."""

import dataclasses
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float, Int

Numbers: TypeAlias = Int[np.ndarray, " N"]
Borders: TypeAlias = Int[np.ndarray, " L"]


@dataclasses.dataclass(frozen=True)
class WindowConfig:
    """How a canvas is covered, in latent pixels.

    `offset`: windows side by side, the whole grid moved at every step by up to `max_offset`
    (SpotDiffusion, arXiv 2407.15507). `overlap`: every window at every step, `stride` apart.
    `paper`: overlapping by three quarters and unweighted, as published.

    `border` says what lies beyond the canvas where the grid moves: a margin of one window that is
    sampled with it, so that the canvas has no border, or the other side of the canvas (`wrap`).
    """

    mode: Literal["offset", "overlap", "paper"]
    stride: int
    max_offset: int
    weights: Literal["uniform", "tapered"]
    border: Literal["margin", "wrap"]


@dataclasses.dataclass(frozen=True)
class WindowPlan:
    """Windows of S steps over a field: the canvas at its top left, and what lies beyond.

    The field is a torus: what leaves it on the right or below comes back on the other side. At
    every step windows stand on a lattice of N rows and M columns.

    Attributes:
        canvas: height and width that will be kept.
        field: height and width that are denoised, whole windows.
        window: side of a window.
        rows: where each row of windows begins, at every step.
        cols: where each column of windows begins.
        row_weights: weight of a window's rows among all windows that see them; the weight of a
            pixel is that of its row times that of its column, and sums to 1 over windows.
        col_weights: likewise of columns.
        margin: pixels beyond every side of the canvas that continue the picture.
    """

    canvas: tuple[int, int]
    field: tuple[int, int]
    window: int
    rows: Int[np.ndarray, "S N"]
    cols: Int[np.ndarray, "S M"]
    row_weights: Float[np.ndarray, "N w"]
    col_weights: Float[np.ndarray, "M w"]
    margin: int = 0

    @property
    def num_steps(self) -> int:
        """Solver steps."""
        return len(self.rows)

    @property
    def num_windows(self) -> int:
        """Windows at each step."""
        return self.rows.shape[1] * self.cols.shape[1]

    @property
    def returns(self) -> bool:
        """Whether windows stand at some step where they stood before."""
        lattices = np.concatenate([self.rows, self.cols], axis=1)
        return len(np.unique(lattices, axis=0)) < self.num_steps

    def corners(self, step: int, numbers: Numbers | None = None) -> Int[np.ndarray, "N 2"]:
        """Top left corners in the field, at a step, of the windows of these numbers; they are
        counted row by row; of all where none are named."""
        row, col = self._lines(numbers)
        return np.stack([self.rows[step, row], self.cols[step, col]], axis=1)

    def window_weights(self, numbers: Numbers | None = None) -> Float[np.ndarray, "N 2 w"]:
        """Row and column shares of windows, likewise."""
        row, col = self._lines(numbers)
        return np.stack([self.row_weights[row], self.col_weights[col]], axis=1)

    def borders(self, step: int) -> tuple[Borders, ...]:
        """Rows and columns of the canvas, in latent pixels, at which a window of a step begins or
        ends; its own border is none of them."""
        return tuple(
            _borders(starts[step], self.window, field, size)
            for starts, field, size in zip(
                (self.rows, self.cols), self.field, self.canvas, strict=True
            )
        )

    def _lines(self, numbers: Numbers | None) -> tuple[Numbers, Numbers]:
        """The row and the column of the lattice that windows stand in."""
        every = np.arange(self.num_windows) if numbers is None else numbers
        return np.divmod(every, self.cols.shape[1])

    def places(self, corners: Int[np.ndarray, "N 2"]) -> Int[np.ndarray, "N 2"]:
        """Corners in canvas coordinates: what lies in the half of the margin that touches the
        canvas's top or left is negative."""
        beyond = (np.array(self.field) - self.canvas + self.window) // 2
        last = np.array(self.canvas) - self.window + beyond
        return np.where(corners > last, corners - self.field, corners)


def plan_windows(
    config: WindowConfig, canvas: tuple[int, int], window: int, num_steps: int, seed: int = 0
) -> WindowPlan:
    """Plan `num_steps` steps over a canvas of any height and width.

    Raises ValueError for a canvas that no whole window fits, or a stride, an offset or a border
    that does not fit the window.
    """
    if min(canvas) < window:
        raise ValueError(
            f"the canvas must hold a whole window, got canvas={canvas[0]}×{canvas[1]}, "
            f"window={window} (latent pixels)"
        )
    plan = _offset if config.mode == "offset" else _overlap
    return plan(config, canvas, window, num_steps, seed)


def _overlap(config, canvas, window, num_steps, seed) -> WindowPlan:
    if config.border != "margin":
        raise ValueError(f"border={config.border} must come with mode=offset, got {config.mode}")
    stride = max(window // 4, 1) if config.mode == "paper" else config.stride
    if not 1 <= stride <= window:
        raise ValueError(f"stride must lie in [1, window], got stride={stride}, window={window}")
    weights = "uniform" if config.mode == "paper" else config.weights
    starts = [covering_starts(size, window, stride) for size in canvas]
    return WindowPlan(
        canvas,
        tuple(-(-size // window) * window for size in canvas),
        window,
        *(np.tile(s, (num_steps, 1)).astype(np.int32) for s in starts),
        *(_shares(s, window, weights) for s in starts),
    )


def _offset(config, canvas, window, num_steps, seed) -> WindowPlan:
    if not 0 <= config.max_offset <= window // 2:
        raise ValueError(
            f"max_offset must lie in [0, window / 2], got max_offset={config.max_offset}, "
            f"window={window}"
        )
    wraps = config.border == "wrap"
    if wraps and (canvas[0] % window or canvas[1] % window):
        raise ValueError(
            "a canvas that wraps must be whole windows, got "
            f"canvas={canvas[0]}×{canvas[1]}, window={window} (latent pixels)"
        )
    # A grid that never moves needs no margin; one that does reaches beyond the canvas.
    beyond = 0 if wraps or config.max_offset == 0 else 1
    counts = [-(-size // window) + beyond for size in canvas]
    moves = _halton(num_steps, seed) * (2 * config.max_offset + 1) - config.max_offset
    # Only what is left of whole windows counts: the torus has no first window.
    moves = np.floor(moves).astype(np.int32) % window
    return WindowPlan(
        canvas,
        tuple(n * window for n in counts),
        window,
        *(
            np.arange(n, dtype=np.int32) * window + moves[:, [axis]]
            for axis, n in enumerate(counts)
        ),
        *(np.ones((n, window), np.float32) for n in counts),
        window // 2 if wraps or beyond else 0,
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


def _shares(starts: np.ndarray, window: int, weights: str) -> Float[np.ndarray, "N w"]:
    """Weights along one axis, over their sum at every pixel."""
    ramp = np.ones(window)
    if weights == "tapered":
        ramp = 1 - np.abs((np.arange(window) + 0.5) / window * 2 - 1)
    at = starts[:, None] + np.arange(window)
    total = np.zeros(at.max() + 1)
    np.add.at(total, at, np.broadcast_to(ramp, at.shape))
    return (ramp / total[at]).astype(np.float32)


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
