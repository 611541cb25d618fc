import os
import pathlib

import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy import ndimage

from ssldiff_jax.core import patch_grid
from ssldiff_jax.data import crops
from ssldiff_jax.evaluation.metrics import frechet, large_image
from ssldiff_jax.evaluation.metrics import pixels as images

SMALL = pathlib.Path(__file__).parents[1] / "golden"
GOLDEN = pathlib.Path(os.environ.get("SSLDIFF_GOLDEN", SMALL))


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def features_of(mean, covariance):
    """2·D features whose sample mean and covariance are exactly these."""
    dim = len(mean)
    spread = np.linalg.cholesky(covariance).T * np.sqrt((2 * dim - 1) / 2)
    return mean + np.concatenate([spread, -spread])


def test_frechet_distance_of_the_references_moments():
    golden = load_file(SMALL / "metrics_moments.safetensors")
    sets = (features_of(golden[f"output.mu{i}"], golden[f"output.sigma{i}"]) for i in (1, 2))
    expected = golden["output.frechet_pytorch_fid_float64_features"]
    assert frechet.frechet_distance(*sets) == pytest.approx(float(expected[0]), rel=1e-6)


def test_frechet_distance_of_the_references_features():
    path = GOLDEN / "metrics_fid_kid_prc.safetensors"
    if not path.exists():
        pytest.skip(f"{path} is not there; set SSLDIFF_GOLDEN")
    golden = load_file(path)
    a, b = golden["input.features1"], golden["input.features2"]
    value = lambda name: float(golden[f"output.frechet_pytorch_fid_{name}"][0])
    assert frechet.frechet_distance(a, b) == pytest.approx(value("float64_features"), rel=1e-6)
    singular = frechet.frechet_distance(a[:40], b[:40])
    assert singular == pytest.approx(value("first_40_of_each_singular"), rel=1e-3)


def test_frechet_distance_in_closed_form():
    x = normal(0, 300, 6) @ normal(1, 6, 6)
    assert frechet.frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert frechet.frechet_distance(x, x[::-1]) == pytest.approx(0, abs=1e-9)
    shift = normal(2, 6)
    assert frechet.frechet_distance(x, x + shift) == pytest.approx(np.sum(shift**2), rel=1e-9)
    # Twice as wide: tr(Σ + 4Σ − 2·2Σ).
    wide = x.mean(axis=0) + 2 * (x - x.mean(axis=0))
    trace = np.trace(np.cov(x, rowvar=False))
    assert frechet.frechet_distance(x, wide) == pytest.approx(trace, rel=1e-9)
    with pytest.raises(ValueError, match=r"at least 2 features .* got 300 and 1"):
        frechet.frechet_distance(x, x[:1])


def test_frechet_distance_of_fewer_features_than_dimensions():
    x = normal(0, 5, 20)
    assert frechet.frechet_distance(x, x) == pytest.approx(0, abs=1e-6)
    assert frechet.frechet_distance(x, x + 1) == pytest.approx(20, rel=1e-6)


def mosaic(rows, cols, side):
    """Cells of one colour each: red is the row, green the column."""
    cells = np.zeros((rows, cols, 3), np.uint8)
    cells[..., 0] = 20 * np.arange(rows)[:, None]
    cells[..., 1] = 30 * np.arange(cols)
    return cells.repeat(side, axis=0).repeat(side, axis=1)


def test_cells_are_cut_in_reading_order():
    cells = patch_grid.cut_cells(mosaic(2, 3, 4), 4)
    assert cells.shape == (6, 4, 4, 3)
    colours = cells[:, 0, 0, :2].tolist()
    assert colours == [[0, 0], [0, 30], [0, 60], [20, 0], [20, 30], [20, 60]]
    assert np.all(cells == cells[:, :1, :1])


def test_shifted_cells_are_whole_and_straddle():
    image = np.random.default_rng(0).integers(0, 256, (11, 13, 3), np.uint8)
    cells = patch_grid.cut_cells(image, 4, shift=2)
    assert len(cells) == 2 * 2
    np.testing.assert_array_equal(cells[3], image[6:10, 6:10])


