"""The folder that `export` writes, as it is published and loaded from anywhere: random models."""

import dataclasses
import json
import logging

import jax
import local_hub
import numpy as np
import pytest
import random_models
import yaml

import ssldiff_jax
from ssldiff_jax.core import schema
from ssldiff_jax.encoders import known, vit
from ssldiff_jax.formats import hub
from ssldiff_jax.formats import tensors as reader
from ssldiff_jax.generation import exported, model_card, models
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import folders
from ssldiff_jax.weights import names, published

huggingface_hub = pytest.importorskip("huggingface_hub")

DATA = model_card.TrainingData("0123456789ab", 3, {"train": 1200, "test": 34})
ABOUT = model_card.About("demo", DATA, None, "the step evaluate was not run")


@pytest.fixture(scope="module")
def model():
    return random_models.make()


def write(folder, model, about=ABOUT, **changes):
    """An export of a model whose config has `changes` (dotted keys with __)."""
    config = model.config
    for key, value in changes.items():
        config = replaced(config, key.split("__"), value)
    card = exported.Card.of(config, model.trained, {"jax": "0"})
    written = exported.write(folder, model.trained, card)
    model_card.write(folder, card, about, written)
    return folder


def replaced(section, names_, value):
    name, *rest = names_
    inner = replaced(getattr(section, name), rest, value) if rest else value
    return dataclasses.replace(section, **{name: inner})


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    return write(tmp_path_factory.mktemp("export"), model, export__licence="CC0-1.0")


@pytest.fixture
def there(tmp_path, monkeypatch):
    with (
        local_hub.serving() as server,
        local_hub.asked(server, tmp_path / "cache", monkeypatch) as asked,
    ):
        yield asked


def pixels(model):
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    return np.asarray(model.regenerate(image, seed=3))


def test_moved_and_by_address_it_generates_the_same_pixels(folder, model, there, tmp_path):
    moved = folder.rename(tmp_path / "elsewhere")
    try:
        commit = there.push("me/demo", moved)
        by_path = ssldiff_jax.Generator.load(moved)
        by_address = ssldiff_jax.Generator.load("hf://me/demo")
        assert (by_path.source, by_address.source) == (str(moved), f"hf://me/demo@{commit}")
        expected = pixels(model)
        assert expected.std() > 0
        for loaded in (by_path, by_address):
            np.testing.assert_array_equal(pixels(loaded), expected)
        # What is pushed later is not what the commit names.
        there.push("me/demo", {"README.md": b"", "denoiser.safetensors": b"broken"})
        again = ssldiff_jax.Generator.load(by_address.source)
        np.testing.assert_array_equal(pixels(again), expected)
        assert again.with_sample(again.config.sample).source == by_address.source
    finally:
        moved.rename(folder)


def test_the_denoisers_file_alone_by_its_address(folder, there):
    there.push("me/demo", folder)
    loaded = ssldiff_jax.Generator.load("hf://me/demo/denoiser.safetensors")
    assert loaded.trained.encoder is None
    assert there.brought() == ["denoiser.safetensors"]


def test_a_published_checkpoint_by_its_address(folder, model, there):
    there.push("me/paper", {"sub/lrdm.safetensors": (folder / exported.DENOISER).read_bytes()})
    values = json.loads((folder / "config.json").read_text())["config"]
    loaded = ssldiff_jax.Generator.load("hf://me/paper/sub/lrdm.safetensors", values)
    grid = np.random.default_rng(0).normal(size=(2, 3, model.embedding_dim)).astype(np.float32)
    images = [np.asarray(one.generate(grid)) for one in (loaded, model)]
    np.testing.assert_array_equal(*images)
    assert loaded.source.startswith("hf://me/paper@")


def test_code_in_the_folder_is_ignored_and_that_is_said(folder, model, there, tmp_path, caplog):
    code = tmp_path / "code"
    code.mkdir()
    for path in folder.iterdir():
        (code / path.name).write_bytes(path.read_bytes())
    for name in ("modeling.py", "exported.py", "denoiser.py"):
        (code / name).write_text(f"open({str(tmp_path / 'mark')!r}, 'w')")
    (code / "denoiser.bin").write_bytes(b"\x80\x04 a pickle")
    there.push("me/code", code)
    for source in (code, "hf://me/code"):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "ssldiff_jax"):
            ssldiff_jax.Generator.load(source)
        (message,) = [record.getMessage() for record in caplog.records]
        assert message == (
            f"{source}: code in the folder is ignored and never run (denoiser.py, exported.py, "
            "modeling.py)"
        )
    assert not (tmp_path / "mark").exists()


