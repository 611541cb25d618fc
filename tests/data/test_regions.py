import numpy as np
import pytest

from ssldiff_jax.data import plan, regions
from ssldiff_jax.slides import tissue


def test_pick_apart_never_overlaps_and_takes_the_first():
    generator = np.random.default_rng(0)
    candidates = [
        (1.0, plan.Square(int(n), int(y), int(x), 30, 20))
        for n, y, x in zip(*generator.integers(0, (2, 150, 150), (80, 3)).T, strict=True)
    ]
    chosen = [square for _, square in regions.pick_apart(candidates, 10)]
    assert len(chosen) == 10
    assert chosen[0] == candidates[0][1]
    canvas = np.zeros((2, 200, 200), int)
    for s in chosen:
        canvas[s.slide, s.top : s.top + s.height, s.left : s.left + s.width] += 1
    assert canvas.max() == 1


def test_pick_apart_gives_fewer_where_no_more_fit():
    one = plan.Square(0, 0, 0, 10, 10)
    touching = plan.Square(0, 0, 10, 10, 10)
    inside = plan.Square(0, 1, 1, 10, 10)
    elsewhere = plan.Square(1, 1, 1, 10, 10)
    candidates = [(1.0, s) for s in (one, inside, touching, elsewhere)]
    chosen = regions.pick_apart(candidates, 9)
    assert [square for _, square in chosen] == [one, touching, elsewhere]


def test_regions_prefer_tissue():
    mask = np.zeros((200, 200), bool)
    mask[120:184, 60:124] = True
    config = plan.RegionConfig(count=3, rows=2, cols=2)
    found = regions.of_most_tissue(
        0, plan.Part((0, 200), (0, 200)), tissue.TissueMask(mask, 1.0), config, (64, 64), 1.0
    )
    assert regions.pick_apart(found, 3) == found
    fractions = [fraction for fraction, _ in found]
    assert fractions == sorted(fractions, reverse=True)
    best = found[0][1]
    assert (best.top, best.left) == (120, 60)
    assert found[0][0] == pytest.approx(1.0)
