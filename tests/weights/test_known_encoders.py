"""Encoders that people use: their entries made small give the numbers of public code, and at their
full size have its names and shapes."""

import dataclasses
import functools
import json
import math
import re

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from ssldiff_jax.encoders import attention_pool, encoder, known
from ssldiff_jax.formats import tensors as reader
from ssldiff_jax.weights import published
from ssldiff_jax.weights.tables import vit as vit_tables
from tests.weights.test_full_size import in_file
from tests.weights.test_parity import close

# Recording, the side of the images that positions are fitted to, and entries with its architecture.
RECORDINGS = {
    "encoder_h_optimus": (20, ["h-optimus-0", "h-optimus-1"]),
    "encoder_h0_mini": (20, ["h0-mini"]),
    "encoder_virchow": (20, ["virchow"]),
    "encoder_virchow2": (20, ["virchow2"]),
    "encoder_gigapath": (20, ["gigapath"]),
    "encoder_hibou": (20, ["hibou-b", "hibou-l"]),
    "encoder_conch_v1_5": (24, ["conch-v1.5"]),
    "encoder_midnight": (20, ["midnight"]),
    "encoder_openmidnight": (20, ["openmidnight"]),
    "encoder_dinov2_registers": (
        20, ["dinov2-reg-small", "dinov2-reg-base", "dinov2-reg-large"]
    ),
    "encoder_dinov2_registers_swiglu": (20, ["dinov2-reg-giant", "hibou-b", "hibou-l"]),
    "encoder_dinov3": (
        20, ["dinov3-small", "dinov3-base", "dinov3-large", "dinov3-large-sat"]
    ),
    "encoder_dinov3_gated": (20, ["dinov3-small-plus", "dinov3-huge-plus"]),
    "encoder_satmae": (20, ["satmae"]),
}  # fmt: skip
CASES = [(name, entry) for name, (_, entries) in RECORDINGS.items() for entry in entries]
IMAGES = ("", "_small", "_other")
# Those of a file, where they are another's: what was recorded, and in full size.
STORED = {"conch-v1.5": (12, 224), "midnight": (32, 518)}


@pytest.fixture(autouse=True)
def exact_products():
    with jax.default_matmul_precision("highest"):
        yield


def small(name, recorded):
    """The architecture of an entry, its sizes those of a recording, all else its own."""
    recording = recorded.spec["file"].removesuffix(".safetensors")
    architecture = encoder.Architecture.published(name)
    gate = ("mlp.fc2.weight", "mlp.w3.weight", "mlp.weights_out.weight", "mlp.down_proj.weight")
    hidden = next(v.shape[1] for k, v in recorded.weights.items() if k.endswith(gate))
    variant = architecture.vit.variant
    variant = dataclasses.replace(variant, mlp_width=hidden if variant.mlp == "swiglu" else 0)
    sizes = dataclasses.replace(
        architecture.vit, image_px=RECORDINGS[recording][0], patch_px=4, width=24, depth=2,
        num_heads=3, variant=variant,
    )  # fmt: skip
    pool = architecture.head and attention_pool.AttentionPool(16, 4)
    return dataclasses.replace(architecture, vit=sizes, head=pool)


def loaded(name, recorded, **changes):
    architecture = small(name, recorded)
    architecture = dataclasses.replace(
        architecture, vit=dataclasses.replace(architecture.vit, **changes)
    )
    file = published.ModelFile("recorded", recorded.weights)
    return architecture, published.load_encoder(file, name, architecture)


@functools.cache
def program(architecture):
    """Compiled once for entries that differ in their full sizes only."""
    model = architecture.model

    def run(params, image):
        apply = functools.partial(model.apply, {"params": params}, image)
        return apply(), apply(method=model.all_tokens)

    return jax.jit(run)


@pytest.mark.parametrize(("recording", "name"), CASES)
@pytest.mark.parametrize("suffix", IMAGES)
def test_known_encoders_compute_what_public_code_computes(golden, recording, name, suffix):
    recorded = golden(recording)
    # Positions of another grid are resized once, to that of the input: no other size is for them.
    is_refitted = name in STORED and suffix == "_other"
    changes = {"image_px": STORED[name][0]} if is_refitted else {}
    architecture, params = loaded(name, recorded, **changes)
    image = recorded.image(f"image{suffix}")
    embedding, tokens = program(architecture)(params, image)
    registers = architecture.vit.variant.num_registers
    parts = {
        "embedding": embedding,
        "cls": tokens[:, 0],
        "patch_tokens": tokens[:, 1 + registers :],
    }
    if registers:
        parts["reg_tokens"] = tokens[:, 1 : 1 + registers]
    for part, value in parts.items():
        expected = recorded.outputs[f"{part}{suffix}"]
        assert value.shape == expected.shape
        close(value, expected)


