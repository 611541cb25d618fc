"""Which squares of which slides become records, and which part is never trained on."""

import dataclasses
import hashlib
import pathlib
import re
from typing import Literal

from ssldiff_jax.slides import slide as slide_lib
from ssldiff_jax.slides import tissue


@dataclasses.dataclass(frozen=True)
class HoldoutConfig:
    """`case` holds out whole cases (stable when slides are added), `area` the lowest rows of
    every slide; `fraction` says how much. `case_regex` finds the case in a file name; names
    without one are their own case."""

    by: Literal["case", "area"]
    fraction: float
    case_regex: str

    def __post_init__(self):
        if not 0 < self.fraction < 1:
            raise ValueError(f"fraction must lie in (0, 1), got fraction={self.fraction}")


@dataclasses.dataclass(frozen=True)
class RecordConfig:
    """A record is a `record_px` square, every `stride_px`; with a record larger than a patch the
    loader crops patches at any pixel."""

    record_px: int
    stride_px: int
    min_tissue: float
    jpeg_quality: int


@dataclasses.dataclass(frozen=True)
class RegionConfig:
    """Held-out reference regions of rows × cols cells, the ones with most tissue."""

    count: int
    rows: int
    cols: int


@dataclasses.dataclass(frozen=True)
class Square:
    """A place in a slide, pixels at the patch mpp."""

    slide: int
    top: int
    left: int
    height: int
    width: int


def case_of(path: pathlib.Path, case_regex: str) -> str:
    """The case a slide belongs to: what the pattern finds in its name, else its stem."""
    found = re.search(case_regex, path.name)
    return found.group(0) if found else path.stem


def is_held_out(case: str, fraction: float) -> bool:
    """Whether a case is in the held-out part; depends on nothing but its name."""
    value = int(hashlib.sha256(case.encode()).hexdigest()[:12], 16)
    return value / 16**12 < fraction


def parts(slide: slide_lib.Slide, holdout: HoldoutConfig, mpp: float) -> dict[str, tuple[int, int]]:
    """Rows [top, bottom) of a slide that belong to "train" and "test", at `mpp`."""
    height, _ = slide.shape_at(mpp)
    if holdout.by == "area":
        line = round(height * (1 - holdout.fraction))
        return {"train": (0, line), "test": (line, height)}
    held_out = is_held_out(case_of(slide.path, holdout.case_regex), holdout.fraction)
    return {"test" if held_out else "train": (0, height)}


def squares(
    number: int,
    rows: tuple[int, int],
    width: int,
    mask: tissue.TissueMask,
    config: RecordConfig,
    mpp: float,
) -> list[Square]:
    """Records of one part of one slide, in reading order, with enough tissue.

    The last row and column are moved inwards, so that no strip at the border is lost.
    """
    side = config.record_px
    tops = _starts(rows[0], rows[1], side, config.stride_px)
    lefts = _starts(0, width, side, config.stride_px)
    places = [(top, left) for top in tops for left in lefts]
    return [
        Square(number, top, left, side, side)
        for top, left in places
        if mask.fraction(top, left, side, side, mpp=mpp) >= config.min_tissue
    ]


def _starts(low: int, high: int, side: int, stride: int) -> list[int]:
    if high - low < side:
        return []
    starts = list(range(low, high - side + 1, stride))
    return starts if starts[-1] == high - side else [*starts, high - side]


def regions(
    number: int,
    rows: tuple[int, int],
    width: int,
    mask: tissue.TissueMask,
    size: tuple[int, int],
    mpp: float,
) -> list[tuple[float, Square]]:
    """Candidates for reference regions with their tissue fraction, most tissue first."""
    height, span = size
    step = max(height // 16, 1)
    tops = _starts(rows[0], rows[1], height, step)
    lefts = _starts(0, width, span, step)
    found = [
        (mask.fraction(top, left, height, span, mpp=mpp), Square(number, top, left, height, span))
        for top in tops
        for left in lefts
    ]
    return sorted(found, key=lambda item: (-item[0], item[1].top, item[1].left))


def pick_apart(candidates: list[tuple[float, Square]], count: int) -> list[Square]:
    """The first `count` candidates that do not overlap."""
    chosen: list[Square] = []
    for _, square in candidates:
        if len(chosen) < count and not any(_overlap(square, other) for other in chosen):
            chosen.append(square)
    return chosen


def _overlap(a: Square, b: Square) -> bool:
    apart = (
        a.slide != b.slide
        or a.top + a.height <= b.top
        or b.top + b.height <= a.top
        or a.left + a.width <= b.left
        or b.left + b.width <= a.left
    )
    return not apart
