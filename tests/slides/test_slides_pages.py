"""Which page of a file is the image: pages that are no level are no level, and a file of several
images is never silently its first."""

import struct

import numpy as np
import pytest
import rasterio
import tifffile
from PIL import Image

from ssldiff_jax import slides
from ssldiff_jax.data import patch_list

TILES = {"tile": (128, 128)}
RAW = {"photometric": "rgb", "metadata": None, "resolution": (2e4, 2e4),
       "resolutionunit": "CENTIMETER"}  # fmt: skip


def picture(height, width, seed=0):
    """Smooth colours, which levels share with the image."""
    y, x = np.mgrid[0:height, 0:width] / np.array([height, width])[:, None, None]
    rng = np.random.default_rng(seed)
    waves = rng.uniform(1, 4, (3, 2))
    image = np.stack([np.sin(6 * (a * y + b * x)) for a, b in waves], axis=-1)
    return (128 + 100 * image).astype(np.uint8)


FULL = picture(512, 768)


def half(image, times=1):
    for _ in range(times):
        h, w = (n // 2 * 2 for n in image.shape[:2])
        image = image[:h, :w].reshape(h // 2, 2, w // 2, 2, 3).mean((1, 3)).round()
    return image.astype(np.uint8)


def write(path, *pages):
    """Pages as (pixels, NewSubfileType, options)."""
    with tifffile.TiffWriter(path) as file:
        for pixels, kind, options in pages:
            file.write(pixels, subfiletype=kind, **(RAW | options))
    return path


def shapes(slide):
    return tuple(slide._backend.level_shapes)


def image_of(path, mpp=0.5):
    slide = slides.open_slide(path, mpp=0.5)
    try:
        return slide.read_region(0, 0, *slide.shape_at(mpp), mpp=mpp)
    finally:
        slide.close()


def refusal(path):
    with pytest.raises(slides.SlideError) as caught:
        slides.open_slide(path, mpp=0.5)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("macro", [(200, 430), (256, 384), (64, 96)], ids=str)
@pytest.mark.parametrize("marked", [0, 1])
def test_a_picture_of_the_glass_is_no_level(tmp_path, macro, marked, caplog):
    """Of another shape, and of the very shape of a level."""
    glass = np.full((*macro, 3), 250, np.uint8)
    glass[20:50, 10:60] = 20
    path = write(tmp_path / "macro.tif", (FULL, 0, TILES), (half(FULL), 1, TILES),
                 (glass, marked, TILES))  # fmt: skip
    slide = slides.open_slide(path)
    assert shapes(slide) == ((512, 768), (256, 384))
    for times in (1, 2, 3):
        np.testing.assert_allclose(image_of(path, 0.5 * 2**times), half(FULL, times), atol=2)
    if marked:
        assert "macro.tif" in caplog.text


@pytest.mark.parametrize("sides", [(512, 768), (511, 767), (513, 770)], ids=str)
@pytest.mark.parametrize("smaller", ["mean", "nearest"])
def test_true_levels_are_kept(tmp_path, sides, smaller):
    """However they were made smaller, and rounded."""
    full = picture(*sides)
    make = half if smaller == "mean" else (lambda image: image[::2, ::2])
    second = make(full)
    path = write(tmp_path / "pyramid.tif", (full, 0, TILES), (second, 1, TILES),
                 (make(second), 1, TILES))  # fmt: skip
    slide = slides.open_slide(path)
    assert len(shapes(slide)) == 3
    found = slide.read_region(0, 0, 100, 100, mpp=1.0)
    np.testing.assert_array_equal(found, second[:100, :100])


def test_levels_without_marks_do_not_stand_in_the_way(tmp_path, caplog):
    path = write(tmp_path / "bare.tif", (FULL, 0, TILES), (half(FULL), 0, TILES),
                 (half(FULL, 2), 0, TILES))  # fmt: skip
    np.testing.assert_array_equal(image_of(path), FULL)
    np.testing.assert_allclose(image_of(path, 2.0), half(FULL, 2), atol=2)
    assert "left out" not in caplog.text


@pytest.mark.parametrize("form", [{}, TILES], ids=["strips", "tiles"])
def test_the_largest_page_is_the_image(tmp_path, form, caplog):
    """Label, thumbnail, then the image and its levels, as Ventana has them."""
    label, thumbnail = np.full((300, 200, 3), 30, np.uint8), picture(100, 300, 5)
    path = write(tmp_path / "label first.tif", (label, 0, {}), (thumbnail, 0, {}), (FULL, 0, form),
                 (half(FULL), 0, form))  # fmt: skip
    slide = slides.open_slide(path)
    assert shapes(slide) == ((512, 768), (256, 384))
    assert slide.mpp == pytest.approx(0.5)
    np.testing.assert_array_equal(image_of(path), FULL)
    np.testing.assert_array_equal(image_of(path, 1.0), half(FULL))
    assert "page 2 of 512 × 768 px is the image" in caplog.text
    assert "page 0 (300 × 200 px), 1 (100 × 300 px)" in caplog.text


@pytest.mark.parametrize("form", [{}, TILES], ids=["strips", "tiles"])
@pytest.mark.parametrize("other", [(512, 768), (500, 500)], ids=str)
def test_several_images_are_refused(tmp_path, form, other):
    path = write(tmp_path / "two.tif", (FULL, 0, form), (picture(*other, 3), 0, form))
    assert f"got 2 pages that are no levels of each other (512 × 768, {other[0]} × " in refusal(
        path
    )


@pytest.mark.parametrize("kind", ["ome", "imagej", "shaped", "truncated"])
def test_stacks_and_channels_are_refused(tmp_path, kind):
    stack = np.stack([picture(300, 400, seed)[..., 0] for seed in range(3)])
    options = {
        "ome": {"ome": True, "metadata": {"axes": "CYX"}},
        "imagej": {"imagej": True, "metadata": {"axes": "ZYX"}},
        "shaped": {},
        "truncated": {"metadata": {"truncate": True}},
    }[kind]
    path = tmp_path / ("stack.ome.tif" if kind == "ome" else "stack.tif")
    tifffile.imwrite(path, stack, photometric="minisblack", **options)
    assert "expected one image" in refusal(path)
    assert "got 3 pages" in refusal(path) or "got a stack of 3" in refusal(path)


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_animations_are_refused(tmp_path, suffix):
    frames = [Image.fromarray(picture(64, 64, seed)) for seed in range(3)]
    path = tmp_path / f"moving.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert "expected one image, got an animation of 3" in refusal(path)
    with pytest.raises(
        patch_list.PatchListError, match="expected one image, got an animation of 3"
    ):
        patch_list.open_list(f"folder:{tmp_path}").read(0)


def test_a_mask_beside_the_image_is_no_image(tmp_path):
    """It says where there is no data, as in a GeoTIFF."""
    path, mask = tmp_path / "masked.tif", np.full((512, 768), 255, np.uint8)
    mask[100:200, 50:90] = 0
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", driver="GTiff", height=512, width=768, count=3, dtype="uint8",
                      photometric="RGB") as file,
    ):  # fmt: skip
        file.write(np.moveaxis(FULL, -1, 0))
        file.write_mask(mask)
    np.testing.assert_array_equal(image_of(path), np.where(mask[..., None] == 0, 255, FULL))


