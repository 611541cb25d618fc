"""The tool `study` on a tiny run: what it compares, what it writes, and what it refuses."""

import json

import numpy as np
import pytest

from configs import tiny
from ssldiff_jax.core import schema
from ssldiff_jax.data import records
from ssldiff_jax.evaluation.metrics import classification
from ssldiff_jax.formats import atomic
from ssldiff_jax.runs import launch, patch_samples
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.stages import table
from ssldiff_jax.stages.tools.study import task as study_task

pytestmark = pytest.mark.e2e
MADE = ("patches", "encoder", "autoencoder", "latents", "embeddings", "denoiser")
SHORT = {
    "fractions": (0.2, 1.0),
    "seeds": 2,
    "resamples": 50,
    "patches.count": 40,
    "patches.count_test": 40,
    "patches.num_generated": 1,
    "patches.network.fit.num_steps": 2,
    "patches.network.resnet_width": 8,
    "patches.network.vit_width": 32,
    "patches.network.vit_depth": 1,
    "bags.count": 10,
    "bags.count_test": 24,
    "bags.side": 2,
    "bags.network.fit.num_steps": 2,
}


@pytest.fixture(scope="module")
def made(workdir, tmp_path_factory):
    """A work directory with a run's models, and nothing of a study."""
    folder = tmp_path_factory.mktemp("study")
    for name in MADE:
        (folder / name).symlink_to(workdir / name)
    return folder


@pytest.fixture(scope="module")
def run_study(made):
    def run(**changes):
        config = tiny.get_config()
        config.stages = "study"
        config.study.update_from_flattened_dict(SHORT | changes)
        launch.launch(config.to_dict(), made, table.STAGES)
        return atomic.read_json(made / "study" / "results.json")

    return run


@pytest.fixture(scope="module")
def results(run_study):
    return run_study()


def test_every_mixture_has_a_row(results, made):
    rows = results["rows"]
    models = {"patches": ["linear", "resnet", "vit"], "bags": ["mean", "abmil", "clam", "dsmil"]}
    assert [(r["task"], r["model"], r["fraction"], r["mixture"]) for r in rows] == [
        (task, model, fraction, mixture)
        for task, names in models.items()
        for model in names
        for fraction in (0.2, 1.0)
        for mixture in study_task.MIXTURES
    ]
    for row in rows:
        assert row["seeds"] == 2
        for name in classification.SCORES:
            assert 0 <= row[name]["low"] <= row[name]["high"] <= 1
        assert ("gain" in row) == (row["mixture"] != "real")
    whole = [r for r in rows if r["task"] == "bags" and r["fraction"] == 1]
    assert [(r["real"], r["synthetic"]) for r in whole[:3]] == [(10, 0), (0, 10), (10, 10)]
    lines = json.loads((made / "study" / "curves.json").read_text())
    assert len(lines) == 7 * 3 * 3
    assert all(line["fraction"] == [0.2, 1.0] == sorted(line["fraction"]) for line in lines)


def test_classes_are_counted_and_one_slide_is_no_sample_of_cases(results):
    told = results["tasks"]["patches"]
    assert sum(told["classes"]["train"].values()) == 40
    assert told["resampling_unit"] == "examples"
    # The threshold is the median of the training regions.
    assert results["tasks"]["bags"]["classes"]["train"] == {"less nuclei": 5, "more nuclei": 5}


def test_the_same_again(results, run_study):
    again = run_study(tasks=("patches",), **{"patches.models": ("linear",)})
    assert again["rows"] == [r for r in results["rows"] if r["model"] == "linear"]


def test_a_resumed_study_takes_only_what_was_generated_from_its_examples(tmp_path):
    """A killed study had labels by a judge that was trained again since."""
    config = tiny.get_config()
    config.study.update_from_flattened_dict(SHORT | {"fractions": (0.2,)})
    section = schema.build(run_config.RunConfig, config.to_dict()).study
    labels = np.arange(40) % 2, np.arange(40) // 20, np.arange(40) % 2
    kept = [study_task.folder_of(study_task.used(label, section, 0), tmp_path) for label in labels]
    assert kept[0] != kept[1]
    assert kept[0] == kept[2]


def test_a_subset_has_some_of_every_class():
    label = np.repeat([0, 1, 2], [100, 40, 3])
    for seed in range(5):
        rows = study_task.subset(label, 0.1, seed)
        assert np.bincount(label[rows]).tolist() == [10, 4, 1]
        assert len(set(rows.tolist())) == 15
    assert not np.array_equal(study_task.subset(label, 0.1, 0), study_task.subset(label, 0.1, 1))
    np.testing.assert_array_equal(study_task.subset(label, 1.0, 7), np.arange(143))


