"""Images of more than three bands, and the three of them that pictures and networks of RGB see."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped, UInt, UInt8

from ssldiff_jax.core import arrays


@dataclasses.dataclass(frozen=True)
class Kind:
    """How pixels are stored.

    Attributes:
        count: bands.
        dtype: uint8 or uint16.
        least: of what is generated: below it lies what stands for no data.
    """

    count: int
    dtype: np.dtype
    least: int = 0

    @property
    def top(self) -> int:
        """The largest value."""
        return int(np.iinfo(self.dtype).max)

    @property
    def pixel_bytes(self) -> int:
        """Of all bands of a pixel."""
        return self.count * self.dtype.itemsize

    def rounded(self, values: Float[np.ndarray, "*S bands"]) -> UInt[np.ndarray, "*S bands"]:
        """Values near 0 … `top` as they are stored."""
        return np.clip(np.round(values), self.least, self.top).astype(self.dtype)

    def require(self, image: Any, name: str, size: tuple[int, int] | None = None) -> arrays.Pixels:
        """The pixels of `image`, an array or whatever NumPy makes one of.

        Raises ValueError, which calls it `name`, for another dtype, for another shape than
        (H, W, `count`), or, where it is given, for another `size` (height, width).
        """
        if (self.count, self.dtype) == (3, np.uint8):
            return arrays.require_rgb(image, name, size)
        pixels = np.asarray(image)
        height, width = size or ("H", "W")
        fits = pixels.ndim == 3 and pixels.shape[2] == self.count
        fits = fits and size in (None, pixels.shape[:2]) and 0 not in pixels.shape
        if pixels.dtype == self.dtype and fits:
            return pixels
        raise ValueError(
            f"{name} must be {self.dtype} of shape ({height}, {width}, {self.count}), got "
            f"{pixels.dtype} of shape {pixels.shape}"
        )


RGB_8 = Kind(3, np.dtype(np.uint8))
"""Of images that are red, green and blue of 8 bits."""


@dataclasses.dataclass(frozen=True)
class View:
    """Three bands of an image as red, green and blue of 8 bits.

    Attributes:
        bands: their places among those of the image, from 0; one may come several times.
        kind: of the image.
    """

    bands: tuple[int, int, int]
    kind: Kind

    def __call__(self, pixels: Shaped[np.ndarray, "*S bands"]) -> UInt8[np.ndarray, "*S 3"]:
        """Of pixels whose largest value is white; RGB as it is.

        Raises ValueError for pixels of another kind.
        """
        count, dtype = self.kind.count, self.kind.dtype
        if pixels.shape[-1] != count or pixels.dtype != dtype:
            raise ValueError(
                f"images must be {dtype} of {count} bands, got {pixels.dtype} of shape "
                f"{pixels.shape}"
            )
        if self == RGB:
            return pixels
        chosen = pixels[..., list(self.bands)]
        if chosen.dtype == np.uint16:
            # 65535 = 257 × 255: the division rounds to the nearest.
            chosen = (chosen.astype(np.uint32) + 128) // 257
        return chosen.astype(np.uint8)

    def of_floats(
        self, image: Float[arrays.AnyArray, "*S bands"]
    ) -> Float[arrays.AnyArray, "*S 3"]:
        """Of images in [−1, 1]."""
        return image if self == RGB else image[..., np.array(self.bands)]


RGB = View((0, 1, 2), RGB_8)
"""Of images that are red, green and blue."""
