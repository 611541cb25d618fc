import numpy as np
import pytest

from ssldiff_jax.evaluation.metrics import diversity


class World:
    """Features are a matrix times the embedding, and noise of known covariance."""

    def __init__(self, seed, dim, *, count=300, num_real=4000, num_features=10):
        self.generator = np.random.default_rng(seed)
        self.map = self.generator.normal(size=(dim, num_features))
        self.scale = self.generator.uniform(0.3, 1.5, num_features)
        self.own, self.others = (self.real(self.embedding(n, dim)) for n in (count, num_real))

    def embedding(self, count, dim):
        return self.generator.normal(size=(count, dim))

    def features(self, embedding, share):
        """With a share of the noise's variance."""
        noise = self.generator.normal(size=(*embedding.shape[:-1], len(self.scale)))
        return embedding @ self.map + share**0.5 * noise * self.scale

    def real(self, embedding):
        return diversity.Real(embedding, self.features(embedding, 1.0))

    def generated(self, share, variations=4):
        return self.features(self.own.embedding[:, None].repeat(variations, axis=1), share)


@pytest.mark.parametrize("share", [1.0, 0.5, 0.0, 1.5])
@pytest.mark.parametrize("dim", [2, 6])
def test_the_right_noise_is_one_and_the_mean_alone_is_zero(dim, share):
    """In six dimensions the nearest of 4000 lie far away, and what is not corrected is far off."""
    world = World(dim, dim)
    found = diversity.compare(world.generated(share), world.own, world.others)
    assert found.corrected.value == pytest.approx(share, abs=0.12)
    assert found.corrected.low <= share + 1e-9
    assert found.corrected.high >= share
    assert found.corrected.high - found.corrected.low < 0.35
    if dim == 6:
        assert found.uncorrected.value < 0.8 * share + 1e-9


@pytest.mark.parametrize("dim", [2, 6])
def test_what_is_not_corrected_is_too_low_by_what_embeddings_differ_in(dim):
    """Half a squared distance is the noise's variance and half that of A·(e − e')."""
    world = World(dim, dim, count=600)
    found = diversity.compare(world.generated(1.0), world.own, world.others)
    squared = ((world.own.embedding[:, None] - world.others.embedding) ** 2).sum(axis=-1)
    nearest = np.argsort(squared, axis=1)[:, : diversity.NEIGHBOURS]
    apart = world.own.embedding[:, None] - world.others.embedding[nearest]
    further = ((apart @ world.map) ** 2).sum(axis=-1).mean() / 2
    noise = (world.scale**2).sum()
    assert found.uncorrected.value == pytest.approx(noise / (noise + further), rel=0.05)
    near = np.take_along_axis(squared, nearest, axis=1).mean() / squared.mean()
    assert found.nearness == pytest.approx(near, rel=1e-9)


def test_noise_that_grows_where_patches_are_rare_is_no_slope():
    """Each embedding's own spread differs, and with it how near its neighbours are."""
    world = World(0, 3)
    factor = lambda embedding: 1 + np.linalg.norm(embedding, axis=-1, keepdims=True)

    def features(embedding):
        noise = world.generator.normal(size=(*embedding.shape[:-1], len(world.scale)))
        return embedding @ world.map + factor(embedding) * noise

    own, others = (
        diversity.Real(real.embedding, features(real.embedding))
        for real in (world.own, world.others)
    )
    generated = features(world.own.embedding[:, None].repeat(4, axis=1))
    found = diversity.compare(generated, own, others)
    assert found.corrected.value == pytest.approx(1, abs=0.1)


def test_intervals_hold_the_share_as_often_as_they_say():
    held, repeats = 0, 100
    for seed in range(repeats):
        world = World(seed, 3, count=64, num_real=500)
        found = diversity.compare(world.generated(0.5), world.own, world.others).corrected
        held += found.low <= 0.5 <= found.high
    assert held >= 0.88 * repeats


def test_few_embeddings_have_no_interval():
    world = World(0, 2, count=7, num_real=100)
    found = diversity.compare(world.generated(1.0), world.own, world.others)
    assert (found.num_embeddings, found.num_variations, found.num_real) == (7, 4, 100)
    assert found.corrected.low is None
    assert found.corrected.interval == "too few: 7 blocks of embeddings, 8 needed"


def test_one_patch_of_an_embedding_has_no_spread():
    world = World(0, 2, count=8, num_real=20)
    with pytest.raises(ValueError, match="2 patches or more of an embedding, got 1"):
        diversity.compare(world.generated(1.0, variations=1), world.own, world.others)


@pytest.mark.parametrize("share", [1.0, 0.25, 0.0])
def test_what_conditions_leave_open_is_the_noise_over_all_that_varies(share):
    """Of features map·z + noise, with z and noise of unit variance, all that varies is the sum of
    squares of both; of one condition the noise alone."""
    world = World(3, 4, count=2000)
    noise = float((world.scale**2).sum())
    everything = float((world.map**2).sum()) + noise
    found = diversity.of_condition(world.generated(share), world.others.features)
    assert found == pytest.approx(share * noise / everything, rel=0.06)


def test_of_real_patches_that_are_all_alike_there_is_no_part():
    assert diversity.of_condition(np.zeros((3, 2, 5)), np.ones((9, 5))) is None
    with pytest.raises(ValueError, match="2 patches or more of a condition, got 1"):
        diversity.of_condition(np.zeros((3, 1, 5)), np.ones((9, 5)))
