"""Write large images for every viewer; each file appears whole or not at all."""

import fractions
import pathlib
import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ssldiff_jax.core import arrays
from ssldiff_jax.slides import geotiff, ground, objective, slide, vips_images, whole_file, written
from ssldiff_jax.slides.ground import Georeference
from ssldiff_jax.slides.raw_image import RawImage
from ssldiff_jax.slides.written import Pixels, Scale

if TYPE_CHECKING:
    import pyvips

__all__ = [
    "FORMATS",
    "Pixels",
    "RawImage",
    "Scale",
    "georeference",
    "read_bands",
    "read_image",
    "write_bands",
    "write_cog",
    "write_deepzoom",
    "write_dicom",
    "write_ome_tiff",
    "write_ome_zarr",
    "write_png",
    "write_pyramid",
]

_TILE = 256  # px
_COARSEST_VIPS = 1e6  # µm per px

read_bands, write_bands, write_cog = geotiff.read_bands, geotiff.write_bands, geotiff.write_cog


def write_pyramid(path: pathlib.Path, pixels: Pixels, scale: Scale) -> None:
    """Write a tiled pyramidal BigTIFF (JPEG) that OpenSlide reads back with its mpp
    (`open_slide` believes 0.05…10 of a TIFF, other values must be passed to it again), the power
    of the objective where one has such pixels, and the tags of a GeoTIFF where the image lies
    somewhere. Other bands than red, green and blue are as `write_bands` has them.

    Raises ValueError for an array that is no such image and OSError, naming the path, where the
    file cannot be written; then nothing is left behind.
    """
    if scale.bands.is_used:
        write_bands(path, pixels, scale)
        return
    source, description = vips_images.shown(pixels), objective.description(scale.mpp)
    described = vips_images.described(source, description) if description else source
    _write_tiff(path, described, scale, **_jpeg(scale))


def write_ome_tiff(path: pathlib.Path, pixels: Pixels, scale: Scale) -> None:
    """Write a pyramidal OME-TIFF: levels as sub-images, size, µm per pixel and objective in
    OME-XML. Other bands than red, green and blue are pages, without loss (deflate), and channels
    with their names."""
    bands, size = scale.bands, written.size(pixels)
    xml = objective.ome_xml(path.name, size, scale.mpp, bands)
    if bands.is_used:
        source, options = vips_images.planes(pixels, bands), _DEFLATE
    else:
        source, options = vips_images.shown(pixels), _jpeg(scale)
    _write_tiff(path, vips_images.described(source, xml), scale, subifd=True, **options)


def write_deepzoom(path: pathlib.Path, pixels: Pixels, scale: Scale) -> None:
    """Write a DeepZoom pyramid: `path` (.dzi) and a folder of JPEG tiles beside it; of other bands
    than red, green and blue those that are shown."""
    source, tiles = vips_images.shown(pixels, scale.bands), path.with_name(f"{path.stem}_files")
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
    """Write OME-Zarr with all levels, without loss, row by row: red, green and blue, or all bands
    as channels with their names."""
    from ssldiff_jax.slides import zarr_writer

    rows, size = written.rows(pixels, scale.bands), written.size(pixels)
    zarr_writer.write(path, rows, size, mpp=scale.mpp, version=scale.ngff, bands=scale.bands)


def write_dicom(path: pathlib.Path, pixels: Pixels, scale: Scale) -> None:
    """Write a folder with a DICOM series: one instance (JPEG) for each level; of other bands than
    red, green and blue those that are shown."""
    from ssldiff_jax.slides import dicom_writer

    rows, shape = written.shown_rows(pixels, scale.bands), written.size(pixels)
    dicom_writer.write(path, rows, shape, mpp=scale.mpp, quality=scale.quality)


def write_png(path: str | pathlib.Path, pixels: Pixels, scale: Scale | None = None) -> None:
    """Write a PNG, whose pixels `read_image` gives back exactly; of other bands than red, green and
    blue those that are shown."""
    source = vips_images.shown(pixels, scale.bands) if scale else vips_images.shown(pixels)
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
OF_ALL_BANDS = ("tif", "ome.tif", "cog.tif", "ome.zarr")
"""Formats that hold other bands than red, green and blue; the others show three."""


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


_DEFLATE = {"compression": "deflate", "predictor": "horizontal"}


def _jpeg(scale: Scale) -> dict[str, Any]:
    return {"compression": "jpeg", "Q": scale.quality}


def _write_tiff(path: pathlib.Path, source: "pyvips.Image", scale: Scale, **options: Any) -> None:
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
            resunit="cm",
            **options,
        )
        if scale.mpp > _COARSEST_VIPS:
            _overwrite_resolution(temporary, scale.mpp)
        if scale.georeference and "subifd" not in options:  # OME-TIFF has no such tags
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
