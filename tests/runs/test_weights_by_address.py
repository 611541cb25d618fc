"""Weights of a run by their address on the Hub: whichever key names them."""

import json

import jax
import local_hub
import numpy as np
import pytest
from absl import flags
from ml_collections import config_flags
from PIL import Image

from configs import default, tiny
from ssldiff_jax.core import schema
from ssldiff_jax.encoders import vit
from ssldiff_jax.evaluation.features import zero_shot
from ssldiff_jax.formats import hub
from ssldiff_jax.runs import launch
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.stages import table
from ssldiff_jax.weights import names, published
from ssldiff_jax.weights.tables import text as text_weights

pytest.importorskip("huggingface_hub")


@pytest.fixture
def there(tmp_path, monkeypatch):
    with (
        local_hub.serving() as server,
        local_hub.asked(server, tmp_path / "cache", monkeypatch) as asked,
    ):
        yield asked


def test_a_text_encoder_of_an_address_is_that_of_its_folder(there, text_folder):
    there.push("sentence-transformers/all-MiniLM-L6-v2", text_folder)
    texts = ["lake in the west", "field"]
    address = "hf://sentence-transformers/all-MiniLM-L6-v2"
    found, expected = (
        text_weights.load_text_encoder(source)(texts) for source in (address, text_folder)
    )
    np.testing.assert_array_equal(found.tokens, expected.tokens)


def test_a_clip_of_an_address_is_that_of_its_folder(there, clip_folder):
    there.push("openai/clip", clip_folder)
    images = np.random.default_rng(0).integers(0, 256, (2, 40, 50, 3), np.uint8)
    pairs = [zero_shot.open_pair(source) for source in ("hf://openai/clip", clip_folder)]
    np.testing.assert_array_equal(*(pair.images(images) for pair in pairs))
    np.testing.assert_array_equal(*(pair.texts(["a photo of the lake"]) for pair in pairs))


def config_with(**weights):
    config = default.get_config()
    for key, value in weights.items():
        config.update_from_flattened_dict({key.replace("__", "."): value})
    return schema.build(run_config.RunConfig, config.to_dict())


def test_every_key_of_weights_takes_an_address(there):
    commit = there.push("org/name", {"model.safetensors": b"x", "b/x.ckpt": b"y"})
    config = config_with(
        encoder__weights="hf://org/name", judge__weights="hf://org/name@main",
        autoencoder__weights="hf://org/name/b/x.ckpt", denoiser__weights=f"hf://org/name@{commit}",
        prior__conditions__captions="measured", prior__conditions__measure="stain",
        prior__conditions__text_encoder="hf://org/name",
        evaluate__extractors=("clip=hf://org/name", "phikon=hf://org/name/b/x.ckpt"),
    )  # fmt: skip
    named = ("encoder", "judge", "autoencoder", "denoiser", "grids", "evaluate")
    inputs = {name: table.STAGES[name].inputs(config) for name in named}
    whole, file = inputs["encoder"], inputs["autoencoder"]
    assert whole.keys() == {"content"}
    assert whole != file
    for name in ("judge", "denoiser"):
        assert inputs[name] == whole
    assert inputs["grids"]["text_encoder"] == whole
    assert (inputs["evaluate"]["clip"], inputs["evaluate"]["phikon"]) == (whole, file)


REFUSED = {
    "encoder.weights": "--config.encoder.weights={}",
    "autoencoder.weights": "--config.autoencoder.weights={}",
    "denoiser.weights": "--config.denoiser.weights={}",
    "lpips": "--config.autoencoder.loss.lpips_weights={},/none",
    "extractors": "--config.evaluate.extractors=('clip={}',)",
    "text_encoder": "--config.prior.conditions.text_encoder={}",
}


@pytest.mark.parametrize("key", REFUSED)
def test_what_cannot_be_had_is_refused_before_a_run_begins(key, there, tmp_path):
    words = [REFUSED[key].format("hf://org/none")]
    if key == "lpips":
        words += ["--config.autoencoder.loss.perceptual=lpips"]
        words += ["--config.autoencoder.loss.perceptual_weight=1.0"]
    if key == "text_encoder":
        words += ["--config.prior.conditions.captions=measured"]
    config = tiny.get_config()
    config.data.slides = "demo"
    values = flags_of(config, words)
    with pytest.raises(launch.USER_ERRORS) as caught:
        launch.launch(values, tmp_path / "run", table.STAGES)
    lines = str(caught.value).splitlines()
    assert [line for line in lines if "hf://org/none: no such model at http://127" in line]
    assert not (tmp_path / "run").exists()


def flags_of(config, words):
    values = flags.FlagValues()
    config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=["", *words])
    values(["", *words])
    return values.config.to_dict()


@pytest.mark.e2e
def test_a_stage_reads_an_address_and_notes_its_commit(there, tmp_path):
    pixels = np.random.default_rng(0).integers(60, 230, (600, 640, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "slide.png")
    values = tiny.get_config()
    values.data.slides, values.data.mpp = str(tmp_path / "slide.png"), 0.5
    values.data.records.min_tissue = 0.0
    values.stages, values.judge.weights = "patches,judge", "hf://org/vit"
    values.judge.train.num_steps = 0
    config = schema.build(run_config.RunConfig, values.to_dict())
    sizes = config.judge.architecture.vit
    image = np.zeros((1, sizes.image_px, sizes.image_px, 3), np.float32)
    source = np.random.default_rng(1)
    draw = lambda leaf: 0.1 * source.standard_normal(leaf.shape, np.float32)
    params = jax.tree.map(draw, names.abstract(vit.ViT(sizes), image))
    folder = tmp_path / "vit"
    folder.mkdir()
    table_of_names = published.encoder_names(sizes, "timm")
    published.export(folder / "model.safetensors", (table_of_names, params))
    commit = there.push("org/vit", folder)

    run = tmp_path / "run"
    launch.launch(values.to_dict(), run, table.STAGES)
    done = json.loads((run / "judge" / "done.json").read_text())
    assert done["facts"]["weights"] == f"hf://org/vit@{commit}"
    again = values.to_dict() | {"stages": "judge"}
    # The branch has moved, to the same weights and then to others.
    weights = (folder / "model.safetensors").read_bytes()
    there.push("org/vit", {"model.safetensors": weights, "README.md": b"a card"})
    hub.snapshot.cache_clear()
    launch.launch(again, run, table.STAGES)
    there.push("org/vit", {"model.safetensors": weights + b" "})
    hub.snapshot.cache_clear()
    with pytest.raises(launch.REFUSALS, match=r"of another config \(inputs\.content: "):
        launch.launch(again, run, table.STAGES)
