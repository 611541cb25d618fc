import numpy as np
import pytest

from ssldiff_jax.data import crops, mosaic, plan

SIDE = 16


class Records:
    """Squares of two slides whose pixels tell their place; the second has a gap."""

    num_bands, dtype = 3, np.dtype(np.uint8)

    def __init__(self):
        lattice = [(t, left) for t in (0, 8, 16) for left in (0, 12, 20)]
        self._squares = [(3, t, left) for t, left in lattice]
        self._squares += [(5, t, left) for t, left in lattice if (t, left) != (8, 12)]

    def __len__(self):
        return len(self._squares)

    @property
    def slides(self):
        return np.stack(np.unique([s for s, *_ in self._squares], return_counts=True), axis=1)

    @property
    def places(self):
        return np.array([(*square, -1) for square in self._squares])

    def __getitem__(self, number):
        slide, top, left = self._squares[number]
        return picture(slide)[top : top + SIDE, left : left + SIDE]


def picture(slide):
    rows, cols = np.mgrid[:40, :40]
    return np.stack([rows, cols, np.full_like(rows, slide)], axis=-1).astype(np.uint8)


@pytest.fixture
def whole():
    return mosaic.Mosaic(Records(), SIDE)


def test_pixels_are_those_of_the_slide(whole):
    square = plan.Square(3, 2, 5, 25, 30)
    np.testing.assert_array_equal(whole.read(square), picture(3)[2:27, 5:35])


def test_what_no_record_covers_is_known(whole):
    assert whole.covers(plan.Square(3, 0, 0, 32, 36))
    assert not whole.covers(plan.Square(3, 0, 0, 33, 36))
    assert not whole.covers(plan.Square(3, -1, 0, 8, 8))


@pytest.mark.parametrize("seed", range(3))
def test_squares_are_covered_where_every_pixel_is(seed):
    """Held against a map of all pixels, on records that lie anywhere."""
    generator = np.random.default_rng(seed)
    records = Records()
    places = sorted(generator.integers(0, 60, (25, 2)).tolist())
    records._squares = [(2, top, left) for top, left in places]
    there = np.zeros((80, 80), bool)
    for top, left in places:
        there[top : top + SIDE, left : left + SIDE] = True
    scattered, covered = mosaic.Mosaic(records, SIDE), 0
    for _ in range(300):
        top, left = generator.integers(0, 60, 2).tolist()
        height, width = generator.integers(1, 20, 2).tolist()
        expected = bool(there[top : top + height, left : left + width].all())
        assert scattered.covers(plan.Square(2, top, left, height, width)) == expected
        covered += expected
    assert 30 < covered < 270


def test_drawn_squares_are_covered_and_reach_every_slide(whole):
    generator = np.random.default_rng(0)
    drawn = [whole.find(generator, 24) for _ in range(60)]
    assert {s.slide for s in drawn} == {3, 5}
    assert all(whole.covers(s) for s in drawn)
    assert len({(s.slide, s.top, s.left) for s in drawn}) > 30


def test_where_nothing_is_covered_there_is_no_region_and_one_line_tells(whole):
    assert whole.find(np.random.default_rng(0), 40) is None
    table = mosaic.RegionTable(whole, 5, 10, 4, 4, True, seed=1)
    assert list(table.among(range(5))) == []
    with pytest.raises(mosaic.MosaicError, match=r"squares of 40 to 40 px, found none.*2 slides"):
        table.require_some()


class Islands(Records):
    """2 × 2 records side by side, and many that lie alone."""

    def __init__(self):
        block = [(0, t, left) for t in (0, SIDE) for left in (0, SIDE)]
        self._squares = [*block, *[(1, t, 0) for t in range(0, 4000, 40)]]


def test_islands_give_no_region_and_the_others_stay_what_they_are():
    table = mosaic.RegionTable(mosaic.Mosaic(Islands(), SIDE), 40, 10, 2, 2, True, seed=0)
    table.require_some()
    found = dict(table.among(range(40)))
    assert 0 < len(found) < 40
    # Nothing but the block is as large as a region.
    assert {r.square.slide for r in found.values()} == {0}
    assert dict(table.among([39, *found])) == found | dict(table.among([39]))


@pytest.mark.parametrize("seed", [1, 2])
def test_only_the_cells_that_are_looked_at_are_read(whole, seed):
    table = mosaic.RegionTable(whole, 60, 6, 2, 4, True, seed=seed)
    for _, region in table.among(range(60)):
        top, left = 6 * region.row, 6 * region.col
        expected = table.read(region)[top : top + 12, left : left + 12]
        np.testing.assert_array_equal(table.read_grid(region), expected)


def test_a_region_is_decided_by_its_number(whole):
    table = mosaic.RegionTable(whole, 50, 6, 2, 4, True, seed=1)
    assert table[7] == table[7]
    regions = [table[i] for i in range(50)]
    assert {r.cells for r in regions} == {2, 3, 4}
    assert len({r.orientation for r in regions}) == 8
    for region in regions:
        assert 0 <= region.row <= region.cells - 2
        pixels = table.read(region)
        assert pixels.shape == (6 * region.cells, 6 * region.cells, 3)
        s = region.square
        corner = picture(s.slide)[s.top : s.top + s.height, s.left : s.left + s.width]
        np.testing.assert_array_equal(pixels, crops.orient(corner, region.orientation))
