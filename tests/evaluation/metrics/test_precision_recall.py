import numpy as np
import pytest
from scipy import stats

from ssldiff_jax.evaluation.metrics import intervals, pairwise, precision_recall


def on_a_line(*places):
    return np.array(places, np.float64)[:, None]


def test_points_made_by_hand():
    """Real at 0, 1, 3, 7: balls of radius 1, 1, 2, 4 at k = 1. Generated at 2, 2.5, 20."""
    real, generated = on_a_line(0, 1, 3, 7), on_a_line(2, 2.5, 20)
    found = precision_recall.compare(generated, real, k_recall=1, k_density=1, per_neighbour=1)
    # 2 is on the border of 1's ball, and in 3's; 2.5 in 3's; 20 in none, and 7's ends at 11.
    assert found.precision.value == pytest.approx(2 / 3)
    assert found.density.value == pytest.approx(3 / 3)
    # 1's and 3's balls have a generated one; 0's and 7's do not.
    assert found.coverage.value == pytest.approx(2 / 4)
    # Generated balls: 2 and 2.5 of radius 0.5, 20 of 17.5: 3 is in 2.5's, 7 in 20's.
    assert found.recall.value == pytest.approx(2 / 4)
    assert found.counts == (3, 4)
    assert precision_recall.precision(generated, real, k=1) == found.precision.value
    assert precision_recall.precision(real, generated, k=1) == found.recall.value


def test_the_references_precision_and_recall(golden):
    recorded = golden("metrics_fid_kid_prc")
    a, b = recorded.inputs["features1"], recorded.inputs["features2"]
    found = precision_recall.compare(a, b)
    value = lambda name: pytest.approx(float(recorded.outputs[f"{name}_k3"][0]), abs=1e-7)
    assert found.precision.value == value("precision")
    assert found.recall.value == value("recall")


def test_stripes_are_the_dense_figures(monkeypatch):
    generator = np.random.default_rng(0)
    generated, real = generator.normal(size=(61, 3)), 1.2 * generator.normal(size=(47, 3))
    whole = precision_recall.compare(generated, real, per_neighbour=1)
    apart = lambda a, b: np.linalg.norm(a[:, None] - b, axis=-1)
    across = apart(generated, real)
    radius = lambda x, k: np.sort(apart(x, x), axis=1)[:, k]
    figures = lambda f: [e.value for e in (f.precision, f.recall, f.density, f.coverage)]
    expected = [
        (across <= radius(real, 3)).any(axis=1).mean(),
        (across <= radius(generated, 3)[:, None]).any(axis=0).mean(),
        (across <= radius(real, 5)).sum(axis=1).mean() / 5,
        (across.min(axis=0) <= radius(real, 5)).mean(),
    ]
    assert figures(whole) == pytest.approx(expected)
    assert (whole.neighbours, whole.counts) == ((3, 5), (61, 47))
    sizes = []
    inner = pairwise.distance_stripes

    def seen(a, b):
        for part, distance in inner(a, b):
            sizes.append(distance.size)
            yield part, distance

    monkeypatch.setattr(pairwise, "ENTRIES", 200)
    monkeypatch.setattr(pairwise, "distance_stripes", seen)
    found = precision_recall.compare(generated, real, per_neighbour=1)
    assert figures(found) == pytest.approx(figures(whole))
    assert max(sizes) <= 200
    assert sum(sizes) == 61**2 + 47**2 + 61 * 47


def test_of_the_same_distribution_density_is_1_and_coverage_as_known():
    """Naeem et al. 2020: coverage is 1 − Π (M − k…M − 1)/(2M − k…2M − 1), about 1 − 2^−k."""
    generator = np.random.default_rng(0)
    found = precision_recall.compare(
        generator.normal(size=(2000, 3)), generator.normal(size=(2000, 3))
    )
    assert found.density.value == pytest.approx(1, abs=0.03)
    assert found.coverage.value == pytest.approx(1 - 2.0**-5, abs=0.01)


