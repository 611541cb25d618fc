import numpy as np
import pytest
import skimage.metrics
from scipy import ndimage

from ssldiff_jax.evaluation.metrics import large_image, structure


def noise(seed, *size, blur=0.0):
    pixels = np.random.default_rng(seed).normal(size=(*size, 3))
    pixels = ndimage.gaussian_filter(pixels, (blur, blur, 0)) if blur else pixels
    return np.clip(128 + 40 * pixels / pixels.std(), 0, 255).astype(np.uint8)


def pair(image, reference):
    return [large_image.Pair(image, reference)]


def grey(image):
    return np.repeat(np.asarray(image, np.uint8)[..., None], 3, axis=-1)


def every_measure(size):
    return [
        structure.class_maps(lambda image: (image[..., 0] > 128).astype(int), ("dark", "bright")),
        structure.ms_ssim([size]),
        structure.edges(),
    ]


@pytest.mark.parametrize("number", range(3))
def test_an_image_agrees_with_itself(number):
    image = noise(0, 256, 192, blur=6)
    measure = every_measure((256, 192))[number]
    for value in structure.values(measure, pair(image, image)).values():
        assert value == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("number", range(3))
def test_another_image_agrees_by_chance(number):
    image, other = noise(0, 512, 512, blur=6), noise(1, 512, 512, blur=6)
    measure = every_measure((512, 512))[number]
    # Halves that are independent share ¼ of ¾. Roots of small means are not small.
    expected, within = ((1 / 3, 0.09), (0, 0.25), (0, 0.09))[number]
    for value in structure.values(measure, pair(image, other)).values():
        assert value == pytest.approx(expected, abs=within)


