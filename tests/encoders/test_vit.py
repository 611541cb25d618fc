import dataclasses
import functools
import itertools

import jax
import numpy as np
import pytest
import small_configs

from ssldiff_jax.encoders import encoder, pixels, vit

SIZES = {"image_px": 32, "patch_px": 8, "width": 16, "depth": 1, "num_heads": 2}


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@functools.cache
def params_of():
    """Random everywhere, biases included; both pools have the same parameters."""
    model = vit.ViT(small_configs.section("encoder.model.vit", **SIZES))
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
    leaves, structure = jax.tree.flatten(shapes["params"])
    return structure.unflatten([0.3 * normal(i, *x.shape) for i, x in enumerate(leaves)])


@jax.jit
def run(params, image):
    by_class, mean = (
        vit.ViT(small_configs.section("encoder.model.vit", **SIZES, pool=pool))
        for pool in ("class", "mean")
    )
    return {
        "class": by_class.apply({"params": params}, image),
        "mean": mean.apply({"params": params}, image),
        "tokens": by_class.apply({"params": params}, image, method="tokens"),
    }


def apply(image, output):
    return np.asarray(run(params_of(), image)[output])


def test_pools():
    image = normal(0, 8, 32, 32, 3)
    tokens = apply(image, "tokens")
    assert tokens.shape == (8, 16, 16)
    mean, by_class = apply(image, "mean"), apply(image, "class")
    np.testing.assert_allclose(mean, tokens.mean(axis=1), atol=1e-5)
    assert by_class.shape == mean.shape == (8, 16)
    assert np.abs(by_class - mean).max() > 0.1


RULES = ("timm", "dino", "hugging_face")


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("old", "new"), [(4, 7), (4, 6), (16, 5), (3, 3)])
def test_resizing_positions_keeps_constants(rule, old, new):
    matrix = vit.resize_matrix(old, new, rule)
    assert matrix.shape == (new, old)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-6)


def test_positions_at_their_own_size_are_themselves():
    for rule in ("timm", "hugging_face"):
        np.testing.assert_allclose(vit.resize_matrix(5, 5, rule), np.eye(5), atol=1e-7)


@pytest.mark.parametrize("rule", RULES)
def test_a_ramp_of_positions_stays_one(rule):
    found = vit.resize_matrix(8, 16, rule) @ np.arange(8.0)
    expected = (np.arange(16) + 0.5) / (16.1 / 8 if rule == "dino" else 2) - 0.5
    # Only a = −½ keeps ramps exactly.
    atol = 1e-5 if rule == "timm" else 0.05
    np.testing.assert_allclose(found[5:-5], expected[5:-5], atol=atol)


def test_timms_resizing_is_that_of_jax():
    for old, new in [(4, 7), (16, 5)]:
        expected = jax.image.resize(np.eye(old), (new, old), "cubic", antialias=True)
        np.testing.assert_allclose(vit.resize_matrix(old, new, "timm"), expected, atol=1e-5)


def test_images_of_another_size():
    tokens = apply(normal(0, 1, 16, 48, 3), "tokens")
    assert tokens.shape == (1, 2 * 6, 16)
    assert np.all(np.isfinite(tokens))


@pytest.mark.parametrize("pool", ["class", "mean"])
def test_all_eight_orientations_of_a_patch_differ(pool):
    """Or no layout could be drawn from embeddings."""
    image = normal(0, 32, 32, 3)
    turned = [np.rot90(image, k) for k in range(4)]
    turned += [np.flip(x, axis=1) for x in turned]
    found = apply(np.stack(turned), pool)
    for a, b in itertools.combinations(found, 2):
        assert np.abs(a - b).max() > 0.01


ROTARY = dataclasses.asdict(dataclasses.replace(vit.PLAIN, positions="rotary"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_px": 33}, "multiple of patch_px, got image_px=33, patch_px=8"),
        ({"num_heads": 3}, "num_heads must divide width, got width=16, num_heads=3"),
        (
            {"num_heads": 8, "variant": ROTARY},
            "multiple of 4 wide with positions=rotary, got width=16, num_heads=8",
        ),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        small_configs.section("encoder.model.vit", **(SIZES | changes))


OWN = encoder.Architecture(small_configs.section("encoder.model.vit", **SIZES), pixels.Pixels(32))


def test_encoder_pads_its_last_batch():
    patches = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    found = encoder.Encoder(OWN, params_of(), batch_size=4)(patches)
    single = encoder.Encoder(OWN, params_of(), batch_size=1)
    alone = np.concatenate([single(patch[None]) for patch in patches])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, alone, atol=1e-5)
    np.testing.assert_allclose(single.in_batches(3)(patches), alone, atol=1e-5)
    assert single(patches[:0]).shape == (0, 16)


@pytest.mark.parametrize("count", [0, 1, 4, 9])
def test_embeddings_that_are_begun_are_those_that_are_waited_for(count):
    patches = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), np.uint8)
    model = encoder.Encoder(OWN, params_of(), origin=np.arange(16), batch_size=4)
    first, second = model.start(patches), model.start(patches[::-1])
    # Waited for in another order than begun.
    np.testing.assert_array_equal(second(), model(patches[::-1]))
    np.testing.assert_array_equal(first(), model(patches))
    with pytest.raises(ValueError, match=r"must be 32×32×3, got \(16, 16, 3\)"):
        model.start(patches[:, ::2, ::2])


def test_embeddings_are_measured_from_the_origin():
    patches = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8)
    plain = encoder.Encoder(OWN, params_of(), batch_size=4)
    mean = plain(patches).mean(axis=0)
    moved = plain.measured_from(mean)
    np.testing.assert_allclose(moved(patches), plain(patches) - mean, atol=1e-6)
    np.testing.assert_allclose(moved(patches).mean(axis=0), np.zeros(16), atol=1e-6)
    assert plain.origin == 0.0


@pytest.mark.parametrize("shape", [(2, 16, 16, 3), (2, 32, 31, 3)])
def test_encoder_refuses_other_sizes(shape):
    found = encoder.Encoder(OWN, params_of())
    with pytest.raises(ValueError, match=r"patches must be 32×32×3, got \(\d+, \d+, 3\)"):
        found(np.zeros(shape, np.uint8))