def drawn(seed, slides, count, shift, alike):
    """Features of slides side by side, of unit variance, of which the part `alike` is a slide's."""
    generator = np.random.default_rng([1, seed])
    of_slide = np.repeat(generator.normal(size=(slides, 2)), count // slides, axis=0)
    own = generator.normal(size=(count, 2))
    return np.sqrt(alike) * of_slide + np.sqrt(1 - alike) * own + shift


@pytest.mark.parametrize(
    ("count", "shift", "alike"),
    [(300, 0.7, 0.0), (300, 0.7, 0.3), (500, 0.1, 0.0), (60, 2.5, 0.0)],
)
def test_intervals_cover_what_other_draws_have_in_the_same_balls(count, shift, alike):
    """Coverage is often 1 in the third case, where blocks do not vary; the standard error of a
    rate of 0.95 is 0.022."""
    balls, draws = np.random.default_rng(99).normal(size=(100, 2)), 100
    found = {"precision": [], "recall": [], "density": [], "coverage": []}
    for seed in range(draws):
        points = drawn(seed, 20, count, shift, alike)
        figures = precision_recall.compare(points, balls, per_neighbour=1)
        for name in ("precision", "density", "coverage"):
            found[name].append(getattr(figures, name))
        found["recall"].append(precision_recall.compare(balls, points, per_neighbour=1).recall)
    many = drawn(draws, 20_000, 100_000, shift, alike)
    truth = {name: np.mean([e.value for e in each]) for name, each in found.items()}
    share = precision_recall.precision(many, balls)
    assert truth["precision"] == pytest.approx(share, abs=0.02)
    truth["precision"] = truth["recall"] = share
    for name, each in found.items():
        assert np.mean([e.low <= truth[name] <= e.high for e in each]) >= 0.9, name
        assert all(0 <= e.low <= e.value <= e.high for e in each)


def test_leaving_out_single_features_of_slides_is_too_sure():
    balls = np.random.default_rng(99).normal(size=(200, 2))
    widths = {20: [], 300: []}
    for seed in range(20):
        points = drawn(seed, 20, 300, 0.7, 0.3)
        for blocks, found in widths.items():
            density = precision_recall.compare(
                points, balls, blocks=blocks, per_neighbour=1
            ).density
            found.append(density.high - density.low)
    assert np.median(widths[20]) > 1.3 * np.median(widths[300])


def test_a_share_of_independent_features_has_wilsons_interval():
    """Of blocks that vary less than features alone would, as many features as there are count."""
    share = lambda value, blocks: intervals.share(
        value,
        100,
        (100, 9),
        intervals.LeaveOneBlockOut(np.full(blocks, value), np.full(blocks, 1.0)),
    )
    expected = stats.binomtest(30, 100).proportion_ci(0.95, "wilson")
    found = share(0.3, 100_000)  # Student's t of that many blocks is normal
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-5)
    t = stats.t.ppf(0.975, 19)
    for value, end in ((0.0, t**2 / (100 + t**2)), (1.0, 100 / (100 + t**2))):
        found = share(value, 20)
        assert (found.low, found.high) == pytest.approx(tuple(sorted((value, end))), abs=1e-12)


def test_coverage_without_a_block_is_that_of_the_others_in_the_same_balls():
    real, generated = np.random.default_rng(0).normal(size=(2, 40, 2))
    radius = np.sort(np.linalg.norm(real[:, None] - real, axis=-1), axis=1)[:, 5]
    inside = np.linalg.norm(real[:, None] - generated, axis=-1) <= radius[:, None]
    parts = np.split(np.arange(40), 4)
    without = [np.delete(inside, part, axis=1).any(axis=1).mean() for part in parts]
    side = intervals.LeaveOneBlockOut(np.array(without), np.full(4, 10.0))
    found = precision_recall.compare(generated, real, blocks=4, per_neighbour=1).coverage
    expected = intervals.share(inside.any(axis=1).mean(), 40, (40, 40), side)
    assert (found.value, found.low, found.high) == pytest.approx(
        (expected.value, expected.low, expected.high)
    )


def test_of_few_features_there_is_no_figure_but_a_reason():
    """A ball of k of N neighbours holds k/N of a set: 2 % at most."""
    x = np.random.default_rng(0).normal(size=(300, 2))
    found = precision_recall.compare(x[:64], x)
    for name, least in (("precision", 150), ("recall", 150), ("density", 250), ("coverage", 250)):
        share = getattr(found, name)
        assert (share.value, share.low, share.high) == (None, None, None)
        assert share.interval == f"too few: 64 vectors, {least} needed"
    assert found.counts == (64, 300)
    found = precision_recall.compare(x, x[:200] + 0.1)
    assert found.precision.low <= found.precision.value <= found.precision.high
    assert found.coverage.value is None
    assert precision_recall.compare(x, x + 0.1).coverage.value is not None


