import numpy as np
import pytest

from ssldiff_jax.sampler import twins

SIDE = 2 * twins.REACH + 1


def applied(field, kernel, offset=0.0):
    """A kernel over the inside of a field, sum by sum."""
    height, width = (size - 2 * twins.REACH for size in field.shape[:2])
    found = np.zeros((height, width, kernel.shape[-1]))
    for i in range(SIDE):
        for j in range(SIDE):
            found += field[i : i + height, j : j + width] @ kernel[i, j]
    return found + offset


def test_what_is_linear_is_found():
    """The decoder's kernel and offset, but for the ridge: a ten thousandth of weights."""
    source = np.random.default_rng(1)
    kernel, offset = source.normal(size=(SIDE, SIDE, 4, 3)) * 0.1, np.array([0.1, -0.2, 0.3])
    pairs = []
    for seed in range(4):
        latents = np.random.default_rng(seed).normal(size=(44, 40, 4))
        colours = np.zeros((44, 40, 3))
        colours[2:-2, 2:-2] = applied(latents, kernel, offset)
        pairs.append((latents, colours))
    found = twins.LinearTwins.fit(pairs)
    np.testing.assert_allclose(found.decode, kernel, atol=2e-4)
    np.testing.assert_allclose(found.offset, offset, atol=2e-3)
    field = source.normal(size=(12, 10, 4)).astype(np.float32)
    expected = applied(field, found.decode)
    np.testing.assert_allclose(twins.apply(field, found.decode), expected, atol=1e-5)


def test_the_way_back_is_the_inverse_where_there_is_one():
    """Of a decoder that sees each latent alone, with as many colours as latents."""
    matrix = np.array([[0.4, 0.1, 0.0], [-0.1, 0.3, 0.1], [0.05, 0.0, 0.5]])
    latents = np.random.default_rng(0).normal(size=(60, 60, 3))
    found = twins.LinearTwins.fit([(latents, latents @ matrix - 0.25)])
    there_and_back = np.einsum("ijqc,cd->ijqd", found.encode, matrix)
    middle = there_and_back[twins.REACH, twins.REACH].copy()
    there_and_back[twins.REACH, twins.REACH] = 0
    # The ridge of a thousandth of the mean variance.
    np.testing.assert_allclose(middle, np.eye(3), atol=0.01)
    assert np.abs(there_and_back).max() < 0.01
    np.testing.assert_allclose(found.offset, -0.25, atol=1e-3)


def test_latents_without_any_variance_have_no_weight():
    latents = np.zeros((20, 20, 2))
    latents[..., 0] = np.random.default_rng(0).normal(size=(20, 20))
    found = twins.LinearTwins.fit([(latents, latents[..., :1] * 0.5)])
    assert np.isfinite(found.encode).all()
    assert np.abs(found.decode[..., 1, :]).max() < 1e-6
    assert np.abs(found.encode[..., 1]).max() < 1e-6


def test_all_pairs_count():
    """Alike, however often."""
    source = np.random.default_rng(2)
    pairs = [(source.normal(size=(12, 14, 2)), source.normal(size=(12, 14, 3))) for _ in range(2)]
    found = twins.LinearTwins.fit(pairs)
    again = twins.LinearTwins.fit([*pairs, *pairs])
    np.testing.assert_allclose(found.decode, again.decode, atol=1e-6)
    np.testing.assert_allclose(found.encode, again.encode, atol=1e-6)
    one = twins.LinearTwins.fit(pairs[:1])
    assert np.abs(one.decode - found.decode).max() > 1e-3


def test_parts_of_a_latent_are_packed_row_by_row():
    image = np.arange(4 * 6 * 3, dtype=np.float32).reshape(4, 6, 3)
    found = twins.packed(image, 2)
    assert found.shape == (2, 3, 12)
    for row in range(2):
        for col in range(3):
            square = image[2 * row : 2 * row + 2, 2 * col : 2 * col + 2]
            np.testing.assert_array_equal(found[row, col], square.reshape(-1))
    np.testing.assert_array_equal(twins.packed(image, 1), image)


@pytest.mark.parametrize("size", [(4, 30), (30, 4), (3, 3)])
def test_fields_that_are_all_border_are_refused(size):
    with pytest.raises(ValueError, match="more than 4 latents a side"):
        twins.LinearTwins.fit([(np.zeros((*size, 2)), np.zeros((*size, 3)))])
