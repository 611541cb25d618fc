"""A large image before, while and after it is drawn."""

import dataclasses
import io
import numbers
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import PIL.Image
from jaxtyping import Float

from ssldiff_jax.core import arrays
from ssldiff_jax.formats import atomic
from ssldiff_jax.sampler import conditions, sampler, windows
from ssldiff_jax.slides import pyramid

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
    """

    image: arrays.ImageUint8
    mpp: float
    unet_forwards: int
    decoder_calls: int
    seconds: float

    def save(self, path: str | pathlib.Path) -> pathlib.Path:
        """Write it as the end of the name says: one of `pyramid.FORMATS` (.png, .tif and .ome.tif
        pyramids, .cog.tif, .dzi) or .jpg; returns where.

        Raises ValueError for another ending, OSError where the file cannot be written.
        """
        path = pathlib.Path(path)
        endings = [end for end in pyramid.FORMATS if path.name.lower().endswith(f".{end}")]
        if endings:
            write = pyramid.FORMATS[max(endings, key=len)]
            write(path, self.image, pyramid.Scale(self.mpp))
        elif path.suffix.lower() in (".jpg", ".jpeg"):
            image = PIL.Image.fromarray(self.image)
            atomic.write_atomic(path, lambda p: image.save(p, "jpeg", quality=95, subsampling=0))
        else:
            known = ", ".join(f".{end}" for end in (*pyramid.FORMATS, "jpg"))
            raise ValueError(f"an image's name must end with one of {known}, got {path.name!r}")
        return path

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.image, dtype=dtype, copy=copy)

    def _repr_png_(self) -> bytes:
        """What a notebook shows: of more than 2048 px, a smaller copy."""
        shown, file = PIL.Image.fromarray(self.image), io.BytesIO()
        shown.thumbnail((_SHOWN_PX, _SHOWN_PX))
        shown.save(file, "png")
        return file.getvalue()

    def __repr__(self) -> str:
        height, width = self.image.shape[:2]
        return f"LargeImage({height} × {width} px, {self.mpp:g} µm/px, {self.seconds:.1f} s)"


@dataclasses.dataclass(frozen=True)
class InitImage:
    """An image to begin from instead of noise alone.

    Attributes:
        image: as large as the drawing.
        keep_mask: where the image stays, from 0 to 1; None draws all of it anew, from the image at
            the noise of the solver's first step (`sample.solver.t_start`).
        blank: whether what does not stay begins from noise alone.
    """

    image: arrays.ImageUint8
    keep_mask: Float[np.ndarray, "H W"] | None = None
    blank: bool = True


@dataclasses.dataclass(frozen=True)
class ImagePlan:
    """A large image before it is drawn: its size in px, where windows lie, what conditions them,
    the seed of its noise, and the latents it begins from."""

    size: tuple[int, int]
    plan: windows.WindowPlan
    condition: conditions.ConditionFn
    seed: int
    given: sampler.InitLatents | None = None


class Program(NamedTuple):
    """A function of the models, and the shapes (or values) it is called with."""

    run: Callable[..., jax.Array]
    shapes: tuple[Any, ...]


def require_size(size: Any) -> None:
    """Raises ValueError for what is no (height, width) in whole px, one or more."""
    is_pair = isinstance(size, Sequence | np.ndarray) and len(size) == 2
    if not is_pair or not all(isinstance(length, numbers.Integral) for length in size):
        raise ValueError(f"size must be (height, width) in whole px, got {size!r}")
    if min(size) < 1:
        raise ValueError(f"size must be at least 1 × 1 px, got {size[0]} × {size[1]}")
