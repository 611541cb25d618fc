"""Structure of large images, as stage `evaluate` writes it, against the images in the folder."""

import json

import numpy as np
import pytest
import skimage.metrics
from PIL import Image

from ssldiff_jax.evaluation.metrics import large_image, structure
from ssldiff_jax.stages.tools import sweep


@pytest.fixture(scope="module")
def pairs(workdir):
    open_ = lambda path: np.asarray(Image.open(path).convert("RGB"))
    return [
        large_image.Pair(open_(path), open_(workdir / "patches" / f"region_{path.stem[6:]}.png"))
        for path in sorted((workdir / "sample").glob("image_*.png"))
    ]


@pytest.fixture(scope="module")
def figures(workdir):
    return json.loads((workdir / "evaluate" / "results.json").read_text())["structure"]


def pooled(image):
    squares = image.mean(axis=-1).reshape(image.shape[0] // 8, 8, image.shape[1] // 8, 8)
    return squares.mean(axis=(1, 3))


def test_similarity_is_that_of_the_images_that_were_written(figures, pairs):
    """Regions of 128 px hold one scale."""
    maps = [
        skimage.metrics.structural_similarity(
            pooled(pair.image), pooled(pair.reference), data_range=255, gaussian_weights=True,
            sigma=1.5, use_sample_covariance=False, full=True,
        )[1][5:-5, 5:-5]
        for pair in pairs
    ]  # fmt: skip
    generated = figures["ms_ssim"]["ms_ssim"]["generated"]
    assert generated["value"] == pytest.approx(max(np.mean(maps), 0), abs=1e-9)
    assert generated["blocks"] == len(pairs)


def test_every_figure_is_compared_with_moved_and_other_regions(figures):
    assert set(figures) == {"class_iou", "ms_ssim", "edges", "power", "nuclei"}
    assert set(figures["class_iou"]) == {"mean", "nuclei", "stroma", "empty"}
    for group in figures.values():
        for sides in group.values():
            assert list(sides) == ["generated", "real_moved", "other_region"]
    # Real regions agree with themselves beside their place, noise does not with anything.
    iou = figures["class_iou"]["mean"]
    assert iou["real_moved"]["value"] > iou["generated"]["value"]


def test_a_sweep_has_the_figures_of_its_images(pairs):
    measures = {
        "ms_ssim": structure.ms_ssim([(128, 128)]),
        "edges": structure.edges(),
        "power": structure.fine_power(),
    }
    reference = [large_image.Pair(pair.reference, pair.reference) for pair in pairs]
    row = sweep.of_structure(reference, measures)
    alike = pytest.approx(1)
    assert row == {"class_iou": None, "ms_ssim": alike, "edges": alike, "power": alike}
