import numpy as np
import pytest

from ssldiff_jax.core import moments


@pytest.fixture(scope="module")
def z():
    """Vectors far from the origin, as float32 embeddings are not seldom."""
    generator = np.random.default_rng(0)
    z = generator.normal(size=(9000, 6)) @ generator.normal(size=(6, 6)) + 1000
    return z.astype(np.float32)


def same(found, z):
    assert found.count == len(z)
    np.testing.assert_allclose(found.mean, z.mean(axis=0, dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(z.T.astype(np.float64)), rtol=1e-6)


def test_one_by_one_or_all_at_once(z):
    same(moments.Moments.of(z), z)
    few = z[:100]
    found = moments.Moments(6)
    for vector in few:
        found.add(vector[None])
    found.add(few[:0])
    same(found, few)


@pytest.mark.parametrize("cuts", [[1, 2, 5000], [0, 4500], [8999]])
def test_parts_in_any_order_are_the_whole(z, cuts):
    parts = [moments.Moments.of(part) for part in np.split(z, cuts)]
    same(moments.Moments.merged(parts), z)
    same(moments.Moments.merged(parts[::-1]), z)
    assert [part.count for part in parts] == [len(part) for part in np.split(z, cuts)]


def test_a_part_is_taken_out_again(z):
    whole = moments.Moments.of(z)
    same(whole.without(moments.Moments.of(z[:700])), z[700:])
    with pytest.raises(ValueError, match="expected a part of 9000 vectors, got 9000"):
        whole.without(whole)


def test_bytes_from_another_process_are_the_same(z):
    sent = moments.Moments.of(z).pack()
    assert sent.dtype == np.uint8
    found = moments.Moments.unpack(np.stack([sent, sent])[1])
    np.testing.assert_array_equal(found.pack(), sent)
    found.add(z)
    assert found.count == 2 * len(z)
    np.testing.assert_array_equal(sent, moments.Moments.of(z).pack())


def test_what_cannot_be_summed_is_refused(z):
    found = moments.Moments(6)
    with pytest.raises(ValueError, match="expected tiles of dimension 6, got 5"):
        found.add(z[:, :5], "tiles")
    with pytest.raises(ValueError, match="expected moments of dimension 6, got 5"):
        found.merge(moments.Moments(5))
    broken = z[:50].copy()
    broken[[4, 9], 2] = np.nan, -np.inf
    with pytest.raises(ValueError, match="expected finite tiles, got NaN or infinity in 2 of 50"):
        found.add(broken, "tiles")
    assert found.count == 0
    with pytest.raises(ValueError, match="at least one part, got none"):
        moments.Moments.merged([])


@pytest.mark.parametrize("dim", [1, 3, 6])
def test_whitening_makes_the_covariance_one(z, dim):
    z = z[:, :dim]
    sums = moments.Moments.of(z)
    matrix, inverse = sums.whitening(1e-12)
    white = (z.astype(np.float64) - sums.mean) @ matrix
    np.testing.assert_allclose(white @ inverse + sums.mean, z, rtol=1e-4)
    np.testing.assert_allclose(np.cov(white.T, bias=True).reshape(dim, dim), np.eye(dim), atol=1e-3)


def test_whitening_does_not_stretch_what_hardly_varies():
    """Variances 4, 1 and 1e-8 of independent numbers, which are its eigenvalues: the last becomes
    1e-8 over the least, a hundredth of 4."""
    axes = np.array([[2.0, 0, 0], [0, 1.0, 0], [0, 0, 1e-4]])
    z = np.concatenate([axes, -axes]) * np.sqrt(3)
    white = (z - z.mean(axis=0)) @ moments.Moments.of(z).whitening(0.01)[0]
    variances = np.linalg.eigvalsh(np.cov(white.T, bias=True))
    np.testing.assert_allclose(variances, [1e-8 / 0.04, 1, 1], rtol=1e-4)
    with pytest.raises(ValueError, match="vectors that differ, got 6"):
        moments.Moments.of(np.ones((6, 3))).whitening(0.01)
