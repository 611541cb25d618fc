"""Parts of the report: pictures and tiles, lines of windows, tables, curves, runs compared."""

import html
import html.parser
import json
import re

import numpy as np
import pytest
from PIL import Image

from configs import default
from ssldiff_jax.report import (
    charts,
    checkpoints,
    confusion,
    gallery,
    imagined,
    metrics,
    page,
    pictures,
    seams,
    study,
    viewer,
)
from tests.report import test_report

HOSTILE = test_report.HOSTILE


@pytest.fixture
def workdir(tmp_path):
    test_report.make_workdir(tmp_path)
    return tmp_path


def is_whole(text):
    """Whether every element is closed, in turn, and no name became an element."""
    found = test_report.Page(text)
    return found.open == [] and found.scripts == 0


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def smooth(height, width):
    """An image that JPEG hardly changes."""
    y, x = np.mgrid[:height, :width]
    bands = [x * 255 / width, y * 255 / height, (x + y) * 255 / (height + width)]
    return np.stack(bands, axis=-1).astype(np.uint8)


def test_a_small_picture_is_copied_as_it_is(tmp_path):
    save(tmp_path / "a.png", smooth(30, 50))
    found = pictures.zoomable(tmp_path / "a.png", tmp_path / "b.png")
    assert found == pictures.Picture("b.png", 30, 50)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert found.source == {"width": 50, "height": 30, "url": "b.png"}


