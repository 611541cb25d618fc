"""Write large images for every viewer; each file appears whole or not at all."""

import dataclasses
import fractions
import math
import pathlib
import shutil
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from ssldiff_jax.core import arrays
from ssldiff_jax.slides import ground, objective, slide, whole_file
from ssldiff_jax.slides.ground import Georeference
from ssldiff_jax.slides.raw_image import RawImage

if TYPE_CHECKING:
    import pyvips

_TILE, _COG_TILE = 256, 512  # px
_FULL_COLOUR = 90  # JPEG of this quality and above keeps the resolution of colour, as vips does
_COARSEST_VIPS = 1e6  # µm per px
_STRIP = 1024  # rows that are copied at a time


Pixels: TypeAlias = arrays.ImageUint8 | RawImage


@dataclasses.dataclass(frozen=True)
class Scale:
    """Microns per pixel, JPEG quality, where the image lies, if anywhere, and the version of NGFF
    that OME-Zarr is written in."""

    mpp: float
    quality: int = 90
    georeference: Georeference | None = None
    ngff: Literal["0.4", "0.5"] = "0.5"

    def __post_init__(self):
        if not (np.isfinite(self.mpp) and self.mpp > 0):
            raise ValueError(f"expected mpp above 0, got mpp={self.mpp}")


def write_pyramid(path: pathlib.Path, pixels: Pixels, scale: Scale) -> None:
    """Write a tiled pyramidal BigTIFF (JPEG) that OpenSlide reads back with its mpp
    (`open_slide` believes 0.05…10 of a TIFF, other values must be passed to it again), the power
    of the objective where one has such pixels, and the tags of a GeoTIFF where the image lies
    somewhere.

    Raises ValueError for an array that is no RGB image and OSError, naming the path, where the
    file cannot be written; then nothing is left behind.
    """
    source, description = _vips(pixels), objective.description(scale.mpp)
    _write_tiff(path, _described(source, description) if description else source, scale)


def write_ome_tiff(path: pathlib.Path, pixels: Pixels, scale: Scale) -> None:
    """Write a pyramidal OME-TIFF: levels as sub-images, size, µm per pixel and objective in
    OME-XML."""
    source, size = _vips(pixels), _shape(pixels)
    xml = objective.ome_xml(path.name, size, scale.mpp)
    _write_tiff(path, _described(source, xml), scale, subifd=True)


def write_cog(path: pathlib.Path, pixels: Pixels, scale: Scale) -> None:
    """Write a Cloud-Optimised GeoTIFF (JPEG) with the coordinate system and transform of `scale`,
    or, without one, those of pixels of `mpp` from the top left corner and the resolution tags of
    `write_pyramid`."""
    import rasterio.shutil

    with whole_file.replacing(path) as temporary, whole_file.beside(temporary) as plain:
        _write_plain(plain, pixels, scale)
        # Not by GDAL's COG driver, which halves the resolution of colour at every quality.
        # A JPEG_QUALITY_OVERVIEW of the user's environment would go before jpeg_quality.
        with rasterio.Env(JPEG_QUALITY_OVERVIEW=scale.quality):
            rasterio.shutil.copy(
                plain, temporary, driver="GTiff", copy_src_overviews=True, tiled=True,
                blockxsize=_COG_TILE, blockysize=_COG_TILE, interleave="pixel", compress="JPEG",
                jpeg_quality=scale.quality, bigtiff="YES",
                photometric="RGB" if scale.quality >= _FULL_COLOUR else "YCBCR",
            )  # fmt: skip


