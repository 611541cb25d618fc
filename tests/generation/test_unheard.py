"""What a request is told of how much its prior hears."""

import json

import pytest

from ssldiff_jax.evaluation.metrics import heard as metrics
from ssldiff_jax.generation import heard


def figures(**by_way):
    def row(value, low):
        retrieval = {"value": value, "low": low, "high": 0.9, "blocks": 24, "interval": ""}
        return {"figures": {metrics.RETRIEVAL: retrieval}, "chance": 0.1, "shown_by": "images"}

    return {way: row(*ends) for way, ends in by_way.items()}


@pytest.mark.parametrize(
    ("by_way", "kinds", "expected"),
    [
        ({"text_alone": (0.2, 0.08), "labels_alone": (0.7, 0.5)}, ("text",), ["text"]),
        ({"text_alone": (0.2, 0.08), "labels_alone": (0.7, 0.5)}, ("labels",), []),
        ({"text_alone": (0.4, 0.2), "labels_alone": (0.1, 0.0)}, ("labels", "text"), ["labels"]),
        ({"all_conditions": (0.1, 0.02)}, ("labels",), ["labels"]),
        # Too few images for an interval: the figure itself.
        ({"all_conditions": (0.1, None)}, ("labels",), ["labels"]),
        ({"all_conditions": (0.6, None)}, ("labels",), []),
        ({}, ("labels", "text"), []),
        ({"text_alone": (0.1, 0.0)}, (), []),
        # What labels do says nothing of numbers.
        ({"all_conditions": (0.1, 0.0)}, ("numbers",), []),
    ],
)
def test_what_is_no_better_than_chance_is_said(caplog, by_way, kinds, expected):
    heard.warn(figures(**by_way), kinds)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == len(expected)
    for kind, line in zip(expected, said, strict=True):
        assert f"was not found to hear {kind}" in line
        assert "among 10 conditions its images show their own" in line
        assert "chance is 10 %" in line


def test_figures_of_another_prior_are_not_taken(tmp_path):
    stored = {"prior": "abc", "heard": figures(text_alone=(0.2, 0.1))}
    assert heard.of_run(tmp_path, "abc") == {}
    (tmp_path / "results.json").write_text(json.dumps(stored))
    assert heard.of_run(tmp_path, "abc") == stored["heard"]
    assert heard.of_run(tmp_path, "def") == {}
    (tmp_path / "results.json").write_text(json.dumps({"conditions": []}))
    assert heard.of_run(tmp_path, "abc") == {}
