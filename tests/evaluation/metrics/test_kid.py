import numpy as np
import pytest

from ssldiff_jax.evaluation.metrics import intervals, kid, pairwise


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def dense(a, b):
    """The U-statistic as its definition has it."""
    of = lambda x, y: (x @ y.T / x.shape[1] + 1) ** 3
    within = lambda x: (of(x, x).sum() - np.trace(of(x, x))) / (len(x) * (len(x) - 1))
    return within(a) + within(b) - 2 * of(a, b).mean()


def test_the_references_distances(golden):
    recorded = golden("metrics_fid_kid_prc")
    a, b = recorded.inputs["features1"], recorded.inputs["features2"]
    value = lambda name: float(recorded.outputs[f"kid_{name}"][0])
    unequal = kid.kid(a, b)
    assert unequal.uncorrected == pytest.approx(value("unbiased_600_vs_500"), rel=1e-6)
    assert unequal.counts == (600, 500)
    assert unequal.low < unequal.corrected < unequal.high
    expected = pytest.approx(value("unbiased_first500_vs_500_torch_fidelity_mmd2"), rel=1e-6)
    assert kid.kid(a[:500], b).uncorrected == expected


def test_stripes_are_the_dense_distance_and_each_jackknife_value_too(monkeypatch):
    monkeypatch.setattr(pairwise, "ENTRIES", 100)
    a, b = normal(0, 43, 5), normal(1, 29, 5) + 0.3
    found = kid.kid(a, b, least=3)
    assert found.uncorrected == pytest.approx(dense(a, b), rel=1e-10)
    assert found.corrected == pytest.approx(found.uncorrected, abs=1e-10)
    without_a = np.array([dense(np.delete(a, i, axis=0), b) for i in range(43)])
    without_b = np.array([dense(a, np.delete(b, i, axis=0)) for i in range(29)])
    variance = 42 * without_a.var() + 28 * without_b.var()
    assert found.high - found.low == pytest.approx(2 * 1.99 * np.sqrt(variance), rel=0.03)


def test_of_the_same_distribution_it_is_0_on_average():
    found = [kid.kid(normal([s, 0], 60, 4), normal([s, 1], 40, 4)) for s in range(300)]
    values = np.array([f.corrected for f in found])
    assert abs(values.mean()) < 3 * values.std() / np.sqrt(300)
    assert (values < 0).any()
    assert np.mean([f.low <= 0 <= f.high for f in found]) > 0.93


def test_the_interval_covers_the_populations_distance():
    """In one dimension it is Σ C(3, k) (E xᵏ − E yᵏ)², k = 1…3; here N(0, 1) and N(µ, σ²)."""
    mean, std = 0.5, 0.8
    second, third = mean**2 + std**2, mean**3 + 3 * mean * std**2
    truth = 3 * mean**2 + 3 * (second - 1) ** 2 + third**2
    draw = lambda s: kid.kid(normal([s, 0], 800, 1), mean + std * normal([s, 1], 700, 1))
    found = [draw(s) for s in range(150)]
    values = np.array([f.corrected for f in found])
    assert values.mean() == pytest.approx(truth, abs=3 * values.std() / np.sqrt(150))
    assert 0.9 < np.mean([f.low <= truth <= f.high for f in found]) <= 0.99


def moments(mean, variance):
    """E x, E xxᵀ and E x⊗x⊗x of a Gaussian along axes."""
    second = np.diag(variance) + np.outer(mean, mean)
    mixed = np.einsum("i,jk->ijk", mean, np.diag(variance))
    third = np.einsum("i,j,k->ijk", mean, mean, mean)
    return mean, second, third + mixed + mixed.transpose(1, 0, 2) + mixed.transpose(1, 2, 0)


@pytest.mark.parametrize(("count", "dim"), [(40, 64), (64, 96), (100, 16)])
@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("stretch", [1.0, 1.5])
def test_the_interval_of_blocks_covers_it_in_many_dimensions(paired, stretch, count, dim):
    """Σ C(3, k) |E x^⊗k − E y^⊗k|²/Dᵏ, with fewer features than dimensions too; paired ones are
    real ones with noise, of which the uncorrected figure is below 0."""
    std, mean = np.linspace(1, stretch, dim), np.full(dim, 0.1)
    noise = 0.5 if paired else 0.0
    ours = moments(mean, std**2 + noise**2)
    theirs = moments(np.zeros(dim), std**2 if paired else np.ones(dim))
    terms = zip((1, 2, 3), (3, 3, 1), ours, theirs, strict=True)
    truth = sum(times * np.sum((a - b) ** 2) / dim**k for k, times, a, b in terms)
    found = []
    for seed in range(60):
        a, b = normal([seed, 0], count, dim), normal([seed, 1], count, dim)
        real = a * std if paired else b
        drawn = a * std + mean + noise * b
        found.append(kid.kid(drawn, real, blocks=20, paired=paired))
    assert all(f.low <= f.corrected <= f.high for f in found)
    assert np.mean([f.low <= truth <= f.high for f in found]) >= 0.87
    values = np.array([f.corrected for f in found])
    assert values.mean() == pytest.approx(truth, abs=4 * values.std() / np.sqrt(60))
    if paired and count <= dim:
        assert np.mean([f.uncorrected for f in found]) < 0


