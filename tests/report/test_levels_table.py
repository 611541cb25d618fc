"""The table of magnifications."""

import re

from ssldiff_jax.report import levels
from tests.report import test_parts


def estimate(value, low=None, high=None, **more):
    return {"corrected": value, "uncorrected": 2.0, "low": low, "high": high,
            "interval": "95%, by chance" if value else "too few: 3", **more}  # fmt: skip


def figures(value):
    return {
        "frechet": estimate(value, value - 0.25, value + 0.5),
        "frechet_of_real_halves": estimate(0.125, 0.0625, 0.25, split_by="rows"),
        "kid": estimate(None),
        "precision_recall": {"precision": estimate(0.75, 0.5, 1.0)},
    }


METRICS = {"levels": {"1": {"judge": figures(1.5)}, "2": {"judge": figures(2.5)}, "4": None}}


def cells(text, title):
    return re.findall("<td>(.*?)</td>", text.partition(f">{title}</th>")[2])[:3]


def test_a_level_has_a_column_with_its_scale():
    text = levels.part(METRICS, 0.5)
    assert test_parts.is_whole(text)
    assert re.findall(r"× (\d) <small>([\d.]+) µm/px", text) == [
        ("1", "0.5"), ("2", "1"), ("4", "2")
    ]  # fmt: skip
    assert cells(text, "Fréchet distance of patches, judge") == [
        "1.50 <small>1.25 … 2.00</small>", "2.50 <small>2.25 … 3.00</small>", "–"
    ]  # fmt: skip
    title = "floor: one half of the real patches against the other, judge"
    assert cells(text, title)[0] == "0.125 <small>0.0625 … 0.250</small>"
    assert cells(text, "KID, judge")[0] == "2.00 uncorrected; too few: 3"
    assert cells(text, "recall, judge") == ["–", "–", "–"]


def test_one_level_has_no_table():
    assert levels.part({"levels": None}, 0.5) == ""
    assert levels.part({}, 0.5) == ""