def test_what_is_no_model_of_ours_needs_a_config(there, tmp_path):
    there.push("org/other", {"config.json": b'{"model_type": "clip"}', "model.safetensors": b"x"})
    with pytest.raises(folders.WorkdirError) as caught:
        ssldiff_jax.Generator.load("hf://org/other")
    assert "no run or export in hf://org/other@" in str(caught.value)
    assert "published weights need a config" in str(caught.value)


def test_the_config_says_what_the_heads_say(folder):
    values = json.loads((folder / "config.json").read_text())
    head = json.loads(reader.metadata(folder / exported.DENOISER)["ssldiff_jax"])
    assert {key: values[key] for key in head} == head
    assert values["library_name"] == "ssldiff_jax"
    assert values["data"] == dataclasses.asdict(DATA)


def test_a_config_that_was_changed_is_refused(folder, tmp_path):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    values = json.loads((folder / "config.json").read_text())
    values["config"]["sample"]["guidance"]["scale"] = 9.0
    (tmp_path / "config.json").write_text(json.dumps(values))
    scale = json.loads((folder / "config.json").read_text())["config"]["sample"]["guidance"][
        "scale"
    ]
    with pytest.raises(reader.WeightsError) as caught:
        ssldiff_jax.Generator.load(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}/config.json must say what the head of denoiser.safetensors says, "
        f"config.sample.guidance.scale={scale}, got 9.0"
    )
    # Without it the heads are enough; that of another program is none of ours.
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    ssldiff_jax.Generator.load(tmp_path)


def front_matter(folder):
    """As the Hub reads it, and as any reader of YAML does."""
    text = (folder / "README.md").read_text()
    head, page = text.removeprefix("---\n").split("\n---\n", 1)
    card = huggingface_hub.ModelCard.load(folder / "README.md")
    values = yaml.safe_load(head)
    assert {k: v for k, v in card.data.to_dict().items() if k != "model-index"} == {
        k: v for k, v in values.items() if k != "model-index"
    }
    return values, page, card


def test_the_card_says_what_the_models_are(folder, model):
    values, page, _ = front_matter(folder)
    assert values["license"] == "cc0-1.0"
    assert values["library_name"] == "ssldiff_jax"
    assert values["pipeline_tag"] == "image-to-image"
    assert "model-index" not in values
    lines = page.splitlines()
    assert "# demo" in lines
    digest = json.loads((folder / "config.json").read_text())["encoder"]["digest"]
    for words in (
        "at 0.5 µm per pixel", "None: the step evaluate was not run.", "1,200 train, 34 test",
        "slides, or patches of a list: 3, named `", "data digest `0123456789ab`",
        f"digest `{digest}`",
        f"{model.embedding_dim} numbers each", "licence as stated: CC0-1.0", "Not for diagnosis",
        "| `encoder.safetensors` | what embeds images |",
    ):  # fmt: skip
        assert words in page, words
    assert "student" not in page


