"""Which squares of which slides become records, and which part is never trained on."""

import dataclasses
import hashlib
import itertools
import math
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Int

from ssldiff_jax.core import arrays
from ssldiff_jax.slides import remote, tissue
from ssldiff_jax.slides import slide as slide_lib

Side: TypeAlias = Literal["train", "validation", "test"]
"""What a slide is for; nothing is trained on `validation`, and no figure is of it but those of
checkpoints while they are trained."""


@dataclasses.dataclass(frozen=True)
class HoldoutConfig:
    """`case` holds out whole cases (stable when slides are added, and of two or more never none),
    `area` the lowest rows of every slide, `columns` its rightmost columns; `fraction` says how
    much. `case_regex` finds the case in a file name; names without one are their own case."""

    by: Literal["case", "area", "columns"]
    fraction: float
    case_regex: str

    def __post_init__(self):
        if not 0 < self.fraction < 1:
            raise ValueError(f"fraction must lie in (0, 1), got fraction={self.fraction}")
        try:
            re.compile(self.case_regex)
        except re.error as error:
            raise ValueError(
                f"case_regex must be a regular expression, got {self.case_regex!r}: {error}"
            ) from error


@dataclasses.dataclass(frozen=True)
class Part:
    """The rows and columns of a slide that belong to a split, each from the first to before the
    last, px at some resolution."""

    rows: tuple[int, int]
    cols: tuple[int, int]

    def scaled(self, scale: float) -> "Part":
        """At `scale` times the µm per pixel; inwards, so that no split has a part of another's."""

        def inwards(first: int, last: int) -> tuple[int, int]:
            return math.ceil(first / scale), int(last / scale)

        return Part(inwards(*self.rows), inwards(*self.cols))


@dataclasses.dataclass(frozen=True)
class RecordConfig:
    """A record is a `record_px` square, every `stride_px`; with a record larger than a patch the
    loader crops patches at any pixel.

    `scales` are further magnifications, as multiples of the patch mpp: 2 of 20× is 10×. Their
    records are splits of their own, `train_x2` and `test_x2`.
    """

    record_px: int
    stride_px: int
    min_tissue: float
    jpeg_quality: int
    scales: tuple[float, ...]

    def __post_init__(self):
        if self.record_px < 1 or self.stride_px < 1:
            raise ValueError(
                f"record_px and stride_px must be 1 or more, got record_px={self.record_px}, "
                f"stride_px={self.stride_px}"
            )
        if not 1 <= self.jpeg_quality <= 100:
            raise ValueError(
                f"jpeg_quality must lie in 1…100, got jpeg_quality={self.jpeg_quality}"
            )
        if any(scale <= 0 or scale == 1 for scale in self.scales):
            raise ValueError(f"scales must be above 0 and not 1, got scales={self.scales}")


@dataclasses.dataclass(frozen=True)
class RegionConfig:
    """Held-out reference regions of rows × cols cells: those with most tissue, or the first whose
    cells all have embeddings."""

    count: int
    rows: int
    cols: int

    def __post_init__(self):
        if min(self.count, self.rows, self.cols) < 1:
            raise ValueError(
                f"regions must have count, rows and cols ≥ 1, got count={self.count}, "
                f"rows={self.rows}, cols={self.cols}"
            )


# Slots save memory: a list has one for each of its patches.
@dataclasses.dataclass(frozen=True, slots=True)
class Square:
    """A place in a slide, pixels at the patch mpp; in a list of patches `slide` is the patch.

    `row` is its place among the embeddings of its slide that were computed elsewhere, −1: none.
    """

    slide: int
    top: int
    left: int
    height: int
    width: int
    row: int = -1


