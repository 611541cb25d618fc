"""A large image in memory, and what it took."""

import dataclasses
import io
import pathlib
from typing import Any

import numpy as np

from ssldiff_jax.core import arrays, pixel_units
from ssldiff_jax.formats import atomic
from ssldiff_jax.slides import multiband, pyramid

# A notebook keeps what it shows in its own file.
_SHOWN_PX = 2048


@dataclasses.dataclass(frozen=True, eq=False)
class LargeImage:
    """A synthetic image, and what it took; NumPy takes it as its pixels, a notebook shows it.

    Attributes:
        image: its pixels.
        mpp: microns per pixel.
        unet_forwards: windows that the network saw.
        decoder_calls: tiles that were decoded.
        seconds: from noise to pixels.
        bands: what its bands are, and which three of them are shown.
    """

    image: arrays.Pixels
    mpp: float
    unet_forwards: int
    decoder_calls: int
    seconds: float
    bands: multiband.MultibandConfig = multiband.NO_BANDS

    def save(self, path: str | pathlib.Path) -> pathlib.Path:
        """Write it as the end of the name says: one of `pyramid.FORMATS` (.png, .tif and .ome.tif
        pyramids, .cog.tif, .dzi) or .jpg; returns where.

        Raises ValueError for another ending, OSError where the file cannot be written.
        """
        # Not at the top: a machine that only computes need not have it.
        import PIL.Image

        path = pathlib.Path(path)
        endings = [end for end in pyramid.FORMATS if path.name.lower().endswith(f".{end}")]
        if endings:
            # The longest: .ome.tif ends with .tif, too.
            write = pyramid.FORMATS[max(endings, key=len)]
            write(path, self.image, pyramid.Scale(self.mpp, bands=self.bands))
        elif path.suffix.lower() in (".jpg", ".jpeg"):
            image = PIL.Image.fromarray(self.bands.shown_view(self.image))
            # 4:4:4: JPEG's usual 4:2:0 would halve the resolution of colour.
            atomic.write_atomic(path, lambda p: image.save(p, "jpeg", quality=95, subsampling=0))
        else:
            known = ", ".join(f".{end}" for end in (*pyramid.FORMATS, "jpg"))
            raise ValueError(f"an image's name must end with one of {known}, got {path.name!r}")
        return path

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        # `copy` is NumPy 2's way to ask.
        return np.array(self.image, dtype=dtype, copy=copy)

    def _repr_png_(self) -> bytes:
        """What a notebook shows: of more than 2048 px, a smaller copy."""
        import PIL.Image

        image, file = self.bands.shown_view(self.image), io.BytesIO()
        shown = PIL.Image.fromarray(image)
        shown.thumbnail((_SHOWN_PX, _SHOWN_PX))
        shown.save(file, "png")
        return file.getvalue()

    def __repr__(self) -> str:
        height, width = self.image.shape[:2]
        scale = pixel_units.per_pixel(self.mpp)
        return f"LargeImage({height} × {width} px, {scale}, {self.seconds:.1f} s)"
