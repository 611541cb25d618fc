"""Tissue as a user marks it, by polygons or a mask image, instead of what is found."""

import dataclasses
import functools
import logging
import pathlib

import numpy as np
import rasterio
import rasterio.errors
from jaxtyping import Bool, Float
from rasterio import windows
from rasterio.enums import ColorInterp

from ssldiff_jax.slides import content, far_files, geojson, outlined, rasterised, remote, tissue
from ssldiff_jax.slides import slide as slides
from ssldiff_jax.slides.protocol import SlideError

_LOG = logging.getLogger(__name__)

CLASS, COLOUR = "Tissue", (150, 90, 160)
"""What tissue is called in the GeoJSON that is written of it."""

_STRIP = 2**24  # pixels of a mask read at once
_HALF = 0.5  # a pixel that is covered to this part is tissue in pictures


@dataclasses.dataclass(frozen=True)
class Marks:
    """What a user says of the tissue of one slide.

    Attributes:
        regions: a GeoJSON file, here or behind an address, or "".
        is_shared: whether it is of several slides, so that it may have nothing of this one.
        mask: an image, non-zero where there is tissue, as large as the slide at any scale; or "".
        use: classes that are tissue, "*" being all; () for what is found.
        leave_out: classes that are never used.
        class_property: the property with the class, "" for QuPath's.
    """

    regions: str = ""
    is_shared: bool = False
    mask: str = ""
    use: tuple[str, ...] = ()
    leave_out: tuple[str, ...] = ()
    class_property: str = ""

    @property
    def decides_tissue(self) -> bool:
        """Whether tissue follows it: polygons may be labels alone."""
        return bool(self.mask or self.use or self.leave_out)

    def fingerprint(self) -> list[object]:
        """What decides the tissue: what the files hold, whatever they are called."""
        files = [_digest(path) for path in (self.regions, self.mask)]
        # As lists, as JSON gives them back.
        return [*files, list(self.use), list(self.leave_out), self.class_property]

    def regions_of(self, slide: slides.Slide) -> geojson.Regions | None:
        """The polygons in px of level 0; None without a file. Raises SlideError."""
        if not self.regions:
            return None
        path = self.regions
        regions = geojson.read(path, class_property=self.class_property)
        frame = outlined.Frame.of(slide.path, slide.shape)
        placed = outlined.in_pixels(regions, frame)
        if not placed.features and not self.is_shared:
            raise SlideError(f"expected polygons on {frame} in {path}, got them elsewhere")
        return placed


def query_again() -> None:
    """Ask for what lies behind addresses again: a command begins."""
    _far_digest.cache_clear()


def _digest(path: str) -> str:
    """Of what a file holds; one that is not there costs its slide, when that is read."""
    if remote.is_remote(path):
        return _far_digest(path)
    try:
        return content.digest(pathlib.Path(path)) if path else ""
    except OSError:
        return "missing"


@functools.cache
def _far_digest(address: str) -> str:
    """As of a file here: one that is moved to a bucket is the same."""
    try:
        with far_files.nearby(address) as copy:
            return content.digest(copy)
    except (OSError, SlideError):
        return "missing"


def examine(
    slide: slides.Slide, config: tissue.TissueConfig, marks: Marks | None = None
) -> tissue.Examined:
    """The tissue of a slide: what is found, or what `marks` says instead.

    Polygons and masks are taken as they are, pen and folds included; where a slide has both, only
    what both say is tissue. Raises SlideError for marks that do not fit the slide, or have none of
    the classes that are tissue.
    """
    examined = tissue.examine(slide, config)
    if marks is None or not marks.decides_tissue:
        return examined
    if marks.use and not marks.regions:
        raise SlideError(
            f"expected GeoJSON with polygons of class {' or '.join(map(repr, marks.use))} named as "
            f"the slide is, got none for {slide.path.name}"
        )
    # Of thumbnail pixels, which is how they are numbered. The thumbnail has whole ones alone: here
    # the last ones may be parts, so that all of the slide is looked at.
    factor = slide.downsample(examined.mask.mpp)
    borders = rasterised.edges(slide.shape, factor)
    allowed = np.ones([len(b) - 1 for b in borders], np.float32)
    if marks.mask:
        with far_files.nearby(marks.mask) as path:
            allowed = _of_image(path, slide.shape, borders)
    regions = marks.regions_of(slide)
    if regions is not None:
        allowed = allowed * _of_regions(regions, marks, slide, factor)
    extent = tuple(size / factor for size in slide.shape)
    told = _with_allowed(examined, allowed, extent, is_all=bool(marks.mask or marks.use))
    counted = regions.counts_of((*marks.use, *marks.leave_out)) if regions else {}
    return dataclasses.replace(told, polygons=counted)


def _of_regions(
    regions: geojson.Regions,
    marks: Marks,
    slide: slides.Slide,
    factor: float,
) -> Float[np.ndarray, "H W"]:
    """The part of every pixel that may be used: of what is tissue, without what is left out."""
    used = regions.of_classes(marks.use)
    if marks.use and not used:
        classes = [f"{name!r} ({count})" for name, count in regions.counts.items()]
        raise SlideError(
            f"expected polygons of class {' or '.join(map(repr, marks.use))} on "
            f"{slide.path.name} in {regions.path}, got {', '.join(classes) or 'none there'}"
        )
    away = regions.of_classes(marks.leave_out)
    layers = [([f.geometry for f in used], 1), ([f.geometry for f in away], 0)]
    return rasterised.covered(layers, slide.shape, factor, ground_value=0 if marks.use else 1)


