"""The tool compare judges folders of images, whoever drew them."""

import csv
import os
import types

import numpy as np
import pytest
from PIL import Image

from ssldiff_jax.evaluation.features import networks as extractors
from ssldiff_jax.evaluation.metrics import frechet as distances
from ssldiff_jax.formats import atomic
from ssldiff_jax.stages.tools import compare as compare_stage

COUNT, PX = 24, 48
PAIRED = "--config.compare.paired=True"


def write_images(folder, seed, *, level=128, count=COUNT, px=PX, suffix="png"):
    """Coarse random pictures around a grey level."""
    folder.mkdir()
    generator = np.random.default_rng(seed)
    for number in range(count):
        coarse = np.clip(generator.normal(level, 40, (6, 6, 3)), 0, 255).astype(np.uint8)
        image = Image.fromarray(coarse).resize((px, px), Image.Resampling.BICUBIC)
        image.save(folder / f"{number:03d}.{suffix}")
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    real = write_images(root / "real", 0)
    return real, write_images(root / "alike", 1), write_images(root / "dark", 2, level=60)


@pytest.fixture
def words(tmp_path, clip_folder):
    """(real, generated, *flags) → the command that compares them."""

    def of(real, drawn, *flags, networks=f"('clip={clip_folder}',)"):
        return (
            tmp_path / "run", "--config.stages=compare", f"--config.compare.real={real}",
            f"--config.compare.generated={drawn}",
            f"--config.evaluate.extractors={networks}", *flags,
        )  # fmt: skip

    return of


@pytest.fixture
def compare(command, words, tmp_path):
    def run(*asked):
        return command(*words(*asked)), tmp_path / "run" / "compare"

    return run


def test_figures_are_those_of_the_features(compare, folders, clip_folder):
    real, alike, dark = folders
    found = {}
    for name, drawn in (("alike", alike), ("dark", dark)):
        done, at = compare(real, drawn)
        assert done.returncode == 0, done.stderr[-3000:]
        found[name] = atomic.read_json(at / "results.json")["clip"]
        frechet = found[name]["frechet"]
        said = f"{frechet['uncorrected']:.4g} uncorrected; {frechet['interval']}"
        assert f"compare: Fréchet distance by clip {said}" in done.stderr
        assert done.stderr.endswith(f"compare: {at / 'results.json'}\n")
    read = lambda folder: [np.asarray(Image.open(p)) for p in sorted(folder.glob("*.png"))]
    network = extractors.load("clip", clip_folder, 8)
    wanted = distances.frechet_distance(network(read(dark)), network(read(real)))
    assert found["dark"]["frechet"]["uncorrected"] == pytest.approx(wanted, rel=1e-4)
    assert found["dark"]["frechet"]["uncorrected"] > 2 * found["alike"]["frechet"]["uncorrected"]
    told = found["dark"]["extraction"]
    assert (told["image_format"], told["image_px"], told["reference"]) == ("PNG", PX, str(real))
    assert told["digest"] == network.digest
    rows = list(csv.DictReader((at.parent / "results.csv").open()))
    assert [row["generated"] for row in rows] == [str(alike), str(dark)]
    key = "patches.clip.extraction"
    assert [row["tool"] for row in rows] == ["compare"] * 2
    assert {row[f"{key}.digest"] for row in rows} == {network.digest}

    done, at = compare(real, alike, PAIRED)
    assert done.returncode == 0, done.stderr[-3000:]
    paired = atomic.read_json(at / "results.json")["clip"]["frechet"]
    assert paired["uncorrected"] == pytest.approx(
        found["alike"]["frechet"]["uncorrected"], rel=1e-6
    )
    dim = found["alike"]["extraction"]["dim"]
    assert paired["interval"].startswith(f"too few: {COUNT} vectors of {dim} numbers, ")
    real_alone = found["alike"]["frechet_of_real_halves"]
    assert real_alone["split_by"] == "by order: no cases are known"
    assert real_alone["counts"] == [COUNT // 2, COUNT // 2]

    # The statistics that were written serve as a published reference.
    done, at = compare(real, dark, f"--config.evaluate.reference={keep(at)}")
    assert done.returncode == 0, done.stderr[-3000:]
    again = atomic.read_json(at / "results.json")["clip"]["frechet"]
    assert again["uncorrected"] == pytest.approx(wanted, rel=1e-4)


def keep(at):
    """The statistics under another name: the folder is made anew."""
    return (at / "statistics").rename(at.parent / "published")


def test_what_cannot_be_compared_is_one_line(refusal, words, folders, tmp_path):
    real, alike, _ = folders
    (tmp_path / "empty").mkdir()
    mixed = write_images(tmp_path / "mixed", 3)
    write_images(tmp_path / "large", 3, px=64)
    Image.new("RGB", (20, 20)).save(mixed / "999.png")
    few = write_images(tmp_path / "few", 3, count=5)
    for drawn, message in (
        (tmp_path / "empty", "expected images"),
        (tmp_path / "nowhere", "no such folder"),
        (mixed, r"mixed: expected images of one size, got (48, 48) and, of 999.png, (20, 20)"),
        (tmp_path / "large", "expected images of (48, 48) px as in"),
        (few, "expected 6 images or more to compare, got 5"),
        (real, "got folders of which one holds the other"),
        (real.parent, "got folders of which one holds the other"),
        ("", "config.compare.generated must name a folder, got ''"),
    ):
        assert message in refusal(*words(real, drawn))
    seven = write_images(tmp_path / "seven", 3, count=7)
    assert "seven: expected 24 images as in" in refusal(*words(real, seven, PAIRED))
    nameless = words(real, alike, networks="()")
    assert "config.evaluate.extractors must name a network" in refusal(*nameless)


def test_formats_that_differ_are_told(compare, folders, tmp_path):
    real, _, _ = folders
    done, _ = compare(real, write_images(tmp_path / "jpeg", 1, suffix="jpg"))
    assert done.returncode == 0, done.stderr[-3000:]
    assert (
        "real images are PNG, generated ones JPEG: distances include what the compression changes"
        in done.stderr
    )


def test_images_that_changed_are_another_comparison(tmp_path):
    """Also where their number and sizes are the same."""
    (tmp_path / "a").mkdir()
    (tmp_path / "empty").mkdir()
    image = tmp_path / "a" / "0.png"
    image.write_bytes(b"12")
    asked = types.SimpleNamespace(real=f"folder:{tmp_path}", generated=f"{tmp_path}/empty")
    config = types.SimpleNamespace(compare=asked)
    before = compare_stage.fingerprint(config)
    assert before["real"][:2] == [1, 2]
    assert before["generated"][:2] == [0, 0]
    assert compare_stage.fingerprint(config) == before
    image.write_bytes(b"34")
    os.utime(image, ns=(0, 1))  # copied over with its own, earlier time
    assert compare_stage.fingerprint(config)["real"] != before["real"]


def test_images_that_changed_places_are_another_comparison(tmp_path):
    """Pairs are found by the order of names."""
    (tmp_path / "empty").mkdir()
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(bytes([number]))
        os.utime(tmp_path / f"{number}.png", ns=(0, number))
    asked = types.SimpleNamespace(real=f"folder:{tmp_path}", generated=f"{tmp_path}/empty")
    config = types.SimpleNamespace(compare=asked)
    before = compare_stage.fingerprint(config)["real"]
    (tmp_path / "0.png").rename(tmp_path / "2.png")
    assert compare_stage.fingerprint(config)["real"] != before