@pytest.mark.parametrize("recording", RECORDINGS)
def test_a_wrong_epsilon_shows(golden, recording):
    """Or parity would say nothing of it."""
    recorded, name = golden(recording), RECORDINGS[recording][1][0]
    variant = small(name, recorded).vit.variant
    other = dataclasses.replace(variant, epsilon=10 * variant.epsilon)
    architecture, params = loaded(name, recorded, variant=other)
    found, _ = program(architecture)(params, recorded.image("image_small"))
    expected = recorded.outputs["embedding_small"]
    assert np.abs(found - expected).max() / np.abs(expected).max() > 1e-3


@pytest.mark.parametrize(
    ("recording", "name"), [("encoder_virchow2", "virchow2"), ("encoder_h0_mini", "h0-mini")]
)
def test_the_embedding_is_the_class_token_and_the_mean_of_patch_tokens(golden, recording, name):
    recorded = golden(recording)
    architecture, params = loaded(name, recorded)
    found, tokens = program(architecture)(params, recorded.image("image"))
    assert architecture.dim == 48
    # Four registers are no patches.
    expected = np.concatenate([tokens[:, 0], tokens[:, 5:].mean(axis=1)], axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.fixture(scope="module")
def full_size(golden_path):
    return json.loads(golden_path("encoder_full_size_names.json").read_text())["encoders"]


FULL_SIZE = [name for _, (_, entries) in RECORDINGS.items() for name in entries]


@pytest.mark.parametrize("name", sorted(set(FULL_SIZE)))
def test_known_encoders_have_the_published_layout(full_size, name):
    told = full_size[name]
    architecture = encoder.Architecture.published(name)
    sizes, depth = architecture.vit, told["depth"]
    assert sizes.depth == depth
    # One block is as another, here and there, and quicker than forty.
    sizes = dataclasses.replace(sizes, depth=1)
    if name in STORED:
        sizes = dataclasses.replace(sizes, image_px=STORED[name][1])
    architecture = dataclasses.replace(architecture, vit=sizes)
    family = vit_tables.family_of(
        {key.replace("*", "0"): np.zeros(()) for key in told["names"]}, known.ENCODERS[name].names
    )
    table = published.encoder_names(architecture.vit, family)
    found = in_file(table, published.abstract_encoder(architecture))
    found = {re.sub(r"(blocks|layer)\.0\.", r"\1.*.", key): shape for key, shape in found.items()}
    tokens = {key: shape for key, shape in told["names"].items() if key.endswith("mask_token")}
    assert found | tokens == told["names"]
    times = {key: depth if "*" in key else 1 for key in told["names"]}
    assert sum(times.values()) == told["tensors"]
    counts = [times[key] * math.prod(shape) for key, shape in told["names"].items()]
    assert sum(counts) == told["values"]


def whole_and_squares(architecture, params, image, per_side):
    model = architecture.model
    method = functools.partial(type(model).whole_and_squares, per_side=per_side)
    return jax.jit(functools.partial(model.apply, method=method))({"params": params}, image)


@pytest.mark.parametrize("per_side", [1, 5])
@pytest.mark.parametrize(
    ("recording", "name", "dim"),
    [
        ("encoder_h_optimus", "h-optimus-0", 24),
        ("encoder_virchow2", "virchow2", 48),
        ("encoder_dinov3", "dinov3-small", 24),
        ("encoder_satmae", "satmae", 24),
    ],
)
def test_tokens_are_of_squares_of_patches(golden, recording, name, dim, per_side):
    recorded = golden(recording)
    architecture, params = loaded(name, recorded)
    image = recorded.image("image")
    _, tokens = program(architecture)(params, image)
    patches = np.asarray(tokens[:, 1 + architecture.vit.variant.num_registers :])
    expected = patches if per_side == 5 else patches.mean(axis=1, keepdims=True)
    if architecture.vit.pool == "class_mean":
        shared = np.broadcast_to(tokens[:, :1], expected.shape)
        expected = np.concatenate([shared, expected], axis=-1)
    assert expected.shape[-1] == dim
    _, found = whole_and_squares(architecture, params, image, per_side)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_an_attention_pool_looks_at_each_square_alone(golden):
    """As it looks at an image that has these patches only."""
    recorded = golden("encoder_conch_v1_5")
    architecture, params = loaded("conch-v1.5", recorded)
    image = recorded.image("image")
    whole, found = whole_and_squares(architecture, params, image, 3)
    close(whole, recorded.outputs["embedding"])
    # 6 × 6 patches: the first square has rows and columns 0 and 1.
    patches = recorded.outputs["patch_tokens"].reshape(1, 6, 6, 24)
    pool = torch_attention_pool(recorded.weights, heads=4)
    for row in range(3):
        for col in range(3):
            square = patches[0, 2 * row : 2 * row + 2, 2 * col : 2 * col + 2].reshape(4, 24)
            np.testing.assert_allclose(found[0, 3 * row + col], pool(square), atol=1e-5)
    single, _ = whole_and_squares(architecture.of_one_token, params, image, 1)
    np.testing.assert_allclose(single[0], pool(patches.reshape(36, 24)), atol=1e-5)


def torch_attention_pool(weights, heads):
    """The attention of one query over a set of tokens, head by head, in float64."""
    w = {k: v.astype(np.float64) for k, v in weights.items() if not k.startswith("trunk.")}

    def norm(x, name):
        scaled = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    def pool(tokens):
        under = "attn_pool_contrast"
        query = norm(w[f"{under}.query"], f"{under}.ln_q")[0] @ w[f"{under}.to_q.weight"].T
        both = norm(tokens.astype(np.float64), f"{under}.ln_k") @ w[f"{under}.to_kv.weight"].T
        key, value = np.split(both, 2, axis=1)
        parts = []
        for q, k, v in zip(
            *(np.split(x, heads, axis=-1) for x in (query, key, value)), strict=True
        ):
            logits = k @ q / np.sqrt(len(q))
            share = np.exp(logits - logits.max())
            parts.append(share @ v / share.sum())
        return norm(np.concatenate(parts) @ w[f"{under}.to_out.weight"].T, "ln_contrast")

    return pool


@pytest.mark.parametrize(
    ("recording", "name", "change", "message"),
    [
        (
            "encoder_h_optimus", "h-optimus-0", {"width": 48},
            "must be h-optimus-0: width 48, depth 2, 4 registers, 25 positions, "
            "got width 24, depth 2, 4 registers, 25 positions",
        ),
        (
            "encoder_virchow", "virchow2", {},
            "must be virchow2: width 24, depth 2, 4 registers, 30 positions, "
            "got width 24, depth 2, 0 registers, 26 positions",
        ),
        (
            "encoder_gigapath", "gigapath", {"image_px": 28},
            "must be gigapath: width 24, depth 2, 0 registers, 50 positions, "
            "got width 24, depth 2, 0 registers, 26 positions",
        ),
        (
            "encoder_dinov3", "dinov3-small", {"depth": 3},
            "must be dinov3-small: width 24, depth 3, 4 registers, 0 positions, "
            "got width 24, depth 2, 4 registers, 0 positions",
        ),
        # A grid that is no square of patches is no other grid.
        (
            "encoder_dinov2_registers_swiglu", "midnight", {},
            "must be midnight: width 24, depth 2, 0 registers, 26 positions, "
            "got width 24, depth 2, 4 registers, 26 positions",
        ),
    ],
)  # fmt: skip
def test_files_of_other_sizes_are_refused_in_a_line(golden, recording, name, change, message):
    with pytest.raises(reader.WeightsError, match=f"^recorded {re.escape(message)}$"):
        loaded(name, golden(recording), **change)


def test_a_file_of_other_names_is_refused(golden):
    architecture = small("dinov3-small", golden("encoder_dinov3"))
    file = published.ModelFile("recorded", golden("encoder_gigapath").weights)
    with pytest.raises(reader.WeightsError, match=r"recorded does not fit the model; \d+ missing"):
        published.load_encoder(file, "dinov3-small", architecture)


def test_decoders_and_trainers_beside_an_encoder_are_not_read(golden, tmp_path):
    """SatMAE's file: the state of a masked autoencoder's training."""
    recorded = golden("encoder_satmae")
    beside = {"model.mask_token": 0, "model.decoder_embed.weight": 0, "optimizer.state.0.step": 0}
    tensors = {f"model.{k}": v for k, v in recorded.weights.items()}
    tensors |= {k: np.zeros((2, 2), np.float32) for k in beside}
    save_file(tensors, tmp_path / "fmow_pretrain.safetensors")
    architecture, expected = loaded("satmae", recorded)
    file = published.ModelFile.read(tmp_path / "fmow_pretrain.safetensors")
    found = published.load_encoder(file, "satmae", architecture)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize(
    "recording", ["encoder_dinov3", "encoder_conch_v1_5", "encoder_openmidnight"]
)
def test_names_are_written_as_they_are_read(golden, recording):
    name, recorded = RECORDINGS[recording][1][0], golden(recording)
    changes = {"image_px": STORED[name][0]} if name in STORED else {}
    architecture, params = loaded(name, recorded, **changes)
    table = published.encoder_names(architecture.vit, known.ENCODERS[name].names)
    written = table.save(params)
    for key, value in written.items():
        np.testing.assert_array_equal(value, recorded.weights[key])
    assert all(key.endswith("mask_token") for key in recorded.weights.keys() - written.keys())
