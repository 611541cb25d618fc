"""Runs side by side: the best of each metric, and config keys that differ."""

import json
import re

import pytest

from ssldiff_jax.report import comparison, metrics, page
from tests.report import test_parts, test_report

HOSTILE = test_report.HOSTILE
workdir, is_whole = test_parts.workdir, test_parts.is_whole


def test_runs_are_compared(workdir, tmp_path_factory):
    other = tmp_path_factory.mktemp("other") / "<b>"
    test_report.make_workdir(other)
    config = {"seed": 4, "data": {"crops": {"patch_px": 16}}, "stages": "report", "new": HOSTILE}
    test_report.write(other / "config.json", config)
    results = json.loads((other / "evaluate" / "results.json").read_text())
    nearer = {"last_step": {"generated": {"value": 0.95}}}
    test_report.write(other / "evaluate" / "results.json", results | {"seams": nearer})
    (other / "autoencoder" / "done.json").unlink()
    text = comparison.comparison([workdir, other])
    assert is_whole(text)
    assert HOSTILE not in text
    rows = {
        re.sub("<.*?>", "", row[0]): [re.sub("<.*?>", "", cell) for cell in row[1:]]
        for row in (re.split("</th>|</td>", r) for r in re.findall("<tr>(.*?)</tr>", text))
    }
    assert rows["seams at window borders →\u00a01"] == ["1.06", "best 0.950", ""]
    assert rows["seams at the worst offset ↓"] == ["1.06", "–", ""]
    assert rows["autoencoder PSNR, dB ↑"] == ["30.0", "–", ""]
    assert rows["seed"] == ["3", "4", ""]
    assert rows["new"][0] == "–"
    assert "data.crops.patch_px" not in rows
    assert "stages" not in rows
    page.build(workdir, workdir / "report", metrics.collect(workdir), compare=[other])
    assert "<h2>Runs compared</h2>" in (workdir / "report" / "index.html").read_text()


def test_equal_runs_differ_in_nothing(workdir):
    text = comparison.comparison([workdir, workdir])
    assert "None." in text
    assert "best" not in re.sub('<p class="hint">.*?</p>', "", text).replace("is best", "")


def test_a_run_without_a_config_is_named(workdir, tmp_path):
    with pytest.raises(ValueError, match=r"absent/config\.json"):
        comparison.comparison([workdir, tmp_path / "absent"])
