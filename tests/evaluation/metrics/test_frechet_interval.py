"""Intervals of Fréchet distances, held against Gaussians whose distance is known."""

import dataclasses
from typing import Literal

import numpy as np
import pytest

from ssldiff_jax.core.moments import Moments
from ssldiff_jax.evaluation.metrics import frechet, frechet_interval, intervals

of = frechet_interval.blocks_of


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


@dataclasses.dataclass(frozen=True)
class Truth:
    """Gaussians along axes: one is moved and stretched, or, paired, moved and made noisy.

    Attributes:
        mode: two samples; a sample and moments that are known; pairs.
        dim: D.
        count: N, of the sample that is compared; the other has `others` times as many.
        shift: |μa − μb|.
        stretch: deviations of one are 1 … stretch times those of the other.
        decay: deviations fall as k^−decay, as those of features do.
    """

    mode: Literal["apart", "reference", "paired"]
    dim: int
    count: int
    shift: float = 1.0
    stretch: float = 1.0
    decay: float = 0.0
    others: int = 1

    @property
    def _std(self):
        return np.arange(1.0, self.dim + 1) ** -self.decay

    @property
    def distance(self) -> float:
        """|μa − μb|² + |σa − σb|²."""
        wide = np.linspace(1, self.stretch, self.dim) * self._std
        if self.mode == "paired":
            return self.shift**2 + np.sum((np.sqrt(wide**2 + 0.25) - wide) ** 2)
        return self.shift**2 + np.sum((wide - self._std) ** 2)

    def estimate(self, seed: int) -> intervals.Estimate:
        """That of one sample."""
        wide = np.linspace(1, self.stretch, self.dim) * self._std
        a = normal([seed, 0, self.dim], self.count, self.dim) * wide
        moved = a + self.shift / np.sqrt(self.dim)
        if self.mode == "paired":
            noisy = moved + 0.5 * normal([seed, 1, self.dim], *a.shape)
            return frechet_interval.frechet_estimate(of(noisy), of(a), paired=True)
        if self.mode == "reference":
            known = Moments(self.dim)
            known.count, known.scatter = 10**6, np.diag(self._std**2) * (10**6 - 1)
            return frechet_interval.frechet_estimate(of(moved), [known])
        b = normal([seed, 1, self.dim], self.others * self.count, self.dim) * self._std
        return frechet_interval.frechet_estimate(of(moved), of(b))

    def covered(self, draws: int) -> float:
        """How often the interval has the distance in it."""
        found = [self.estimate(seed) for seed in range(draws)]
        assert all(f.low <= f.corrected <= f.high for f in found)
        return float(np.mean([f.low <= self.distance <= f.high for f in found]))


@pytest.mark.parametrize("count", [18, 60])
@pytest.mark.parametrize("shift", [0.0, 1.0])
@pytest.mark.parametrize("mode", ["apart", "reference", "paired"])
def test_the_interval_has_the_populations_distance(mode, shift, count):
    """From the fewest vectors that are enough for 8 numbers; the standard error of a rate of 0.95
    in 60 draws is 0.028."""
    assert Truth(mode, 8, count, shift, 1.5).covered(60) >= 0.87


def test_the_bias_of_the_second_order_is_taken_off_too():
    """One side known, 2.2 vectors a dimension: by the jackknife alone the distance is too small by
    0.6, and 15 of 25 intervals have it."""
    truth = Truth("reference", 48, 106)
    found = [truth.estimate(seed) for seed in range(25)]
    assert np.mean([f.low <= 1 <= f.high for f in found]) >= 0.88
    assert np.mean([f.corrected for f in found]) == pytest.approx(1, abs=0.25)
    assert np.mean([f.uncorrected for f in found]) > 7


@pytest.mark.slow
@pytest.mark.parametrize("decay", [0.0, 1.0])
@pytest.mark.parametrize("dim", [4, 16, 64, 128])
@pytest.mark.parametrize("others", [1, 4])
@pytest.mark.parametrize("mode", ["apart", "reference", "paired"])
def test_coverage_at_large(mode, others, dim, decay, capsys):
    """Prints the part of intervals that have the truth in them, for vectors from the fewest that
    are enough to ten for each dimension. Two standard errors of a rate of 0.95 in 60 draws."""
    if others > 1 and mode != "apart":
        pytest.skip("has one size")
    for times in (2.2, 3, 5, 10):
        for shift, stretch in ((0, 1), (1, 1), (1, 2)):
            count = max(int(times * dim), 2 * dim + 2)
            truth = Truth(mode, dim, count, shift, stretch, decay, others)
            rate = truth.covered(60)
            with capsys.disabled():
                print(f"{truth} {rate:.2f}")
            assert rate >= 0.85


@pytest.mark.parametrize(
    ("count", "dim", "needed"),
    [(64, 96, 203), (64, 64, 135), (10, 96, 203), (67, 32, 68), (3, 4, 9)],
)
@pytest.mark.parametrize("mode", ["apart", "reference", "paired"])
def test_of_few_vectors_there_is_the_uncorrected_distance_alone(mode, count, dim, needed):
    """Fewer than dimensions, as many, and just too few without a block of them; as many as are
    said to be needed are enough."""
    found = Truth(mode, dim, count).estimate(0)
    assert (found.corrected, found.low, found.high) == (None, None, None)
    assert found.uncorrected > 0
    assert found.interval == f"too few: {count} vectors of {dim} numbers, {needed} needed"
    assert Truth(mode, dim, needed).estimate(0).low is not None


