"""The window plan: where the denoiser looks at every step. Static, NumPy, no image in sight."""

import dataclasses
from typing import Literal

import numpy as np
from jaxtyping import Float, Int


@dataclasses.dataclass(frozen=True)
class WindowConfig:
    """How a canvas is covered, in latent pixels.

    `overlap`: every window at every step, `stride` apart. `offset`: windows side by side, the
    whole grid moved at every step by up to `max_offset` (SpotDiffusion, arXiv 2407.15507), over
    a margin so that the canvas has no border.
    """

    mode: Literal["overlap", "offset"]
    stride: int
    max_offset: int
    weights: Literal["uniform", "tapered"]


@dataclasses.dataclass(frozen=True)
class WindowPlan:
    """Windows of S steps over a field: the canvas, with `margin` beyond each of its sides.

    Attributes:
        canvas: height and width that will be kept.
        field: height and width that are denoised.
        margin: rows and columns of the field above and left of the canvas.
        window: side of a window.
        positions: top left corners in the field.
        weights: of the pixels of a window; blending divides by their sum.
    """

    canvas: tuple[int, int]
    field: tuple[int, int]
    margin: int
    window: int
    positions: Int[np.ndarray, "S N 2"]
    weights: Float[np.ndarray, "w w"]

    @property
    def num_windows(self) -> int:
        """Windows at each step."""
        return self.positions.shape[1]

    def centres(self) -> Float[np.ndarray, "S N 2"]:
        """Window centres in canvas coordinates, latent pixels."""
        return self.positions - self.margin + self.window / 2


def plan_windows(
    config: WindowConfig, canvas: tuple[int, int], window: int, num_steps: int, seed: int = 0
) -> WindowPlan:
    """Plan `num_steps` steps over a canvas of any height and width.

    Raises ValueError for a canvas that no whole window fits, or a stride or offset that does
    not fit the window.
    """
    if min(canvas) < window:
        raise ValueError(
            f"the canvas must hold a whole window, got canvas={canvas[0]}×{canvas[1]}, "
            f"window={window} (latent pixels)"
        )
    if config.mode == "overlap":
        return _overlap(config, canvas, window, num_steps)
    return _offset(config, canvas, window, num_steps, seed)


def window_weights(config: WindowConfig, window: int) -> Float[np.ndarray, "w w"]:
    """Blend weights of one window: 1 everywhere, or a pyramid that is highest in the middle."""
    if config.weights == "uniform":
        return np.ones((window, window), np.float32)
    ramp = 1 - np.abs((np.arange(window) + 0.5) / window * 2 - 1)
    return np.outer(ramp, ramp).astype(np.float32)


def _overlap(config, canvas, window, num_steps) -> WindowPlan:
    if not 1 <= config.stride <= window:
        raise ValueError(
            f"stride must lie in [1, window], got stride={config.stride}, window={window}"
        )
    starts = [covering_starts(size, window, config.stride) for size in canvas]
    positions = _lattice(*starts)
    return WindowPlan(
        canvas=canvas,
        field=canvas,
        margin=0,
        window=window,
        positions=np.broadcast_to(positions, (num_steps, *positions.shape)),
        weights=window_weights(config, window),
    )


def _offset(config, canvas, window, num_steps, seed) -> WindowPlan:
    if not 0 <= config.max_offset <= window:
        raise ValueError(
            f"max_offset must lie in [0, window], got max_offset={config.max_offset}, "
            f"window={window}"
        )
    counts = [-(-size // window) for size in canvas]
    if config.max_offset == 0:
        # The grid never moves: no window of it reaches beyond the last row and column.
        base = _lattice(*(np.arange(n) * window for n in counts))
        positions = np.broadcast_to(base, (num_steps, *base.shape))
        field, margin = tuple(n * window for n in counts), 0
    else:
        moves = _halton(num_steps, seed) * (2 * config.max_offset + 1) - config.max_offset
        moves = np.floor(moves).astype(np.int32)
        # A grid moved by o ≥ 0 starts one window before the canvas, so counts + 1 always cover.
        first = np.where(moves >= 0, moves, moves + window)
        base = _lattice(*(np.arange(n + 1) * window for n in counts))
        positions = base[None] + first[:, None]
        field, margin = tuple((n + 2) * window for n in counts), window
    return WindowPlan(
        canvas=canvas,
        field=field,
        margin=margin,
        window=window,
        positions=positions.astype(np.int32),
        weights=window_weights(config, window),
    )


def covering_starts(size: int, window: int, stride: int) -> np.ndarray:
    """Starts `stride` apart that cover [0, size); the last is moved back to end at `size`."""
    starts = np.arange(0, size - window + 1, stride)
    return starts if starts[-1] == size - window else np.append(starts, size - window)


def _lattice(rows: np.ndarray, cols: np.ndarray) -> Int[np.ndarray, "N 2"]:
    return np.stack(np.meshgrid(rows, cols, indexing="ij"), -1).reshape(-1, 2).astype(np.int32)


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
