import numpy as np
import pytest
from scipy import ndimage

from ssldiff_jax.evaluation.metrics import large_image, nuclei, structure

# Optical densities: haematoxylin and eosin of Ruifrok and Johnston, all three colours.
HAEMATOXYLIN, EOSIN = np.array([0.65, 0.70, 0.29]), np.array([0.07, 0.99, 0.11])


def tissue(middles, *, mpp, radius_um=3.5, size_um=128, amount=0.8, blur_um=0.0):
    """Round nuclei on eosin, at places in µm, with grain."""
    side = round(size_um / mpp)
    rows, cols = (np.indices((side, side)) + 0.5) * mpp
    inside = np.zeros((side, side))
    for row, col in middles:
        inside[np.hypot(rows - row, cols - col) < radius_um] = amount
    inside = ndimage.gaussian_filter(inside, blur_um / mpp)
    density = inside[..., None] * HAEMATOXYLIN + 0.3 * EOSIN
    grain = np.random.default_rng(0).normal(0, 2, density.shape)
    return np.clip(255 * 10**-density + grain, 0, 255).astype(np.uint8)


def lattice(step, size=128):
    return [(r, c) for r in range(10, size - 8, step) for c in range(10, size - 8, step)]


@pytest.mark.parametrize("mpp", [0.25, 0.5, 0.75])
@pytest.mark.parametrize("step", [14, 22])
def test_every_nucleus_is_one_object_of_its_area(mpp, step):
    middles = lattice(step)
    labels = nuclei.segment(tissue(middles, mpp=mpp), mpp)
    assert labels.max() == len(middles)
    areas = np.bincount(labels.ravel())[1:] * mpp**2
    assert areas.mean() == pytest.approx(np.pi * 3.5**2, rel=0.2)


def test_nuclei_that_touch_are_parted():
    middles = [(r, c + d) for r, c in lattice(24) for d in (0, 7)]
    middles = [(r, c) for r, c in middles if c < 120]
    assert nuclei.segment(tissue(middles, mpp=0.5), 0.5).max() == len(middles)


@pytest.mark.parametrize(
    "change",
    [
        {"blur_um": 6.0},  # a haze without an outline
        {"radius_um": 1.2},  # dust
        {"radius_um": 14.0},  # a fold
        {"amount": 0.1},  # cytoplasm
    ],
)
def test_what_is_no_nucleus_is_left_out(change):
    middles = lattice(40)
    assert nuclei.segment(tissue(middles, mpp=0.5), 0.5).max() == len(middles)
    assert nuclei.segment(tissue(middles, mpp=0.5, **change), 0.5).max() == 0


@pytest.mark.parametrize("amounts", [(0.0, 0.5), (0.7, 0.2)])
def test_amounts_of_a_stain_are_those_that_absorbed(amounts):
    density = amounts[0] * HAEMATOXYLIN + amounts[1] * EOSIN
    pixel = np.round(255.5 * 10**-density - 0.5).astype(np.uint8)
    assert nuclei.haematoxylin(pixel[None, None])[0, 0] == pytest.approx(amounts[0], abs=0.02)


def test_figures_of_nuclei_are_those_of_their_places():
    """Half the nuclei are gone from the right half, and none from the left."""
    middles = [(r + 2, c + 2) for r, c in lattice(16)]
    kept = [(r, c) for k, (r, c) in enumerate(middles) if c < 64 or k % 2]
    reference, image = (tissue(each, mpp=0.5) for each in (middles, kept))
    pairs = [large_image.Pair(image, reference)]
    compared = structure.compare(nuclei.measure(0.5, 32), pairs, 32)
    counts = np.zeros((2, 8, 8))
    for side, each in enumerate((kept, middles)):
        for row, col in each:
            counts[side, int(row // 16), int(col // 16)] += 1
    expected = np.corrcoef(counts.reshape(2, -1))[0, 1]
    assert compared["count_ratio"]["generated"]["value"] == pytest.approx(len(kept) / len(middles))
    assert compared["count"]["generated"]["value"] == pytest.approx(expected, abs=0.02)
    assert compared["area"]["generated"]["value"] == pytest.approx(expected, abs=0.05)
    ratio = compared["count_ratio"]["generated"]
    assert ratio["blocks"] == 16
    assert ratio["low"] < len(kept) / len(middles) < ratio["high"] <= 1


@pytest.mark.parametrize("mpp", [0.0, 2.0])
def test_a_scale_without_nuclei_is_refused(mpp):
    with pytest.raises(ValueError, match=rf"0 < mpp <= 1 µm/px, got mpp={mpp:g}"):
        nuclei.measure(mpp, 64)
