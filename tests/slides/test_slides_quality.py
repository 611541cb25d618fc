import numpy as np
import pytest
import small_configs
from PIL import Image, ImageDraw
from scipy import ndimage

from ssldiff_jax import slides
from ssldiff_jax.data import demo_slide
from ssldiff_jax.slides import quality, tissue

OFF = {"pen_chroma": 0.0, "fold_density": 0.0, "blur_um": 0.0, "max_luminance": 1.0}
RULES = {"pen_chroma": 0.3, "fold_density": 2.0, "blur_um": 2.0}
INKS = {
    "blue": (30, 60, 190),
    "dull blue": (40, 70, 160),
    "violet blue": (30, 40, 160),
    "green": (20, 130, 60),
    "light green": (70, 170, 80),
    "black": (30, 30, 34),
    "jet": (5, 5, 5),
}


@pytest.fixture(scope="module")
def real():
    slide = slides.open_slide(demo_slide.demo_slide())
    pixels = slide.read_region(0, 0, *slide.shape, mpp=slide.mpp)
    slide.close()
    return pixels


@pytest.fixture(scope="module")
def clean(real):
    """The real slide by the old rules."""
    return examine(real, **OFF).mask.mask


def examine(pixels, mpp=0.499, **changes):
    slide = slides.slide_of("slide", pixels, mpp=mpp)
    return tissue.examine(slide, small_configs.section("data.tissue", **changes))


def is_kind(examined, *names):
    return np.isin(examined.kinds, [tissue.KINDS.index(name) for name in names])


