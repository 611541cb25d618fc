"""Metrics by feature network: intervals, or why there is none."""

import re

from ssldiff_jax.report import networks
from tests.report import test_parts, test_report

HOSTILE, is_whole = test_report.HOSTILE, test_parts.is_whole


def test_figures_of_too_few_vectors_say_so():
    none = dict.fromkeys(("value", "low", "high")) | {"interval": "too few: 40 vectors, 150 needed"}
    judged = {
        "extraction": {"dim": 96}, "frechet": test_report.FEW,
        "precision_recall": {"precision": none},
        "frechet_of_real_halves": test_report.ESTIMATE | {"split_by": "by case: 2 and 3 cases"},
    }  # fmt: skip
    for cases, said in (
        (1, "<small>1 case</small>"),
        (5, "<small>5 cases</small>"),
        (20, "96 num"),
    ):
        text = networks.part(
            {"patches": {"judge": judged | {"cases": cases}}, "large_image_frechet": None}
        )
        assert said in text
        assert "cases</small></th>" not in text or cases == 5
    text = networks.part({"patches": {"judge": judged}, "large_image_frechet": None})
    assert "<td>2.50 uncorrected; too few: 40 vectors of 96 numbers, 203 needed</td>" in text
    assert "<td>too few: 40 vectors, 150 needed</td>" in text
    assert "1.50 <small>1.25 … 1.75</small> <small>by case: 2 and 3 cases</small>" in text
    assert "None" not in text


def test_figures_by_network_have_their_intervals():
    kid = {"corrected": 0.041, "low": -0.0123, "high": 0.05, "uncorrected": 0.1, "interval": "95%"}
    judged = {"extraction": {"dim": 1024}, "kid": kid, "precision_recall": {"precision": kid}}
    other = {"extraction": {"dim": 96}, "precision_recall": {"precision": 0.75}}
    found = {
        "patches": {"judge": judged, HOSTILE: other},
        "large_image_frechet": {"clip": {"crops": kid}},
    }
    text = networks.part(found)
    assert is_whole(text)
    assert HOSTILE not in text
    said = lambda title: re.findall("<td>(.*?)</td>", text.partition(f">{title}</th>")[2])[:3]
    interval = "0.0410 <small>−0.0123 … 0.0500</small>"
    assert said("precision of single patches") == [interval, "0.750", "–"]
    assert said("KID of single patches") == [interval, "–", "–"]
    assert said("Fréchet distance of crops of large images") == ["–", "–", interval]
    assert "judge <small>1,024 numbers</small>" in text
    assert "recall" not in text
    assert networks.part({"patches": None, "large_image_frechet": None}) == ""
