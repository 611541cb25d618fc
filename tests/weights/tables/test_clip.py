"""CLIP: the numbers of transformers, its image processor, and configs that do not fit."""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssldiff_jax.encoders import clip
from ssldiff_jax.formats import tensors
from ssldiff_jax.weights import names
from ssldiff_jax.weights.tables import clip as tables

CONFIGS = ("config.json", "preprocessor_config.json")


@pytest.fixture(scope="module")
def recorded(golden):
    return golden("clip_hf")


@pytest.fixture
def folder(recorded, tmp_path):
    """Configs as transformers wrote them, that may be spoilt; no weights."""
    for name in CONFIGS:
        (tmp_path / name).write_text(json.dumps(recorded.spec[name]))
    return tmp_path


def change(path, **values):
    """Overwrite keys of a JSON object, of a section where the value is one."""
    told = json.loads(path.read_text())
    for key, value in values.items():
        known = told.get(key)
        told[key] = known | value if isinstance(known, dict) and key.endswith("config") else value
    path.write_text(json.dumps(told))


def close(found, expected, tolerance=2e-6):
    """Largest error over the largest value."""
    error = np.max(np.abs(np.asarray(found) - expected)) / np.max(np.abs(expected))
    assert error < tolerance, f"relative error {error:.2e}"


def of_gelu(config):
    return dataclasses.replace(config, tower=dataclasses.replace(config.tower, activation="gelu"))


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_images_are_those_of_transformers(recorded, folder, activation):
    config = tables.image_config(folder)
    like = names.abstract(clip.ImageTower(config), jnp.zeros((1, 32, 32, 3)))
    params = tables.image_names(config).load(recorded.weights, like, "clip_hf")
    suffix = ""
    if activation == "gelu":
        config, suffix = of_gelu(config), "_gelu"
    embed = jax.jit(clip.ImageEncoder(config, clip.Pixels(resize_px=32), params).embed)
    close(embed(params, recorded.inputs["square"][None]), recorded.outputs[f"image_square{suffix}"])


def test_texts_are_those_of_transformers(recorded, folder):
    config, ids = tables.text_config(folder), recorded.inputs["ids"].astype(np.int32)
    like = names.abstract(clip.TextTower(config), ids)
    params = tables.text_names(config).load(recorded.weights, like, "clip_hf")
    embed = lambda config, ids: jax.jit(clip.TextTower(config).apply)({"params": params}, ids)
    close(embed(config, ids), recorded.outputs["text"])
    # What follows the end of a text is not seen.
    ends = clip.end_of(ids, config.end)
    after = np.where(np.arange(ids.shape[1]) > ends[:, None], 7, ids)
    close(embed(config, after), recorded.outputs["text"])
    legacy = dataclasses.replace(of_gelu(config), end=2)
    close(embed(legacy, ids), recorded.outputs["text_gelu"])


@pytest.mark.parametrize("name", ["tall", "small", "square"])
def test_images_are_prepared_as_pillow_does(recorded, name):
    pixels = clip.Pixels(resize_px=32)
    found = pixels.prepare(recorded.inputs[name][None], 32)
    levels = np.abs(found - recorded.image(f"pixels_{name}")) * np.array(pixels.std) * 255
    # Fixed-point sums there, floating ones here: a tie may be rounded the other way.
    assert np.max(levels) < 1.01
    assert np.mean(levels > 0.01) < 0.001


def test_both_sides_may_be_fitted():
    image = np.random.default_rng(0).integers(0, 256, (2, 20, 33, 3), np.uint8)
    whole = clip.Pixels(16, "both", (0.5,) * 3, (0.5,) * 3)
    assert whole.prepare(image, 16).shape == (2, 16, 16, 3)
    same = clip.Pixels(20, "both", (0.0,) * 3, (1 / 255,) * 3)
    square = image[:, :, :20]
    np.testing.assert_allclose(same.prepare(square, 12), square[:, 4:16, 4:16], atol=1e-4)


def test_a_config_that_is_silent_has_the_usual_sizes(folder):
    (folder / "config.json").write_text('{"model_type": "clip", "text_config": null}')
    found = tables.text_config(folder)
    assert (found.vocab_size, found.max_positions, found.end) == (49408, 77, 49407)
    assert found.tower == clip.TowerConfig(512, 12, 8, 2048, 512)
    assert tables.image_config(folder).tower == clip.TowerConfig(768, 12, 12, 3072, 512)


def test_preparation_is_as_the_folder_says(folder, recorded):
    path, usual = folder / "preprocessor_config.json", clip.Pixels(resize_px=32)
    assert tables.pixels(folder, 32) == usual
    change(path, size=40, crop_size=32, image_std=[0.5, 0.5, 0.5])
    assert tables.pixels(folder, 32) == clip.Pixels(40, "shorter", usual.mean, (0.5,) * 3)
    change(path, size={"height": 36, "width": 36}, image_std=list(usual.std))
    assert tables.pixels(folder, 32) == clip.Pixels(36, "both")
    path.unlink()
    assert tables.pixels(folder, 32) == usual


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "siglip"}, r"config\.json: model_type must be clip, got 'siglip'"),
        ({"vision_config": {"hidden_act": "silu"}}, r"sizes of a CLIP, got: .*hidden_act=silu"),
        ({"vision_config": {"patch_size": 7}}, r"sizes of a CLIP, got: .*image_px=32, patch_px=7"),
        ({"vision_config": {"num_channels": 4}}, r"sizes of a CLIP, got: .*num_channels=4"),
        ({"vision_config": {"hidden_size": "wide"}}, "must have the sizes of a CLIP"),
        ({"vision_config_dict": {"num_attention_heads": 5}}, "num_heads must divide width"),
    ],
)
def test_a_config_of_another_model_is_one_line(folder, values, message):
    change(folder / "config.json", **values)
    with pytest.raises(tensors.WeightsError, match=message) as error:
        tables.load_images(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"resample": 2}, r"must resize bicubically .* got resample=2"),
        ({"do_center_crop": False}, "and not do_center_crop"),
        ({"crop_size": 30}, "must give squares of 32 px and three colours, got .* crop_size=30"),
        ({"size": {"shortest_edge": 20}}, "must give squares of 32 px"),
        ({"size": {"height": 32, "width": 40}}, "is not square"),
        ({"image_mean": [0.5]}, "1 means and 3 deviations"),
        ({"image_mean": "half"}, "must be of a CLIP image processor"),
    ],
)
def test_another_preparation_is_one_line(folder, values, message):
    change(folder / "preprocessor_config.json", **values)
    with pytest.raises(tensors.WeightsError, match=message) as error:
        tables.load_images(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("load", [tables.load_images, tables.load_texts])
def test_an_empty_folder_is_one_line(tmp_path, load):
    for folder in (tmp_path, pathlib.Path(tmp_path / "absent")):
        with pytest.raises(tensors.WeightsError, match=r"must hold a CLIP, got no config\.json"):
            load(folder)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(tensors.WeightsError, match=r"config\.json must be a JSON object, got list"):
        load(tmp_path)