def test_few_features_have_the_uncorrected_distance_alone():
    found = kid.kid(normal(0, 39, 8), normal(1, 60, 8), blocks=20)
    assert (found.corrected, found.low, found.high) == (None, None, None)
    assert found.uncorrected == pytest.approx(dense(normal(0, 39, 8), normal(1, 60, 8)))
    assert found.interval == "too few: 39 vectors, 40 needed"


@pytest.mark.parametrize("blocks", [2, 7, 29, 43])
def test_each_block_left_out_is_the_dense_distance_of_the_rest(blocks, monkeypatch):
    monkeypatch.setattr(pairwise, "ENTRIES", 100)
    a, b = normal(0, 43, 5), normal(1, 29, 5) + 0.3
    found = kid.kid(a, b, blocks=blocks, least=3)
    sides, rest = [], lambda x, part: np.delete(x, np.arange(len(x))[part], axis=0)
    for x, distance in ((a, lambda x: dense(x, b)), (b, lambda x: dense(a, x))):
        parts = intervals.blocks_of(len(x), blocks)
        assert np.concatenate([np.arange(len(x))[part] for part in parts]).tolist() == list(
            range(len(x))
        )
        sizes = intervals.sizes_of(parts)
        assert sizes.max() - sizes.min() <= 1
        sides.append(
            intervals.LeaveOneBlockOut(np.array([distance(rest(x, p)) for p in parts]), sizes)
        )
    expected = intervals.jackknife(dense(a, b), (43, 29), sides)
    numbers = lambda e: (e.uncorrected, e.low, e.high, e.corrected)
    assert numbers(found) == pytest.approx(numbers(expected), rel=1e-8, abs=1e-10)
    assert found.interval == expected.interval


@pytest.mark.parametrize("blocks", [7, 43])
def test_pairs_are_left_out_together(blocks):
    a = normal(0, 43, 5)
    b = a + 0.3 + 0.1 * normal(1, 43, 5)
    parts = intervals.blocks_of(43, blocks)
    rest = lambda x, part: np.delete(x, np.arange(43)[part], axis=0)
    values = np.array([dense(rest(a, part), rest(b, part)) for part in parts])
    side = intervals.LeaveOneBlockOut(values, intervals.sizes_of(parts))
    expected = intervals.jackknife(dense(a, b), (43, 43), [side])
    found = kid.kid(a, b, blocks=blocks, paired=True)
    assert (found.corrected, found.low, found.high) == pytest.approx(
        (expected.corrected, expected.low, expected.high), rel=1e-8, abs=1e-10
    )
    with pytest.raises(ValueError, match="expected vectors in pairs, got 43 and 42"):
        kid.kid(a, b[1:], paired=True)


def test_blocks_know_that_features_of_a_slide_are_alike():
    """As above, half of the variance being the slide's. Of 600 independent features an interval
    covers 0.935, since cubes are skewed; 0.025 is that rate's standard error."""
    mean, std, draws = 0.5, 0.8, 150
    second, third = mean**2 + std**2, mean**3 + 3 * mean * std**2
    truth = 3 * mean**2 + 3 * (second - 1) ** 2 + third**2
    found = {20: [], None: []}
    for seed in range(draws):
        of_slide = np.repeat(normal([seed, 2], 60, 1), 10, axis=0)
        alike = np.sqrt(1 / 2) * (of_slide + normal([seed, 0], 600, 1))
        for blocks, each in found.items():
            each.append(kid.kid(mean + std * alike, normal([seed, 1], 600, 1), blocks=blocks))
    covered = {b: np.mean([e.low <= truth <= e.high for e in each]) for b, each in found.items()}
    assert covered[20] > 0.85
    assert covered[None] < 0.8
    # Pairs of one slide are nearer to each other than others are.
    bias = np.array([e.uncorrected - e.corrected for e in found[20]])
    assert bias.mean() > 3 * bias.std() / np.sqrt(draws)


def test_sets_that_cannot_be_compared_are_refused():
    x = normal(0, 10, 4)
    with pytest.raises(ValueError, match="at least 3 real vectors, got 2"):
        kid.kid(x, x[:2])
    broken = x.copy()
    broken[2, 2] = np.inf
    with pytest.raises(ValueError, match="finite generated vectors, got NaN or infinity in 1 of 1"):
        kid.kid(broken, x)
    with pytest.raises(ValueError, match=r"one dimension, got 4 \(here\) and 3 \(there\)"):
        pairwise.require(x, x[:, :3], 1, ("here", "there"))
    with pytest.raises(ValueError, match="blocks that leave 2 of 3 vectors, got 2 blocks"):
        kid.kid(x[:3], x, blocks=2, least=3)


