import jax
import numpy as np

from ssldiff_jax.core import rng


@jax.jit
def draw(index):
    return rng.per_example(rng.stream(0, "noise", 3), index, jax.random.normal, (4, 2))


def test_noise_does_not_depend_on_the_split_of_the_batch():
    index = np.array([7, 0, 12, 5, 1, 90])
    whole = np.asarray(draw(index))
    for parts in (np.split(index, 2), index[:, None]):
        np.testing.assert_array_equal(np.concatenate([draw(part) for part in parts]), whole)
    order = np.argsort(index)
    np.testing.assert_array_equal(draw(index[order]), whole[order])


def test_every_example_draws_its_own_noise():
    drawn = np.asarray(draw(np.arange(2000))).reshape(2000, 8)
    assert len(np.unique(drawn)) > 0.99 * drawn.size
    assert np.abs(np.corrcoef(drawn, rowvar=False) - np.eye(8)).max() < 0.1
    assert abs(np.std(drawn) - 1) < 0.03


def test_streams_differ_by_seed_name_and_step():
    keys = [
        rng.stream(seed, name, step)
        for seed in (0, 1)
        for name in ("noise", "noise2", "params")
        for step in (None, 0, 1, 2)
    ]
    assert len({tuple(jax.random.key_data(key).tolist()) for key in keys}) == len(keys)


def test_streams_are_the_same_inside_a_jit():
    inside = jax.jit(lambda step: rng.stream(5, "noise", step))(3)
    assert inside == rng.stream(5, "noise", 3)


def test_seeds_of_streams_are_apart():
    """Of a run's streams, of their numbers, and of runs whose seeds are neighbours."""
    names = ("encoder/data", "judge/data", "sample/image", "crops")
    every = [
        rng.seed_of(root, name, n) for root in (0, 1, 2, -1) for name in names for n in range(50)
    ]
    assert len(set(every)) == len(every)
    assert all(0 <= seed < 2**31 for seed in every)
    assert rng.seed_of(3, "crops") == rng.seed_of(3, "crops", 0) != rng.seed_of(3, "crops", 1)
    assert rng.seed_of(0, "sample/image", 1) == 574541741