@pytest.mark.parametrize("squares", [0, 1, 5])
def test_iou_of_a_band_that_is_moved(squares):
    """A band of 8 squares in 32, moved: it keeps 8 − k squares of the 8 + k that either has."""
    band = np.zeros((64, 256), int)
    band[:, 64:128] = 1
    moved = np.roll(band, 8 * squares, axis=1)
    measure = structure.class_maps(lambda image: image[..., 0] // 100, ("ground", "lake", "none"))
    values = structure.values(measure, pair(grey(100 * moved), grey(100 * band)))
    lake, ground = (8 - squares) / (8 + squares), (24 - squares) / (24 + squares)
    assert values["lake"] == pytest.approx(lake)
    assert values["ground"] == pytest.approx(ground)
    # A class that neither has is no part of the mean.
    assert values["none"] is None
    assert values["mean"] == pytest.approx((lake + ground) / 2)


def test_a_square_has_the_class_of_most_of_its_pixels():
    image = np.zeros((8, 16), np.uint8)
    image[:5, :8] = image[:3, 8:] = 100
    measure = structure.class_maps(lambda image: image[..., 0] // 100, ("a", "b"))
    seen = measure.see(grey(image))
    assert seen.argmax(axis=-1).tolist() == [[1, 0]]


def ssim_by_hand(a, b):
    """Means of (luminance, contrast and structure), window by window."""
    axis = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    weights = np.outer(axis, axis) / axis.sum() ** 2
    luminance, rest = [], []
    for i in range(a.shape[0] - 10):
        for j in range(a.shape[1] - 10):
            x, y = (image[i : i + 11, j : j + 11] for image in (a, b))
            mx, my = (weights * x).sum(), (weights * y).sum()
            vx, vy = (weights * (x - mx) ** 2).sum(), (weights * (y - my) ** 2).sum()
            cov = (weights * (x - mx) * (y - my)).sum()
            luminance.append((2 * mx * my + 2.55**2) / (mx**2 + my**2 + 2.55**2))
            rest.append((2 * cov + 7.65**2) / (vx + vy + 7.65**2))
    return np.array(luminance), np.array(rest)


def squares(image, px):
    rows, cols = image.shape[0] // px, image.shape[1] // px
    return np.array(
        [
            [image[i * px : (i + 1) * px, j * px : (j + 1) * px].mean() for j in range(cols)]
            for i in range(rows)
        ]
    )


def test_ms_ssim_is_the_paper_s_by_hand():
    """Two scales: 25 × 28 places of 8 px, and 12 × 14."""
    image, reference = noise(0, 200, 224, blur=20), noise(0, 200, 224, blur=24)
    assert structure.num_scales([(200, 224)]) == 2
    a, b = squares(image, 8), squares(reference, 8)
    fine = ssim_by_hand(a, b)[1].mean()
    coarse = np.multiply(*ssim_by_hand(squares(a, 2), squares(b, 2))).mean()
    weights = np.array([0.0448, 0.2856]) / (0.0448 + 0.2856)
    expected = fine ** weights[0] * coarse ** weights[1]
    measure = structure.ms_ssim([(200, 224)])
    value = structure.values(measure, pair(image, reference))["ms_ssim"]
    assert 0.1 < expected < 0.99
    assert value == pytest.approx(expected, rel=1e-9)


def test_ms_ssim_of_one_scale_is_skimage_s_ssim():
    image, reference = noise(0, 120, 160, blur=16), noise(0, 120, 160, blur=20)
    assert structure.num_scales([(120, 160)]) == 1
    _, full = skimage.metrics.structural_similarity(
        squares(image, 8), squares(reference, 8), data_range=255, gaussian_weights=True,
        sigma=1.5, use_sample_covariance=False, full=True,
    )  # fmt: skip
    value = structure.values(structure.ms_ssim([(120, 160)]), pair(image, reference))["ms_ssim"]
    assert value == pytest.approx(full[5:-5, 5:-5].mean(), rel=1e-9)


@pytest.mark.parametrize(
    ("side", "scales"), [(95, 0), (96, 1), (183, 1), (184, 2), (512, 3), (1416, 5), (9000, 5)]
)
def test_scales_are_those_that_hold_a_window(side, scales):
    """n places, less the one that regions are moved by, must be 11 at the coarsest scale."""
    assert structure.num_scales([(side, 10_000), (10_000, side)]) == scales


def test_an_image_smaller_than_a_window_is_refused():
    with pytest.raises(ValueError, match=r"images of 96 px or more a side, got 95"):
        structure.ms_ssim([(512, 512), (95, 400)])


def stripes(period):
    return np.where(np.arange(128) % period < period / 2, 90, 160)


@pytest.mark.parametrize("invert", [False, True])
def test_edges_know_directions_and_not_the_sign(invert):
    """Upright stripes beside lying ones; the other way round they run across everywhere."""
    upright = np.broadcast_to(stripes(16), (128, 128))
    image = np.concatenate([upright, upright.T], axis=1)
    other = np.concatenate([upright.T, upright], axis=1)
    other = 250 - other if invert else other
    edges = structure.edges()
    across = structure.values(edges, pair(grey(image), grey(other)))
    along = structure.values(edges, pair(grey(image), grey(250 - image if invert else image)))
    assert along["orientation"] == pytest.approx(1, abs=1e-6)
    assert across["orientation"] < -0.95


def test_edges_of_one_direction_everywhere_agree_by_chance():
    """Fibres that run the same way in both images say nothing of where they are."""
    fibres = [np.zeros((512, 512)), np.zeros((512, 512))]
    for seed, image in enumerate(fibres):
        image[:] = np.random.default_rng(seed).normal(size=(512, 512))
        image[:] = ndimage.gaussian_filter(image, (12, 2))
        image[:] = 128 + 40 * image / image.std()
    value = structure.values(
        structure.edges(), pair(*(grey(image.clip(0, 255)) for image in fibres))
    )
    assert value["orientation"] == pytest.approx(0, abs=0.06)


def test_a_lake_without_its_outline_is_missed():
    """Two lakes on rough ground; one image lacks the second."""
    at = lambda row, col: np.hypot(*np.ogrid[-row : 512 - row, -col : 512 - col]) < 70
    rough = noise(3, 512, 512, blur=1).astype(float).mean(axis=-1)[..., None]
    scene = lambda lakes, roughness: np.where(lakes[..., None], 60, roughness).repeat(3, -1)
    both, one = at(150, 150) | at(360, 340), at(150, 150)
    ground = noise(4, 512, 512, blur=1).astype(float).mean(axis=-1)[..., None]
    reference = scene(both, rough).astype(np.uint8)
    values = [
        structure.values(structure.edges(), pair(scene(lakes, ground).astype(np.uint8), reference))
        for lakes in (both, one)
    ]
    assert values[0]["orientation"] > values[1]["orientation"] + 0.1


@pytest.mark.parametrize(
    ("waves", "bands"),
    [(205, (0, 2, 2)), (146, (0, 0, 2)), (102, (2, 0, 0)), (73, (2, 2, 0)), (25, (2, 2, 2))],
)
def test_power_of_a_wave_is_in_the_bands_that_hold_its_period(waves, bands):
    """Half waves over 256 px, of periods 2.5, 3.5, 5, 7 and 20 px, with half the amplitude, and
    grain that stays: 0 marks bands whose power is a quarter, 2 those where it is the same."""
    grain = np.random.default_rng(0).normal(0, 4, (256, 256, 1))
    wave = np.cos(np.pi * (np.arange(256) + 0.5) * waves / 256)[:, None, None]
    scene = lambda amplitude: np.round(128 + amplitude * wave + grain).astype(np.uint8)
    measure = structure.fine_power()
    image, reference = (scene(a).repeat(3, axis=-1) for a in (40, 80))
    values = structure.values(measure, pair(image, reference))
    for value, band in zip(values.values(), bands, strict=True):
        assert value == pytest.approx(0.25 if band == 0 else 1, abs=0.03)


def test_power_of_half_the_contrast_is_a_quarter():
    reference = noise(0, 128, 160)
    image = np.round(128 + (reference.astype(float) - 128) / 2).astype(np.uint8)
    values = structure.values(structure.fine_power(), pair(image, reference))
    assert list(values.values()) == pytest.approx([0.25] * 3, rel=0.02)


@pytest.mark.parametrize("number", range(3))
def test_comparisons_are_with_the_moved_and_with_the_next_region(number):
    sizes = (256, 256), (264, 320)
    images, references = ([noise(s + k, *z, blur=8) for s, z in enumerate(sizes)] for k in (0, 5))
    measure = every_measure((256, 256))[number]
    pairs = [large_image.Pair(*both) for both in zip(images, references, strict=True)]
    moved = [large_image.Pair(r[8:, 8:], r[:-8, :-8]) for r in references]
    first, second = references
    swapped = [
        large_image.Pair(second[:256, :256], first),
        large_image.Pair(first, second[:256, :256]),
    ]
    by_kind = {"generated": pairs, "real_moved": moved, "other_region": swapped}
    compared = structure.compare(measure, pairs, 64)
    for kind, own in by_kind.items():
        for name, value in structure.values(measure, own).items():
            # Gradients at a border look beyond it where the image is not cut there.
            assert compared[name][kind]["value"] == pytest.approx(value, abs=0.02)
            assert compared[name][kind]["blocks"] == 2 * 2 + 2 * 2


def test_a_single_region_is_compared_with_itself_turned_by_half():
    image = noise(0, 256, 256, blur=8)
    compared = structure.compare(structure.edges(), pair(image, image), 32)["orientation"]
    turned = structure.values(structure.edges(), pair(image[::-1, ::-1], image))["orientation"]
    assert compared["other_region"]["value"] == pytest.approx(turned, abs=1e-9)
    assert compared["generated"]["low"] == pytest.approx(1, abs=1e-9)
    assert compared["other_region"]["low"] < 0 < compared["other_region"]["high"]