def test_a_reference_of_few_vectors_is_not_known_exactly():
    few = Moments.of(normal(0, 30, 16))
    found = frechet_interval.frechet_estimate(of(normal(1, 400, 16)), [few])
    assert found.interval == "too few: 30 vectors of 16 numbers, 32 needed"
    assert found.low is None


def test_few_blocks_tell_no_interval():
    found = frechet_interval.frechet_estimate(of(normal(0, 400, 4), 3), of(normal(1, 400, 4)))
    assert found.interval == "too few: 3 blocks of vectors, 5 needed"


def test_the_estimate_has_the_distance_and_its_counts(golden):
    recorded = golden("metrics_fid_kid_prc")
    a, b = recorded.inputs["features1"], recorded.inputs["features2"]
    found = frechet_interval.frechet_estimate(of(a), of(b, 10))
    expected = recorded.outputs["frechet_pytorch_fid_float64_features"]
    assert found.uncorrected == pytest.approx(float(expected[0]), rel=1e-6)
    assert found.counts == (600, 500)
    assert found.interval == "95%, jackknife of 20 and 10 blocks"
    assert found.low < found.corrected < found.high
    assert found.corrected < found.uncorrected


def test_an_interval_of_slides_is_wider_where_features_of_a_slide_are_alike():
    """Blocks that are slides, of unequal sizes, against a reference that is known exactly."""
    sizes = [20, 40, 60, 80] * 5
    slides = [normal([i, 0], 4) + 0.3 * normal([i, 1], n, 4) for i, n in enumerate(sizes)]
    reference = [Moments.of(normal(7, 5000, 4))]
    by_slide = frechet_interval.frechet_estimate([Moments.of(s) for s in slides], reference)
    mixed = np.random.default_rng(0).permutation(np.concatenate(slides))
    by_chance = frechet_interval.frechet_estimate(of(mixed), reference)
    assert by_slide.uncorrected == pytest.approx(by_chance.uncorrected, rel=1e-9)
    bias = lambda found: found.uncorrected - found.corrected
    assert bias(by_slide) > 3 * bias(by_chance)
    assert by_slide.high > by_chance.high
    assert by_slide.interval == "95%, jackknife of 20 blocks"


def test_the_interval_of_pairs_is_narrower():
    """What is drawn from a feature shares its chance."""
    widths = []
    for seed in range(20):
        x = normal(seed, 200, 4)
        sides = of(x + 0.5 + 0.3 * normal(1000 + seed, 200, 4)), of(x)
        paired, apart = (frechet_interval.frechet_estimate(*sides, paired=p) for p in (True, False))
        assert paired.uncorrected == pytest.approx(apart.uncorrected, rel=1e-9)
        widths.append((paired.high - paired.low) / (apart.high - apart.low))
    assert np.median(widths) < 0.4
    with pytest.raises(ValueError, match="expected blocks in pairs, got 20 and 19"):
        frechet_interval.frechet_estimate(sides[0], sides[1][1:], paired=True)


def test_pairs_of_blocks_may_be_of_unequal_sizes():
    """Bands of crops and of the cells between which they lie: halves are of the same bands."""
    sizes = [20, 60, 30, 50, 40, 100]
    a = [Moments.of(normal([i, 0], n, 3)) for i, n in enumerate(sizes)]
    b = [Moments.of(normal([i, 1], 2 * n, 3) + 1) for i, n in enumerate(sizes[::-1])]
    found = frechet_interval.frechet_estimate(a, b, paired=True)
    assert found.uncorrected == pytest.approx(
        frechet.frechet(Moments.merged(a), Moments.merged(b)), rel=1e-9
    )
    assert found.low <= 3 <= found.high


def test_the_jackknife_of_a_mean_is_the_textbooks():
    x = normal(0, 30)
    without = (x.sum() - x) / 29
    side = intervals.LeaveOneBlockOut(without, np.ones(30))
    assert side.bias(x.mean()) == pytest.approx(0, abs=1e-12)
    assert side.variance(x.mean()) == pytest.approx(x.var(ddof=1) / 30)
    with pytest.raises(ValueError, match="at least 2 blocks on a side"):
        intervals.jackknife(1.0, (3, 3), [])
    # What must lie higher keeps the width of its error above the least that it can be.
    free = intervals.jackknife(x.mean(), (30, 0), [side])
    found = intervals.jackknife(x.mean(), (30, 0), [side], least=1e3)
    assert found.low == found.corrected == 1e3
    assert found.high - 1e3 == pytest.approx((free.high - free.low) / 2)
    # What a further correction would move is in the interval either way.
    wider = intervals.jackknife(x.mean(), (30, 0), [side], further=0.5)
    assert (wider.low, wider.high) == pytest.approx((free.low, free.high + 0.5))
    assert wider.corrected == pytest.approx(free.corrected + 0.25)


@pytest.mark.parametrize("dim", [1, 2, 3, 9, 10, 40])
def test_as_many_vectors_as_are_told_to_be_needed_are_enough_and_no_fewer(dim):
    told = lambda count: frechet_interval.too_few(
        frechet_interval.blocks_of(np.random.default_rng(0).normal(size=(count, dim)))
    )
    enough = next(count for count in range(1, 200) if told(count) is None)
    for count in range(1, enough):
        assert told(count).startswith(f"{count} ")
        assert told(count).endswith(f", {enough} needed")
