"""The nearest code is the nearest, whatever products the device would round."""

import jax
import ml_dtypes
import numpy as np
import pytest

from ssldiff_jax.autoencoder import vq


def latents(num_codes=512, seed=0):
    """Latents, and a codebook as close together as a trained one is to its latents."""
    draw = np.random.default_rng(seed)
    codebook = draw.normal(size=(num_codes, 3)).astype(np.float32)
    return draw.normal(size=(2, 16, 16, 3)).astype(np.float32), codebook


def by_distance(z, codebook):
    """In float64, from differences: nothing cancels."""
    difference = z[..., None, :].astype(np.float64) - codebook
    return np.argmin(np.sum(difference**2, axis=-1), axis=-1)


@pytest.mark.parametrize("shift", [0, 30])
def test_the_nearest_code_is_the_nearest(shift):
    """Also far from the origin, where squares are a thousand times their differences."""
    z, codebook = (x + np.float32(shift) for x in latents())
    found = np.asarray(vq.nearest_code(z, codebook))
    expected = by_distance(z, codebook)
    assert np.mean(found != expected) < (0.002 if shift == 0 else 0.02)


def products(jaxpr):
    """Precisions of all matrix products of a program, those inside others too."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield equation.params["precision"]
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from products(inner)


def test_codes_do_not_depend_on_the_default_precision():
    """A CPU has one precision only; so what an accelerator is told is read from the program."""
    z, codebook = latents()
    highest = (jax.lax.Precision.HIGHEST,) * 2
    for default in (None, "bfloat16", "tensorfloat32"):
        with jax.default_matmul_precision(default):
            traced = jax.make_jaxpr(vq.nearest_code)(z, codebook)
            found = jax.jit(vq.nearest_code)(z, codebook)
        assert list(products(traced.jaxpr)) == [highest]
        np.testing.assert_array_equal(found, vq.nearest_code(z, codebook))


def test_rounded_products_pick_other_codes():
    """Why it matters: what bfloat16 factors would choose."""
    z, codebook = latents(num_codes=8192)
    rounded = lambda x: x.astype(ml_dtypes.bfloat16).astype(np.float64)
    square = np.sum(codebook.astype(np.float64) ** 2, axis=1)
    found = np.argmin(square - 2 * rounded(z) @ rounded(codebook).T, axis=-1)
    assert np.mean(found != by_distance(z, codebook)) > 0.1