def test_tiles_are_the_picture(tmp_path):
    image = smooth(300, 4200)
    save(tmp_path / "a.png", image)
    stale = tmp_path / "b_files" / "99"
    stale.mkdir(parents=True)
    found = pictures.zoomable(tmp_path / "a.png", tmp_path / "b.png")
    assert (found.height, found.width, found.tiles) == (300, 4200, "b_files")
    with Image.open(tmp_path / found.name) as overview:
        assert overview.size == (2048, 146)
    assert not stale.exists()
    source = found.source
    tile, overlap = source["tile"], source["overlap"]
    finest = tmp_path / "b_files" / str(int(np.ceil(np.log2(4200))))
    seen = np.zeros_like(image)
    for path in finest.glob("*.jpg"):
        col, row = map(int, path.stem.split("_"))
        top, left = max(0, row * tile - overlap), max(0, col * tile - overlap)
        pixels = np.asarray(Image.open(path))
        seen[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    assert np.abs(seen.astype(int) - image).max() < 16
    assert {p.name for p in tmp_path.iterdir()} == {"a.png", "b.jpg", "b_files"}


def test_what_is_no_png_is_named(tmp_path):
    (tmp_path / "a.png").write_bytes(b"GIF89a")
    with pytest.raises(ValueError, match=r"expected a PNG file, got .*a\.png"):
        pictures.copy(tmp_path / "a.png", tmp_path / "b.png")
    with pytest.raises(ValueError, match=r"got no such file"):
        pictures.copy(tmp_path / "c.png", tmp_path / "b.png")


def run_config(**windows):
    config = json.loads(default.get_config().to_json_best_effort())
    config["sample"]["windows"] |= windows
    config["data"]["crops"]["patch_px"] = 64
    return config


def test_lines_are_those_of_the_last_step():
    told = [{"rows": [20, 84], "cols": []}, {"rows": [64], "cols": [64]}]
    found = seams.window_lines({"height": 128, "window_lines": told})
    assert (found.rows, found.cols) == ((20, 84), ())
    assert seams.window_lines({"height": 128}) is None


def test_inline_json_ends_no_script_and_no_attribute():
    value = {"name": "</script><!--' & \u2028", "at": [1, 2.5, None]}
    text = viewer.inline_json(value)
    assert not set("<>&'\u2028") & set(text)
    assert json.loads(text) == value


def test_a_view_tells_its_sources_and_lines(workdir):
    config = run_config(mode="offset")
    config["data"]["crops"]["patch_px"] = 16
    test_report.write(workdir / "config.json", config)
    page.build(workdir, workdir / "report", metrics.collect(workdir))
    text = (workdir / "report" / "index.html").read_text()
    views = [json.loads(html.unescape(v)) for v in re.findall(r"data-view='([^']*)'", text)]
    assert len(views) == 2
    assert [source["url"] for source in views[1]["sources"]] == [
        "reference_1.png",
        "synthetic_1.png",
    ]
    assert views[0]["map"] == "similarity_0.png"
    with Image.open(workdir / "report" / "similarity_0.png") as drawn:
        assert drawn.size == (3, 2)
    assert views[0]["similarity"][1][2] == 1.0


def test_a_map_of_many_cells_is_an_image(workdir):
    for name in ("patches/region_0.png", "sample/image_0.png"):
        save(workdir / name, smooth(16 * 70, 16 * 70))
    np.save(workdir / "evaluate" / "similarity_0.npy", np.random.rand(70, 70))
    page.build(workdir, workdir / "report", metrics.collect(workdir))
    text = (workdir / "report" / "index.html").read_text()
    assert '<img class="heat" src="similarity_0.png"' in text
    assert text.count('<svg class="heat"') == 1


def test_a_confusion_matrix_is_a_table_with_headers():
    text = confusion.table(["tumour", HOSTILE], [[3, 1], [0, 0]], 0.75, 0.9)
    assert "<b>0.750</b>; ceiling, real patches classified in the same way: 0.900" in text
    assert is_whole(text)
    assert HOSTILE not in text
    assert text.count('scope="col"') == text.count('scope="row"') == 2
    assert "Class agreement <b>0.750</b>" in text
    assert re.findall(r"(\d+) %</small>", text) == ["75", "25", "0", "0"]
    with pytest.raises(ValueError, match=r"counts must be 2 × 2.*got rows of lengths \[1\]"):
        confusion.table(["a", "b"], [[1]])


def test_a_study_has_a_chart_for_every_task_and_model(tmp_path):
    assert study.part(tmp_path) == ""
    row = {"fraction": 0.5, "auc": {"mean": 0.8, "low": 0.7, "high": 0.9}}
    rows = [
        row | {"task": task, "model": HOSTILE, "mixture": mixture}
        for task in ("grade", "subtype")
        for mixture in ("real", "both")
    ]
    test_report.write(tmp_path / "study" / "results.json", {"rows": rows})
    text = study.part(tmp_path)
    assert is_whole(text)
    assert HOSTILE not in text
    assert text.count('class="chart"') == 2


def test_checkpoints_have_a_curve_for_every_network(tmp_path):
    assert checkpoints.part(tmp_path) == ""
    frechet = {"corrected": 0.4, "low": 0.3, "high": 0.45, "uncorrected": 0.5, "interval": "95%"}
    steps = [
        {"step": step, "patches": {name: {"frechet": frechet} for name in ("judge", HOSTILE)}}
        for step in (100, 200)
    ]
    test_report.write(tmp_path / "watch" / "results.json", {"steps": steps})
    text = checkpoints.part(tmp_path)
    assert is_whole(text)
    assert HOSTILE not in text
    assert text.count('class="chart"') == 2
    assert f"{charts.number(0.4)} <small>at step 200" in text


def test_nearest_training_patches_are_shown_in_pairs(tmp_path):
    assert gallery.nearest(tmp_path, tmp_path, 0.5) == ""
    pairs = [{"similarity": 0.9, "name": HOSTILE}, {"similarity": 0.8}]
    told = {"memorisation": {"threshold": 0.95, "fraction": 0.25, "pairs": pairs}}
    test_report.write(tmp_path / "evaluate" / "results.json", told)
    assert "<b>25.0 %</b>" in gallery.nearest(tmp_path, tmp_path, 0.5)
    chance = {"low": 0.1, "high": 0.5, "expected": 0.02}
    told["memorisation"] |= chance
    test_report.write(tmp_path / "evaluate" / "results.json", told)
    said = (
        "<b>25.0 %</b> (95 % interval 10.0 … 50.0 %; 2.00 % are expected if none is a copy) of "
        "generated"
    )
    assert said in gallery.nearest(tmp_path, tmp_path, 0.5)
    told["memorisation"]["power"] = 0.001
    test_report.write(tmp_path / "evaluate" / "results.json", told)
    assert "if none is a copy; 0.100 % of the training data were" in gallery.nearest(
        tmp_path, tmp_path, 0.5
    )
    why = {"fraction": None, "low": None, "interval": "none: 2 of 9 held-out ones are there"}
    cannot = {"memorisation": told["memorisation"] | why}
    test_report.write(tmp_path / "evaluate" / "results.json", cannot)
    said = "copies is not known: 2 of 9 held-out ones are there."
    assert said in gallery.nearest(tmp_path, tmp_path, 0.5)
    test_report.write(tmp_path / "evaluate" / "results.json", told)
    sprite = smooth(16, 16)
    save(tmp_path / "evaluate" / "nearest.png", sprite)
    text = gallery.nearest(tmp_path, tmp_path, 0.5)
    assert is_whole(text)
    assert HOSTILE not in text
    for i in range(2):
        pair = np.asarray(Image.open(tmp_path / f"nearest_{i}.png"))
        np.testing.assert_array_equal(pair, sprite[8 * i : 8 * i + 8])
    save(tmp_path / "evaluate" / "nearest.png", smooth(8, 16))
    with pytest.raises(ValueError, match=r"nearest\.png must be 2 rows of two squares, got 8 × 16"):
        gallery.nearest(tmp_path, tmp_path, 0.5)


def test_variations_are_shown(workdir):
    page.build(workdir, workdir / "report", metrics.collect(workdir))
    assert "<h2>Same embeddings, other noise" not in (workdir / "report" / "index.html").read_text()
    for name in ("real", "region_0", "region_10", "region_2"):
        save(workdir / "variations" / f"{name}.png", smooth(32, 48))
    save(workdir / "variations" / "patches.png", smooth(32, 48))
    page.build(workdir, workdir / "report", metrics.collect(workdir))
    text = (workdir / "report" / "index.html").read_text()
    assert "<h2>Same embeddings, other noise" in text
    assert "<figcaption>generated 3 <small>48 × 32 px</small>" in text
    assert 'style="--cols:3"' in text


def test_a_curve_of_too_few_patches_is_uncorrected_and_says_so(tmp_path):
    steps = [
        {"step": step, "patches": {"judge": {"frechet": test_report.FEW}}} for step in (100, 200)
    ]
    test_report.write(tmp_path / "watch" / "results.json", {"steps": steps})
    text = checkpoints.part(tmp_path)
    assert is_whole(text)
    assert "2.50 <small>at step 200" in text
    assert "uncorrected; too few: 40 vectors of 96 numbers" in text
    without = {
        "step": 300,
        "patches": {"judge": {"frechet": test_report.FEW | {"uncorrected": None}}},
    }
    test_report.write(tmp_path / "watch" / "results.json", {"steps": [*steps, without]})
    assert checkpoints.part(tmp_path) == text
    test_report.write(tmp_path / "watch" / "results.json", {"steps": [without]})
    assert checkpoints.part(tmp_path) == ""


def test_conditions_of_quadrants_are_a_table(workdir):
    asked = "nuclei 0.15, nuclei north-west 0.17, <b> 0.80, <b> south-east 0.90"
    test_report.write(
        workdir / "prior" / "results.json", {"prior": {"neighbour_correlation": -0.0001}}
    )
    told = {"conditions": [asked, "a lake, in the north-west 0.5 of it"]}
    test_report.write(workdir / "imagine" / "results.json", told)
    for i in range(2):
        save(workdir / "imagine" / f"image_{i}.png", smooth(8, 8))
    text = imagined.images(workdir, workdir, 0.5) + imagined.figures(workdir)
    assert is_whole(text)
    rows = re.findall('<tr><th scope="row">(.*?)</th>(.*?)</tr>', text)
    cells = {name: re.findall("<td>(.*?)</td>", row) for name, row in rows}
    assert cells == {
        "nuclei": ["0.15", "0.17", "–"],
        "&lt;b&gt;": ["0.80", "–", "0.90"],
        "prior": ["0.000"],
    }
    assert "</small> a lake, in the north-west 0.5 of it</figcaption>" in text
    assert re.findall('alt="(.*?)"', text) == [
        f"image {i} generated from labels or text" for i in (1, 2)
    ]
    assert "<td>0.000</td>" in text  # three decimals, and no minus before zero


def test_tokens_of_cells_have_a_table_of_their_own_where_there_are_some(workdir):
    of = {"frechet_of_cells": 4.25, "cosine": 0.5, "precision": 0.75}
    test_report.write(workdir / "prior" / "results.json", {"prior": {"neighbour_correlation": 1}})
    test_report.write(workdir / "imagine" / "results.json", {"conditions": []})
    assert "Tokens" not in imagined.figures(workdir)
    test_report.write(workdir / "tokens" / "results.json", {"tokens": of, "real": {"cosine": 1.0}})
    text = imagined.figures(workdir)
    assert is_whole(text)
    rows = re.findall('<tr><th scope="row">(.*?)</th>(.*?)</tr>', text.split("Tokens of cells")[1])
    assert {name: re.findall("<td>(.*?)</td>", row) for name, row in rows} == {
        "sampled from the embedding": ["4.25", "–", "–", "–", "0.500"],
        "real held-out patches": ["–", "–", "–", "–", "1.00"],
    }
