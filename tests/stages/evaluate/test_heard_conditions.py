"""Where it is looked for whether a condition is heard: in pixels, or in grids."""

import pytest
import small_configs

from ssldiff_jax.data.annotations import captions
from ssldiff_jax.stages.evaluate import heard_conditions


@pytest.mark.parametrize(
    ("measure", "source", "expected"),
    [
        ("none", "", ()),
        ("none", "captions.csv", ()),
        ("stain", "", ("labels",)),
        ("stain", "measured", ("labels", "text")),
        ("stain", "images", ("labels", "text")),
        # A table may say what no pixel shows.
        ("stain", "captions.csv", ("labels",)),
    ],
)
def test_texts_of_a_table_are_not_judged_by_pixels(measure, source, expected):
    encoder = {"text_encoder": "folder"} if source else {}
    sources = small_configs.section("prior.conditions", measure=measure, captions=source, **encoder)
    assert heard_conditions.in_pixels(sources) == expected
    # One kind alone is all conditions; beside another it has images of its own.
    assert heard_conditions.alone(sources, ["labels"]) == ()
    beside = heard_conditions.alone(sources, ["labels", "numbers", "text"])
    assert beside == expected


def test_words_of_training_are_known_and_held_out_ones_are_not():
    assert {"stroma", "taiga", "shallows", "western", "much"} <= captions.words()
    assert not {"woodland", "lacking", "towards"} & captions.words()