@pytest.mark.parametrize("paired", [False, True])
def test_of_large_sets_it_is_the_mean_over_subsets(paired, monkeypatch):
    monkeypatch.setattr(kid, "LARGEST", 40)
    monkeypatch.setattr(kid, "_SMALLEST", 20)
    a = normal(0, 120, 5)
    b = a + 0.3 + 0.1 * normal(1, 120, 5) if paired else normal(1, 97, 5) + 0.3
    parts = zip(pairwise.parted(len(a), 3), pairwise.parted(len(b), 3), strict=True)
    subsets = [(a[ours], b[theirs]) for ours, theirs in parts]
    found = kid.kid(a, b, blocks=4, paired=paired)
    assert found.uncorrected == pytest.approx(np.mean([dense(*s) for s in subsets]), rel=1e-8)
    assert found.counts == (len(a), len(b))
    assert found.interval.endswith("mean of 3 subsets")

    # Block j is left out of every subset, and the mean is taken of what is left.
    rest = lambda x, j: np.delete(x, np.arange(len(x))[intervals.blocks_of(len(x), 4)[j]], axis=0)
    ways = [(True, True)] if paired else [(True, False), (False, True)]
    sides = []
    for of_a, of_b in ways:
        values = [
            np.mean([dense(rest(x, j) if of_a else x, rest(y, j) if of_b else y)
                     for x, y in subsets])
            for j in range(4)
        ]  # fmt: skip
        sizes = sum(
            intervals.sizes_of(intervals.blocks_of(len(x if of_a else y), 4)) for x, y in subsets
        )
        sides.append(intervals.LeaveOneBlockOut(np.array(values), sizes))
    expected = intervals.jackknife(found.uncorrected, found.counts, sides)
    assert (found.corrected, found.low, found.high) == pytest.approx(
        (expected.corrected, expected.low, expected.high), rel=1e-7, abs=1e-9
    )


def test_sets_are_parted_by_the_larger_as_far_as_the_smaller_allows():
    assert [kid.num_subsets(*counts) for counts in (
        (10_000, 10_000), (10_001, 10_000), (50_000, 50_000), (50_000, 3_500), (50_000, 60), (3, 3)
    )] == [1, 2, 5, 3, 1, 1]  # fmt: skip


def test_the_interval_over_subsets_covers_the_populations_distance(monkeypatch):
    """As without subsets; the distance of N(0, 1) and N(µ, σ²) is known."""
    monkeypatch.setattr(kid, "LARGEST", 300)
    monkeypatch.setattr(kid, "_SMALLEST", 100)
    mean, std = 0.5, 0.8
    second, third = mean**2 + std**2, mean**3 + 3 * mean * std**2
    truth = 3 * mean**2 + 3 * (second - 1) ** 2 + third**2
    draw = lambda s: kid.kid(normal([s, 0], 1500, 1), mean + std * normal([s, 1], 1300, 1))
    found = [draw(s) for s in range(150)]
    values = np.array([f.uncorrected for f in found])
    assert values.mean() == pytest.approx(truth, abs=3 * values.std() / np.sqrt(150))
    # 0.947 of 700; of 150 the rate's standard error is 0.02.
    assert 0.88 < np.mean([f.low <= truth <= f.high for f in found]) <= 0.99


@pytest.mark.parametrize(("count", "parts"), [(12, 3), (13, 3), (14, 5), (3, 7)])
def test_parts_share_what_lies_side_by_side(count, parts):
    taken = pairwise.parted(count, parts)
    assert sorted(np.concatenate(taken).tolist()) == list(range(count))
    for part in taken:
        # One of every stretch, in order.
        assert (part // parts).tolist() == sorted(set(part // parts))
        assert count // parts <= len(part) <= -(-count // parts)


def test_classes_in_turn_are_no_distance(monkeypatch):
    """Files of a generator go through its classes again and again; every fifth is of one class."""
    monkeypatch.setattr(kid, "LARGEST", 300)
    monkeypatch.setattr(kid, "_SMALLEST", 100)
    centres = 3 * normal(0, 5, 4)
    real = centres[np.random.default_rng(1).integers(5, size=1500)] + normal(2, 1500, 4)
    in_turn = centres[np.arange(1500) % 5] + normal(3, 1500, 4)
    found = kid.kid(in_turn, real)
    assert found.interval.endswith("mean of 5 subsets")
    assert found.low <= 0 <= found.high
    monkeypatch.setattr(kid, "LARGEST", 1500)
    whole = kid.kid(in_turn, real)
    assert abs(found.uncorrected - whole.uncorrected) < whole.high - whole.low
