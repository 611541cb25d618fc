import functools

import jax
import numpy as np
import pytest
import small_configs

from ssldiff_jax.encoders import encoder, pixels, vit

# 4 × 4 tokens a patch.
SIZES = {"image_px": 32, "patch_px": 8, "width": 16, "depth": 1, "num_heads": 2}


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def architecture(pool="mean", takes="input_px"):
    sizes = small_configs.section("encoder.model.vit", **SIZES, pool=pool)
    return encoder.Architecture(sizes, pixels.Pixels(32), takes)


@functools.cache
def params_of():
    """Random everywhere, biases included; both pools have the same parameters."""
    model = vit.ViT(architecture().vit)
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
    leaves, structure = jax.tree.flatten(shapes["params"])
    return structure.unflatten([0.3 * normal(i, *x.shape) for i, x in enumerate(leaves)])


def patches(count, px=32):
    return np.random.default_rng(0).integers(0, 256, (count, px, px, 3), np.uint8)


def every_token(images, pool="mean"):
    pixels = images.astype(np.float32) / 127.5 - 1
    return np.asarray(architecture(pool).tokens(params_of(), pixels))


@pytest.mark.parametrize(("per_side", "each"), [(2, 2), (4, 1)])
@pytest.mark.parametrize("pool", ["class", "mean"])
def test_tokens_are_means_over_squares_of_patch_tokens(per_side, each, pool):
    images, origin = patches(5), normal(1, 16)
    model = encoder.Encoder(architecture(pool), params_of(), normal(2, 16), 4, token_origin=origin)
    tokens = model.with_tokens(per_side)(images).reshape(5, per_side, per_side, 16)
    fine = every_token(images, pool).reshape(5, 4, 4, 16)
    for row in range(per_side):
        for col in range(per_side):
            square = [
                fine[:, row * each + i, col * each + j] for i in range(each) for j in range(each)
            ]
            expected = np.mean(square, axis=0) - origin
            np.testing.assert_allclose(tokens[:, row, col], expected, atol=1e-5)


def test_the_mean_of_tokens_is_the_embedding_of_an_encoder_that_averages():
    images, model = patches(6), encoder.Encoder(architecture(), params_of(), normal(1, 16))
    for per_side in (1, 2, 4):
        tokens = model.with_tokens(per_side)(images).reshape(6, -1, 16)
        assert tokens.shape[1] == per_side**2
        np.testing.assert_allclose(tokens.mean(axis=1), model(images), atol=1e-5)


def test_one_token_is_the_embedding():
    for pool in ("class", "mean"):
        model = encoder.Encoder(architecture(pool), params_of(), normal(1, 16))
        assert model.with_tokens(1) is model
        assert model.with_tokens(1).dim == 16


def test_tokens_turn_with_their_patch():
    """A change in one quarter of a patch moves its own token most."""
    images = patches(4)
    model = encoder.Encoder(architecture(), params_of()).with_tokens(2)
    base = model(images).reshape(4, 4, 16)
    for quarter, at in enumerate([np.s_[:16, :16], np.s_[:16, 16:], np.s_[16:, :16]]):
        changed = images.copy()
        changed[(slice(None), *at)] = 255 - changed[(slice(None), *at)]
        moved = np.linalg.norm(model(changed).reshape(4, 4, 16) - base, axis=-1).mean(axis=0)
        assert moved.argmax() == quarter


def test_encoders_made_of_one_keep_their_tokens():
    images = patches(3)
    model = encoder.Encoder(architecture(), params_of(), normal(1, 16)).with_tokens(2)
    expected = model(images)
    assert model(images[:0]).shape == (0, 64)
    np.testing.assert_allclose(model.in_batches(2)(images), expected, atol=1e-5)
    np.testing.assert_array_equal(model.start(images)(), expected)
    half = model.computing_in("bfloat16")(images)
    assert half.shape == expected.shape
    assert 1e-4 < np.abs(half - expected).max() < 0.3
    moved = model.measured_from(np.zeros(16))
    np.testing.assert_allclose(moved(images), expected + np.tile(normal(1, 16), 4), atol=1e-5)


def test_patches_of_another_size_are_resized_before_they_have_tokens():
    model = encoder.Encoder(architecture(takes="any"), params_of()).with_tokens(4)
    assert model(patches(2, px=48)).shape == (2, 16 * 16)


@pytest.mark.parametrize("per_side", [0, 3, 8, -1])
def test_numbers_that_do_not_divide_are_refused(per_side):
    model = encoder.Encoder(architecture(), params_of())
    message = r"must divide the encoder's 4 tokens along a side \(32 px in patches of 8\), got"
    with pytest.raises(ValueError, match=f"{message} {per_side}$"):
        model.with_tokens(per_side)


