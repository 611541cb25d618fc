"""LoRA weights, merged: as diffusers and PEFT merge them, and what is refused."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from ssldiff_jax.formats import tensors as reader
from ssldiff_jax.weights import lora

NAME = "transformer_blocks.0.attn1.to_q"


def merged(base, path, scale=1.0):
    return lora.merged(base, lora.LoraConfig(str(path), scale), "base.safetensors")


@pytest.fixture(scope="module")
def recorded(golden):
    return golden("lora_diffusers")


def written(folder, recorded, layout):
    """The recorded LoRA as a library writes it."""
    if layout == "diffusers":
        path = folder / "pytorch_lora_weights.safetensors"
        save_file(recorded.inputs, path, metadata=recorded.spec["metadata"])
        return path
    tensors = {f"base_model.model.{name}": x for name, x in recorded.inputs.items()}
    assert sorted(tensors) == recorded.spec["peft_names"]
    save_file(tensors, folder / "adapter_model.safetensors")
    config = recorded.spec["adapter_config.json"]
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("layout", ["diffusers", "peft"])
def test_it_is_merged_as_its_libraries_merge_it(tmp_path, recorded, layout):
    path = written(tmp_path, recorded, layout)
    both = merged(recorded.weights, path, recorded.spec["scale"])
    assert both.keys() == recorded.weights.keys()
    for name, expected in recorded.outputs.items():
        np.testing.assert_allclose(both[name], expected, atol=1e-5 * np.abs(expected).max())
        assert np.abs(both[name] - recorded.weights[name]).max() > 0.1
    for name in both.keys() - recorded.outputs.keys():
        assert both[name] is recorded.weights[name]


def test_none_changes_nothing(recorded):
    assert lora.merged(recorded.weights, lora.NONE, "base") is recorded.weights


def layer(rank=2, alpha=None, down="lora.down", up="lora.up", name=NAME):
    rng = np.random.default_rng(0)
    tensors = {
        f"{name}.{down}.weight": rng.normal(size=(rank, 6)).astype(np.float32),
        f"{name}.{up}.weight": rng.normal(size=(4, rank)).astype(np.float32),
    }
    return tensors if alpha is None else tensors | {f"{name}.alpha": np.float32([alpha])}


BASE = {f"{NAME}.weight": np.eye(4, 6, dtype=np.float32), f"{NAME}.bias": np.ones(4, np.float32)}


@pytest.mark.parametrize(
    ("names", "alpha", "factor"),
    [
        ({}, None, 1.0),
        ({}, 6, 3.0),
        ({"down": "lora_A.default", "up": "lora_B.default"}, None, 1.0),
        ({"down": "lora_A", "up": "lora_B", "name": f"transformer.{NAME}"}, 1, 0.5),
    ],
)
def test_names_and_alphas_of_other_releases(tmp_path, names, alpha, factor):
    tensors, path = layer(alpha=alpha, **names), tmp_path / "lora.safetensors"
    save_file(tensors, path)
    down, up = list(tensors.values())[:2]
    expected = BASE[f"{NAME}.weight"] + 0.5 * factor * up.astype(np.float64) @ down
    np.testing.assert_allclose(merged(BASE, path, 0.5)[f"{NAME}.weight"], expected, rtol=1e-6)


def test_the_first_releases_name_a_processor(tmp_path):
    old = "transformer_blocks.0.attn1.processor.to_out_lora"
    path, base = tmp_path / "lora.safetensors", "transformer_blocks.0.attn1.to_out.0.weight"
    tensors = {
        f"{old}.down.weight": np.ones((1, 6), np.float32),
        f"{old}.up.weight": np.full((4, 1), 2, np.float32),
    }
    save_file(tensors, path)
    np.testing.assert_array_equal(merged({base: np.zeros((4, 6))}, path)[base], 2)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (
            layer(name="down_blocks.0.attn1.to_q"),
            r"lora\.safetensors must be a LoRA of base\.safetensors, got 1 of 1 layers that it has "
            r"not, first down_blocks\.0\.attn1\.to_q",
        ),
        (
            {k: np.ones(v.shape[::-1], np.float32) for k, v in layer().items()},
            r"whose transformer_blocks\.0\.attn1\.to_q\.weight is \(4, 6\), got up \(2, 4\)",
        ),
        (dict(list(layer().items())[:1]), r"expected both halves of a LoRA of .*, got down"),
        ({"w.lora_magnitude_vector": np.ones(3)}, r"expected LoRA weights .*, got w\.lora_magn"),
        ({k: np.full_like(v, np.nan) for k, v in layer().items()}, "must be finite"),
        ({k: v[0] for k, v in layer().items()}, "two matrices of rank 1 or more"),
        ({k: v[:0] for k, v in layer().items()}, "two matrices of rank 1 or more"),
        ({}, "expected LoRA weights, got no tensor"),
    ],
    ids=["base", "shape", "half", "dora", "nan", "vector", "empty", "nothing"],
)
def test_another_base_and_what_is_no_lora_are_one_line(tmp_path, tensors, message):
    path = tmp_path / "lora.safetensors"
    save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, path)
    with pytest.raises(reader.WeightsError, match=message) as caught:
        merged(BASE, path)
    assert "\n" not in str(caught.value)


def test_a_config_beside_it_that_says_no_alpha(tmp_path):
    save_file(layer(), tmp_path / "adapter_model.safetensors")
    config = tmp_path / "adapter_config.json"
    config.write_text(json.dumps({"lora_alpha": 8, "use_rslora": True}))
    down, up = layer().values()
    expected = BASE[f"{NAME}.weight"] + 8 / np.sqrt(2) * up @ down
    np.testing.assert_allclose(merged(BASE, tmp_path)[f"{NAME}.weight"], expected, rtol=1e-5)
    for text in ('{"lora_alpha": "much"}', "[1]", "{"):
        config.write_text(text)
        with pytest.raises(reader.WeightsError, match=r"adapter_config\.json: expected lora_alpha"):
            merged(BASE, tmp_path)
    with pytest.raises(reader.WeightsError, match=r"expected one of pytorch_lora_weights"):
        merged(BASE, tmp_path.parent)
