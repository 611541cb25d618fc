"""The report: every figure is there, the page stands alone, the scales do the sums right."""

import html.parser
import json
import pathlib
import re

import numpy as np
import pytest
from PIL import Image

from ssldiff_jax.report import charts, key_figures, metrics, page, sections

_FEATURES = {
    "embedding_similarity": {"mean": 0.8, "shuffled": 0.3},
    "cell_retrieval_top1": 0.5,
    "crop_fd_uncorrected": 0.2,
    "patch_fd_uncorrected": 0.1,
    "fd_floor_uncorrected": 0.05,
    "num_cells": 6,
}
_MEAN = {"value": 1.06, "error": 0.02, "count": 2}
_OVER_REAL = {"generated": _MEAN, "real": {"value": 0.98, "error": None, "count": 1}}
_PIXELS = {
    "layout_correlation": {"identity": 0.9},
    "seams": {"last_step": _OVER_REAL, "worst_phase": _OVER_REAL, "cell_borders": _OVER_REAL},
    "patch_borders": {"border": _OVER_REAL, "profile": {"generated": [-5.0], "real": [0.1]}},
}
_ENCODER = {
    "dim": 8,
    "hash": "abc",
    "retrieval_top1": {"4": 0.9, "11": 0.5},
    "effective_rank": 3.5,
    "retrieval_of_views": 0.7,
    "effective_rank_of_noise": 7.5,
    "num_ranked": 80,
}
_LARGE = {"height": 32, "width": 48, "unet_forwards": 7, "decoder_calls": 1, "seconds": 2.5}
HOSTILE = "</script><script>window.hacked=alert('&')</script>.svs"
_VOID = {"meta", "img", "input", "br"}


