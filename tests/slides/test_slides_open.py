import numpy as np
import openslide
import pytest
from PIL import Image, TiffImagePlugin

from ssldiff_jax import slides
from ssldiff_jax.data import demo_slide
from ssldiff_jax.slides import backends, resample

REAL = demo_slide.demo_slide()
SIXTEEN_BIT = np.array([[0, 257, 32768, 65535]], np.uint16)


@pytest.fixture(scope="module")
def real():
    slide = slides.open_slide(REAL)
    yield slide
    slide.close()


@pytest.fixture
def save(tmp_path):
    def save(image, name="image.png", **options):
        path = tmp_path / name
        image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
        image.save(path, **options)
        return path

    return save


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def test_real_slide_is_a_slide(real):
    assert isinstance(real, slides.Slide)
    assert real.path == REAL
    assert real.shape == real.shape_at(0.5) == (2967, 2220)
    assert real.mpp == 0.499
    assert real.shape_at(8.0) == (2967 // 16, 2220 // 16)


@pytest.mark.parametrize("mpp", [0.499, 0.5])
def test_native_region_is_level_0(real, mpp):
    with openslide.OpenSlide(str(REAL)) as raw:
        expected = np.asarray(raw.read_region((700, 1200), 0, (90, 50)))[..., :3]
    np.testing.assert_array_equal(real.read_region(1200, 700, 50, 90, mpp=mpp), expected)


@pytest.mark.parametrize("mpp", [0.3, 0.5, 0.83, 1.0, 3.7])
def test_two_halves_equal_the_whole(real, mpp):
    whole = real.read_region(-5, 40, 60, 80, mpp=mpp)
    upper, lower = (real.read_region(top, 40, 30, 80, mpp=mpp) for top in (-5, 25))
    np.testing.assert_array_equal(np.concatenate([upper, lower]), whole)
    left, right = (real.read_region(-5, x, 60, 40, mpp=mpp) for x in (40, 80))
    np.testing.assert_array_equal(np.concatenate([left, right], axis=1), whole)


def test_bounded_strips_equal_one_read(real, monkeypatch):
    whole = real.read_region(0, 0, 70, 90, mpp=2.1)
    monkeypatch.setattr("ssldiff_jax.slides.slide._MAX_SOURCE_VALUES", 15_000)
    np.testing.assert_array_equal(real.read_region(0, 0, 70, 90, mpp=2.1), whole)


def test_whole_factor_is_the_block_mean(real):
    native = real.read_region(800, 400, 120, 160, mpp=0.5).astype(np.float64)
    expected = native.reshape(30, 4, 40, 4, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(real.read_region(200, 100, 30, 40, mpp=2.0), expected, atol=0.501)


@pytest.mark.parametrize("factor", [1.25, 1.5, 2.75, 9.6])
def test_area_downsampling_keeps_the_mean(save, factor):
    image = noise(480, 720)
    slide = slides.open_slide(save(image), mpp=1.0)
    height, width = slide.shape_at(factor)
    small = slide.read_region(0, 0, height, width, mpp=factor)
    covered = image[: round(height * factor), : round(width * factor)]
    assert small.mean() == pytest.approx(covered.mean(), abs=0.2)


@pytest.mark.parametrize("factor", [1.0, 1.37, 4.0, 0.6])
def test_weights_sum_to_one_inside_and_zero_outside(factor):
    plan = resample.plan_axis(-8, 60, factor=factor, size=30, extent=30.0)
    index = np.arange(-8, 52)
    inside = (index >= 0) & ((index + 1) * factor <= 30)
    outside = (index < -1) | (index * factor > 30)
    np.testing.assert_allclose(plan.coverage[inside], 1)
    np.testing.assert_allclose(plan.coverage[outside], 0, atol=1e-12)
    np.testing.assert_allclose(np.asarray(plan.matrix.sum(axis=1))[:, 0], plan.coverage, atol=1e-5)


@pytest.mark.parametrize("mpp", [1.0, 2.0, 2.6, 0.5])
def test_orientation_is_kept(save, mpp):
    image = np.zeros((40, 80, 3), np.uint8)
    image[:10, :20] = [255, 0, 0]
    image[-10:, :20] = [0, 255, 0]
    image[:10, -20:] = [0, 0, 255]
    slide = slides.open_slide(save(image), mpp=1.0)
    height, width = slide.shape_at(mpp)
    small = slide.read_region(0, 0, height, width, mpp=mpp)
    assert small.shape == (height, width, 3)
    assert small[0, 0].argmax() == 0
    assert small[-2, 0].argmax() == 1
    assert small[0, -2].argmax() == 2
    assert small[-2, -2].max() == 0


@pytest.mark.parametrize("mpp", [0.5, 1.0, 1.7, 0.3])
def test_beyond_the_border_is_white(real, mpp):
    height, width = real.shape_at(mpp)
    corner = real.read_region(-20, -30, 40, 50, mpp=mpp)
    assert (corner[:19] == 255).all()
    assert (corner[:, :29] == 255).all()
    np.testing.assert_array_equal(corner[20:, 30:], real.read_region(0, 0, 20, 20, mpp=mpp))
    assert (real.read_region(height + 2, 0, 5, 5, mpp=mpp) == 255).all()
    assert (real.read_region(0, width + 999, 5, 5, mpp=mpp) == 255).all()


def test_dark_slide_stays_dark_up_to_its_last_pixel(save):
    slide = slides.open_slide(save(np.zeros((101, 67, 3), np.uint8)), mpp=0.5)
    for mpp in (0.3, 0.9, 1.0, 7.3):
        height, width = slide.shape_at(mpp)
        assert slide.read_region(0, 0, height, width, mpp=mpp).max() == 0


def test_upsampling_stops_at_half_the_native_mpp(real):
    assert real.shape_at(0.25) == (2 * 2967, 2 * 2220)
    with pytest.raises(
        slides.SlideError,
        match=r"native 0.499 µm/px of .*cmu_small_region.svs, got 0.2 µm/px: config",
    ):
        real.read_region(0, 0, 8, 8, mpp=0.2)


def test_cubic_upsampling_keeps_a_ramp(save):
    ramp = np.tile(np.arange(0, 200, 5, dtype=np.uint8)[None, :, None], (8, 1, 3))
    slide = slides.open_slide(save(ramp), mpp=1.0)
    row = slide.read_region(4, 20, 1, 40, mpp=0.5)[0, :, 0]
    expected = 5 * ((np.arange(20, 60) + 0.5) / 2 - 0.5)
    np.testing.assert_allclose(row, expected, atol=0.501)


def test_empty_region_is_refused(real):
    with pytest.raises(slides.SlideError, match="at least 1 × 1"):
        real.read_region(0, 0, 0, 8, mpp=0.5)


@pytest.mark.parametrize(
    ("mode", "pixel", "expected"),
    [
        ("1", 1, [255, 255, 255]),
        ("L", 77, [77, 77, 77]),
        ("LA", (0, 0), [255, 255, 255]),
        ("RGB", (10, 20, 30), [10, 20, 30]),
        ("RGBA", (10, 20, 30, 255), [10, 20, 30]),
        ("RGBA", (0, 0, 0, 102), [153, 153, 153]),
        ("CMYK", (0, 255, 255, 0), [255, 0, 0]),
        ("YCbCr", (128, 128, 128), [128, 128, 128]),
        ("I;16", 32768, [128, 128, 128]),
        ("I;16B", 65535, [255, 255, 255]),
    ],
)
def test_every_mode_becomes_rgb(save, mode, pixel, expected):
    path = save(Image.new(mode, (6, 4), pixel), "image.tif")
    image = slides.open_slide(path, mpp=1.0).read_region(0, 0, 4, 6, mpp=1.0)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, np.broadcast_to(np.uint8(expected), (4, 6, 3)))


def test_the_fourth_band_of_a_geotiff_is_no_transparency(save):
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[34735] = (1, 1, 0, 0)  # GeoKeyDirectory
    tags.tagtype[34735] = 3
    path = save(Image.new("RGBA", (300, 300), (10, 20, 30, 102)), "scene.tif", tiffinfo=tags)
    image = slides.open_slide(path, mpp=1e6).read_region(0, 0, 300, 300, mpp=1e6)
    np.testing.assert_array_equal(image, np.broadcast_to(np.uint8([10, 20, 30]), (300, 300, 3)))


@pytest.mark.parametrize("name", ["image.png", "image.webp", "image.gif"])
def test_an_animation_is_no_image(save, name):
    frames = [Image.fromarray(noise(8, 8, seed)) for seed in range(3)]
    path = save(frames[0], name, save_all=True, append_images=frames[1:])
    with pytest.raises(slides.SlideError, match=rf"{name}: .*got an animation of 3 frames"):
        slides.open_slide(path, mpp=1.0)


def test_previews_in_a_photograph_are_left_alone(save):
    photograph, preview = Image.fromarray(noise(16, 16)), Image.fromarray(noise(8, 8))
    path = save(photograph, "image.jpg", format="MPO", save_all=True, append_images=[preview])
    assert slides.open_slide(path, mpp=1.0).shape == (16, 16)


def test_palette_with_transparency(save):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    opaque = slides.open_slide(save(image), mpp=1.0)
    assert opaque.read_region(0, 0, 1, 1, mpp=1.0).ravel().tolist() == [10, 20, 30]
    clear = slides.open_slide(save(image, "clear.png", transparency=1), mpp=1.0)
    assert clear.read_region(0, 0, 1, 1, mpp=1.0).ravel().tolist() == [255, 255, 255]


@pytest.mark.parametrize("name", ["image.png", "image.tif"])
def test_sixteen_bits_scale_by_the_full_range(save, name):
    slide = slides.open_slide(save(SIXTEEN_BIT, name), mpp=1.0)
    assert slide.read_region(0, 0, 1, 4, mpp=1.0)[0, :, 0].tolist() == [0, 1, 128, 255]


def test_float_pixels_are_refused(save):
    path = save(Image.new("F", (4, 4), 0.5), "float.tif")
    with pytest.raises(
        slides.SlideError, match=r"got float32 with values 0\.5…0\.5 in .*float\.tif: .*low"
    ):
        slides.open_slide(path, mpp=1.0)


def test_missing_mpp_says_what_to_pass(save):
    path = save(noise(8, 8), dpi=(300, 300))
    with pytest.raises(slides.SlideError) as caught:
        slides.open_slide(path)
    assert str(path) in str(caught.value)
    assert "--config.data.mpp=<microns per pixel>" in str(caught.value)


def test_tiff_centimetres_are_an_mpp_and_inches_are_not(save):
    image = Image.fromarray(noise(8, 8))
    micro = save(image, "cm.tif", resolution_unit="cm", x_resolution=20000, y_resolution=20000)
    assert slides.open_slide(micro).mpp == pytest.approx(0.5)
    assert slides.open_slide(micro, mpp=2.0).mpp == 2.0
    printed = [
        save(image, "print.tif", resolution_unit="cm", x_resolution=118, y_resolution=118),
        save(image, "inch.tif", resolution_unit="inch", x_resolution=50800, y_resolution=50800),
    ]
    for path in printed:
        with pytest.raises(slides.SlideError, match="microns per pixel"):
            slides.open_slide(path)


@pytest.mark.parametrize("mpp", [0.0, -1.0, float("nan")])
def test_impossible_mpp_is_refused(mpp):
    with pytest.raises(slides.SlideError, match=r"cmu_small_region\.svs, got mpp="):
        slides.open_slide(REAL, mpp=mpp)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("part", [0.6, 0.001])
def test_truncated_slide_names_the_file(tmp_path, part):
    content = REAL.read_bytes()
    path = tmp_path / "cut.svs"
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(slides.SlideError, match=r"cut\.svs") as caught:
        slides.open_slide(path, mpp=0.5)
    assert "\n" not in str(caught.value)


def test_damaged_pixels_are_found_on_opening(tmp_path):
    content = bytearray(REAL.read_bytes())
    content[1000 : len(content) // 2] = bytes(len(content) // 2 - 1000)
    path = tmp_path / "damaged.svs"
    path.write_bytes(content)
    assert openslide.OpenSlide.detect_format(str(path)) is not None
    with pytest.raises(slides.SlideError, match=r"damaged\.svs"):
        slides.open_slide(path)


def test_error_while_reading_names_the_file(monkeypatch):
    slide = slides.open_slide(REAL)

    def fail(*args):
        raise openslide.OpenSlideError("tile\nlost")

    monkeypatch.setattr(openslide.OpenSlide, "read_region", fail)
    with pytest.raises(slides.SlideError, match=r"cmu_small_region\.svs: tile lost$"):
        slide.read_region(0, 0, 8, 8, mpp=0.5)


@pytest.mark.parametrize("name", ["image.png", "image.jpg", "image.tif", "image.webp"])
def test_truncated_image_names_the_file(save, name):
    path = save(noise(64, 64), name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(slides.SlideError, match=name):
        slides.open_slide(path, mpp=1.0)


def test_not_an_image_and_no_such_file(tmp_path):
    (tmp_path / "notes.png").write_text("not an image")
    with pytest.raises(slides.SlideError, match=r"notes\.png"):
        slides.open_slide(tmp_path / "notes.png", mpp=1.0)
    with pytest.raises(slides.SlideError, match=r"absent\.svs: no such file"):
        slides.open_slide(tmp_path / "absent.svs")


def test_pillow_limit_is_ours_and_left_alone(save, monkeypatch):
    path = save(noise(64, 64))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert slides.open_slide(path, mpp=1.0).shape == (64, 64)
    monkeypatch.setattr(backends, "MAX_DECODED_PIXELS", 1000)
    with pytest.raises(slides.SlideError, match=r"at most 1000 px, got 64 × 64; convert"):
        slides.open_slide(path, mpp=1.0)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_find_slides(tmp_path):
    deep = tmp_path / "deep"
    deep.mkdir()
    files = [tmp_path / "a.svs", tmp_path / "b, c.PNG", deep / "d[1].tif"]
    for file in [*files, tmp_path / "notes.txt"]:
        file.touch()
    assert slides.find_slides(str(tmp_path)) == files[:2]
    assert slides.find_slides(f"{tmp_path}/**/*.tif , {tmp_path}") == files
    assert slides.find_slides(f"{files[0]},{tmp_path}/*.svs") == files[:1]
    assert slides.find_slides(str(files[1])) == files[1:2]
    assert slides.find_slides(str(files[2])) == files[2:]


@pytest.mark.parametrize("pattern", ["", "nowhere/*.svs", f"{REAL},absent.svs", "x" * 300])
def test_find_slides_says_what_matched_nothing(pattern):
    with pytest.raises(slides.SlideError, match=r"no slide matches '.*': expected a file"):
        slides.find_slides(pattern)
