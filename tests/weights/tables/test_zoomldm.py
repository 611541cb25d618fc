"""ZoomLDM's conditioner against its recording, its full-size names, and files that do not fit."""

import json

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_configs

from ssldiff_jax.diffusion import conditioning, embedding_transformer
from ssldiff_jax.formats import tensors as reader
from ssldiff_jax.weights import names, published
from ssldiff_jax.weights.tables import zoomldm
from tests.weights.test_full_size import in_file
from tests.weights.test_parity import close

FULL = embedding_transformer.TransformerConfig(depth=12, num_heads=8, mlp_width=2048)
SMALL = embedding_transformer.TransformerConfig(depth=2, num_heads=2, mlp_width=24)
UNET = small_configs.section(
    "denoiser.unet",
    channels=32,
    channel_mult=(1, 2),
    num_res_blocks=1,
    attention_levels=(1,),
    context_dim=16,
)


def abstract(config, width, levels, dim):
    model = embedding_transformer.EmbeddingTransformer(config, width, levels)
    zero = jnp.zeros(1, jnp.int32)
    return names.abstract(model, jnp.zeros((1, 4, dim)), zero, zero), model


def denoiser(**changes):
    sizes = {"num_levels": 3, "transformer": SMALL, "sides": (1, 2, 4)} | changes
    return conditioning.DenoiserConfig(UNET, 12, **sizes)


@pytest.mark.parametrize("side", [1, 2, 4, 8])
def test_tokens_are_those_of_the_recording(golden, side):
    recorded = golden("zoomldm_conditioner")
    c = recorded.spec["constructor"]
    sizes = embedding_transformer.TransformerConfig(
        c["num_layers"], c["num_heads"], c["vit_mlp_dim"]
    )
    like, model = abstract(sizes, c["hidden_channels"], c["mag_levels"], c["input_channels"])
    table = zoomldm.conditioner_names(sizes)
    params = table.load(recorded.weights, like, "zoomldm_conditioner")
    level = recorded.inputs["mag"].astype(np.int32)
    grid = recorded.image(f"feat_{side}x{side}").reshape(len(level), side * side, -1)
    count = np.full(len(level), side * side, np.int32)
    run = jax.jit(lambda *args: model.apply({"params": params}, *args))
    with jax.default_matmul_precision("highest"):
        tokens = run(grid, count, level)
        # What lies behind the embeddings that are there is not seen.
        more = np.concatenate([grid, np.full_like(grid[:, :1], 7.0)], axis=1)
        close(run(more, count, level), recorded.outputs[f"tokens_{side}x{side}"])
    close(tokens, recorded.outputs[f"tokens_{side}x{side}"])


@pytest.mark.parametrize(("name", "levels"), [("brca", 8), ("naip", 4)])
def test_full_size_names_and_shapes_are_the_published_ones(golden_path, name, levels):
    published_ = json.loads(golden_path("zoomldm_full_size_names.json").read_text())[name]
    like, _ = abstract(FULL, 512, levels, 1024)
    assert in_file(zoomldm.conditioner_names(FULL), like) == published_
    assert sum(leaf.size for leaf in jax.tree.leaves(like)) == sum(
        int(np.prod(shape)) for shape in published_.values()
    )


def drawn(config, seed=0):
    source = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: source.standard_normal(leaf.shape, np.float32),
        published.abstract_denoiser(config),
    )


def as_file(config, params):
    tensors = {}
    for table, part in published.denoiser_parts(config, params):
        tensors |= table.save(part)
    return published.ModelFile("zoom.ckpt", tensors)


def same(a, b):
    a, b = (flax.traverse_util.flatten_dict(tree, sep="/") for tree in (a, b))
    assert a.keys() == b.keys()
    for name, value in a.items():
        np.testing.assert_array_equal(value, b[name], err_msg=name)


@pytest.mark.parametrize(
    "config",
    [denoiser(), denoiser(transformer=None, sides=())],
    ids=["transformer", "level beside the timestep"],
)
def test_what_is_written_is_read_back(config):
    params = drawn(config)
    file = as_file(config, params)
    same(published.load_denoiser(file, config), params)
    assert published.conditioner_sizes(file, config) == published.ConditionerSizes(12, 0)


def test_averages_take_the_place_of_the_last_weights_of_the_unet_alone():
    config = denoiser()
    params, average = drawn(config), drawn(config, seed=1)
    file, averages = as_file(config, params), as_file(config, average)
    # As trainers of latent diffusion keep them: of the UNet, names without dots.
    flat = {
        f"model_ema.{name.removeprefix('model.').replace('.', '')}": value
        for name, value in averages.tensors.items()
        if name.startswith("model.diffusion_model.")
    }
    counters = {"model_ema.decay": np.float32(0.9999), "model_ema.num_updates": np.int32(7)}
    file = published.ModelFile(file.path, dict(file.tensors) | flat | counters)
    read = published.load_denoiser(file, config)
    same(read["unet"], average["unet"])
    same(read["conditioner"], params["conditioner"])


@pytest.mark.parametrize(
    ("change", "config", "message"),
    [
        ({"dim_reduce.weight": np.zeros((20, 12), np.float32)}, {},
         r"zoom.ckpt: the conditioner must be as wide as config.denoiser.unet.context_dim=16, got "
         "20"),
        ({"mag_embedding.weight": np.zeros((5, 16), np.float32)}, {},
         "must know the 3 levels of config.data.levels, got 5"),
        ({"dim_reduce.weight": None, "patch_fc.weight": np.zeros((16, 12), np.float32)}, {},
         r"expected ZoomLDM's cond_stage_model.dim_reduce.weight, got no such tensor \(the file "
         r"has patch_fc: config.denoiser.conditioner.name=linear\)"),
    ],
)  # fmt: skip
def test_files_of_other_sizes_are_refused_in_one_line(change, config, message):
    config = denoiser(**config)
    tensors = dict(as_file(config, drawn(config)).tensors)
    for name, value in change.items():
        name = f"cond_stage_model.{name}"
        tensors.pop(name) if value is None else tensors.update({name: value})
    with pytest.raises(reader.WeightsError, match=message) as caught:
        published.conditioner_sizes(published.ModelFile("zoom.ckpt", tensors), config)
    assert "\n" not in str(caught.value)


def test_a_transformer_of_another_depth_is_refused():
    config, deeper = denoiser(), embedding_transformer.TransformerConfig(3, 2, 24)
    file = as_file(config, drawn(config))
    with pytest.raises(reader.WeightsError, match=r"12 missing: encoder.layers.encoder_layer_2"):
        published.load_denoiser(file, denoiser(transformer=deeper))
