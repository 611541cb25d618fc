"""Bands and vegetation of large images against NumPy's correlations of whole arrays."""

import numpy as np
import pytest

from ssldiff_jax.evaluation.metrics import large_image, spectral, structure
from ssldiff_jax.slides import multiband

NAMES = ("green", "nir", "red", "blue")
SIDE = 16


def bands_of(bits=8, low=(), high=()):
    return multiband.MultibandConfig(
        names=NAMES, low=low, high=high, bits=bits, shown=(), encoded=()
    )


def pairs_of(dtype, count=3, noise=0.3):
    """Regions of several sizes, and images that are like them, at all places by less than half."""
    source, top = np.random.default_rng(0), np.iinfo(dtype).max
    pairs = []
    for number in range(count):
        rows, cols = (4 + number, 6)
        coarse = source.uniform(0.1, 0.9, (rows * 2, cols * 2, 4))
        fine = np.repeat(np.repeat(coarse, SIDE // 2, axis=0), SIDE // 2, axis=1)
        other = np.clip(fine + noise * source.standard_normal(fine.shape), 0.01, 1)
        pairs.append(large_image.Pair(*((x * top).astype(dtype) for x in (other, fine))))
    return pairs


def means(image, px):
    """Of squares, one at a time."""
    rows, cols = image.shape[0] // px, image.shape[1] // px
    return np.array(
        [
            [image[r * px : (r + 1) * px, c * px : (c + 1) * px].mean() for c in range(cols)]
            for r in range(rows)
        ]
    )


def expected(pairs, of, px):
    """The correlation over all squares of all images."""
    sides = [
        np.concatenate([means(of(image.astype(float)), px).ravel() for image in side])
        for side in ([p.image for p in pairs], [p.reference for p in pairs])
    ]
    return np.corrcoef(*sides)[0, 1]


def index(image):
    red, infrared = image[..., NAMES.index("red")], image[..., NAMES.index("nir")]
    return (infrared - red) / (infrared + red)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(("figure", "px"), [("cells", SIDE), ("squares", 8)])
def test_vegetation_correlates_as_numpy_has_it(bits, figure, px):
    pairs, config = pairs_of(f"uint{bits}"), bands_of(bits)
    found = structure.compare(spectral.vegetation(config.of_land, SIDE), pairs, SIDE)
    estimate = found[figure]["generated"]
    assert estimate["value"] == pytest.approx(expected(pairs, index, px), abs=1e-6)
    assert estimate["low"] < estimate["value"] < estimate["high"]
    assert found[figure]["other_region"]["high"] < estimate["low"]


def test_the_index_is_of_values_and_not_of_how_they_are_stored():
    """Ranges of bands differ, as those of sensors do: what is compared is what they stand for."""
    values = np.random.default_rng(1).uniform(200, 1500, (8, 9, 4))
    low, high = (100.0, 0.0, 50.0, 20.0), (1600.0, 4000.0, 2000.0, 3000.0)
    config = bands_of(16, low, high)
    stored = config.to_records(np.moveaxis(values, -1, 0))
    np.testing.assert_allclose(
        spectral.vegetation_index(config.of_land(stored)), index(values), atol=1e-3
    )


def test_each_band_has_its_own_figure():
    pairs = pairs_of("uint8")
    # One band of noise alone, one of the reference itself.
    for pair in pairs:
        pair.image[..., 0] = np.random.default_rng(2).integers(0, 255, pair.image.shape[:2])
        pair.image[..., 3] = pair.reference[..., 3]
    found = structure.compare(spectral.bands(NAMES), pairs, SIDE)
    values = {name: of["generated"]["value"] for name, of in found.items()}
    for k, name in enumerate(NAMES):
        own = expected(pairs, lambda image, k=k: image[..., k], 8)
        assert values[name] == pytest.approx(own, abs=1e-6)
    assert abs(values["green"]) < 0.2
    assert values["blue"] == pytest.approx(1)


def test_no_light_at_all_has_no_vegetation():
    assert spectral.vegetation_index(np.zeros((2, 2, 4))).tolist() == [[0, 0], [0, 0]]


def test_land_needs_infrared():
    config = multiband.MultibandConfig(
        names=("red", "green", "blue"), low=(), high=(), bits=8, shown=(), encoded=()
    )
    with pytest.raises(ValueError, match=r"must have red, green, blue and infrared .* got"):
        config.of_land(np.zeros((2, 2, 3), np.uint8))


def test_reflectances_below_0_leave_the_index_in_its_range():
    land = np.array(
        [[[-0.010, 0, 0, 0.011], [0.3, 0, 0, -0.299], [-1, 0, 0, -2], [0.1, 0, 0, 0.3]]]
    )
    found = spectral.vegetation_index(land)
    np.testing.assert_allclose(found, [[1, -1, 0, 0.5]], atol=1e-12)
