"""Turn a Pillow image of any mode into RGB uint8."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Shaped, UInt8

from ssldiff_jax.core import arrays

if TYPE_CHECKING:
    from PIL import Image

WHITE = 255

_ORIENTATION, _QUARTER_TURNS = 274, (5, 6, 7, 8)  # of EXIF

SIXTEEN_BITS = 65535
_OF_EIGHT = ("RGB", "RGBA", "LA")
_UNUSED = (
    "expected 16 bits of which 65535 is white, got values {}: pass --config.data.reading.low and "
    "--config.data.reading.high, the values that become 0 and 255"
)
_USED = 2**15  # 16 bits that never reach their last bit hold 12 or 14


def to_rgb(
    image: "Image.Image", convert: "Callable[[Image.Image], Image.Image] | None" = None
) -> arrays.ImageUint8:
    """Decode to RGB, upright by its EXIF orientation and composited on white.

    `convert` changes the colours of the decoded image, to RGB or RGBA.
    Sixteen-bit gray maps 65535 to 255 whatever values occur, so that two images stay comparable.
    Raises ValueError for pixels without a known range (float, or integers outside 0…65535).
    """
    # Not at the top: a machine that only computes need not have them.
    from PIL import Image, ImageOps

    ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I"):
        image = Image.fromarray(_from_integers(np.asarray(image)))
    if image.mode == "F":
        raise ValueError("expected integer pixels of 8 or 16 bits, got float pixels (mode F)")
    if image.mode == "La":
        image = image.convert("LA")  # Pillow knows no other way out of this mode
    if convert:
        image = convert(image)
    if image.has_transparency_data:
        return composite_on_white(image.convert("RGBA"))
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def require_still(image: "Image.Image") -> None:
    """Raise ValueError for an animation (GIF, WebP, PNG), of which no frame is the image. The
    further pictures of a photograph (MPO) are previews of it."""
    if image.format not in ("GIF", "WEBP", "PNG"):
        return
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise ValueError(f"expected one image, got an animation of {frames} frames")


def upright_shape(image: "Image.Image") -> tuple[int, int]:
    """Height and width of what `to_rgb` gives, without decoding it."""
    is_turned = image.getexif().get(_ORIENTATION, 1) in _QUARTER_TURNS
    return (image.width, image.height) if is_turned else (image.height, image.width)


def composite_on_white(rgba: "Image.Image") -> arrays.ImageUint8:
    """Blend an RGBA image over white, by its alpha."""
    from PIL import Image

    # Where all is opaque there is nothing to blend.
    lowest_alpha, _ = rgba.getextrema()[3]
    if lowest_alpha == WHITE:
        return np.asarray(rgba.convert("RGB"))
    background = Image.new("RGBA", rgba.size, (WHITE,) * 4)
    return np.asarray(Image.alpha_composite(background, rgba).convert("RGB"))


def uses_sixteen_bits(values: Shaped[np.ndarray, "*S"]) -> bool:
    """Whether 65535 can be white: the brightest thousandth reaches the upper half."""
    return bool(np.percentile(values, 99.9) >= _USED)


def require_used(image: "Image.Image") -> None:
    """Raise ValueError where the upper half of 16 bits, of which Pillow keeps the upper eight, is
    not used: they hold 12 or 14."""
    colours = np.asarray(image.convert("RGB"))
    if image.mode in _OF_EIGHT and colours.any() and np.percentile(colours, 99.9) < 128:
        raise ValueError(_UNUSED.format(f"…{int(colours.max()) * 256 + 255}"))


def _from_integers(gray: np.ndarray) -> UInt8[np.ndarray, "H W"]:
    if gray.size and (gray.min() < 0 or gray.max() > 65535):
        raise ValueError(
            f"expected gray values in 0…65535, got values from {gray.min()} to {gray.max()}"
        )
    if gray.any() and not uses_sixteen_bits(gray):
        raise ValueError(_UNUSED.format(f"{gray.min()}…{gray.max()}"))
    # 65535 = 257 × 255: the division rounds to the nearest.
    return ((gray.astype(np.uint32) + 128) // 257).astype(np.uint8)
