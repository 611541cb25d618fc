"""A place on the ground for an image that no reference places: a coordinate system, and borders or
a corner in it."""

import dataclasses
import functools
import math
import re
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from ssldiff_jax.core import pixel_units
from ssldiff_jax.slides import ground

if TYPE_CHECKING:
    import rasterio

TOLERANCE = 0.01
"""Pixels of given borders may differ by this part from those that the models generate."""

_ROUNDS = 20  # a few are enough: each leaves a part of the error as small as the image is
_PRECISION = 1e-13
_COUNTS_WEST = re.compile(r'AXIS\["[^"]*",WEST\]', re.IGNORECASE)
_DEGREE = 1.1e5  # m, a first guess


@dataclasses.dataclass(frozen=True)
class _Grid:
    """What `ground` looks at of a raster: pixels that lie north up from a corner."""

    crs: "rasterio.crs.CRS"
    transform: "rasterio.Affine"
    width: int
    height: int

    @property
    def georeference(self) -> ground.Georeference:
        return ground.Georeference(self.crs.to_wkt(), tuple(self.transform)[:6])


@dataclasses.dataclass(frozen=True)
class Place:
    """Where an image shall lie, north up.

    Attributes:
        crs: `EPSG:32633`, WKT or a PROJ string.
        bounds: west, south, east, north in units of the coordinate system, x before y whatever the
            order of its axes; or (), where there is
        origin: west and north of the top left corner, from which pixels are as large as the models
            have them.
    """

    crs: str
    bounds: tuple[float, ...]
    origin: tuple[float, ...]

    def __post_init__(self):
        wanted = {"bounds": 4, "origin": 2}
        given = {key: getattr(self, key) for key in wanted if getattr(self, key)}
        if len(given) != 1 or not self.crs:
            raise ValueError(
                "crs must come with either bounds=(west, south, east, north) or origin=(west, "
                f"north), got crs={self.crs!r}, bounds={self.bounds} and origin={self.origin}"
            )
        ((key, numbers),) = given.items()
        if len(numbers) != wanted[key] or not all(map(math.isfinite, numbers)):
            raise ValueError(f"{key} must be {wanted[key]} numbers, got {numbers}")
        if self.bounds and not (self.west < self.bounds[2] and self.bounds[1] < self.north):
            raise ValueError(
                f"bounds must have west < east and south < north, got (west, south, east, north)="
                f"{self.bounds}"
            )
        coordinate_system(self.crs)

    @property
    def west(self) -> float:
        """Of the top left corner."""
        return self.bounds[0] if self.bounds else self.origin[0]

    @property
    def north(self) -> float:
        """Of the top left corner."""
        return self.bounds[3] if self.bounds else self.origin[1]

    def georeference(self, size: tuple[int, int], mpp: float) -> ground.Georeference:
        """That of an image of (height, width) px, whose models generate pixels of `mpp` µm.

        Raises ValueError where it lies beyond what its coordinate system is for, or where pixels of
        the bounds are not as large at the centre, within `TOLERANCE`: as `ground.pixel_size` has
        it, on the ground, or in the system's own unit where that is true there.
        """
        if not self.bounds:
            return self._from_corner(size, mpp).georeference
        height, width = size
        west, south, east, north = self.bounds
        grid = self._grid(size, ((east - west) / width, (north - south) / height))
        sides, wanted = self._sides(grid), mpp * 1e-6
        if np.abs(sides / wanted - 1).max() > TOLERANCE:
            across, down = (pixel_units.length(float(side) * 1e6) for side in sides)
            fitting = tuple(round(n * s / wanted) for n, s in zip(size, sides[::-1], strict=True))
            raise ValueError(
                f"bounds must give pixels of the models' {pixel_units.length(mpp)}, within "
                f"{TOLERANCE:.0%}, got {across} × {down} for {width} × {height} px; of these "
                f"bounds size={fitting} would fit"
            )
        return grid.georeference

    def _from_corner(self, size: tuple[int, int], mpp: float) -> _Grid:
        """Pixels that have the scale at the centre, which moves as they grow."""
        sides, wanted = np.ones(2), mpp * 1e-6
        crs = coordinate_system(self.crs)
        sides *= wanted / (crs.linear_units_factor[1] if crs.is_projected else _DEGREE)
        for _ in range(_ROUNDS):
            grid = self._grid(size, sides)
            ratio = wanted / self._sides(grid)
            if np.abs(ratio - 1).max() <= _PRECISION:
                break
            sides = sides * ratio
        return grid

    def _grid(self, size: tuple[int, int], sides: "Float[np.ndarray, '2'] | tuple") -> _Grid:
        # Not at the top: a machine that only computes need not have it.
        import rasterio

        across, down = map(float, sides)
        transform = rasterio.Affine(across, 0, self.west, 0, -down, self.north)
        return _Grid(coordinate_system(self.crs), transform, size[1], size[0])

    def _sides(self, grid: _Grid) -> Float[np.ndarray, "2"]:
        sides = ground.pixel_sides(grid)
        if not np.isfinite(sides).all():
            key, numbers = ("bounds", self.bounds) if self.bounds else ("origin", self.origin)
            raise ValueError(
                f"{key} must lie where {self.crs!r} has a place for every pixel, x (or longitude) "
                f"before y, got {numbers}"
            )
        return sides


@functools.lru_cache(16)
def coordinate_system(text: str) -> "rasterio.crs.CRS":
    """One in which images can lie: `EPSG:32633`, WKT or a PROJ string.

    Raises ValueError for what is none, has neither metres, feet … nor degrees on the ground, or is
    lost in a GeoTIFF.
    """
    import rasterio
    import rasterio.crs

    try:
        with rasterio.Env():
            crs = rasterio.crs.CRS.from_user_input(text)
    except (rasterio.errors.CRSError, ValueError) as error:
        detail = " ".join(str(error).split())
        raise ValueError(
            f"crs must be EPSG:<number>, WKT or a PROJ string, got {text!r}: {detail}"
        ) from None
    if not (crs.is_projected or crs.is_geographic):
        raise ValueError(f"crs must be projected or geographic, got {text!r}")
    if crs.is_projected and _COUNTS_WEST.search(crs.to_wkt()):
        # North would be down, and east left.
        raise ValueError(f"crs must count eastwards and northwards, got {text!r}")
    if not _is_kept(crs):
        raise ValueError(
            f"crs must be one that a GeoTIFF can hold, got {text!r}, which is lost in its file"
        )
    return crs


def _is_kept(crs: "rasterio.crs.CRS") -> bool:
    """Whether a GeoTIFF has a coordinate system of its own again; one of a moved pole, it has
    not."""
    import rasterio
    import rasterio.io

    pixel = {"width": 1, "height": 1, "count": 1, "dtype": "uint8"}
    north_up = rasterio.Affine(2, 0, 0, 0, -2, 0)
    # Without the file beside it that GDAL would put the rest into.
    with rasterio.Env(GDAL_PAM_ENABLED="NO"), rasterio.io.MemoryFile() as memory:
        with memory.open(driver="GTiff", crs=crs, transform=north_up, **pixel):
            pass
        with memory.open() as file:
            return file.crs is not None
