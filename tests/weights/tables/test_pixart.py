"""PixCell's transformer and ControlNet, read by their names: the recorded outputs come out."""

import json

import flax.traverse_util
import jax
import numpy as np
import pixcell_folders
import pytest
import small_configs

from configs import pixcell
from ssldiff_jax.core import schema
from ssldiff_jax.diffusion import conditioning, control
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.weights import published, transformers
from ssldiff_jax.weights.tables import pixart

RTOL = 1e-4


@pytest.fixture(autouse=True)
def exact_products():
    with jax.default_matmul_precision("highest"):
        yield


def split(recorded):
    """The transformer's tensors, and those of its ControlNet."""
    of_control = lambda name: name.startswith("controlnet.")
    own = {k: v for k, v in recorded.weights.items() if not of_control(k)}
    net = {k.removeprefix("controlnet."): v for k, v in recorded.weights.items() if of_control(k)}
    return own, net


def sizes_of(recorded, **changes) -> conditioning.DenoiserConfig:
    c = recorded.spec["constructor"]
    section = small_configs.section(
        "denoiser",
        network="dit",
        embedding_length="own",
        dit={
            "latent_channels": c["in_channels"],
            "patch": c["patch_size"],
            "shape": {
                "width": c["num_attention_heads"] * c["attention_head_dim"],
                "depth": c["num_layers"],
                "num_heads": c["num_attention_heads"],
            },
            "mlp": "gelu",
            "conditioning": "cross_attention",
            "positions": {
                "base": c["sample_size"] // c["patch_size"],
                "scale": c["interpolation_scale"],
            },
        }
        | changes,
    )
    per_side = round(c["caption_num_tokens"] ** 0.5)
    return section.model(c["caption_channels"], tokens_per_side=per_side)


def load(recorded, tensors, config, net=None):
    file = published.ModelFile("recorded", tensors, recorded.spec["constructor"])
    beside = transformers.PublishedControl("recorded net", net) if net else None
    return published.load_denoiser(file, config, transformers.Adapters(control=beside))


def close(value, expected):
    """Largest error over the largest value."""
    error = np.abs(np.asarray(value) - expected).max() / np.abs(expected).max()
    assert error < RTOL, f"relative error {error:.2e}"


def predict(recorded, params, config, embedding, *, scale=1.0, latents_map=None):
    model, t = conditioning.Denoiser(config), recorded.inputs["timestep"].astype(np.int32)
    condition = embedding.reshape(len(embedding), -1)
    call = jax.jit(lambda *args: model.apply({"params": args[0]}, *args[1:]))
    return call(params, scale * recorded.image("x"), t, condition, None, latents_map)


@pytest.mark.parametrize("names", ["diffusers", "original"])
@pytest.mark.parametrize("name", ["pixcell_dit_256", "pixcell_dit_1024"])
def test_the_transformer_predicts_what_the_public_one_does(golden, name, names):
    recorded = golden(name)
    (tensors, _), config = split(recorded), sizes_of(recorded)
    if names == "original":
        tensors = pixcell_folders.in_original_names(tensors, config.dit.shape.depth)
    params = load(recorded, tensors, config)
    y = recorded.inputs["y"]
    for output, embedding, scale in (
        ("sample", y, 1.0), ("sample_uncond", 0 * y, 1.0), ("sample_small", y, 0.02),
    ):  # fmt: skip
        found = predict(recorded, params, config, embedding, scale=scale)
        # The half of the outputs that says a variance is left out.
        close(found, recorded.image(output)[..., : found.shape[-1]])
        if names == "original":
            return


def test_the_controlnet_leads_as_the_public_one_does(golden):
    recorded = golden("pixcell_dit_256")
    tensors, net = split(recorded)
    depth = recorded.spec["controlnet"]["constructor"]["n_controlnet_blocks"]
    # As the recording's call has it.
    beside = control.Control(depth, 0.7)
    config = conditioning.dataclasses.replace(sizes_of(recorded), control=beside)
    params = load(recorded, tensors, config, net)
    shown, y = recorded.image("conditioning"), recorded.inputs["y"]
    found = predict(recorded, params, config, y, latents_map=shown)
    close(found, recorded.image("controlled")[..., : found.shape[-1]])
    model = control.ControlNet(config.dit, depth)
    t = recorded.inputs["timestep"].astype(np.int32)
    blocks = jax.jit(lambda p, *args: model.apply({"params": p}, *args))(
        params["control"], recorded.image("x"), t, y, None, shown
    )
    for i, block in enumerate(blocks):
        close(0.7 * block, recorded.outputs[f"control_block_{i}"])
    # It is shown the transformer's null embedding, not its own.
    null = params["control"]["conditioner"]["null"]
    np.testing.assert_array_equal(null, tensors["caption_projection.uncond_embedding"])


@pytest.mark.parametrize("model", ["256", "1024"])
def test_the_full_size_models_have_the_published_layout(golden_path, model):
    told = json.loads(golden_path("pixcell_full_size_names.json").read_text())[f"pixcell_{model}"]
    values = pixcell.get_config(model)
    values.denoiser.weights = values.autoencoder.weights = "weights"
    run = schema.build(run_config.RunConfig, values.to_dict())
    config = run.denoiser_sizes(1536)
    like = published.abstract_denoiser(config)
    shapes = {}
    for part, table in (
        ("dit", pixart.transformer_names(config.dit)), ("conditioner", pixart.conditioner_names())
    ):  # fmt: skip
        for path, leaf in flax.traverse_util.flatten_dict(like[part], sep="/").items():
            (line,) = [entry for entry in table.entries if entry.matches(path)]
            block = leaf.shape[1:] if line.blocks else leaf.shape
            # One number for all: nothing of that size is made.
            zeros = np.broadcast_to(np.float32(0), block)
            for names in line.names_of_blocks(path):
                for name, x in zip(names, np.split(zeros, len(names), axis=-1), strict=True):
                    shapes[name] = list(line.to_file(x).shape)
    # A buffer of sines, which are computed here.
    stored = {k: v for k, v in told.items() if k not in pixart.POSITIONS}
    assert shapes == stored


def test_what_is_written_is_read_back(golden):
    recorded = golden("pixcell_dit_256")
    (tensors, _), config = split(recorded), sizes_of(recorded)
    params = load(recorded, tensors, config)
    tables = pixart.transformer_names(config.dit), pixart.conditioner_names()
    written = tables[0].save(params["dit"]) | tables[1].save(params["conditioner"])
    assert {k: v.shape for k, v in written.items()} == {k: v.shape for k, v in tensors.items()}
    jax.tree.map(np.testing.assert_array_equal, load(recorded, written, config), params)
    # But for the variance, which is not kept.
    width, channels = config.dit.shape.width, config.dit.latent_channels
    both = written["proj_out.weight"].reshape(-1, 2, channels, width)
    expected = tensors["proj_out.weight"].reshape(-1, 2, channels, width)
    np.testing.assert_array_equal(both[:, 0], expected[:, 0])
    assert not both[:, 1].any()
