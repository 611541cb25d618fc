import numpy as np
import pytest

from ssldiff_jax.evaluation import fidelity, stripes


def on_a_line(*places):
    return np.array(places, np.float64)[:, None]


def test_points_made_by_hand():
    """Real at 0, 1, 3, 7: balls of radius 1, 1, 2, 4 at k = 1. Generated at 2, 2.5, 20."""
    real, generated = on_a_line(0, 1, 3, 7), on_a_line(2, 2.5, 20)
    found = fidelity.compare(generated, real, k_recall=1, k_density=1)
    # 2 is on the border of 1's ball, and in 3's; 2.5 in 3's; 20 in none, and 7's ends at 11.
    assert found.precision == pytest.approx(2 / 3)
    assert found.density == pytest.approx(3 / 3)
    # 1's and 3's balls have a generated one; 0's and 7's do not.
    assert found.coverage == pytest.approx(2 / 4)
    # Generated balls: 2 and 2.5 of radius 0.5, 20 of 17.5: 3 is in 2.5's, 7 in 20's.
    assert found.recall == pytest.approx(2 / 4)
    assert found.counts == (3, 4)
    assert fidelity.precision(generated, real, k=1) == found.precision
    assert fidelity.precision(real, generated, k=1) == found.recall


def test_the_references_precision_and_recall(golden):
    recorded = golden("metrics_fid_kid_prc")
    a, b = recorded.inputs["features1"], recorded.inputs["features2"]
    found = fidelity.compare(a, b)
    value = lambda name: pytest.approx(float(recorded.outputs[f"{name}_k3"][0]), abs=1e-7)
    assert found.precision == value("precision")
    assert found.recall == value("recall")


def test_stripes_are_the_dense_figures(monkeypatch):
    generator = np.random.default_rng(0)
    generated, real = generator.normal(size=(61, 3)), 1.2 * generator.normal(size=(47, 3))
    whole = fidelity.compare(generated, real)
    apart = lambda a, b: np.linalg.norm(a[:, None] - b, axis=-1)
    across = apart(generated, real)
    radius = lambda x, k: np.sort(apart(x, x), axis=1)[:, k]
    figures = lambda f: [f.precision, f.recall, f.density, f.coverage]
    expected = [
        (across <= radius(real, 3)).any(axis=1).mean(),
        (across <= radius(generated, 3)[:, None]).any(axis=0).mean(),
        (across <= radius(real, 5)).sum(axis=1).mean() / 5,
        (across.min(axis=0) <= radius(real, 5)).mean(),
    ]
    assert figures(whole) == pytest.approx(expected)
    assert (whole.neighbours, whole.counts) == ((3, 5), (61, 47))
    sizes = []
    inner = stripes.squared_distances

    def seen(a, b):
        for part, distance in inner(a, b):
            sizes.append(distance.size)
            yield part, distance

    monkeypatch.setattr(stripes, "ENTRIES", 200)
    monkeypatch.setattr(stripes, "squared_distances", seen)
    found = fidelity.compare(generated, real)
    assert figures(found) == pytest.approx(figures(whole))
    assert max(sizes) <= 200
    assert sum(sizes) == 61**2 + 47**2 + 61 * 47


def test_of_the_same_distribution_density_is_1_and_coverage_as_known():
    """Naeem et al. 2020: coverage is 1 − Π (M − k…M − 1)/(2M − k…2M − 1), about 1 − 2^−k."""
    generator = np.random.default_rng(0)
    found = fidelity.compare(generator.normal(size=(2000, 3)), generator.normal(size=(2000, 3)))
    assert found.density == pytest.approx(1, abs=0.03)
    assert found.coverage == pytest.approx(1 - 2.0**-5, abs=0.01)


def test_what_figures_cannot_be_of_is_refused():
    x = np.random.default_rng(0).normal(size=(8, 2))
    with pytest.raises(ValueError, match="more real vectors than neighbours, got 5 for k="):
        fidelity.compare(x, x[:5])
    with pytest.raises(ValueError, match="at least 2 generated vectors, got 0"):
        fidelity.compare(x[:0], x)
    with pytest.raises(ValueError, match="finite real vectors, got NaN or infinity in 8 of 8"):
        fidelity.compare(x, x * np.nan)