class Page(html.parser.HTMLParser):
    """Open tags, pictures and references of a page; fails on a tag closed out of turn."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.pictures, self.references, self.scripts = [], [], [], 0
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.references += [values[k] for k in ("src", "href", "action") if k in values]
        self.pictures += [values["src"]] if tag == "img" else []
        self.scripts += tag == "script"
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def write(path: pathlib.Path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def _png(path: pathlib.Path, height: int, width: int):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), 128, np.uint8)).save(path)


def make_workdir(tmp_path):
    """A finished run of two regions of 2 × 3 cells of 16 px."""
    write(tmp_path / "config.json", {"seed": 3, "data": {"crops": {"patch_px": 16}}})
    machine = {"backend": "cpu", "devices": ["cpu:0"], "cores": 2, "processor": "Z<80>"}
    environment = {
        "versions": {"jax": "1", "git": "f00"},
        "machine": machine | {"memory_gb": 7.8},
    }
    write(tmp_path / "environment.json", environment)
    write(tmp_path / "evaluate" / "results.json", _FEATURES | _PIXELS | {"judge": _FEATURES})
    facts = {
        "patches": {"slides": {"0": HOSTILE}},
        "encoder": _ENCODER | {"num_tested": 4},
        "judge": _ENCODER,
        "embeddings": {"dim": 8},
        "autoencoder": {"psnr": 30.0, "ssim": 0.9},
        "sample": {"large_images": [_LARGE, _LARGE]},
    }
    for i, (stage, found) in enumerate(facts.items()):
        cost = {"seconds": 10.0 + i, "peak_rss_mb": 100, "finished": f"2020-01-01T00:0{i}:00+0000"}
        cost["digest"] = f"{stage} as it was"
        write(tmp_path / stage / "done.json", cost | {"facts": found})
    place = {
        "kind": "region",
        "slide": 0,
        "slide_name": HOSTILE,
        "top": 1,
        "left": 2,
        "height": 32,
        "width": 48,
    }
    write(tmp_path / "patches" / "regions.json", [place, place])
    (tmp_path / "patches" / "quarantine.jsonl").write_text(
        json.dumps({"slide": f"a/{HOSTILE}", "reason": "<b>"}) + "\n"
    )
    for i in range(2):
        _png(tmp_path / "patches" / f"region_{i}.png", 32, 48)
        _png(tmp_path / "sample" / f"image_{i}.png", 32, 48)
        cosines = np.linspace(0.1, 1, 6, dtype=np.float32).reshape(2, 3)
        np.save(tmp_path / "evaluate" / f"similarity_{i}.npy", cosines)
    _png(tmp_path / "patches" / "overview_0.png", 20, 10)
    _png(tmp_path / "sample" / "variations.png", 32, 80)
    _png(tmp_path / "autoencoder" / "reconstructions.png", 32, 96)
    lines = [{"step": s, "loss": 1.0 / s} for s in (2, 4, 6)]
    text = "\n".join(json.dumps(line) for line in lines)
    (tmp_path / "encoder" / "metrics.jsonl").write_text(text + '\n{"step": 8, "lo')


@pytest.fixture
def workdir(tmp_path):
    """The folder of `make_workdir`."""
    make_workdir(tmp_path)
    return tmp_path


def _build(workdir: pathlib.Path) -> str:
    page.build(workdir, workdir / "report", metrics.collect(workdir))
    return (workdir / "report" / "index.html").read_text()


def test_every_figure_is_collected(workdir):
    found = metrics.collect(workdir)
    assert set(found) >= {
        *_FEATURES, *_PIXELS, "reconstruction_psnr", "reconstruction_ssim", "judge", "encoder",
        "judge_encoder", "embedding_dim", "stages", "elapsed", "large_image", "large_images",
        "environment", "config_digest", "date", "seed", "data", "setup_seconds", "patches",
        "large_image_frechet", "confusion", "memorisation", "agreement",
    }  # fmt: skip
    assert found["date"] == "2020-01-01"
    assert found["data"] == {"lattices": [[2, 3], [2, 3]], "patch_px": 16, "mpp": None}
    assert found["judge"] == _FEATURES
    assert found["encoder"] == _ENCODER | {"num_tested": 4}
    assert found["judge_encoder"] == _ENCODER | {"num_tested": None}
    assert found["large_image"] == _LARGE
    # What the report draws from is no figure.
    write(workdir / "sample" / "done.json", {
        "facts": {"large_images": [_LARGE | {"window_lines": [{"rows": [4], "cols": []}]}]},
        "seconds": 1, "peak_rss_mb": 1, "finished": "2020-01-01T00:00:00+0000",
    })  # fmt: skip
    assert metrics.collect(workdir)["large_image"] == _LARGE
    assert found["stages"]["encoder"] == {"seconds": 11.0, "peak_rss_mb": 100}
    assert list(found["stages"]) == [
        "patches", "encoder", "judge", "embeddings", "autoencoder", "sample",
    ]  # fmt: skip


def test_what_ran_at_the_same_time_is_counted_once(workdir):
    """The judge, beside the encoder that ran from 49 to 60 s, for 12 s before 65 s."""
    path = workdir / "judge" / "done.json"
    done = json.loads(path.read_text())
    assert metrics.collect(workdir)["elapsed"] == {"seconds": 75.0, "peak_rss_mb": 100}
    write(path, done | {"finished": "2020-01-01T00:01:05.000+00:00", "peak_rss_mb": 30})
    assert metrics.collect(workdir)["elapsed"] == {"seconds": 75.0 - 7, "peak_rss_mb": 130}
    (foot,) = re.findall(r"<tfoot>.*?</tfoot>", _build(workdir))
    assert re.sub("<.*?>", " ", foot).split() == ["all", "stages", "68.0", "s", "130"]


def test_digest_is_of_the_science_only(workdir):
    before = metrics.collect(workdir)["config_digest"]
    config = json.loads((workdir / "config.json").read_text())
    write(workdir / "config.json", config | {"force": "report"})
    assert metrics.collect(workdir)["config_digest"] == before
    write(workdir / "config.json", config | {"seed": 4})
    assert metrics.collect(workdir)["config_digest"] != before


def test_page_is_whole_and_stands_alone(workdir):
    text = _build(workdir)
    found = Page(text)
    assert found.open == []
    assert not re.search(r"https?://|@import|url\(", text)
    links = [name for name in found.references if name.startswith("#")]
    assert links == [f"#{name}" for name in re.findall('<section id="(.*?)"', text)] != []
    copies = {"config.json", "results.json"}
    images = {f"../sample/{kind}_{i}.png" for kind in ("image", "patches") for i in range(2)}
    there = {name for name in images if (workdir / "report" / name).exists()}
    assert set(found.references) == {
        *found.pictures, *links, *copies, *there, "openseadragon.min.js"
    }  # fmt: skip
    assert all((workdir / "report" / name).is_file() for name in copies)
    assert (workdir / "report" / "openseadragon.min.js").is_file()
    assert "Redistribution" in (workdir / "report" / "openseadragon.LICENSE.txt").read_text()
    assert len(found.pictures) == 7
    for name in found.pictures:
        assert (workdir / "report" / name).is_file()
    assert "$" not in re.sub(r"<script>.*?</script>", "", text, flags=re.S)


def test_slide_names_are_escaped(workdir):
    text = _build(workdir)
    assert Page(text).scripts == 2
    assert "alert('" not in text
    assert "&lt;script&gt;window.hacked=alert(" in text


def test_optional_parts_are_left_out(workdir):
    for name in (
        "judge/done.json", "sample/variations.png", "autoencoder/reconstructions.png",
        "patches/overview_0.png", "patches/quarantine.jsonl", "encoder/metrics.jsonl",
        "evaluate/similarity_0.npy", "evaluate/similarity_1.npy",
    ):  # fmt: skip
        (workdir / name).unlink()
    write(workdir / "evaluate" / "results.json", _FEATURES | _PIXELS)
    assert metrics.collect(workdir)["judge_encoder"] is None
    text = _build(workdir)
    assert Page(text).open == []
    for title in ("Single patches", "Autoencoder", "Slides", "Training curves"):
        assert f"<h2>{title}</h2>" not in text


@pytest.mark.parametrize(
    "name", ["evaluate/results.json", "sample/done.json", "sample/image_1.png", "config.json"]
)
def test_missing_input_is_named(workdir, name):
    (workdir / name).unlink()
    with pytest.raises(ValueError, match=re.escape(name)):
        _build(workdir)


def test_numbers_have_three_digits():
    shown = {0.58289: "0.583", 0.9996: "1.00", 1538: "1,540", -0.05: "−0.0500", 0.0: "0",
             12.34: "12.3", 2.5e-7: "2.50e−07", float("nan"): "–"}  # fmt: skip
    assert [charts.number(v) for v in shown] == list(shown.values())
    assert [sections.duration(s) for s in (5.25, 600, 9000)] == ["5.25 s", "10.0 min", "2 h 30 min"]
    assert sections.duration(416 * 86_400 + 20 * 3600) == "416 d 20 h"


ESTIMATE = {
    "corrected": 1.5, "low": 1.25, "high": 1.75, "uncorrected": 2.5, "counts": [40, 40],
    "interval": "95%",
}  # fmt: skip
PART = {"value": 0.61, "low": 0.5, "high": 0.72, "blocks": 24, "interval": "95%"}
FEW = ESTIMATE | dict.fromkeys(("corrected", "low", "high")) | {
    "interval": "too few: 40 vectors of 96 numbers, 203 needed"
}  # fmt: skip


def test_images_without_a_reference_are_shown_with_what_was_asked(workdir):
    assert "without a real counterpart" not in _build(workdir)
    figures = {
        "frechet_of_cells": ESTIMATE,
        "frechet_of_grids": FEW,
        "precision": None,
        "neighbour_correlation": 0.9,
        "agreement": 0.7,
    }
    write(workdir / "prior" / "results.json", {"prior": figures, "real": {"agreement": 0.8}})
    heard = {"all_conditions": {"figures": {"water": PART}, "chance": 0.1}}
    told = {"conditions": [HOSTILE, "a lake in the west"], "heard": heard}
    write(workdir / "imagine" / "results.json", told)
    for i in range(2):
        _png(workdir / "imagine" / f"image_{i}.png", 48, 48)
    text = _build(workdir)
    found = Page(text)
    assert found.open == []
    assert {"imagined_0.png", "imagined_1.png"} <= set(found.pictures)
    assert "a lake in the west" in text
    assert HOSTILE not in text
    assert "<td>0.610 <small>0.500 … 0.720</small></td>" in text
    assert "chance is 10 %" in text
    assert "recall" not in text  # no way has that figure
    assert "<td>1.50 <small>1.25 … 1.75</small></td>" in text
    assert "<td>2.50 uncorrected; too few: 40 vectors of 96 numbers, 203 needed</td>" in text


@pytest.mark.parametrize("found", [None, 0.9])
def test_cells_of_one_colour_are_said_to_have_no_layout(workdir, found):
    seen = metrics.collect(workdir) | {"layout_correlation": {"identity": found}}
    text = key_figures.part(seen)
    assert ("Not defined of cells of one colour" in text) == (found is None)
    assert "None" not in text