def test_what_figures_cannot_be_of_is_refused():
    x = np.random.default_rng(0).normal(size=(8, 2))
    with pytest.raises(ValueError, match="more real vectors than neighbours, got 5 for k="):
        precision_recall.compare(x, x[:5])
    with pytest.raises(ValueError, match="at least 2 generated vectors, got 0"):
        precision_recall.compare(x[:0], x)
    with pytest.raises(ValueError, match="finite real vectors, got NaN or infinity in 8 of 8"):
        precision_recall.compare(x, x * np.nan)
    with pytest.raises(ValueError, match="at least 2 blocks to leave one out, got 1"):
        precision_recall.compare(x, x, blocks=1)


def test_a_mean_of_equal_values_is_in_its_interval():
    generator = np.random.default_rng(0)
    for count in range(2, 60):
        value = float(generator.random())
        values = np.full(count, value)
        found = intervals.mean(value, (count, 9), intervals.LeaveOneBlockOut.of_mean(values))
        assert found.low <= found.value <= found.high
        assert found.high - found.low < 1e-12


def test_of_large_sets_as_many_as_are_compared_are_taken_evenly(monkeypatch):
    monkeypatch.setattr(precision_recall, "LARGEST", 400)
    source = np.random.default_rng(0)
    generated, real = source.normal(size=(1000, 4)) + 0.2, source.normal(size=(700, 4))
    found = precision_recall.compare(generated, real)
    assert found.counts == (400, 400)
    taken = [pairwise.evenly(side, 400) for side in (generated, real)]
    assert found == precision_recall.compare(*taken)
    for whole, part in zip((generated, real), taken, strict=True):
        rows = [int(np.flatnonzero((whole == vector).all(axis=1))[0]) for vector in part]
        # One of each stretch.
        edges = np.arange(401) * len(whole) // 400
        assert (edges[:-1] <= rows).all()
        assert (rows < edges[1:]).all()
    few = precision_recall.compare(generated, real[:300])
    assert few.counts == (400, 300)


def test_classes_in_turn_are_all_taken(monkeypatch):
    """Every fifth vector of classes in turn is of one class."""
    monkeypatch.setattr(precision_recall, "LARGEST", 500)
    source = np.random.default_rng(0)
    centres = 4 * source.normal(size=(5, 4))
    real = centres[source.integers(5, size=2500)] + source.normal(size=(2500, 4))
    in_turn = centres[np.arange(2500) % 5] + source.normal(size=(2500, 4))
    found = precision_recall.compare(in_turn, real)
    anyhow = precision_recall.compare(source.permutation(in_turn), real)
    assert found.recall.value == pytest.approx(anyhow.recall.value, abs=0.05)
    assert found.coverage.value == pytest.approx(anyhow.coverage.value, abs=0.05)


@pytest.mark.parametrize("copies", [4, 6, 40])
@pytest.mark.parametrize("away", [0.0, 4.0])
def test_copies_of_a_vector_are_in_its_balls(copies, away):
    """Blank patches: their balls have no radius, and rounding must not leave copies outside."""
    source = np.random.default_rng(copies)
    real = (away + source.normal(size=(600, 768))).astype(np.float32)
    blank = real[0].copy()
    real[:copies] = blank
    generated = np.concatenate([np.tile(blank, (50, 1)), real[-250:]])
    found, exact = (
        precision_recall.compare(generated.astype(dtype), real.astype(dtype))
        for dtype in (np.float32, np.float64)
    )
    figures = lambda f: [e.value for e in (f.precision, f.recall, f.density, f.coverage)]
    # A few of those that are no copies lie within rounding of a border.
    assert figures(found) == pytest.approx(figures(exact), abs=0.005)
    # All copies are in all balls of copies.
    assert found.density.value >= 50 * copies / 300 / 5
    assert found.precision.value == 1
