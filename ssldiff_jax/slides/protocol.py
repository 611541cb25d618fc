"""What every reader behind a slide offers, and the error all of them raise."""

import dataclasses
import pathlib
from typing import Protocol, runtime_checkable

from ssldiff_jax.core import arrays
from ssldiff_jax.slides import multiband as multiband_lib

NO_MPP = "expected microns per pixel, got none"
NO_METRES = "expected metres per pixel, got no coordinate system on the ground"

_PROBE = 16  # px, side of the regions that prove a slide readable


class SlideError(ValueError):
    """A file that cannot be used as a slide; the message is one line and names the file."""

    @classmethod
    def because(cls, path: pathlib.Path | str, expected: str, error: BaseException) -> "SlideError":
        """Word a library's error in one line."""
        detail = " ".join(str(error).split()) or type(error).__name__
        return cls(f"expected {expected}, got {path}: {detail}")


class NoScaleError(SlideError):
    """A slide of which no scale is known: what is the matter, and what says one, as words of a
    command line."""

    def __init__(self, problem: str, keys: str):
        super().__init__(problem, keys)
        self.problem, self.keys = problem, keys

    def __str__(self) -> str:
        return f"{self.problem}: pass {self.keys}"


@dataclasses.dataclass(frozen=True)
class PixelSize:
    """What a file says about its scale: microns per pixel, or in words why it has none.

    Attributes:
        mpp: above 0.
        absent: where the file says nothing, or nothing that can be: another scale may be assumed.
        wrong: where it says that no single number is right (pixels that are not square, records
            that contradict each other): only the user can say one.
        is_ground: of a raster that has its place in a coordinate system: users think in metres.
    """

    mpp: float | None = None
    absent: str = ""
    wrong: str = ""
    is_ground: bool = False

    @property
    def problem(self) -> str:
        """Why there is no mpp."""
        return self.wrong or self.absent


@runtime_checkable
class Backend(Protocol):
    """Pixels of every stored level; level 0 is the finest. Reads are always inside the level.

    Attributes:
        pixel_size: of level 0.
        level_shapes: height and width of every level.
        levels_cover_all: every level covers exactly what level 0 does, as GDAL makes overviews, so
            that 501 px stand for 1001; else a level has whole pixels of level 0, and its size is
            rounded.
        multiband: what its bands are; RGB of 8 bits where it names none.
    """

    pixel_size: PixelSize
    level_shapes: tuple[tuple[int, int], ...]
    levels_cover_all: bool
    multiband: multiband_lib.MultibandConfig

    def read(self, level: int, top: int, left: int, height: int, width: int) -> arrays.Pixels: ...

    def close(self) -> None: ...


def probe(backend: Backend) -> None:
    """Read a little everywhere: a truncated slide often opens and fails only later."""
    height, width = backend.level_shapes[0]
    h, w = min(_PROBE, height), min(_PROBE, width)
    bottom, right = height - h, width - w
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right)]
    for top, left in [*corners, (bottom // 2, right // 2)]:
        backend.read(0, top, left, h, w)
    height, width = backend.level_shapes[-1]
    backend.read(len(backend.level_shapes) - 1, 0, 0, min(_PROBE, height), min(_PROBE, width))