def _write_plain(path: pathlib.Path, pixels: Pixels, scale: Scale) -> None:
    """The same, uncompressed, with its overviews."""
    import rasterio
    from rasterio import windows as raster_windows
    from rasterio.enums import Resampling

    # Said of every image without a place, which is what most are.
    warnings.filterwarnings("ignore", category=rasterio.errors.NotGeoreferencedWarning)

    source, (height, width) = _array_rows(pixels), _shape(pixels)
    where, metres = scale.georeference, scale.mpp * 1e-6
    transform = where.transform if where else (metres, 0, 0, 0, -metres, 0)
    profile = {
        "driver": "GTiff", "height": height, "width": width, "count": 3, "dtype": "uint8",
        "crs": where.crs if where else None, "transform": rasterio.Affine(*transform),
        "tiled": True, "blockxsize": _COG_TILE, "blockysize": _COG_TILE, "bigtiff": "yes",
        "interleave": "pixel", "photometric": "RGB",
    }  # fmt: skip
    # Until the coarsest fits one tile.
    halvings = max(math.ceil(math.log2(max(height, width) / _COG_TILE)), 0)
    with rasterio.open(path, "w", **profile) as file:
        for top in range(0, height, _STRIP):
            strip = source(top, _STRIP)
            window = raster_windows.Window(0, top, width, len(strip))
            file.write(np.moveaxis(strip, -1, 0), window=window)
        if not where:
            per_cm = 1e4 / scale.mpp
            file.update_tags(
                TIFFTAG_RESOLUTIONUNIT="3 (pixels/cm)",
                TIFFTAG_XRESOLUTION=f"{per_cm:.9g}",
                TIFFTAG_YRESOLUTION=f"{per_cm:.9g}",
            )
        if halvings:
            file.build_overviews([2**n for n in range(1, halvings + 1)], Resampling.average)


def write_deepzoom(path: pathlib.Path, pixels: Pixels, scale: Scale) -> None:
    """Write a DeepZoom pyramid: `path` (.dzi) and a folder of JPEG tiles beside it."""
    source, tiles = _vips(pixels), path.with_name(f"{path.stem}_files")
    with whole_file.replacing(path) as temporary:
        base = temporary.with_suffix("")
        written = (base.with_name(f"{base.name}.dzi"), base.with_name(f"{base.name}_files"))
        try:
            # DeepZoom's own numbers: 254 px and one of overlap on each side are tiles of 256.
            source.dzsave(str(base), tile_size=254, overlap=1, suffix=f".jpg[Q={scale.quality}]")
            # Notes of the library with the time in them: the same image is the same files.
            (written[1] / "vips-properties.xml").unlink(missing_ok=True)
            shutil.rmtree(tiles, ignore_errors=True)
            written[1].rename(tiles)
            written[0].rename(temporary)
        finally:
            shutil.rmtree(written[1], ignore_errors=True)
            written[0].unlink(missing_ok=True)


def write_ome_zarr(path: pathlib.Path, pixels: Pixels, scale: Scale) -> None:
    """Write OME-Zarr with all levels, without loss, row by row."""
    from ssldiff_jax.slides import zarr_writer

    zarr_writer.write(path, _array_rows(pixels), _shape(pixels), mpp=scale.mpp, version=scale.ngff)


def write_dicom(path: pathlib.Path, pixels: Pixels, scale: Scale) -> None:
    """Write a folder with a DICOM series: one instance (JPEG) for each level."""
    from ssldiff_jax.slides import dicom_writer

    rows, shape = _array_rows(pixels), _shape(pixels)
    dicom_writer.write(path, rows, shape, mpp=scale.mpp, quality=scale.quality)


def write_png(path: str | pathlib.Path, pixels: Pixels, scale: Scale | None = None) -> None:
    """Write a PNG, whose pixels `read_image` gives back exactly."""
    source = _vips(pixels)
    with whole_file.replacing(pathlib.Path(path)) as temporary:
        # zlib's fastest.
        source.pngsave(str(temporary), compression=1)


def read_image(path: str | pathlib.Path) -> arrays.ImageUint8:
    """The pixels of an image that was written here, of any size."""
    import pyvips

    image = pyvips.Image.new_from_file(str(path), access="sequential", revalidate=True)
    return image.extract_band(0, n=3).numpy()


WriteFn = Callable[[pathlib.Path, Pixels, Scale], None]
FORMATS: dict[str, WriteFn] = {
    "png": write_png,
    "tif": write_pyramid,
    "ome.tif": write_ome_tiff,
    "cog.tif": write_cog,
    "dzi": write_deepzoom,
    "ome.zarr": write_ome_zarr,
    "dcm": write_dicom,
}
"""By what a file's name ends with."""


