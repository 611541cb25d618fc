"""A class for every pixel of an RGB image, learnt from real pixels alone, independently of any
generator."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int
from scipy import ndimage

from ssldiff_jax.core import arrays

_BLURS = (2.0, 6.0)  # sigmas, px
_REACH = 24  # px that the widest blur looks at: SciPy ends a kernel at four sigmas
_STRIP = 256  # rows
# Of the mean eigenvalue: products of correlated colours leave the normal matrix near singular.
_RIDGE = 1e-3


@dataclasses.dataclass(frozen=True, eq=False)
class PixelClassifier:
    """Least squares from colour, and colour and roughness around, to classes."""

    weights: Float[np.ndarray, "F K"]

    @classmethod
    def fit(
        cls,
        image_uint8: list[arrays.ImageUint8],
        classes: list[Int[np.ndarray, "H W"]],
        num_classes: int,
    ) -> "PixelClassifier":
        """Learn from images whose classes are known."""
        products, sums = 0.0, 0.0
        for image, class_map in zip(image_uint8, classes, strict=True):
            x = _features(image)
            # Only sums are kept: 91 features in float64 take 240 times the room of a pixel.
            products = products + x.T @ x
            sums = sums + x.T @ np.eye(num_classes)[class_map.ravel()]
        scale = _RIDGE * np.trace(products) / len(products)
        return cls(np.linalg.solve(products + scale * np.eye(len(products)), sums))

    def __call__(self, image_uint8: arrays.ImageUint8) -> Int[np.ndarray, "H W"]:
        """The class of every pixel."""
        # In strips: all features of an image of 4096 px would be 12 GB.
        return np.concatenate(
            [self._strip(image_uint8, top) for top in range(0, len(image_uint8), _STRIP)]
        )

    def _strip(self, image_uint8: arrays.ImageUint8, top: int) -> Int[np.ndarray, "h W"]:
        """The classes of some rows, which depend on the rows around them too."""
        start = max(top - _REACH, 0)
        around = image_uint8[start : top + _STRIP + _REACH]
        scores = (_features(around) @ self.weights).argmax(axis=1).reshape(around.shape[:2])
        return scores[top - start :][:_STRIP]


def _features(image_uint8: arrays.ImageUint8) -> Float[np.ndarray, "N F"]:
    """Colour at three scales, its spread, and all products of two."""
    image = image_uint8.astype(np.float64) / 255
    around = [_blurred(image, sigma) for sigma in _BLURS]
    # E[x²] − E[x]², which rounding makes negative where a colour is flat.
    deviation = np.sqrt(np.maximum(_blurred(image**2, _BLURS[0]) - around[0] ** 2, 0))
    linear = np.concatenate([image, *around, deviation], axis=-1).reshape(-1, 12)
    first, second = np.triu_indices(linear.shape[1])
    ones = np.ones((len(linear), 1))
    return np.concatenate([ones, linear, linear[:, first] * linear[:, second]], axis=1)


def _blurred(x: Float[np.ndarray, "H W 3"], sigma: float) -> Float[np.ndarray, "H W 3"]:
    """Each colour by itself."""
    return ndimage.gaussian_filter(x, (sigma, sigma, 0))
