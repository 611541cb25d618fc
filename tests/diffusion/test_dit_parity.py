"""The transformer gives what PixCell's does with the same numbers, recorded from its own code."""

import functools

import jax
import numpy as np
import pytest

from ssldiff_jax.diffusion import cells, dit, positions

NAMES = ("pixcell_dit_256", "pixcell_dit_1024")


@pytest.fixture(autouse=True)
def exact_products():
    with jax.default_matmul_precision("highest"):
        yield


def linear(weights, *names):
    """Layers side by side along their outputs."""
    kernels = [weights[f"{name}.weight"].T for name in names]
    biases = [weights[f"{name}.bias"] for name in names]
    return {"kernel": np.concatenate(kernels, axis=1), "bias": np.concatenate(biases)}


def block(weights, i):
    of = functools.partial(linear, weights)
    name = f"transformer_blocks.{i}"
    to = lambda attention, letters: of(*(f"{name}.{attention}.to_{x}" for x in letters))
    return {
        "table": weights[f"{name}.scale_shift_table"],
        "qkv": to("attn1", "qkv"),
        "out": of(f"{name}.attn1.to_out.0"),
        "cross": {
            "q": to("attn2", "q"), "kv": to("attn2", "kv"), "out": of(f"{name}.attn2.to_out.0"),
        },
        "mlp_in": of(f"{name}.ff.net.0.proj"),
        "mlp_out": of(f"{name}.ff.net.2"),
    }  # fmt: skip


def blocks(weights, depth):
    return jax.tree.map(lambda *x: np.stack(x), *(block(weights, i) for i in range(depth)))


def transformer(weights, config):
    """Parameters of the transformer and of its conditioner; the half of the outputs that says a
    variance is left out."""
    patch = weights["pos_embed.proj.weight"].transpose(2, 3, 1, 0)  # (row, column, channel, width)
    mean = lambda x: x.reshape(*x.shape[:-1], -1, 2, config.latent_channels)[..., 0, :]
    flat = lambda x: x.reshape(*x.shape[:-2], -1)
    time = "adaln_single.emb.timestep_embedder.linear"
    params = {
        "patch_in": {
            "kernel": patch.reshape(-1, config.shape.width),
            "bias": weights["pos_embed.proj.bias"],
        },
        "time_in": linear(weights, f"{time}_1"),
        "time_out": linear(weights, f"{time}_2"),
        "modulation": linear(weights, "adaln_single.linear"),
        "blocks": {"stacked": blocks(weights, config.shape.depth)},
        "table_out": weights["scale_shift_table"],
        "patch_out": jax.tree.map(lambda x: flat(mean(x)), linear(weights, "proj_out")),
    }
    conditioner = {
        "null": weights["caption_projection.uncond_embedding"],
        "token_in": linear(weights, "caption_projection.linear_1"),
        "token_out": linear(weights, "caption_projection.linear_2"),
    }
    return params, conditioner


def config_of(constructor):
    width = constructor["num_attention_heads"] * constructor["attention_head_dim"]
    shape = dit.Shape(width, constructor["num_layers"], constructor["num_attention_heads"])
    base = constructor["sample_size"] // constructor["patch_size"]
    where = positions.PositionsConfig(base, float(constructor["interpolation_scale"]))
    return dit.DiTConfig(
        constructor["in_channels"], constructor["patch_size"], shape, "gelu", "cross_attention",
        where,
    )  # fmt: skip


def layout_of(constructor):
    per_side = round(constructor["caption_num_tokens"] ** 0.5)
    return cells.PatchTokens(per_side) if per_side > 1 else None


def close(found, expected):
    """Largest error over the largest value."""
    error = np.abs(np.asarray(found) - expected).max() / np.abs(expected).max()
    assert error < 1e-4, f"relative error {error:.2e}"


@pytest.fixture(params=NAMES)
def recorded(request, golden):
    return golden(request.param)


def predict(recorded, x, embedding):
    constructor = recorded.spec["constructor"]
    config, layout = config_of(constructor), layout_of(constructor)
    params, conditioner = transformer(recorded.weights, config)
    side, t = x.shape[1] // config.patch, recorded.inputs["timestep"].astype(np.int32)
    per_cell = constructor["caption_num_tokens"]

    @jax.jit
    def apply(params, conditioner, x, embedding):
        tokens = dit.Conditioner(config, per_cell).apply(
            {"params": conditioner}, embedding, layout, side, side
        )
        return dit.DiT(config).apply({"params": params}, x, t, tokens, layout)

    return apply(params, conditioner, x, embedding)


@pytest.mark.parametrize("name", ["sample", "sample_uncond", "sample_small"])
def test_the_prediction_is_that_of_the_public_code(recorded, name):
    scale = 0.02 if name == "sample_small" else 1.0
    embedding = recorded.inputs["y"] * (name != "sample_uncond")
    found = predict(recorded, scale * recorded.image("x"), embedding)
    channels = found.shape[-1]
    close(found, recorded.image(name)[..., :channels])


def test_positions_of_sixteen_tokens_are_those_that_are_stored(golden):
    recorded = golden("pixcell_dit_1024")
    constructor = recorded.spec["constructor"]
    side = constructor["sample_size"] // constructor["patch_size"]
    where = config_of(constructor).positions
    dim = constructor["caption_channels"]
    found = positions.of_tokens(where, layout_of(constructor).place, side, side, dim)
    stored = recorded.weights["y_pos_embed.y_pos_embed"]
    np.testing.assert_allclose(found, stored, atol=1e-6)
