import numpy as np
import pytest

from ssldiff_jax.data import crops, mosaic, plan

SIDE = 16


class Records:
    """Squares of two slides whose pixels tell their place; the second has a gap."""

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


def test_drawn_squares_are_covered_and_reach_every_slide(whole):
    generator = np.random.default_rng(0)
    drawn = [whole.draw(generator, 24) for _ in range(60)]
    assert {s.slide for s in drawn} == {3, 5}
    assert all(whole.covers(s) for s in drawn)
    assert len({(s.slide, s.top, s.left) for s in drawn}) > 30


def test_squares_that_are_too_large_are_one_line(whole):
    with pytest.raises(mosaic.MosaicError, match="squares of 40 px"):
        whole.draw(np.random.default_rng(0), 40)


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