def test_tokens_beside_a_class_token_need_an_origin_of_their_own():
    plain = encoder.Encoder(architecture("class"), params_of())
    assert np.array_equal(plain.token_origin, 0)
    moved = plain.measured_from(normal(1, 16))
    with pytest.raises(ValueError, match=r"no token_origin in encoder.json\), got 2; --config.f"):
        moved.with_tokens(2)
    known = plain.measured_from(normal(1, 16), tokens=normal(2, 16)).with_tokens(2)
    expected = plain.with_tokens(2)(patches(3)) - np.tile(normal(2, 16), 4)
    np.testing.assert_allclose(known(patches(3)), expected, atol=1e-5)


@pytest.mark.parametrize("per_side", [1, 2, 4])
def test_white_embeddings_and_tokens_are_measured_and_then_turned(per_side):
    images, origin, matrix = patches(3), normal(1, 16), normal(2, 16, 16)
    model = encoder.Encoder(architecture(), params_of(), origin)
    plain = model.with_tokens(per_side)(images).reshape(3, -1, 16)
    white = model.whitened(matrix).with_tokens(per_side)(images).reshape(3, -1, 16)
    expected = np.einsum("nmd,de->nme", plain.astype(np.float64), matrix)
    np.testing.assert_allclose(white, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(model.with_tokens(per_side)(images).reshape(3, -1, 16), plain)


def test_white_class_tokens_have_no_tokens_beside_them():
    model = encoder.Encoder(architecture("class"), params_of(), token_origin=normal(1, 16))
    with pytest.raises(ValueError, match=r"must be 1 where class tokens are whitened .*, got 2"):
        model.whitened(np.eye(16)).with_tokens(2)


@pytest.mark.parametrize("per_side", [2, 4])
@pytest.mark.parametrize("pool", ["class", "mean"])
def test_the_embedding_comes_with_its_tokens(pool, per_side):
    """The one that the encoder gives without them: of a class token no mean of tokens."""
    images, origin = patches(5), normal(1, 16)
    model = encoder.Encoder(architecture(pool), params_of(), normal(2, 16), 4, token_origin=origin)
    whole, tokens = model.with_tokens(per_side).start_with_whole(images)()
    np.testing.assert_allclose(whole, model(images), atol=1e-5)
    np.testing.assert_allclose(tokens, model.with_tokens(per_side)(images), atol=1e-5)
    mean = tokens.reshape(5, -1, 16).mean(axis=1) + origin - normal(2, 16)
    assert (np.abs(mean - whole).max() < 1e-4) == (pool == "mean")


@pytest.mark.parametrize("per_side", [2, 4])
def test_class_token_and_mean_are_of_each_square(per_side):
    """What is a class token's is shared; the embedding is the mean of its tokens, so they have one
    origin and one whitening."""
    images, origin, matrix = patches(5), normal(1, 32), normal(2, 32, 32)
    model = encoder.Encoder(architecture("class_mean"), params_of(), origin)
    assert model.dim == 32
    of_class, of_mean = (
        encoder.Encoder(architecture(pool), params_of(), origin[half], token_origin=origin[half])
        for pool, half in (("class", slice(16)), ("mean", slice(16, None)))
    )
    expected = np.concatenate([of_class(images), of_mean(images)], axis=1)
    np.testing.assert_allclose(model(images), expected, atol=1e-5)
    tokens = model.with_tokens(per_side)(images).reshape(5, per_side**2, 32)
    np.testing.assert_allclose(tokens.mean(axis=1), expected, atol=1e-5)
    shared = np.repeat(of_class(images)[:, None], per_side**2, axis=1)
    np.testing.assert_allclose(tokens[..., :16], shared, atol=1e-5)
    squares = of_mean.with_tokens(per_side)(images).reshape(5, per_side**2, 16)
    np.testing.assert_allclose(tokens[..., 16:], squares, atol=1e-5)
    white = model.whitened(matrix).with_tokens(per_side)(images).reshape(tokens.shape)
    np.testing.assert_allclose(white, tokens @ matrix, rtol=1e-4, atol=1e-4)


def test_one_token_of_a_whole_patch_is_the_mean_of_its_patch_tokens():
    pixels_ = patches(3).astype(np.float32) / 127.5 - 1
    mean = every_token(patches(3)).mean(axis=1)
    for pool in ("class", "mean", "class_mean"):
        found = architecture(pool).of_one_token.embed(params_of(), pixels_)
        np.testing.assert_allclose(found[:, -16:], mean, atol=1e-5)
