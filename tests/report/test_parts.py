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
    comparison,
    confusion,
    curves,
    gallery,
    imagined,
    metrics,
    networks,
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


def test_curves_have_their_bands():
    rows = [
        curves.Row(x, mean, mean - 0.1, mean + 0.1, series)
        for series, lift in ((HOSTILE, 0.0), ("b", 0.2))
        for x, mean in ((0.01, 0.5 + lift), (1.0, 0.7 + lift), (0.1, 0.6 + lift))
    ]
    text = curves.chart(rows, label="a study", x_title="fraction")
    assert is_whole(text)
    assert HOSTILE not in text
    bands = re.findall(r'class="band" d="M([^"]*)Z"', text)
    lines = re.findall(r'class="line" d="M([\d.,L]*)"', text)
    assert (len(bands), len(lines)) == (2, 2)
    for band, line in zip(bands, lines, strict=True):
        outline = np.array([[float(v) for v in p.split(",")] for p in band.split("L")])
        middle = np.array([[float(v) for v in p.split(",")] for p in line.split("L")])
        assert (np.diff(middle[:, 0]) > 0).all()
        np.testing.assert_allclose(np.diff(middle[:, 0]), np.diff(middle[:, 0])[0], atol=0.02)
        above, below = outline[:3, 1], outline[:2:-1, 1]
        np.testing.assert_allclose((above + below) / 2, middle[:, 1], atol=0.02)
        assert (above < below).all()
    with pytest.raises(ValueError, match="at least one row, got none"):
        curves.chart([], label="", x_title="")


def test_a_single_point_is_drawn():
    text = curves.chart([curves.Row(1, 0.5, 0.5, 0.5, "a")], label="one", x_title="x")
    assert "nan" not in text
    assert text.count('class="dot"') == 2  # in the chart and in the legend


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


def test_numbers_of_a_map_are_told_from_its_colours():
    """Contrast of WCAG 2.2 with its own curve of sRGB: 4.5 is asked of text."""
    curve = lambda c: c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
    light = lambda rgb: np.dot([curve(c / 255) for c in rgb], (0.2126, 0.7152, 0.0722))
    drawn = charts.heat_map(np.linspace(0, 1, 101)[:, None], 0, 1)
    inks = re.findall('<text [^>]*fill="#(...)"', drawn)
    grounds = [tuple(map(int, c.split(", "))) for c in re.findall(r'fill="rgb\((.*?)\)"', drawn)]
    assert len(inks) == len(grounds) == 101
    for ink, ground in zip(inks, grounds, strict=True):
        one, two = sorted((light([int(c * 2, 16) for c in ink]), light(ground)))
        assert (two + 0.05) / (one + 0.05) >= 4.5