@pytest.mark.parametrize("form", [{}, TILES], ids=["strips", "tiles"])
@pytest.mark.parametrize("kind", ["gray", "deep", "transparent"])
def test_a_level_of_other_numbers_costs_that_level(tmp_path, form, kind):
    """OpenSlide read none of the file."""
    small = half(FULL)
    level, options = {
        "gray": (small[..., 0], {"photometric": "minisblack"}),
        "deep": (small.astype(np.uint16) * 257, {}),
        "transparent": (np.dstack([small, small[..., :1]]), {"extrasamples": ["unassalpha"]}),
    }[kind]
    path = write(tmp_path / "level.tif", (FULL, 0, form), (level, 1, form | options))
    np.testing.assert_array_equal(image_of(path), FULL)
    np.testing.assert_allclose(image_of(path, 1.0), small, atol=1)


@pytest.mark.parametrize("order", [1, -1], ids=["large first", "small first"])
@pytest.mark.parametrize("form", [{}, TILES], ids=["strips", "tiles"])
def test_a_page_with_a_table_of_colours_of_its_own_is_no_level(tmp_path, form, order):
    """As Pillow's multipage.tiff: read by the table of the image it looked alike."""
    table = np.random.default_rng(0).integers(0, 256, (256, 3), np.uint8)
    options = {"photometric": "palette", "resolution": None} | form
    as_tag = lambda colours: np.ascontiguousarray(colours.T.astype(np.uint16) * 257)
    full, other = FULL[..., 0], FULL[::2, ::2, 0]
    pages = [(full, 0, options | {"colormap": as_tag(table)}),
             (other, 0, options | {"colormap": as_tag(table[::-1])})]  # fmt: skip
    path = write(tmp_path / "tables.tif", *pages[::order])
    np.testing.assert_array_equal(image_of(path), table[full])
    np.testing.assert_allclose(image_of(path, 1.0), half(table[full]), atol=1)


@pytest.mark.parametrize("marked", [0, 1])
def test_a_larger_image_within_a_page_is_not_left_out_unseen(tmp_path, marked):
    """As cameras have it: a preview is the first page, and the image in its SubIFD."""
    path = tmp_path / "camera.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(half(FULL, 3), subifds=1, subfiletype=marked, **RAW)
        file.write(FULL, **RAW)
    assert "got 512 × 768 px within page 0 (a SubIFD), and at most 64 × 96" in refusal(path)


def test_levels_within_a_page_do_not_stand_in_the_way(tmp_path):
    path = tmp_path / "pyramid.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(FULL, subifds=1, **RAW, **TILES)
        file.write(half(FULL), subfiletype=1, **RAW, **TILES)
    np.testing.assert_array_equal(image_of(path), FULL)


def test_an_absurd_offset_is_one_line(tmp_path):
    """Pillow's seek_too_large.tif: the first page lies beyond what a file can have."""
    path = tmp_path / "far.tif"
    path.write_bytes(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 2**64 - 1) + bytes(64))
    refusal(path)
    with pytest.raises(patch_list.PatchListError, match=r"far\.tif"):
        patch_list.open_list(f"folder:{tmp_path}").read(0)


@pytest.mark.parametrize("following", ["itself", "beyond the end", "garbage"])
def test_a_chain_of_pages_that_goes_wrong_ends_there(tmp_path, following):
    path = write(tmp_path / "image.tif", (FULL, 0, {}))
    data = bytearray(path.read_bytes())
    (first,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, first)
    offset = {"itself": first, "beyond the end": 10**8, "garbage": len(data)}[following]
    struct.pack_into("<I", data, first + 2 + 12 * count, offset)
    path.write_bytes(data + b"\xff" * 100)
    np.testing.assert_array_equal(image_of(path), FULL)
