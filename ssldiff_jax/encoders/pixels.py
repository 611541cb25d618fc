"""What a network expects of an image."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ssldiff_jax.core import arrays

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True)
class Pixels:
    """Size, mean and deviation; where none are given, pixels stay in [−1, 1].

    Attributes:
        input_px: side of the images that the network sees.
        mean: of RGB in [0, 1], subtracted.
        std: divided by.
        resize_px: side that images are resized to, before their middle is cut out; 0 is `input_px`.
        filter: of resizing, antialiased.
    """

    input_px: int
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    resize_px: int = 0
    filter: Literal["linear", "cubic"] = "linear"

    def prepare(self, image: arrays.Image) -> Float[arrays.AnyArray, "B s s 3"]:
        """Images in [−1, 1] of any size as the network wants them."""
        side = self.resize_px or self.input_px
        # Columns, then rows, as Pillow does.
        for axis in (2, 1):
            size = (*image.shape[:axis], side, *image.shape[axis + 1 :])
            if image.shape != size:
                image = jax.image.resize(image, size, self.filter, antialias=True)
                if self.filter == "cubic":
                    # It overshoots at edges, which the bytes of whoever trained the network cannot.
                    image = jnp.clip(image, -1, 1)
        margin = (side - self.input_px) // 2
        inner = slice(margin, margin + self.input_px)
        return ((image[:, inner, inner] + 1) / 2 - np.array(self.mean)) / np.array(self.std)
