"""Where the windows of the sampler begin and end, as lines over an image."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ssldiff_jax.autoencoder import autoencoder
from ssldiff_jax.core import config as config_lib
from ssldiff_jax.sampler import windows


@dataclasses.dataclass(frozen=True)
class Lines:
    """Pixels of horizontal (`rows`) and vertical (`cols`) lines, and what they are."""

    rows: tuple[int, ...]
    cols: tuple[int, ...]
    title: str


def window_lines(config: Mapping[str, Any], size: tuple[int, int]) -> Lines | None:
    """Borders of windows inside an image of `size` (height, width); None where the config of the
    run does not tell them.

    A grid that moves at every step has no fixed borders: they are shown where it rests.
    """
    try:
        told = config_lib.build(windows.WindowConfig, config["sample"]["windows"])
        model = config_lib.build(autoencoder.AutoencoderConfig, config["autoencoder"]["model"])
    except (KeyError, config_lib.ConfigError):
        return None
    factor = model.chosen.downsample_factor
    window = config["data"]["crops"]["patch_px"] // factor
    if told.mode == "offset":
        side, moved = window * factor, told.max_offset * factor
        title = f"borders of windows at rest; every step moves them by up to {moved} px"
        return Lines(*(tuple(range(side, px, side)) for px in size), title)
    stride = max(window // 4, 1) if told.mode == "paper" else told.stride
    rows, cols = (_borders(px, factor, window, stride) for px in size)
    return Lines(rows, cols, f"borders of windows, {stride * factor} px apart")


def _borders(px: int, factor: int, window: int, stride: int) -> tuple[int, ...]:
    starts = windows.covering_starts(max(px // factor, window), window, stride)
    found = {int(at) * factor for start in starts for at in (start, start + window)}
    return tuple(sorted(at for at in found if 0 < at < px))
