"""Large images by every network: what is drawn true to pixel is as far as real crops are."""

import dataclasses

import numpy as np
import pytest

from ssldiff_jax.evaluation.features import image_files
from ssldiff_jax.evaluation.features import networks as extractors
from ssldiff_jax.evaluation.metrics import large_image
from ssldiff_jax.runs import stage
from ssldiff_jax.stages.evaluate import large_images, protocol


@pytest.fixture(scope="module")
def made(workdir, generator):
    return stage.Context(generator.config, workdir, generator.mesh).artifacts


@pytest.fixture(scope="module")
def files(made):
    return protocol.PatchFiles.of(made.config)


@pytest.fixture(scope="module")
def networks(made, clip_folder):
    return protocol.networks(made) | {"clip": extractors.load("clip", clip_folder, 4)}


def regions(count):
    """Smooth random pictures of 4 × 4 cells."""
    coarse = np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), np.uint8)
    return [np.repeat(np.repeat(image, 16, axis=0), 16, axis=1) for image in coarse]


def test_true_images_are_at_the_floor_and_others_above(files, networks):
    real = regions(4)
    same = large_images.run(files, [large_image.Pair(r, r) for r in real], networks)
    assert set(same) == {"judge", "encoder", "clip"}
    for found in same.values():
        ours, real_own = (found[key]["uncorrected"] for key in ("crops", "crops_real_shifted"))
        assert ours == pytest.approx(real_own, rel=1e-5)
        assert found["crops"]["interval"].startswith("too few: 36 vectors of ")
        assert found["crops"]["counts"] == (4 * 9, 4 * 16)
    assert same["clip"]["whole"]["uncorrected"] == pytest.approx(0, abs=1e-4)
    assert same["clip"]["whole"]["counts"] == (4, 4)
    assert "whole" not in same["judge"]

    dark = [large_image.Pair(r // 3, r) for r in real]
    found = large_images.run(files, dark, networks)
    assert found["clip"]["whole"]["uncorrected"] > 10 * same["clip"]["whole"]["uncorrected"] + 1e-6
    assert all(found[n]["crops"]["uncorrected"] > same[n]["crops"]["uncorrected"] for n in networks)


def test_two_images_are_too_few_to_compare_whole(files, networks):
    found = large_images.run(files, [large_image.Pair(r, r) for r in regions(2)], networks)
    assert all("whole" not in figures for figures in found.values())
    assert all("crops" in figures for figures in found.values())


def test_published_statistics_are_refused_where_they_do_not_fit(files, networks, workdir):
    folder = workdir / "evaluate" / "statistics"
    other = dataclasses.replace(files, reference=str(folder), format=image_files.Format(50))
    pairs = [large_image.Pair(r, r) for r in regions(3)]
    judge = {"judge": networks["judge"]}
    with pytest.raises(ValueError, match="expected image_format 'JPEG 50', got 'PNG'"):
        large_images.run(other, pairs, judge)