def test_what_is_drawn_has_the_label_of_what_led_it():
    """Of seven examples four are used: arrays hold these alone."""
    label, used = np.array([0, 1, 0, 1, 1, 0, 0]), np.array([1, 2, 4, 6])
    real, drawn = used[:, None], [used[:, None] + 10 * draw for draw in (1, 2)]
    task = study_task.Task(("a", "b"), label, label, label, used)
    inputs = study_task.Inputs(real, drawn, real)
    for mixture, count in (("real", 2), ("synthetic", 4), ("real + synthetic", 6)):
        train, wanted, told = task.mixed(inputs, np.array([2, 4]), mixture)
        assert sum(told.values()) == len(train) == count
        assert set(train[:, 0] % 10) == {2, 4}
        np.testing.assert_array_equal(wanted, label[train[:, 0] % 10])


def test_only_what_is_used_is_drawn(run_study, monkeypatch):
    """Two seeds of a fifth of 40 patches and of 10 regions, each of four cells."""
    draw, drawn = study_task.Regenerator.regenerate, []

    def counted(self, embedding, seed):
        drawn.append(len(embedding))
        return draw(self, embedding, seed)

    monkeypatch.setattr(study_task.Regenerator, "regenerate", counted)
    few = {"patches.models": ("linear",), "bags.models": ("mean",), "fractions": (0.2,)}
    results = run_study(**few)
    told = {name: results["tasks"][name]["generated"] for name in ("patches", "bags")}
    of_a_seed = {row["task"]: row["synthetic"] for row in results["rows"][1::3]}
    for name, count in told.items():
        assert of_a_seed[name] <= count <= 2 * of_a_seed[name]
    assert drawn == [told["patches"], 4 * told["bags"]]


def test_clusters_are_the_judge_s(run_study, made, workdir):
    asked = {"tasks": ("patches",), "patches.models": ("linear",), "patches.labels": "clusters",
             "patches.clusters": 3}  # fmt: skip
    with pytest.raises(launch.USER_ERRORS, match="labels=clusters needs the stage judge"):
        run_study(**asked)
    (made / "judge").symlink_to(workdir / "judge")
    told = run_study(**asked)["tasks"]["patches"]
    counts = list(told["classes"]["train"].values())
    assert sum(counts) == 40
    assert counts == sorted(counts, reverse=True)
    assert list(told["classes"]["train"]) == ["cluster 0", "cluster 1", "cluster 2"]
    assert 0 <= told["class_agreement"] <= 1


def test_bags_of_slides_need_labels_of_their_cases(run_study, made):
    table = made / "labels.csv"
    asked = {"tasks": ("bags",), "bags.of": "slides", "bags.labels": str(table), "bags.cells": 6}
    for text, message in (
        ("case,label\nother,basal\n", "must label cases of the train split, got none of 1 slides"),
        ("case,label\nCMU,a\n", "the train split of classes a must show two classes or more"),
        ("case,label\nCMU,a\nCMU,b\n", "case 'CMU' must have one label, got a, b"),
    ):
        name = case_name(made)
        table.write_text(text.replace("CMU", name))
        with pytest.raises(launch.USER_ERRORS, match=message.replace("CMU", name)):
            run_study(**asked)


def case_name(made):
    record = records.RecordSource(made / "patches" / "records", "train").record(0)
    return patch_samples.metadata(record, "case")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fractions": (0.0, 1.0)}, r"fractions in \(0, 1\], got .*\(0.0, 1.0\)"),
        ({"fractions": (1.5,)}, r"fractions in \(0, 1\]"),
        ({"tasks": ("patch",)}, r"study\.tasks must be of patches, bags, got 'patch'"),
        ({"seeds": 0}, "seeds and resamples ≥ 1"),
        ({"patches.models": ("svm",)}, r"study\.patches\.models must be of linear, resnet, vit"),
        ({"patches.clusters": 1}, r"study\.patches\.clusters must be ≥ 2, got 1"),
        (
            {"patches.num_generated": 0},
            r"must have counts ≥ 0 and num_generated ≥ 1",
        ),
        ({"bags.shows": "water"}, r"shows must be of nuclei, stroma, empty, got 'water'"),
        ({"bags.count": 1}, "count and count_test ≥ 2 of regions, got 1 and 24"),
        ({"patches.count": 1}, "the train split of classes .* got only class . in 1 examples"),
        ({"patches.labels": "recorded"}, "reads the classes of a list of patches, got 40 of 40"),
        ({"bags.of": "slides", "tasks": ("bags",)}, r"study\.bags\.labels must name a CSV file"),
    ],
)
def test_what_cannot_be_studied_is_one_line(run_study, changes, message):
    with pytest.raises(launch.USER_ERRORS, match=message) as caught:
        run_study(**changes)
    assert len(str(caught.value).splitlines()) == 1


def test_embeddings_that_are_not_finite_are_one_line(generator):
    regenerator = study_task.Regenerator(generator, 0)
    patches = np.zeros((3, 64, 64, 3), np.uint8)
    moved = generator.encoder.measured_from(np.full(generator.embedding_dim, np.nan))
    regenerator._model = type("Model", (), {"encoder": moved})
    with pytest.raises(ValueError, match="the run's encoder must be finite, got 3 of 3"):
        regenerator.embed(patches)