@dataclasses.dataclass(frozen=True)
class Reference:
    """Held-out cells to generate from, row by row: a region of a slide, or patches side by side."""

    cells: tuple[Square, ...]
    cols: int
    kind: Literal["region", "page"]

    @property
    def rows(self) -> int:
        """Rows of cells."""
        return len(self.cells) // self.cols

    def at(self, scale: float) -> "Reference | None":
        """The same ground at `scale` times the µm per pixel, in as many cells as fit; None where
        2 × 2 do not, between which crops are compared, and of a page, which lies nowhere."""
        rows, cols = int(self.rows / scale), int(self.cols / scale)
        if self.kind == "page" or min(rows, cols) < 2:
            return None
        first = self.cells[0]
        px = first.height
        # Downwards: so the last cell ends where the region does, or before.
        top, left = int(first.top / scale), int(first.left / scale)
        return Reference.region(Square(first.slide, top, left, rows * px, cols * px), px)

    @classmethod
    def region(cls, whole: Square, cell_px: int, known: Iterable[Square] = ()) -> "Reference":
        """The cells of a region: those of `known` that lie there, else squares of the lattice."""
        by_corner = {(s.slide, s.top, s.left): s for s in known}
        lattice = [
            Square(whole.slide, whole.top + top, whole.left + left, cell_px, cell_px)
            for top in range(0, whole.height, cell_px)
            for left in range(0, whole.width, cell_px)
        ]
        cells = tuple(near(by_corner, (s.slide, s.top, s.left)) or s for s in lattice)
        return cls(cells, whole.width // cell_px, "region")


@dataclasses.dataclass(frozen=True)
class Source:
    """What becomes records.

    Attributes:
        read: the pixels of a square.
        splits: the squares of `train` and `test`.
        references: held-out cells that images are generated from.
        names: of slides by their number, or of the list.
        skipped: what could not be used, and why.
    """

    read: Callable[[Square], arrays.Pixels]
    splits: dict[str, list[Square]]
    references: list[Reference]
    names: dict[int, str]
    skipped: list[dict[str, str]]


def match_of(name: str, case_regex: str) -> str:
    """What the pattern finds in a file name, "" for nothing."""
    match = re.search(case_regex, name)
    return match.group(0) if match else ""


def stem_of(name: str) -> str:
    """A name without folder and suffix."""
    return pathlib.PurePath(name).stem


def case_of(name: str, case_regex: str) -> str:
    """The case that a slide or patch of that file name belongs to: what the pattern finds in it,
    else the name without folder and suffix."""
    return match_of(name, case_regex) or stem_of(name)


def hash_of(case: str) -> float:
    """A number in [0, 1) that depends on nothing but the name."""
    # 48 bits: exact in a float, which has 53.
    return int(hashlib.sha256(case.encode()).hexdigest()[:12], 16) / 16**12


def is_held_out(case: str, fraction: float) -> bool:
    """Whether a case is in the held-out part by its name alone, whatever other cases there are."""
    return hash_of(case) < fraction


def split_at(split: str, scale: float) -> str:
    """The split of records at another magnification: `train` at 2 is `train_x2`."""
    # A split, as TFDS finds it in names of files, has letters, digits, _ and - alone.
    return split if scale == 1 else f"{split}_x{scale:g}".replace(".", "p")


def count_held_out(count: int, fraction: float) -> int:
    """How many of `count` in a row are held out; the last ones are."""
    return count - round(count * (1 - fraction))


def parts(
    slide: slide_lib.Slide, holdout: HoldoutConfig, mpp: float, side: Side | None = None
) -> dict[str, Part]:
    """The parts of a slide that belong to "train" and "test", at `mpp`; `side` is that of its case
    where it isn't the one that its name alone gives."""
    height, width = slide.shape_at(mpp)
    rows, cols = (0, height), (0, width)
    if holdout.by == "area":
        line = height - count_held_out(height, holdout.fraction)
        return {"train": Part((0, line), cols), "test": Part((line, height), cols)}
    if holdout.by == "columns":
        line = width - count_held_out(width, holdout.fraction)
        return {"train": Part(rows, (0, line)), "test": Part(rows, (line, width))}
    case = case_of(remote.name_of(str(slide.path)), holdout.case_regex)
    held_out = is_held_out(case, holdout.fraction)
    return {side or ("test" if held_out else "train"): Part(rows, cols)}


def squares(
    number: int, part: Part, mask: tissue.TissueMask, config: RecordConfig, mpp: float
) -> list[Square]:
    """Records of one part of one slide, in reading order, with enough tissue.

    The last row and column are moved inwards, so that no strip at the border is lost.
    """
    side = config.record_px
    tops, lefts = lattice(part, (side, side), config.stride_px)
    enough = mask.fractions(tops, lefts, (side, side), mpp) >= config.min_tissue
    return [
        Square(number, int(top), int(left), side, side)
        for top, left in zip(tops[enough], lefts[enough], strict=True)
    ]


def lattice(
    part: Part, size: tuple[int, int], step: int
) -> tuple[Int[np.ndarray, "N"], Int[np.ndarray, "N"]]:
    """Tops and lefts of all places of a size, in reading order."""
    tops = _starts(*part.rows, size[0], step)
    lefts = _starts(*part.cols, size[1], step)
    return np.repeat(tops, len(lefts)).astype(int), np.tile(lefts, len(tops)).astype(int)


def _starts(low: int, high: int, side: int, stride: int) -> list[int]:
    if high - low < side:
        return []
    starts = list(range(low, high - side + 1, stride))
    return starts if starts[-1] == high - side else [*starts, high - side]


def grown(square: Square, context_px: int) -> Square:
    """A square with `context_px` more on each side."""
    return dataclasses.replace(
        square,
        top=square.top - context_px,
        left=square.left - context_px,
        height=square.height + 2 * context_px,
        width=square.width + 2 * context_px,
    )


# Places rounded from another resolution are off a lattice by this much, px.
_SLACK_PX = 2
_NEAR = sorted(itertools.product(range(-_SLACK_PX, _SLACK_PX + 1), repeat=2), key=np.linalg.norm)


def near(
    by_corner: Mapping[tuple[int, int, int], Square], corner: tuple[int, int, int]
) -> Square | None:
    """The square at a place, or the nearest within the slack; None where there is none."""
    slide, top, left = corner
    neighbours = (by_corner.get((slide, top + y, left + x)) for y, x in _NEAR)
    return next((square for square in neighbours if square), None)
