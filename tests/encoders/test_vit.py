import functools
import itertools

import jax
import numpy as np
import pytest

from ssldiff_jax.encoders import encoder, vit

SIZES = {"image_px": 32, "patch_px": 8, "width": 16, "depth": 1, "num_heads": 2}


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@functools.cache
def params_of():
    """Random everywhere, biases included; both pools have the same parameters."""
    model = vit.ViT(vit.ViTConfig(**SIZES))
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
    leaves, structure = jax.tree.flatten(shapes["params"])
    return structure.unflatten([0.3 * normal(i, *x.shape) for i, x in enumerate(leaves)])


@jax.jit
def run(params, image):
    by_class, mean = (vit.ViT(vit.ViTConfig(**SIZES, pool=pool)) for pool in ("class", "mean"))
    return {
        "class": by_class.apply({"params": params}, image),
        "mean": mean.apply({"params": params}, image),
        "tokens": by_class.apply({"params": params}, image, method="tokens"),
    }


def apply(image, output):
    return np.asarray(run(params_of(), image)[output])


def position(rows, cols, params=None):
    model = vit.ViT(vit.ViTConfig(**SIZES))
    run = jax.jit(lambda params: model.apply({"params": params}, rows, cols, method="_position"))
    return np.asarray(run(params or params_of()))


def test_pools():
    image = normal(0, 8, 32, 32, 3)
    tokens = apply(image, "tokens")
    assert tokens.shape == (8, 16, 16)
    mean, by_class = apply(image, "mean"), apply(image, "class")
    np.testing.assert_allclose(mean, tokens.mean(axis=1), atol=1e-5)
    assert by_class.shape == mean.shape == (8, 16)
    assert np.abs(by_class - mean).max() > 0.1


def test_position_is_itself_at_its_own_size():
    np.testing.assert_array_equal(position(4, 4), params_of()["position"])


def test_position_at_another_size_keeps_its_place():
    """A ramp along the columns stays one along the columns, the class token is left alone."""
    ramp = np.broadcast_to(np.arange(4.0)[None, :, None], (4, 4, 16)).reshape(1, 16, 16)
    token = normal(0, 1, 1, 16)
    params = params_of() | {"position": np.concatenate([token, ramp], axis=1, dtype=np.float32)}
    found = position(2, 8, params)
    assert found.shape == (1, 17, 16)
    np.testing.assert_array_equal(found[:, :1], token)
    grid = found[0, 1:].reshape(2, 8, 16)
    np.testing.assert_allclose(grid[0], grid[1], atol=1e-5)
    np.testing.assert_allclose(grid[0, 2:6, 0], [0.75, 1.25, 1.75, 2.25], atol=0.05)


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_px": 33}, "multiple of patch_px, got image_px=33, patch_px=8"),
        ({"num_heads": 3}, "num_heads must divide width, got width=16, num_heads=3"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        vit.ViTConfig(**(SIZES | changes))


def test_encoder_pads_its_last_batch():
    patches = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    config = vit.ViTConfig(**SIZES)
    found = encoder.Encoder(config, params_of(), batch_size=4)(patches)
    single = encoder.Encoder(config, params_of(), batch_size=1)
    alone = np.concatenate([single(patch[None]) for patch in patches])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, alone, atol=1e-5)
    assert single(patches[:0]).shape == (0, 16)


def test_embeddings_are_measured_from_the_origin():
    patches = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8)
    plain = encoder.Encoder(vit.ViTConfig(**SIZES), params_of(), batch_size=4)
    mean = plain(patches).mean(axis=0)
    moved = plain.measured_from(mean)
    np.testing.assert_allclose(moved(patches), plain(patches) - mean, atol=1e-6)
    np.testing.assert_allclose(moved(patches).mean(axis=0), np.zeros(16), atol=1e-6)
    assert plain.origin == 0.0


@pytest.mark.parametrize("shape", [(2, 16, 16, 3), (2, 32, 31, 3)])
def test_encoder_refuses_other_sizes(shape):
    found = encoder.Encoder(vit.ViTConfig(**SIZES), params_of())
    with pytest.raises(ValueError, match=r"patches must be 32×32×3, got \(\d+, \d+, 3\)"):
        found(np.zeros(shape, np.uint8))
