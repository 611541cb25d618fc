import numpy as np
import pytest

from ssldiff_jax.data.annotations import captions, measures


def bands(kind, side=8):
    """Red, green, blue, infrared as each cover reflects them."""
    values = {
        "water": (40, 60, 70, 20),
        "vegetation": (60, 90, 50, 180),
        "bare": (150, 130, 110, 160),
    }
    return np.full((side, side, 4), values[kind], np.uint8)


def scene():
    """Water in the west, plants in the north-east, bare ground in the south-east."""
    east = np.concatenate([bands("vegetation"), bands("bare")])
    west = np.concatenate([bands("water"), bands("water")])
    return np.concatenate([west, east], axis=1)


def test_quadrants_hold_what_lies_in_them():
    parts = measures.quadrant_parts(measures.land_cover(scene()), 3)
    water, plants, bare = np.moveaxis(parts, -1, 0)
    np.testing.assert_array_equal(water, [[1, 0], [1, 0]])
    np.testing.assert_array_equal(plants, [[0, 1], [0, 0]])
    np.testing.assert_array_equal(bare, [[0, 0], [0, 1]])
    values = dict(zip(measures.label_names("landcover"), measures.label_values(parts), strict=True))
    assert values["water"] == 0.5
    assert values["water south-west"] == 1
    assert values["bare south-east"] == 1
    assert values["bare north-east"] == 0


def test_land_cover_needs_infrared():
    with pytest.raises(ValueError, match="four bands with infrared as the last, got 3"):
        measures.land_cover(scene()[..., :3])


def test_stain_tells_nuclei_from_stroma_and_glass():
    colours = np.array([[70, 50, 130], [230, 160, 190], [245, 245, 245]], np.uint8)
    assert measures.stain(colours[None])[0].tolist() == [0, 1, 2]


@pytest.mark.parametrize("phrasing", ["train", "held_out"])
def test_captions_say_where_things_are(phrasing):
    parts = measures.quadrant_parts(measures.land_cover(scene()), 3)
    names = measures.CLASSES["landcover"]
    nouns = captions._NOUNS
    for seed in range(20):
        said = captions.caption(names, parts, np.random.default_rng(seed), phrasing).split(", ")
        assert len(said) == 3
        by_class = {
            n: next(s for s in said if any(w in s for w in nouns[n][phrasing])) for n in names
        }
        assert "west" in by_class["water"]
        assert "north" in by_class["vegetation"] or "east" in by_class["vegetation"]
        assert "south" in by_class["bare"] or "east" in by_class["bare"]


def test_held_out_wordings_are_never_trained_on():
    parts = np.random.default_rng(0).dirichlet([1, 1, 1], (2, 2)).astype(np.float32)
    draw = lambda phrasing: {
        captions.caption(("water", "vegetation", "bare"), parts, np.random.default_rng(i), phrasing)
        for i in range(200)
    }
    assert len(draw("train")) > 50
    assert not draw("train") & draw("held_out")
