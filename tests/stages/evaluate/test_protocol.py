"""Drawn patches against held-out ones: what stage `evaluate` says of them, and how it refuses."""

import csv
import shutil

import numpy as np
import pytest
from PIL import Image

from ssldiff_jax.evaluation.metrics import frechet, statistics
from ssldiff_jax.formats import atomic
from ssldiff_jax.runs.config import evaluate as evaluate_config

COUNT = 12
SECTION = {
    "num_patches": 12, "num_training": 12, "jpeg_quality": 0, "extractors": (), "reference": "",
    "prompts": (), "templates": (), "classes": "stain", "cells": ("geojson",),
    "patience": 1.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def results(workdir):
    return atomic.read_json(workdir / "evaluate" / "results.json")


def test_every_figure_names_its_network_format_and_counts(results):
    assert set(results["patches"]) == {"judge", "encoder"}
    for name, found in results["patches"].items():
        told = found["extraction"]
        assert (told["extractor"], told["image_format"], told["image_px"]) == (name, "PNG", 64)
        assert found["frechet"]["counts"] == found["kid"]["counts"] == [COUNT, COUNT]
        assert found["frechet"]["uncorrected"] > 0
        assert found["frechet"]["interval"].startswith(f"too few: {COUNT} vectors of 32 numbers, ")
        for name in ("precision", "recall", "density", "coverage"):
            share = found["precision_recall"][name]
            assert share["value"] is share["low"] is share["high"] is None
            assert share["interval"].startswith(f"too few: {COUNT} vectors, ")
        assert found["kid"]["interval"] == f"too few: {COUNT} vectors, 40 needed"
        real_alone = found["frechet_of_real_halves"]
        assert real_alone["split_by"] == "by area: halves of one case"
        assert real_alone["counts"] == [COUNT // 2, COUNT // 2]
    digests = {found["extraction"]["digest"] for found in results["patches"].values()}
    assert len(digests) == 2


def test_statistics_are_a_file_that_knows_what_it_is_of(workdir, results):
    told = results["patches"]["judge"]["extraction"]
    path = workdir / "evaluate" / "statistics" / "judge.safetensors"
    found = statistics.read(path, sha256=told["sha256"])
    assert found.moments.count == COUNT
    assert frechet.frechet(found.moments, found.moments) < 1e-6
    other = statistics.read(path.with_name("encoder.safetensors")).extraction
    with pytest.raises(ValueError, match=r"judge\.safetensors: expected extractor 'encoder'"):
        statistics.read(path, expected=other)


def test_copies_are_looked_for_and_shown(workdir, results):
    found = results["memorisation"]
    assert found["counts"] == [COUNT, COUNT, COUNT]
    records = atomic.read_json(workdir / "patches" / "done.json")["facts"]["records"]["train"]
    assert found["power"] == pytest.approx(COUNT / records)
    assert 0 <= found["fraction"] <= 1
    similarity = [pair["similarity"] for pair in found["pairs"]]
    assert similarity == sorted(similarity, reverse=True)
    with Image.open(workdir / "evaluate" / "nearest.png") as picture:
        assert picture.size == (128, 64 * len(similarity))


def test_a_confusion_matrix_counts_every_patch(workdir, results):
    told = atomic.read_json(workdir / "evaluate" / "confusion.json")
    counts = np.array(told["counts"])
    assert counts.shape == (len(told["labels"]),) * 2
    assert 0 < counts.sum() <= COUNT
    assert told["accuracy"] == pytest.approx(np.trace(counts) / counts.sum())


def flags(name, value):
    return f"--config.evaluate.{name}={value}"


def test_evaluations_are_rows_of_one_table_and_compare_with_published_files(
    command, refusal, workdir, tmp_path
):
    run = tmp_path / "run"
    shutil.copytree(workdir, run, symlinks=True)
    published = tmp_path / "published"
    shutil.copytree(run / "evaluate" / "statistics", published)
    again = ("--config.stages=evaluate", "--config.force=evaluate")
    done = command(run, *again, flags("reference", published))
    assert done.returncode == 0, done.stderr[-3000:]
    rows = list(csv.DictReader((run / "results.csv").open()))
    assert len(rows) == 2
    name = "patches.judge.frechet.uncorrected"
    # The file holds the moments of the very patches that it is compared with.
    assert float(rows[0][name]) == pytest.approx(float(rows[1][name]), rel=1e-5)
    assert rows[0]["sample"] == rows[1]["sample"]

    line = refusal(run, *again, flags("reference", published), flags("jpeg_quality", 60))
    assert "judge.safetensors: expected image_format 'JPEG 60', got 'PNG'" in line


def test_several_devices_draw_and_judge_the_same(command, workdir, clip_folder, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(workdir, run, symlinks=True)
    done = command(
        run, "--config.stages=evaluate", "--config.force=evaluate",
        "--config.runtime.cpu_devices=3",
        flags("extractors", f"('clip={clip_folder}',)"),
        flags("prompts", "('nuclei=a lake','stroma=the field','empty=photo')"),
        flags("templates", "('a photo of {}',)"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    drawn = [
        np.asarray(Image.open(path / "evaluate" / "generated.png"), int) for path in (run, workdir)
    ]
    # What rounds to another grey level differs by one.
    assert np.abs(drawn[0] - drawn[1]).max() <= 1
    for name in ("judge", "encoder"):
        folders = (p / "evaluate" / "real" / "features" for p in (run, workdir))
        real = [np.load(next(folder.glob(f"{name}-*.npy"))) for folder in folders]
        np.testing.assert_allclose(real[0], real[1], rtol=0, atol=1e-6 * np.abs(real[1]).max())
    found = atomic.read_json(run / "evaluate" / "results.json")
    assert set(found["patches"]) == {"judge", "encoder", "clip"}
    # By prompts every class has a vector, also those that no training patch shows.
    told = found["confusion"]
    assert told["labels"] == ["nuclei", "stroma", "empty"]
    assert np.array(told["counts"]).sum() == COUNT
    assert 0 <= told["real"]["balanced_accuracy"] <= 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extractors": ("fid-incepton=/x",)}, "one of fid-inception, clip"),
        ({"extractors": ("clip",)}, "must read NAME=VALUE"),
        ({"prompts": ("nuclei",)}, "must read NAME=VALUE"),
        ({"prompts": ("lake=a lake",)}, "must be of the classes nuclei, stroma, empty, got lake"),
        ({"num_patches": 5}, "0 or at least 6"),
        ({"jpeg_quality": 101}, r"0…100, got 101"),
    ],
)
def test_a_section_that_cannot_be_is_one_line(change, message):
    with pytest.raises(ValueError, match=message):
        evaluate_config.EvaluateSection(**(SECTION | change))


def test_diversity_is_of_variations_and_of_training_patches(workdir, results):
    """Twelve held-out patches give six embeddings: a figure without an interval."""
    found = results["diversity"]
    assert (found["num_embeddings"], found["num_variations"]) == (COUNT // 2, 4)
    assert found["num_real"] == COUNT
    # Neighbours are all of the few there are.
    assert found["nearness"] == pytest.approx(1)
    assert 0 < found["uncorrected"]["value"] < 10
    assert found["uncorrected"]["interval"] == "too few: 6 blocks of embeddings, 8 needed"