def georeference(
    path: pathlib.Path, mpp: float, *, native_mpp: float | None = None
) -> Georeference | None:
    """Where a raster lies, for pixels of `mpp` from its top left corner, as `Slide.read_region`
    gives them; None for a file that does not say. `native_mpp` is that of the raster, where
    another format than that of the file."""
    import rasterio

    from ssldiff_jax.slides import raster

    if not path.is_file() or not (raster.is_geotiff(path) or raster.is_jpeg2000(path)):
        return None
    with rasterio.open(path) as file:
        native, where = native_mpp or ground.pixel_size(file).mpp, ground.georeference(file)
    if native is None or where is None:
        return None
    factor = slide.native_pixels(native, mpp)
    return where.scaled(factor, factor)


def _write_tiff(path: pathlib.Path, source: "pyvips.Image", scale: Scale, **more) -> None:
    # vips counts pixels per mm, whatever unit it stores, and none larger than a metre.
    per_mm = 1000 / min(scale.mpp, _COARSEST_VIPS)
    with whole_file.replacing(pathlib.Path(path)) as temporary:
        source.copy(xres=per_mm, yres=per_mm).tiffsave(
            str(temporary),
            tile=True,
            tile_width=_TILE,
            tile_height=_TILE,
            pyramid=True,
            bigtiff=True,
            compression="jpeg",
            Q=scale.quality,
            resunit="cm",
            **more,
        )
        if scale.mpp > _COARSEST_VIPS:
            _overwrite_resolution(temporary, scale.mpp)
        if scale.georeference and not more:  # OME-TIFF has no such tags
            ground.add_tags(temporary, scale.georeference)


def _overwrite_resolution(path: pathlib.Path, mpp: float) -> None:
    """Pixels per centimetre of the finest level, which vips writes in all of them."""
    import tifffile

    # A RATIONAL of TIFF is two numbers of 32 bits.
    per_cm = fractions.Fraction(1e4 / mpp).limit_denominator(2**31)
    with tifffile.TiffFile(path, mode="r+b") as file:
        for page in file.pages:
            for name in ("XResolution", "YResolution"):
                page.tags[name].overwrite((per_cm.numerator, per_cm.denominator))


def _described(source: "pyvips.Image", text: str) -> "pyvips.Image":
    # Not at the top: a machine that only computes need not have it.
    import pyvips

    described = source.copy()
    described.set_type(pyvips.GValue.gstr_type, "image-description", text)
    return described


def _shape(pixels: Pixels) -> tuple[int, int]:
    if isinstance(pixels, RawImage):
        return pixels.height, pixels.width
    return pixels.shape[:2]


def _array_rows(pixels: Pixels) -> Callable[[int, int], arrays.ImageUint8]:
    if isinstance(pixels, RawImage):
        return pixels.rows
    _check_image(pixels)
    return lambda top, count: pixels[top : top + count]


def _vips(pixels: Pixels) -> "pyvips.Image":
    import pyvips

    if isinstance(pixels, RawImage):
        return _joined_strips(pixels)
    _check_image(pixels)
    height, width, bands = pixels.shape
    flat = np.ascontiguousarray(pixels).reshape(-1)
    source = pyvips.Image.new_from_memory(flat.data, width, height, bands, "uchar")
    return source.copy(interpretation="srgb")


def _joined_strips(pixels: RawImage) -> "pyvips.Image":
    """The image from strips of its file: as one file, vips would map all of it into memory."""
    import pyvips

    height, width = pixels.height, pixels.width
    strips = [
        pyvips.Image.rawload(
            str(pixels.path),
            width,
            min(_STRIP, height - top),
            3,
            offset=top * width * 3,
            revalidate=True,  # vips remembers files by their names: this one as it is now
        )
        for top in range(0, height, _STRIP)
    ]
    joined = pyvips.Image.arrayjoin(strips, across=1)  # which makes the last as high as the rest
    return joined.crop(0, 0, width, height).copy(interpretation="srgb")


def _check_image(image_uint8: np.ndarray) -> None:
    shape, dtype = image_uint8.shape, image_uint8.dtype
    if dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or 0 in shape:
        raise ValueError(f"expected an image of shape (H, W, 3) and uint8, got {shape} and {dtype}")
