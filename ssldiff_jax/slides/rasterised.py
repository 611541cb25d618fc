"""Pixels that polygons cover, and polygons around pixels."""

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


def covered(
    layers: Sequence[tuple[Sequence["shapely.Geometry"], int]],
    shape: tuple[int, int],
    scale: float,
    *,
    ground_value: int = 0,
) -> Float[np.ndarray, "H W"]:
    """The part of every pixel that shapes cover, 0…1: of layers, (shapes, 1) add to what lies below
    them and (shapes, 0) take from it.

    `scale` is px of the shapes for one; each is looked at in 8 × 8 places. `ground_value` is what
    lies below all.
    """
    import rasterio.features
    import shapely

    out = np.full(shape, ground_value, np.float32)
    whole = [(s, value) for group, value in layers for s in group if not s.is_empty]
    if not whole:
        return out
    for rows, cols in _strips(whole, shape, scale):
        # GDAL looks at every corner for every row: only those of these rows, then.
        strip = shapely.box(*np.array([cols.start, rows.start, cols.stop, rows.stop]) * scale)
        shapes = [(areas(s.intersection(strip)), v) for s, v in whole if s.intersects(strip)]
        shapes = [(s, value) for s, value in shapes if not s.is_empty]
        if not shapes:
            continue
        size = (rows.stop - rows.start, cols.stop - cols.start)
        corner = (rows.start * scale, cols.start * scale)
        fine = rasterio.features.rasterize(
            shapes,
            out_shape=(size[0] * _FINER, size[1] * _FINER),
            transform=_grid(*corner, scale / _FINER),
            fill=ground_value,
            dtype=np.uint8,
        )
        parts = fine.reshape(size[0], _FINER, size[1], _FINER)
        out[rows, cols] = parts.mean(axis=(1, 3), dtype=np.float32)
    return out


def _strips(
    shapes: Sequence[tuple["shapely.Geometry", int]], shape: tuple[int, int], scale: float
) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of pixels that shapes may touch, a few rows at a time."""
    bounds = np.array([s.bounds for s, _ in shapes]) / scale
    left, top = np.floor(bounds[:, :2].min(axis=0)).astype(int)
    right, bottom = np.ceil(bounds[:, 2:].max(axis=0)).astype(int)
    height, width = shape
    left, right = max(left, 0), min(right, width)
    top, bottom = max(top, 0), min(bottom, height)
    if right <= left:
        return
    rows = max(1, _STRIP // ((right - left) * _FINER**2))
    for first in range(top, bottom, rows):
        yield slice(first, min(first + rows, bottom)), slice(left, right)


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
        shapes, out_shape=shape, transform=_grid(*place, scale), fill=below, dtype=np.uint8
    )


def _grid(top: float, left: float, scale: float) -> "rasterio.Affine":
    """From (column, row) of pixels to (x, y) of shapes."""
    import rasterio

    return rasterio.Affine(scale, 0, left, 0, scale, top)


def outlines(mask: Bool[np.ndarray, "H W"], scale: float) -> list["shapely.Polygon"]:
    """The polygons around the pixels of a mask, along their borders and with their holes, `scale`
    px for each; pixels that touch at a corner are apart. In reading order."""
    import rasterio.features
    import shapely

    found = rasterio.features.shapes(
        mask.astype(np.uint8), mask=mask, connectivity=4, transform=_grid(0, 0, scale)
    )
    return [shapely.Polygon(c[0], c[1:]) for c in (shape["coordinates"] for shape, _ in found)]


def areas(shape: "shapely.Geometry") -> "shapely.Polygon | shapely.MultiPolygon":
    """What of a shape has an area: a cut may leave lines and points beside it."""
    import shapely

    if shape.geom_type in ("Polygon", "MultiPolygon"):
        return shape
    parts = [g for g in getattr(shape, "geoms", ()) if g.area]
    return shapely.union_all(parts) if parts else shapely.Polygon()
