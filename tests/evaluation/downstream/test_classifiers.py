"""Classifiers of patches on classes that are known to be separable."""

import itertools

import jax
import numpy as np
import pytest

from ssldiff_jax.evaluation.downstream import classifiers, fitting
from ssldiff_jax.evaluation.metrics import classification

FIT = fitting.FitConfig(60, 16, 3e-3, 0.01)
SIZES = classifiers.NetworkConfig(8, 32, 1, 4, FIT)


def blobs(generator, count, classes=3, dim=5):
    label = generator.integers(classes, size=count)
    return (generator.normal(size=(count, dim)) + 3 * np.eye(classes, dim)[label]).astype(
        np.float32
    ), label


def stripes(generator, count, side=16):
    """Thin or thick stripes, of any colour and direction: no mean colour tells."""
    label = generator.integers(2, size=count)
    period = np.where(label, 8, 4)[:, None, None]
    wave = (np.arange(side)[None, None] + generator.integers(8, size=(count, 1, 1))) % period
    image = np.broadcast_to(np.where(wave < period // 2, 1.0, -1.0), (count, side, side))
    swap = generator.integers(2, size=count).astype(bool)
    image = np.where(swap[:, None, None], image.swapaxes(1, 2), image)
    colour = generator.uniform(40, 90, (count, 1, 1, 3))
    return np.round(128 + image[..., None] * colour).astype(np.uint8), label


def test_the_probe_is_at_its_optimum_and_needs_no_seed():
    generator = np.random.default_rng(0)
    (x, y), (held_out, wanted) = blobs(generator, 80), blobs(generator, 300)
    probe = classifiers.LinearProbe(3, 0.01)
    found = probe(x, y, held_out, seed=0)
    np.testing.assert_array_equal(found, probe(x, y, held_out, seed=1))
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert np.mean(found.argmax(axis=1) == wanted) > 0.9
    # The bias is free: at the optimum mean probabilities are the parts of classes.
    np.testing.assert_allclose(probe(x, y, x).mean(axis=0), np.bincount(y) / 80, atol=1e-3)


def test_scaled_features_have_no_scale():
    generator = np.random.default_rng(1)
    x, other = (generator.normal(3, 2, size=(50, 4)) for _ in range(2))
    scaling = classifiers.Scaling.of(x)
    np.testing.assert_allclose(scaling(x).mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(scaling(x).std(axis=0), 1)
    factor = np.array([1, 10, 100, 0.1])
    moved = classifiers.Scaling.of(x * factor + 7)
    np.testing.assert_allclose(moved(other * factor + 7), scaling(other))
    assert not classifiers.Scaling.of(np.ones((9, 2)))(np.ones((3, 2))).any()


def test_the_probe_takes_features_as_they_are():
    """Weights are held back by l2, so larger features of the same kind are told apart better."""
    generator = np.random.default_rng(1)
    (x, y), (held_out, wanted) = blobs(generator, 60), blobs(generator, 40)
    probe = classifiers.LinearProbe(3, 1.0)
    sure = lambda k: probe(k * x, y, k * held_out)[np.arange(40), wanted].mean()
    assert sure(0.1) < sure(1) - 0.05 < sure(10) - 0.1


def test_repeated_examples_are_no_other_problem():
    generator = np.random.default_rng(1)
    (x, y), (held_out, _) = blobs(generator, 30), blobs(generator, 40)
    probe = classifiers.LinearProbe(3, 0.01)
    repeated = probe(np.tile(x, (3, 1)), np.tile(y, 3), held_out)
    np.testing.assert_allclose(probe(x, y, held_out), repeated, atol=1e-3)


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_networks_learn_what_no_mean_colour_tells(name):
    generator = np.random.default_rng(2)
    (x, y), (held_out, wanted) = stripes(generator, 100), stripes(generator, 90)
    network = classifiers.PatchNetwork(name, SIZES, image_px=16, num_classes=2)
    found = network(x, y, held_out, seed=0)
    assert found.shape == (90, 2)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    assert classification.auc(found, wanted, np.ones((1, 90)))[0] > 0.95
    np.testing.assert_array_equal(found, network(x, y, held_out, seed=0))
    # Fewer examples than a batch, and another number: the same program.
    few = network(x[:10], y[:10], held_out[:7], seed=1)
    assert few.shape == (7, 2)
    assert network.num_traces == 1


def test_patches_are_turned_in_eight_ways():
    image = np.arange(48.0, dtype=np.float32).reshape(1, 4, 4, 3)
    turned = np.asarray(classifiers.turned(jax.random.key(0), np.repeat(image, 200, axis=0)))
    ways = [
        np.rot90(image[0, :, ::mirror], k) for k, mirror in itertools.product(range(4), (1, -1))
    ]
    seen = {next(i for i, way in enumerate(ways) if np.array_equal(t, way)) for t in turned}
    assert seen == set(range(8))


def test_every_example_is_seen_as_often():
    order = fitting._order(7, 10, 7, seed=0)
    assert (np.sort(order, axis=1) == np.arange(7)).all()
    assert fitting._order(3, 5, 8, seed=0).shape == (5, 8)


def test_what_cannot_be_learnt_is_one_line():
    x, y = blobs(np.random.default_rng(0), 20)
    probe = classifiers.LinearProbe(3, 0.01)
    with pytest.raises(ValueError, match="two classes or more, got only class 2 in 20"):
        probe(x, np.full(20, 2), x)
    bad = x.copy()
    bad[[4, 9], 1] = np.nan
    with pytest.raises(ValueError, match=r"embeddings must be finite, got 2 of 20 .* first 4"):
        probe(bad, y, x)
    with pytest.raises(ValueError, match="held-out embeddings must be finite"):
        probe(x, y, bad)
    with pytest.raises(ValueError, match=r"vit_width a multiple of 32, got .*vit_width=40"):
        classifiers.NetworkConfig(8, 40, 1, 4, FIT)
    with pytest.raises(ValueError, match="num_steps and batch_size ≥ 1"):
        fitting.FitConfig(0, 16, 1e-3, 0.0)