def test_layout_correlation():
    reference = np.random.default_rng(0).integers(0, 256, (6, 6, 3), np.uint8)
    reference = reference.repeat(4, axis=0).repeat(4, axis=1)
    same = images.layout_correlation(reference, reference, 4)
    assert same["identity"] == pytest.approx(1)
    assert same["transposed"] < 0.7
    turned = images.layout_correlation(reference.swapaxes(0, 1), reference, 4)
    assert turned["transposed"] == pytest.approx(1)
    assert turned["identity"] < 0.7
    assert same["rotated"] < 0.7
    for orientation in range(1, 8):
        moved = images.layout_correlation(crops.orient(reference, orientation), reference, 4)
        assert moved["rotated"] == pytest.approx(1)
    inverted = images.layout_correlation(255 - reference, reference, 4)
    assert inverted["identity"] == pytest.approx(-1)
    # The mean colour is no layout.
    faded = (reference // 2 + np.array([100, 0, 50])).astype(np.uint8)
    assert images.layout_correlation(faded, reference, 4)["identity"] > 0.99


@pytest.mark.parametrize("rows", [1, 3])
def test_cells_of_one_colour_have_no_layout(rows):
    blank, seen = np.full((4 * rows, 4 * rows, 3), 240, np.uint8), mosaic(rows, rows, 4)
    for pair in ((blank, seen), (seen, blank), (blank, blank)):
        found = images.layout_correlation(*pair, 4)
        assert found == {"identity": None, "rotated": None, "transposed": None}


def test_layout_correlation_of_an_oblong_has_no_transpose():
    found = images.layout_correlation(mosaic(2, 3, 4), mosaic(2, 3, 4), 4)
    assert found.keys() == {"identity", "rotated"}
    assert found["identity"] == pytest.approx(1)
    assert found["rotated"] < 0.9


def test_a_spectrum_tells_blur_from_noise():
    real = np.random.default_rng(0).integers(60, 196, (128, 192, 3)).astype(np.uint8)
    assert images.spectrum_ratio(real, real) == pytest.approx([1] * 5)
    blurred = ndimage.gaussian_filter(real.astype(float), (1, 1, 0)).astype(np.uint8)
    found = images.spectrum_ratio(blurred, real)
    assert found == sorted(found)
    assert found[0] < 0.1
    assert found[-1] > 0.8
    grainy = (real + np.random.default_rng(1).integers(-20, 20, real.shape)).astype(np.uint8)
    assert images.spectrum_ratio(grainy, blurred)[0] > 10


def test_variance_ratio():
    noise = np.random.default_rng(0).integers(60, 196, (64, 96, 3)).astype(np.uint8)
    assert images.variance_ratio(noise, noise) == 1
    paler = (64 + noise // 2).astype(np.uint8)
    assert images.variance_ratio(paler, noise) == pytest.approx(0.25, rel=0.01)
    assert images.variance_ratio(np.full_like(noise, 9), noise) == 0


SIDE = 8


def embed(cells):
    """Random features of the pixels, deviations from grey."""
    pixels = cells.reshape(len(cells), -1).astype(float) - 127.5
    return (pixels @ normal(5, SIDE * SIDE * 3, 12)).astype(np.float32)


def region(seed, rows=5, cols=4):
    shape = (rows * SIDE, cols * SIDE, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def fidelity(pairs):
    return large_image.cells(pairs, embed, SIDE) | large_image.crops(pairs, embed, SIDE)


def test_a_perfect_copy_is_at_the_floor():
    pairs = [large_image.Pair(region(i), region(i)) for i in range(2)]
    found = fidelity(pairs)
    assert found["cell_retrieval_top1"] == 1
    assert found["embedding_similarity"]["mean"] == pytest.approx(1, abs=1e-5)
    assert found["embedding_similarity"]["shuffled"] < 0.3
    assert found["crop_fd_uncorrected"] == found["fd_floor_uncorrected"] > 0
    assert found["num_cells"] == 40


def test_a_copy_in_the_wrong_place_is_found_out():
    """Moved by one cell: no cell finds itself; the similarity is that of strangers."""
    moved = np.roll(region(0), SIDE, axis=1)
    found = fidelity([large_image.Pair(moved, region(0))])
    assert found["cell_retrieval_top1"] == 0
    assert found["embedding_similarity"]["mean"] < 0.4


def test_another_distribution_is_above_the_floor():
    tinted = (region(0) // 8 + np.array([200, 20, 60])).astype(np.uint8)
    found = fidelity([large_image.Pair(tinted, region(0))])
    assert found["crop_fd_uncorrected"] > 1.5 * found["fd_floor_uncorrected"]


def test_similarity_is_synthetic_by_reference():
    image, reference = region(1, 2, 2), region(2, 2, 2)
    image[SIDE:, :SIDE] = reference[:SIDE, SIDE:]
    cosines = large_image.cell_similarity(large_image.Pair(image, reference), embed, SIDE)
    assert cosines.shape == (4, 4)
    assert np.unravel_index(np.argmax(cosines), (4, 4)) == (2, 1)
    assert cosines[2, 1] == pytest.approx(1, abs=1e-5)


def test_each_cell_has_its_cosine_and_the_rank_of_it():
    """More cells than are compared at a time; by sorting, one cell after the other."""
    rng = np.random.default_rng(3)
    real = rng.normal(size=(1500, 6))
    generated = real + 0.5 * rng.normal(size=real.shape)
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
    features = large_image.CellFeatures(unit(generated), unit(real))
    found = features.matches()
    assert len(found.similarity) == len(found.rank) == 1500
    for i in (0, 7, 1023, 1024, 1499):
        cosines = [float(np.dot(features.generated[i], other)) for other in features.real]
        assert found.similarity[i] == pytest.approx(cosines[i], abs=1e-6)
        assert found.rank[i] == sorted(cosines, reverse=True).index(cosines[i]) + 1
    top1 = large_image.cell_figures([features])["cell_retrieval_top1"]
    assert np.mean(found.rank == 1) == top1


def test_pairs_of_one_cell_have_no_other_cells():
    cell = np.random.default_rng(0).integers(1, 256, (4, 4, 3)).astype(np.uint8)
    pair = large_image.Pair(cell, cell)
    embed = lambda cells: cells.reshape(len(cells), -1).astype(np.float32)
    found = large_image.cells([pair, pair], embed, 4)["embedding_similarity"]
    assert found["mean"] == pytest.approx(1)
    assert found["shuffled"] is None
