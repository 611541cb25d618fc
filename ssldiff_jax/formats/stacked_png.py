"""Images of any number of bands as PNG of one: all that reads PNG reads their values.

Bands of 8 or 16 bits stand under each other, the first on top; a text chunk says how many.
"""

import io
import struct
import zlib

import numpy as np
from jaxtyping import UInt

KEY = "bands"
"""Of the text chunk with their number."""

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _UP = 0, 2  # a kind of colour, and a filter
_LEVEL, _MEMORY = 1, 9  # of zlib


def encode(pixels: UInt[np.ndarray, "H W bands"]) -> bytes:
    """The file of uint8 or uint16 pixels, without loss.

    Each row is stored as its difference from the one above, and compressed by runs and Huffman
    codes alone: sensors' noise leaves nothing else to find. Source: PNG, third edition (W3C 2025).
    """
    height, width, count = pixels.shape
    values = np.moveaxis(pixels, -1, 0).reshape(count * height, width)
    size = values.dtype.itemsize
    # PNG has the larger byte first, and filters bytes.
    rows = np.ascontiguousarray(values, values.dtype.newbyteorder(">")).view(np.uint8)
    filtered = np.empty((len(rows), 1 + width * size), np.uint8)
    filtered[:, 0] = _UP
    filtered[:1, 1:] = rows[:1]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, zlib.MAX_WBITS, _MEMORY, zlib.Z_RLE)
    data = compressor.compress(filtered) + compressor.flush()
    header = struct.pack(">IIBBBBB", width, len(rows), 8 * size, _GREY, 0, 0, 0)
    text = f"{KEY}\0{count}".encode()
    chunks = ((b"IHDR", header), (b"tEXt", text), (b"IDAT", data), (b"IEND", b""))
    return _SIGNATURE + b"".join(_chunk(name, content) for name, content in chunks)


def _chunk(name: bytes, content: bytes) -> bytes:
    check = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)


def unstack(stack: UInt[np.ndarray, "rows W *one"], count: str) -> UInt[np.ndarray, "H W bands"]:
    """The pixels of a PNG's values and of what its text says of their number, read-only.

    Raises ValueError for what `encode` does not write.
    """
    number = int(count) if count.isdecimal() else 0
    if stack.ndim != 2 or not 0 < number <= len(stack) or len(stack) % number:
        raise ValueError(
            f"expected bands of one height under each other, as many as the text {KEY} of a PNG "
            f"says, got {count[:20]!r} of values of shape {stack.shape}"
        )
    height, width = len(stack) // number, stack.shape[1]
    pixels = np.empty((height, width, number), stack.dtype)
    for band in range(number):
        pixels[..., band] = stack[band * height : (band + 1) * height]
    pixels.flags.writeable = False
    return pixels


def read(encoded: bytes) -> UInt[np.ndarray, "H W bands"]:
    """The pixels of a file that `encode` made, read-only.

    Raises ValueError for another image, OSError for one that is cut off.
    """
    # Not at the top: a machine that only computes need not have it.
    from PIL import Image

    with Image.open(io.BytesIO(encoded)) as image:
        return unstack(np.asarray(image), image.info.get(KEY, ""))
