"""Pixels that polygons cover, and polygons around pixels."""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, UInt8

# Shapely and GDAL are not imported at the top: a machine that only computes need not have them.
if TYPE_CHECKING:
    import rasterio
    import shapely

_FINER = 8  # parts of a pixel's side that are looked at
_STRIP = 2**24  # of these, at once


def edges(
    whole: tuple[int, int], scale: float
) -> tuple[Float[np.ndarray, "_"], Float[np.ndarray, "_"]]:
    """Borders of the rows and columns of pixels over a slide of `whole` (height, width), `scale` px
    of it each; the last ones are cut at its border."""
    # Rounding must not add a pixel where the scale divides the size.
    counts = (max(1, math.ceil(size / scale - 1e-6)) for size in whole)
    return tuple(
        np.append(np.arange(count) * scale, size) for count, size in zip(counts, whole, strict=True)
    )


def covered(
    layers: Sequence[tuple[Sequence["shapely.Geometry"], int]],
    whole: tuple[int, int],
    scale: float,
    *,
    ground_value: int = 0,
) -> Float[np.ndarray, "H W"]:
    """The part of every pixel over a slide of `whole` (height, width) that shapes cover, 0…1: of
    layers, (shapes, 1) add to what lies below them and (shapes, 0) take from it.

    Pixels are those between `edges`: of a last one that the border cuts it is the part of what lies
    inside. Each is looked at in 8 × 8 places. `ground_value` is what lies below all.
    """
    import rasterio.features
    import shapely

    ys, xs = edges(whole, scale)
    out = np.full((len(ys) - 1, len(xs) - 1), ground_value, np.float32)
    given = [(s, value) for group, value in layers for s in group if not s.is_empty]
    for rows, cols in _strips(given, ys, xs):
        # GDAL looks at every corner for every row: only those of these rows, then.
        strip = shapely.box(xs[cols.start], ys[rows.start], xs[cols.stop], ys[rows.stop])
        shapes = [(areas(s.intersection(strip)), v) for s, v in given if s.intersects(strip)]
        shapes = [(s, value) for s, value in shapes if not s.is_empty]
        if not shapes:
            continue
        size = (rows.stop - rows.start, cols.stop - cols.start)
        # Not differences of borders, but for the last one's: places must not hang on the strip.
        steps = (
            scale if run.start < len(at) - 2 else at[-1] - at[-2]
            for run, at in ((rows, ys), (cols, xs))
        )
        fine = rasterio.features.rasterize(
            shapes,
            out_shape=(size[0] * _FINER, size[1] * _FINER),
            transform=_grid(ys[rows.start], xs[cols.start], *(step / _FINER for step in steps)),
            fill=ground_value,
            dtype=np.uint8,
        )
        parts = fine.reshape(size[0], _FINER, size[1], _FINER)
        out[rows, cols] = parts.mean(axis=(1, 3), dtype=np.float32)
    return out


def _strips(
    shapes: Sequence[tuple["shapely.Geometry", int]],
    ys: Float[np.ndarray, "_"],
    xs: Float[np.ndarray, "_"],
) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of pixels that shapes may touch, a few rows at a time; the last row and the
    last column, whose pixels may be smaller, are by themselves."""
    if not shapes:
        return
    bounds = np.array([s.bounds for s, _ in shapes])
    left, top = bounds[:, :2].min(axis=0)
    right, bottom = bounds[:, 2:].max(axis=0)
    for cols in _runs(xs, left, right, len(xs)):
        most = max(1, _STRIP // ((cols.stop - cols.start) * _FINER**2))
        for rows in _runs(ys, top, bottom, most):
            yield rows, cols


def _runs(borders: Float[np.ndarray, "_"], first: float, last: float, most: int) -> Iterator[slice]:
    """Pixels between two places, at most some at a time; the last one of all is by itself."""
    alone = len(borders) - 2
    start = max(int(np.searchsorted(borders, first, "right")) - 1, 0)
    stop = min(int(np.searchsorted(borders, last, "left")), alone + 1)
    for begin in range(start, min(stop, alone), most):
        yield slice(begin, min(begin + most, stop, alone))
    if start <= alone < stop:
        yield slice(alone, alone + 1)


def window(
    shapes: Sequence[tuple["shapely.Geometry", int]],
    place: tuple[float, float],
    shape: tuple[int, int],
    scale: float,
) -> list[tuple["shapely.Geometry", int]]:
    """What of shapes lies in pixels as `burnt` has them, which is faster burnt than all of them."""
    import shapely

    (top, left), (height, width) = place, shape
    box = shapely.box(left, top, left + width * scale, top + height * scale)
    return [(areas(s.intersection(box)), number) for s, number in shapes if s.intersects(box)]


def burnt(
    shapes: Sequence[tuple["shapely.Geometry", int]],
    place: tuple[float, float],
    shape: tuple[int, int],
    scale: float,
    *,
    below: int = 0,
) -> UInt8[np.ndarray, "H W"]:
    """The number of the last shape that holds a pixel's centre; `place` is the (top, left) of the
    first pixel in px of the shapes, `scale` px of them for one."""
    import rasterio.features

    shapes = [(s, value) for s, value in shapes if not s.is_empty]
    if not shapes:
        return np.full(shape, below, np.uint8)
    return rasterio.features.rasterize(
        shapes, out_shape=shape, transform=_grid(*place, scale, scale), fill=below, dtype=np.uint8
    )


def _grid(top: float, left: float, height: float, width: float) -> "rasterio.Affine":
    """From (column, row) of pixels, of this size, to (x, y) of shapes."""
    import rasterio

    return rasterio.Affine(width, 0, left, 0, height, top)


def outlines(mask: Bool[np.ndarray, "H W"], scale: float) -> list["shapely.Polygon"]:
    """The polygons around the pixels of a mask, along their borders and with their holes, `scale`
    px for each; pixels that touch at a corner are apart. In reading order."""
    import rasterio.features
    import shapely

    found = rasterio.features.shapes(
        mask.astype(np.uint8), mask=mask, connectivity=4, transform=_grid(0, 0, scale, scale)
    )
    return [shapely.Polygon(c[0], c[1:]) for c in (shape["coordinates"] for shape, _ in found)]


def inside(
    shapes: Sequence["shapely.Polygon"], whole: tuple[int, int]
) -> list["shapely.Polygon | shapely.MultiPolygon"]:
    """What of shapes lies on a slide of this (height, width)."""
    import shapely

    box = shapely.box(0, 0, whole[1], whole[0])
    # Others stay as they are, corner by corner.
    return [s if box.covers(s) else areas(s.intersection(box)) for s in shapes]


def areas(shape: "shapely.Geometry") -> "shapely.Polygon | shapely.MultiPolygon":
    """What of a shape has an area: a cut may leave lines and points beside it."""
    import shapely

    if shape.geom_type in ("Polygon", "MultiPolygon"):
        return shape
    parts = [g for g in getattr(shape, "geoms", ()) if g.area]
    return shapely.union_all(parts) if parts else shapely.Polygon()