def test_the_four_lines_of_the_card_run(folder, model, there, tmp_path, monkeypatch):
    there.push("ORG/NAME", folder)
    monkeypatch.chdir(tmp_path)
    code = (folder / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    assert len(code.splitlines()) == 4
    image = np.random.default_rng(0).integers(0, 256, (64, 128, 3), np.uint8)
    # A small image: 1024² takes minutes.
    exec(code.replace("(1024, 1024)", "(64, 96)"), {"pixels": image})
    assert (tmp_path / "image.tif").stat().st_size > 1000


@pytest.mark.parametrize(
    ("stated", "head"),
    [
        ("", {"license": "unknown"}),
        ("Apache-2.0", {"license": "apache-2.0"}),
        ("CC-BY-NC-ND-4.0", {"license": "cc-by-nc-nd-4.0"}),
        ("of my: hospital, 1", {"license": "other", "license_name": "of-my-hospital-1"}),
    ],
)
def test_licences_are_as_the_hub_knows_them(stated, head, model, tmp_path):
    values, page, card = front_matter(write(tmp_path, model, export__licence=stated))
    assert {key: values[key] for key in values if key.startswith("license")} == head
    assert card.data.license == head["license"]
    assert f"As stated at the export: {stated or 'not stated'}." in page


def test_figures_with_intervals_are_the_results_of_the_card(model, tmp_path):
    estimate = {"value": 0.25, "low": 0.125, "high": 0.5}
    figures = [
        {"name": "class agreement of single patches (ceiling: real patches)", "goal": "≥ 0.2",
         "judge": [estimate, estimate], "encoder": [0.75, 0.5], "missed": []},
        {"name": "a figure: of too few", "goal": "–", "missed": [],
         "judge": [{"corrected": None, "low": None, "interval": "too few"}]},
    ]  # fmt: skip
    collected = {
        "figures": figures, "date": "2026-01-01", "seed": 0, "config_digest": "x",
        "machine": {"devices": ["cpu"], "backend": "cpu", "cores": 2, "processor": "one",
                    "memory_gb": 8.0},
        "versions": {"jax": "0"}, "stages": {},
        "data": {"lattices": [[2, 3]], "patch_px": 32, "mpp": 0.5},
    }  # fmt: skip
    figures[1]["name"] = "KID of single patches (95 % interval)"
    values, page, card = front_matter(
        write(tmp_path, model, model_card.About("demo", DATA, collected))
    )
    (result,) = card.data.eval_results
    assert (result.metric_value, result.metric_type) == (0.25, "class-agreement-of-single-patches")
    assert result.metric_args == {"interval_95": [0.125, 0.5]}
    assert DATA.digest in result.dataset_type
    assert result.metric_name.endswith("by the judge")
    assert "too few" in page
    assert values["model-index"][0]["name"] == "demo"


def test_a_published_encoder_is_found_by_its_address(model, there, tmp_path, monkeypatch, caplog):
    whole = known.ENCODERS["dino-vits16"]
    sizes = dataclasses.replace(whole.vit, image_px=32, patch_px=8, width=16, depth=1, num_heads=2)
    seen = dataclasses.replace(whole.pixels, input_px=32)
    entry = dataclasses.replace(whole, vit=sizes, pixels=seen)
    monkeypatch.setitem(known.ENCODERS, "dino-vits16", entry)
    shapes = names.abstract(vit.ViT(sizes), np.zeros((1, sizes.image_px, sizes.image_px, 3)))
    source = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: 0.02 * source.standard_normal(leaf.shape, np.float32), shapes
    )
    weights = tmp_path / "weights" / "model.safetensors"
    weights.parent.mkdir()
    published.export(weights, (published.encoder_names(sizes, "timm"), params))
    commit = there.push("org/dino", weights.parent)
    address = f"hf://org/dino@{commit}"

    values = json.loads(json.dumps(dataclasses.asdict(model.config)))
    values["encoder"] |= {"name": "dino-vits16", "weights": address}
    values["encoder"]["train"]["num_steps"] = 0
    config = schema.build(run_config.RunConfig, values)
    embeds = models.encoder_of(address, config)
    trained = dataclasses.replace(model.trained, encoder=embeds)
    card = exported.Card.of(config, trained, {})
    out = tmp_path / "out"
    written = exported.write(out, trained, card)
    model_card.write(out, card, ABOUT, written)
    assert [path.name for path in written] == [exported.DENOISER]
    page = (out / "README.md").read_text()
    assert f"`dino-vits16`, weights {address};" in page
    assert "licence as stated: Apache-2.0" in page

    found = exported.load(out / exported.DENOISER)[1]
    image = source.integers(0, 256, (1, 32, 32, 3), np.uint8)
    np.testing.assert_array_equal(found.encoder(image), embeds(image))
    # What is not to be had is left out, and said; grids are still generated from.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
    there.commits.pop("org/dino")
    hub.snapshot.cache_clear()
    caplog.clear()
    assert exported.load(out / exported.DENOISER)[1].encoder is None
    (record,) = caplog.records
    assert record.getMessage().startswith("the export is read without a model that it names: hf://")
