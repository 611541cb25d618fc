import io
import struct
import zlib

import numpy as np
import pytest
import rasterio
from PIL import Image

from ssldiff_jax.formats import stacked_png


def noise(dtype, bands, shape=(37, 53)):
    top = np.iinfo(dtype).max
    pixels = np.random.default_rng(bands).integers(0, top + 1, (*shape, bands)).astype(dtype)
    # Both ends of the range, which a difference of rows must not lose.
    pixels[0, 0], pixels[1, 0], pixels[2, 0] = top, 0, top
    return pixels


def opened(encoded):
    with Image.open(io.BytesIO(encoded)) as image:
        return np.asarray(image), image.info


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("bands", [1, 3, 4, 8])
def test_other_readers_of_png_see_the_bands_under_each_other(dtype, bands):
    pixels = noise(dtype, bands)
    encoded = stacked_png.encode(pixels)
    expected = np.concatenate([pixels[..., i] for i in range(bands)])
    with rasterio.MemoryFile(encoded) as memory, memory.open(driver="PNG") as file:
        assert file.count == 1
        assert file.dtypes == (dtype,)
        np.testing.assert_array_equal(file.read(1), expected)
    stack, info = opened(encoded)
    np.testing.assert_array_equal(stack, expected)
    assert info == {"bands": str(bands)}


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (9, 1), (40, 31)])
@pytest.mark.parametrize("bands", [1, 2, 8])
def test_pixels_come_back_bit_for_bit_and_read_only(dtype, shape, bands):
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, (*shape, bands))
    stack, info = opened(stacked_png.encode(pixels.astype(dtype)))
    back = stacked_png.unstack(stack, info["bands"])
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, pixels)
    assert back.flags.c_contiguous
    assert not back.flags.writeable


def test_a_view_of_a_larger_image_is_stored_as_it_is_seen():
    pixels = noise("uint16", 4)[::-1, 5:30:2]
    stack, info = opened(stacked_png.encode(pixels))
    np.testing.assert_array_equal(stacked_png.unstack(stack, info["bands"]), pixels)


def test_every_chunk_has_the_check_sum_that_png_says():
    encoded, at, names = stacked_png.encode(noise("uint8", 2)), 8, []
    while at < len(encoded):
        (length,) = struct.unpack_from(">I", encoded, at)
        names.append(encoded[at + 4 : at + 8])
        content = encoded[at + 4 : at + 8 + length]
        assert struct.unpack_from(">I", encoded, at + 8 + length)[0] == zlib.crc32(content)
        at += 12 + length
    assert names == [b"IHDR", b"tEXt", b"IDAT", b"IEND"]


@pytest.mark.parametrize("count", ["", "0", "-1", "four", "3", "99"])
def test_a_stack_of_another_number_of_bands_is_refused(count):
    with pytest.raises(ValueError, match=r"bands of one height.*shape \(8, 5\)") as error:
        stacked_png.unstack(np.zeros((8, 5), np.uint8), count)
    assert "\n" not in str(error.value)


def test_a_stack_of_colours_is_refused():
    with pytest.raises(ValueError, match="bands of one height"):
        stacked_png.unstack(np.zeros((8, 5, 3), np.uint8), "4")
