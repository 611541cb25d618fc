import numpy as np
import pytest

from ssldiff_jax.evaluation.metrics import memorisation, pairwise


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture(scope="module")
def training():
    return normal(0, 700, 8)


def test_the_nearest_of_blocks_is_the_nearest_of_all(training, monkeypatch):
    features = normal(1, 90, 8)
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
    cosine = unit(features.astype(np.float64)) @ unit(training.astype(np.float64)).T
    monkeypatch.setattr(memorisation, "_BLOCK", 64)
    monkeypatch.setattr(pairwise, "ENTRIES", 1000)
    found = memorisation.nearest(features, training)
    np.testing.assert_array_equal(found.index, cosine.argmax(axis=1))
    np.testing.assert_allclose(found.distance, 1 - cosine.max(axis=1), atol=1e-9)


def test_copies_are_counted_and_named(training):
    """Ten of 400 are training features, scaled and hardly changed."""
    generated = normal(1, 400, 8)
    generated[5:15] = 3 * training[100:110] + 1e-5 * normal(2, 10, 8)
    found = memorisation.compare(generated, normal(3, 999, 8), training, num_worst=10)
    assert found.expected == pytest.approx(0.01)
    assert 10 / 400 <= found.fraction <= 20 / 400
    assert found.low < found.fraction < found.high
    assert {(c.generated, c.training) for c in found.worst} == {(5 + i, 100 + i) for i in range(10)}
    assert all(c.distance < 1e-9 < found.threshold for c in found.worst)
    assert found.counts == (400, 999, 700)


def test_a_generator_that_copies_nothing_is_as_held_out_images_are(training):
    """Its fraction is `expected` on average, and its p-value rarely small."""
    found = [
        memorisation.compare(normal([s, 0], 200, 8), normal([s, 1], 199, 8), training, quantile=0.1)
        for s in range(120)
    ]
    fractions = np.array([f.fraction for f in found])
    assert found[0].expected == pytest.approx(0.1)
    assert fractions.mean() == pytest.approx(0.1, abs=4 * fractions.std() / np.sqrt(120))
    small = np.mean([f.p_value <= 0.05 for f in found])
    assert small < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 120)


def test_a_generator_that_copies_a_little_is_unlikely_by_chance(training):
    generated = normal(1, 400, 8)
    generated[:40] = training[:40] + 0.01 * normal(2, 40, 8)
    assert memorisation.compare(generated, normal(3, 400, 8), training).p_value < 1e-4


@pytest.mark.parametrize("searched", [1, 70, 350, 700])
def test_of_copies_the_part_that_was_searched_is_found(training, searched):
    """All of 700 training features are copied; as many are found as were looked for, beside the
    hundredth that is expected by chance."""
    part = training[np.random.default_rng(0).permutation(700)[:searched]]
    copies = training + 1e-4 * normal(1, 700, 8)
    found = memorisation.compare(copies, normal(3, 999, 8), part, power=searched / 700)
    assert found.power == searched / 700
    assert found.fraction == pytest.approx(found.power, abs=0.03)
    assert found.fraction >= found.power
    assert found.counts == (700, 999, searched)


@pytest.mark.parametrize("shared", [1, 10])
def test_where_held_out_images_were_trained_on_no_part_is_told_but_why(training, shared):
    """All that is generated is a copy, which a part of 0 would deny. A hundredth of the held-out
    ones is enough: the threshold is theirs."""
    held_out = normal(3, 100 * shared - 1, 8)
    held_out[:shared] = training[:shared]
    found = memorisation.compare(training.copy(), held_out, training)
    assert found.fraction is found.low is found.high is found.p_value is None
    count = f"{shared} of {len(held_out)}"
    assert found.interval.startswith(f"none: {count} held-out features are training features too")
    assert found.worst[0].distance < 1e-9
    found = memorisation.compare(training.copy(), held_out[shared:], training)
    assert (found.fraction, found.interval) == (1, "95%, Wilson")
    assert found.low < found.fraction <= found.high


def test_a_memory_map_is_read(training, tmp_path):
    np.save(tmp_path / "training.npy", training)
    mapped = np.load(tmp_path / "training.npy", mmap_mode="r")
    found = memorisation.nearest(training[5:9].copy(), mapped)
    assert found.index.tolist() == [5, 6, 7, 8]


def test_sets_that_cannot_be_compared_are_refused(training):
    with pytest.raises(ValueError, match="a quantile between 0 and 1, got quantile=1"):
        memorisation.compare(training, training, training, quantile=1.0)
    for power in (0.0, 1.5):
        with pytest.raises(ValueError, match=f"a part of all training images, 0…1, got {power=}"):
            memorisation.compare(training, training, training, power=power)
    with pytest.raises(ValueError, match="got 0 generated and 700 held-out"):
        memorisation.compare(training[:0], training, training)
    with pytest.raises(ValueError, match="at least 1 training vectors, got 0"):
        memorisation.nearest(training, training[:0])
    broken = training.copy()
    broken[3] = np.nan
    with pytest.raises(ValueError, match="finite training vectors from 0 on, got NaN or infinity"):
        memorisation.nearest(training, broken)