def _with_allowed(
    examined: tissue.Examined,
    allowed: Float[np.ndarray, "H W"],
    extent: tuple[float, float],
    *,
    is_all: bool,
) -> tissue.Examined:
    """With what is allowed as the tissue where that `is_all` of it, else as the most of it."""
    found, mpp = examined.mask.mask, examined.mask.mpp
    shares = allowed
    if not is_all:
        # In the part of a pixel at the border that the thumbnail lacks no tissue was found.
        lacking = [
            (0, whole - part) for whole, part in zip(allowed.shape, found.shape, strict=True)
        ]
        shares = allowed * np.pad(found, lacking)
    mask, kinds = shares >= _HALF, examined.kinds.copy()
    background, is_tissue = (tissue.KINDS.index(name) for name in ("background", "tissue"))
    kinds[kinds == is_tissue] = background
    kinds[mask[: len(kinds), : kinds.shape[1]]] = is_tissue
    return dataclasses.replace(
        examined,
        mask=tissue.TissueMask(mask, mpp, shares, extent),
        kinds=kinds,
        allowed=tissue.TissueMask(allowed >= _HALF, mpp, allowed, extent),
    )


def _of_image(
    path: pathlib.Path,
    slide_shape: tuple[int, int],
    borders: tuple[Float[np.ndarray, "_"], Float[np.ndarray, "_"]],
) -> Float[np.ndarray, "H W"]:
    """The part of every pixel between `borders`, px of level 0, that a mask image over the whole
    slide says is tissue.

    Raises SlideError for a file that is no image, or of another form than the slide's.
    """
    try:
        with rasterio.open(path) as file:
            _require_form(path, file.shape, slide_shape)
            # In px of the mask.
            rows, cols = (
                at * size / whole
                for at, size, whole in zip(borders, file.shape, slide_shape, strict=True)
            )
            out = np.empty((len(rows) - 1, len(cols) - 1), np.float32)
            per_row = file.width * file.height / len(out)
            step = max(1, int(_STRIP / per_row))
            for top in range(0, len(out), step):
                edges = rows[top : top + step + 1]
                first, last = int(edges[0]), int(np.ceil(edges[-1]))
                window = windows.Window(0, first, file.width, max(last, first + 1) - first)
                values = _is_set(file, window).astype(np.float64)
                means = _means(_means(values, edges - first).T, cols).T
                out[top : top + step] = means
            return out
    except rasterio.errors.RasterioError as error:
        raise SlideError.because(path, "a mask image", error) from error


def _require_form(path: pathlib.Path, shape: tuple[int, int], slide_shape: tuple[int, int]) -> None:
    (height, width), (whole_height, whole_width) = shape, slide_shape
    # A mask's last pixel may be cut or filled up.
    off = abs(height - width * whole_height / whole_width)
    if off > 1 + 0.01 * height:
        raise SlideError(
            f"expected a mask of the form of its slide ({whole_width} × {whole_height} px), got "
            f"{width} × {height} px in {path}: is it of another slide?"
        )


def _is_set(file: rasterio.DatasetReader, window: windows.Window) -> Bool[np.ndarray, "H W"]:
    """Where any band but alpha is not zero; of a palette, where the colour is not black."""
    bands = [
        number
        for number, kind in enumerate(file.colorinterp, 1)
        if kind != ColorInterp.alpha or file.count == 1
    ]
    values = file.read(bands, window=window)
    if file.colorinterp[0] == ColorInterp.palette:
        table = np.zeros(256, bool)
        for index, (red, green, blue, _) in file.colormap(1).items():
            table[index] = bool(red or green or blue)
        return table[values[0]]
    return (values != 0).any(axis=0)


def _means(
    values: Float[np.ndarray, "N M"], edges: Float[np.ndarray, "E"]
) -> Float[np.ndarray, "_ M"]:
    """Means of rows between edges, parts of rows included."""
    sums = np.pad(values.cumsum(axis=0), ((1, 0), (0, 0)))
    whole = np.minimum(np.floor(edges).astype(int), len(values) - 1)
    part = (edges - whole)[:, None]
    at = sums[whole] * (1 - part) + sums[whole + 1] * part
    return np.diff(at, axis=0) / np.maximum(np.diff(edges), 1e-9)[:, None]


def outline(slide: slides.Slide, mask: tissue.TissueMask) -> list[geojson.Feature]:
    """The tissue as polygons in px of level 0, along the borders of its pixels and of the slide,
    each piece a feature."""
    shapes = rasterised.outlines(mask.mask, slide.downsample(mask.mpp))
    if mask.extent is not None:
        shapes = rasterised.inside(shapes, slide.shape)
    return [
        geojson.Feature(number, shape, f"{CLASS} {number}", CLASS, COLOUR)
        for number, shape in enumerate(shapes, 1)
    ]