def as_thumbnail(native):
    """Native pixels' part of each thumbnail pixel."""
    height, width = (size // 16 for size in native.shape)
    blocks = native[: height * 16, : width * 16].reshape(height, 16, width, 16)
    return blocks.mean(axis=(1, 3))


def folded(pixels, rows, columns):
    """Two layers absorb twice: the transmitted light is squared."""
    out = pixels.copy()
    out[rows, columns] = np.rint(255 * (pixels[rows, columns] / 255.0) ** 2)
    return out


def blurred(pixels, sigma):
    planes = [ndimage.gaussian_filter(pixels[..., channel], sigma) for channel in range(3)]
    return np.stack(planes, axis=-1)


def before_the_rules(pixels, mpp):
    """The mask by saturation and darkness alone, on whole-factor thumbnails of 8 µm/px."""
    slide = slides.slide_of("slide", pixels, mpp=mpp)
    thumbnail = slide.read_region(0, 0, *slide.shape_at(8.0), mpp=8.0)
    saturation = tissue._saturation(thumbnail)
    is_bright = thumbnail @ np.float32([0.2126, 0.7152, 0.0722]) >= 0.1 * 255
    counts = np.bincount(saturation[is_bright], minlength=256)
    threshold = np.clip(tissue._otsu(counts) / 255, 0.05, 0.10)
    return tissue._smooth(is_bright & (saturation > threshold * 255), 2)


def test_rules_that_are_off_change_nothing(real):
    scrawled = real.copy()
    scrawled[300:900, 200:2000] = INKS["blue"]
    scrawled[1300:1420] = INKS["jet"]
    for pixels in (real, scrawled):
        expected = before_the_rules(pixels, 0.499)
        np.testing.assert_array_equal(examine(pixels, **OFF).mask.mask, expected)


def test_little_of_a_good_slide_is_taken(real, clean):
    found = examine(real, **RULES)
    assert (clean & ~found.mask.mask).sum() < 0.01 * clean.sum()
    assert not is_kind(found, "pen", "fold", "blur").any()


@pytest.mark.parametrize("name", INKS)
def test_marker_strokes_are_ink(real, clean, name):
    image = Image.fromarray(real)
    drawn = Image.new("1", image.size)
    line = [(100, 400), (1300, 900), (700, 1500), (1900, 2700)]  # over tissue and glass
    ImageDraw.Draw(image).line(line, fill=INKS[name], width=120, joint="curve")
    ImageDraw.Draw(drawn).line(line, fill=1, width=120, joint="curve")
    stroke = as_thumbnail(np.asarray(drawn)) > 0.5
    found = examine(np.asarray(image))
    is_ink = is_kind(found, "pen", "black")
    assert is_ink[stroke].mean() >= 0.9
    assert is_ink[~stroke].mean() < 0.01
    rest = clean & ~stroke
    assert (rest & ~found.mask.mask).sum() < 0.03 * rest.sum()
    assert not found.mask.mask[stroke & is_ink].any()


@pytest.mark.parametrize("colour", [(0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78)])
@pytest.mark.parametrize("amount", [0.3, 0.6, 1.0, 1.5])
def test_dyes_of_ruifrok_are_no_ink(colour, amount):
    """Hematoxylin, eosin and DAB of Ruifrok & Johnston 2001."""
    pixel = np.rint(255 * 10 ** (-amount * np.array(colour))).astype(np.uint8)
    assert not quality.is_ink(pixel[None, None], 0.3).any()


def test_blood_is_neither_ink_nor_a_fold(real):
    pixels = real.copy()
    pixels[1400:1700, 950:1150] = (170, 50, 75)
    found = examine(pixels)
    assert found.mask.mask[89:105, 61:69].all()


@pytest.mark.parametrize("sigma", [6, 10])
def test_the_blurred_half_is_found(real, clean, sigma):
    pixels = real.copy()
    middle = 1312  # a row of whole thumbnail pixels
    pixels[middle:] = blurred(real, sigma)[middle:]
    found = is_kind(examine(pixels, **RULES), "blur")
    sharp, soft = np.split(np.stack([found, clean], axis=-1), [middle // 16])
    assert soft[..., 0][soft[..., 1]].mean() >= 0.8
    assert sharp[..., 0][sharp[..., 1]].mean() < 0.05


def test_sharpness_needs_fine_pixels(real):
    coarse = Image.fromarray(blurred(real, 6)).reduce(8)
    assert not is_kind(examine(np.asarray(coarse), mpp=0.499 * 8, **RULES), "blur").any()


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        (slice(960, 1152), slice(None)),
        (slice(1760, 1952), slice(None)),
        (slice(500, 2000), slice(880, 1072)),
        (slice(500, 2000), slice(1200, 1392)),
    ],
)
def test_a_band_of_twice_the_density_is_a_fold(real, clean, rows, columns):
    found = examine(folded(real, rows, columns))
    band = np.zeros(real.shape[:2], bool)
    band[rows, columns] = True
    band = as_thumbnail(band) > 0.5
    assert is_kind(found, "fold", "black")[band & clean].mean() >= 0.7
    assert is_kind(found, "fold", "black")[clean & ~band].mean() < 0.04


def test_white_slide_is_background():
    found = examine(np.full((640, 960, 3), 255, np.uint8), **RULES)
    assert not found.mask.mask.any()
    assert found.parts == {name: float(name == "background") for name in tissue.KINDS}


def test_no_data_of_a_raster_is_white_and_all_else_counts():
    pixels = np.random.default_rng(0).integers(0, 250, (200, 300, 3)).astype(np.uint8)
    pixels[:, :50] = 120  # grey, such as a road
    raster = {"mpp": 16e6, "min_saturation": 0.0, "max_saturation": 0.0, "min_luminance": 0.0}
    config = small_configs.section("data.tissue", **{**OFF, **raster, "smooth_radius_um": 0.0})
    whole = tissue.examine(slides.slide_of("raster", pixels, mpp=16e6), config)
    assert whole.mask.mask.all()
    pixels[:60] = 255
    config = small_configs.section(
        "data.tissue", **{**OFF, **raster, "smooth_radius_um": 0.0, "max_luminance": 0.98}
    )
    cut = tissue.examine(slides.slide_of("raster", pixels, mpp=16e6), config)
    assert not cut.mask.mask[:60].any()
    assert cut.mask.mask[60:].all()
    assert cut.parts["white"] == pytest.approx(0.3)


def test_parts_sum_to_one_and_agree_with_the_mask(real):
    pixels = folded(blurred(real, 4), slice(960, 1152), slice(None))
    pixels[300:500] = INKS["green"]
    pixels[600:700] = INKS["jet"]
    found = examine(pixels, **{**RULES, "blur_um": 1.5, "max_luminance": 0.96})
    assert sum(found.parts.values()) == pytest.approx(1)
    assert all(part > 0 for part in found.parts.values())
    assert found.parts["tissue"] == pytest.approx(found.mask.mask.mean())
    np.testing.assert_array_equal(found.mask.mask, is_kind(found, "tissue"))


def test_strips_of_the_rules_equal_one_read(real, monkeypatch):
    pixels = folded(real, slice(960, 1152), slice(None))
    pixels[2000:] = blurred(real, 6)[2000:]
    whole = examine(pixels, **RULES)
    monkeypatch.setattr(tissue, "_STRIP_ROWS", 7)
    monkeypatch.setattr(quality, "_STRIP_ROWS", 11)
    monkeypatch.setattr(quality, "_FOCUS_PIXELS", 2**17)
    np.testing.assert_array_equal(examine(pixels, **RULES).kinds, whole.kinds)


def test_tinted_shows_artefacts_and_leaves_tissue(real):
    pixels = real.copy()
    pixels[960:1152] = INKS["green"]
    found = examine(pixels)
    picture = quality.tinted(found.thumbnail, found.kinds)
    np.testing.assert_array_equal(picture[found.mask.mask], found.thumbnail[found.mask.mask])
    is_pen = is_kind(found, "pen")
    assert (picture[is_pen].argmax(axis=-1) == 2).mean() > 0.9
    assert picture[is_kind(found, "background")].min() > 180


def test_a_large_thumbnail_is_kept_small():
    found = examine(np.full((700, 2500, 3), 200, np.uint8), mpp=8.0)
    assert found.kinds.shape == (700, 2500)
    assert found.thumbnail.shape == (234, 834, 3)
