"""Parts of a reference that a user names in a viewer: the region to generate, and what stays of it.

Both are in px of level 0, as viewers give them, and become px at the scale of the patches.
"""

import dataclasses
import pathlib

import numpy as np
from jaxtyping import Float

from ssldiff_jax.data import config as data_config
from ssldiff_jax.generation import user_images
from ssldiff_jax.runs.config import tools as tools_config
from ssldiff_jax.slides import geojson, outlined, rasterised, remote
from ssldiff_jax.slides import slide as slide_lib


def file_of(value: str) -> str:
    """The file in `file.geojson#name`; another path as it is, "" of numbers."""
    named = geojson.split_name(value)
    return named[0] if named else "" if _numbers(value) else value


def words_of(area: str) -> str:
    """A few words of an area, for the name of an image."""
    named = geojson.split_name(area)
    return f"{remote.name_of(named[0]).partition('.')[0]} {named[1]}" if named else area


def with_region(
    section: tools_config.GenerateSection, data: data_config.DataConfig
) -> tools_config.GenerateSection:
    """The same with `area` as `region`, px at the scale of the patches.

    Raises SlideError for a file without such a feature, or of another slide, ValueError for a
    rectangle beyond the reference.
    """
    if not section.area:
        return section
    slide = user_images.open_slide(data, section.reference, mpp=section.mpp)
    try:
        named = geojson.split_name(section.area)
        if named:
            left, top, right, bottom = _bounds(*named, slide)
        else:
            left, top, width, height = _numbers(section.area)
            right, bottom = left + width, top + height
        factor, size = slide.downsample(data.patch_mpp), slide.shape_at(data.patch_mpp)
        whole = slide.shape
    finally:
        slide.close()
    if right > whole[1] or bottom > whole[0]:
        raise ValueError(
            f"generate.area must lie inside of {section.reference} ({whole[1]} × {whole[0]} px at "
            f"level 0), got x {left:g}…{right:g}, y {top:g}…{bottom:g}"
        )
    (first_row, rows), (first_col, cols) = (
        _whole(first / factor, last / factor, length)
        for first, last, length in zip((top, left), (bottom, right), size, strict=True)
    )
    return dataclasses.replace(section, area="", region=(first_row, first_col, rows, cols))


def keep_mask(
    section: tools_config.GenerateSection, data: data_config.DataConfig
) -> Float[np.ndarray, "H W"]:
    """1 where polygons say that the reference, or its region, stays, else 0; px at the scale of the
    patches. Raises SlideError, ValueError for what is no image with a file."""
    if not section.reference or section.reference.lower().endswith(tools_config.GRIDS):
        raise ValueError(
            "generate.mask as GeoJSON must come with an image as generate.reference, got "
            f"{section.reference!r}"
        )
    slide = user_images.open_slide(data, section.reference, mpp=section.mpp)
    try:
        path, name = geojson.split_name(section.mask)
        shapes = [f.geometry for f in _features(path, name, slide)]
        factor, size = slide.downsample(data.patch_mpp), slide.shape_at(data.patch_mpp)
    finally:
        slide.close()
    top, left, *shape = section.region or (0, 0, *size)
    place = (top * factor, left * factor)
    kept = rasterised.burnt([(s, 1) for s in shapes], place, tuple(shape), factor)
    return kept.astype(np.float32)


def _features(path: str, name: str, slide: slide_lib.Slide) -> tuple[geojson.Feature, ...]:
    """Features of a name, or all, in px of level 0."""
    is_far = remote.is_remote(path)
    regions = geojson.read(path if is_far else pathlib.Path(path).expanduser())
    frame = outlined.Frame.of(slide.path, slide.shape)
    named = dataclasses.replace(regions, features=regions.named(name)) if name else regions
    placed = outlined.in_pixels(named, frame)
    if not placed.features:
        raise slide_lib.SlideError(f"expected polygons on {frame} in {path}, got them elsewhere")
    return placed.features


def _bounds(path: str, name: str, slide: slide_lib.Slide) -> tuple[float, ...]:
    features = _features(path, name, slide)
    if len(features) > 1:
        how = "give the one that is meant a name of its own" if name else f"name one, {path}#NAME"
        raise slide_lib.SlideError(
            f"expected one feature {f'called {name!r} ' if name else ''}in {path}, whose bounding "
            f"box is generated, got {len(features)}: {how}"
        )
    return features[0].geometry.bounds


def _numbers(area: str) -> tuple[float, ...]:
    try:
        return tools_config.rectangle(area)
    except ValueError:
        return ()


def _whole(first: float, last: float, length: int) -> tuple[int, int]:
    """First pixel and number of them, the nearest to an interval; the last one of a slide may be a
    part of one."""
    start = min(round(first), length - 1)
    return start, max(1, min(round(last), length) - start)
