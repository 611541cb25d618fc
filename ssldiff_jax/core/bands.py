"""Images of more than three bands, and the three of them that pictures and networks of RGB see."""

import dataclasses

import numpy as np
from jaxtyping import Float, Shaped, UInt8

from ssldiff_jax.core import arrays


@dataclasses.dataclass(frozen=True)
class View:
    """Three bands of an image as red, green and blue of 8 bits.

    Attributes:
        bands: their places among those of the image, from 0; one may come several times.
    """

    bands: tuple[int, int, int]

    def __call__(self, pixels: Shaped[np.ndarray, "*S bands"]) -> UInt8[np.ndarray, "*S 3"]:
        """Of pixels of 8 or 16 bits, whose largest value is white; RGB as it is."""
        if self.bands == (0, 1, 2) and pixels.shape[-1] == 3 and pixels.dtype == np.uint8:
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
        if self.bands == (0, 1, 2) and image.shape[-1] == 3:
            return image
        return image[..., np.array(self.bands)]


RGB = View((0, 1, 2))
"""Of images that are red, green and blue."""
