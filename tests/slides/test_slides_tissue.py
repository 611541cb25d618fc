import numpy as np
import pytest
import small_configs
from PIL import Image

from ssldiff_jax import slides
from ssldiff_jax.data import demo_slide
from ssldiff_jax.slides import tissue

REAL = demo_slide.demo_slide()
TISSUE = small_configs.section("data.tissue")
WHITE, PINK, BLACK = (245, 244, 246), (200, 120, 170), (8, 0, 4)


@pytest.fixture
def painted(tmp_path):
    """Open a slide of one colour with rectangles on it, at 2 µm/px."""

    def painted(background, *rectangles, noise=0):
        image = np.empty((800, 1200, 3), np.int64)
        image[:] = background
        for rows, columns, colour in rectangles:
            image[rows, columns] = colour
        image += np.random.default_rng(0).integers(-noise, noise + 1, image.shape)
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(tmp_path / "painted.png")
        return slides.open_slide(tmp_path / "painted.png", mpp=2.0)

    return painted


def test_real_slide_has_tissue():
    found = tissue.examine(slides.open_slide(REAL), TISSUE).mask
    assert found.mask.shape == (185, 138)
    assert 0.3 < found.mask.mean() < 1.0


@pytest.mark.parametrize("noise", [0, 4])
def test_blank_slide_has_none(painted, noise):
    assert not tissue.examine(painted(WHITE, noise=noise), TISSUE).mask.mask.any()


def test_slide_full_of_tissue_is_not_split(painted):
    two_stains = painted(PINK, (slice(0, 400), slice(0, 1200), (150, 60, 140)))
    assert tissue.examine(two_stains, TISSUE).mask.mask.all()


def test_rectangle_is_found_and_black_and_specks_are_not(painted):
    slide = painted(
        WHITE,
        (slice(200, 600), slice(400, 1000), PINK),
        (slice(0, 100), slice(0, 1200), BLACK),
        (slice(700, 704), slice(100, 104), PINK),
    )
    found = tissue.examine(slide, TISSUE).mask
    expected = np.zeros((200, 300), bool)
    expected[50:150, 100:250] = True
    assert (found.mask != expected).sum() <= 4 * 3  # the disc rounds the four corners
    raw = tissue.examine(slide, small_configs.section("data.tissue", smooth_radius_um=0.0)).mask
    assert raw.mask[175, 25]
    assert not raw.mask[:25].any()


def test_strips_equal_one_read(monkeypatch):
    slide = slides.open_slide(REAL)
    whole = tissue.examine(slide, TISSUE).mask.mask
    monkeypatch.setattr(tissue, "_STRIP_ROWS", 7)
    np.testing.assert_array_equal(tissue.examine(slide, TISSUE).mask.mask, whole)


def test_coarse_slide_is_looked_at_natively(tmp_path):
    Image.new("RGB", (30, 20), PINK).save(tmp_path / "coarse.png")
    found = tissue.examine(slides.open_slide(tmp_path / "coarse.png", mpp=1e7), TISSUE).mask
    assert found.mpp == 1e7
    assert found.mask.shape == (20, 30)
    assert found.mask.all()


def test_fraction_is_the_mean_of_the_region():
    mask = np.random.default_rng(1).random((37, 53)) < 0.4
    found = tissue.TissueMask(mask, 8.0)
    assert found.fraction(5, 7, 11, 13, mpp=8.0) == pytest.approx(mask[5:16, 7:20].mean())
    fine = mask.repeat(16, axis=0).repeat(16, axis=1)  # the same mask at 0.5 µm/px
    for top, left, height, width in [(3, 5, 100, 70), (200, 333, 9, 5), (0, 0, *fine.shape)]:
        expected = fine[top : top + height, left : left + width].mean()
        assert found.fraction(top, left, height, width, mpp=0.5) == pytest.approx(expected)


def test_beyond_the_slide_is_not_tissue():
    found = tissue.TissueMask(np.ones((10, 20), bool), 8.0)
    assert found.fraction(0, 0, 10, 20, mpp=8.0) == 1
    assert found.fraction(-5, 0, 10, 20, mpp=8.0) == pytest.approx(0.5)
    assert found.fraction(5, 10, 10, 20, mpp=8.0) == pytest.approx(0.25)
    assert found.fraction(50, 0, 10, 20, mpp=8.0) == 0


def test_fractions_agree_with_fraction():
    rng = np.random.default_rng(2)
    found = tissue.TissueMask(rng.random((40, 30)) < 0.5, 8.0)
    tops, lefts = rng.integers(-50, 700, (2, 25))
    one_by_one = [found.fraction(int(y), int(x), 64, 64, mpp=0.5) for y, x in np.c_[tops, lefts]]
    np.testing.assert_allclose(found.fractions(tops, lefts, (64, 64), 0.5), one_by_one)
