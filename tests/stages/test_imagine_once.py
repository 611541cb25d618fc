"""Images of equal grids are generated once, whichever kinds of condition they are of."""

import types

import numpy as np

from ssldiff_jax.stages import imagine


def test_kinds_of_equal_grids_share_their_images(tmp_path):
    seen = []

    def generate(grid, *, seed):
        seen.append((grid.copy(), seed))
        return types.SimpleNamespace(image=np.full((2, 2, 3), grid.ravel()[0], np.uint8))

    # What is told by the second number of a condition is not heard.
    sample = lambda condition, *, seed: condition[:, :1].reshape(-1, 1, 1, 1)
    model = types.SimpleNamespace(
        config=types.SimpleNamespace(seed=3),
        prior=types.SimpleNamespace(sample_batch=sample),
        generate=generate,
    )
    told = np.array([[1, 5], [2, 6]], np.float32)
    by_kind = {"all": told, "labels": told * [1, 0], "text": told * [0, 1]}
    images = imagine._images(model, {k: v.astype(np.float32) for k, v in by_kind.items()}, tmp_path)
    assert len(seen) == 4
    assert images["labels"] is images["all"]
    shown = {kind: [int(image[0, 0, 0]) for image in made] for kind, made in images.items()}
    assert shown == {"all": [1, 2], "labels": [1, 2], "text": [0, 0]}
    # Image i has its own noise, and of every kind the same.
    seeds = [seed for _, seed in seen]
    assert seeds[:2] == seeds[2:]
    assert seeds[0] != seeds[1]
