"""Patches described by the embeddings of their squares."""

import numpy as np
import pytest

from ssldiff_jax.encoders import encoder, squares


class Means(encoder.Encoder):
    """Stands in for an encoder: the mean and the largest number of every patch."""

    def __init__(self, batch=128, dtype="float32"):
        self.batch, self.dtype, self.calls = batch, dtype, []

    def in_batches(self, size):
        return Means(size, self.dtype)

    def computing_in(self, dtype):
        return Means(self.batch, dtype)

    def __call__(self, patches):
        self.calls.append(patches.shape)
        values = patches.astype(np.float32)
        return np.stack([values.mean(axis=(1, 2, 3)), values.max(axis=(1, 2, 3))], axis=1)


def test_every_square_is_seen_alone_row_by_row():
    patches = np.random.default_rng(0).integers(0, 255, (2, 12, 12, 3), np.uint8)
    model = squares.SquaresEncoder(Means(), 3)
    found = model(patches)
    assert found.shape == (2, 9 * 2)
    assert model.encoder.calls == [(18, 4, 4, 3)]
    for n, patch in enumerate(patches):
        for i, square in enumerate(found[n].reshape(9, 2)):
            row, col = divmod(i, 3)
            pixels = patch[4 * row : 4 * row + 4, 4 * col : 4 * col + 4]
            np.testing.assert_allclose(square, [pixels.mean(), pixels.max()], rtol=1e-6)


def test_it_is_called_in_batches_and_dtypes_as_its_encoder():
    model = squares.SquaresEncoder(Means(), 2)
    assert model.in_batches(5).encoder.batch == 20
    # A hundred windows of sixteen would be more than a device wants.
    assert model.in_batches(100).encoder.batch == 128
    assert model.computing_in("bfloat16").encoder.dtype == "bfloat16"
    with pytest.raises(ValueError, match="must be 2 × 2 squares, got 12 × 13 px"):
        model(np.zeros((1, 12, 13, 3), np.uint8))
