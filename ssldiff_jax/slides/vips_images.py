"""Pixels as images of vips, which reads them as they are needed."""

from typing import TYPE_CHECKING

import numpy as np

from ssldiff_jax.slides import multiband, written
from ssldiff_jax.slides.raw_image import RawImage

if TYPE_CHECKING:
    import pyvips


def shown(
    pixels: written.Pixels, bands: multiband.MultibandConfig = multiband.NO_BANDS
) -> "pyvips.Image":
    """RGB of 8 bits: the pixels themselves, or the bands that are shown."""
    image = _of(pixels, bands)
    if not bands.is_used:
        return image.copy(interpretation="srgb")
    red, green, blue = (image[place] for place in bands.shown_view.bands)
    colours = red.bandjoin([green, blue])
    if bands.bits == 16:
        # As `bands.View` rounds: 65535 = 257 × 255.
        colours = ((colours + 128) / 257).floor().cast("uchar")
    return colours.copy(interpretation="srgb")


def planes(pixels: written.Pixels, bands: multiband.MultibandConfig) -> "pyvips.Image":
    """The bands as pages, one below the other."""
    import pyvips

    image = _of(pixels, bands)
    every = [image[band] for band in range(bands.count)]
    joined = pyvips.Image.arrayjoin(every, across=1)
    grey = "grey16" if bands.bits == 16 else "b-w"
    paged = joined.copy(interpretation=grey)
    paged.set_type(pyvips.GValue.gint_type, "page-height", image.height)
    return paged


def described(source: "pyvips.Image", text: str) -> "pyvips.Image":
    """With the description that a TIFF of it gets."""
    # Not at the top: a machine that only computes need not have it.
    import pyvips

    with_text = source.copy()
    with_text.set_type(pyvips.GValue.gstr_type, "image-description", text)
    return with_text


def _of(pixels: written.Pixels, bands: multiband.MultibandConfig) -> "pyvips.Image":
    import pyvips

    written.require(pixels, bands)
    kind = "ushort" if bands.bits == 16 else "uchar"
    if isinstance(pixels, RawImage):
        return _joined_strips(pixels, kind)
    height, width, count = pixels.shape
    flat = np.ascontiguousarray(pixels).reshape(-1)
    return pyvips.Image.new_from_memory(flat.data, width, height, count, kind)


def _joined_strips(pixels: RawImage, kind: str) -> "pyvips.Image":
    """The image from strips of its file: as one file, vips would map all of it into memory."""
    import pyvips

    height, width = pixels.height, pixels.width
    strips = [
        pyvips.Image.rawload(
            str(pixels.path),
            width,
            min(written.STRIP, height - top),
            pixels.num_bands,
            offset=top * pixels.row_bytes,
            format=kind,
            revalidate=True,  # vips remembers files by their names: this one as it is now
        )
        for top in range(0, height, written.STRIP)
    ]
    joined = pyvips.Image.arrayjoin(strips, across=1)  # which makes the last as high as the rest
    return joined.crop(0, 0, width, height)
