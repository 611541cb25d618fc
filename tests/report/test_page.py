"""The page for people who were not there: pictures first, sizes, plain words, ceilings, files."""

import html
import json
import re
import shlex

import pytest

from ssldiff_jax.formats import atomic
from ssldiff_jax.report import files, imagined, key_figures, metrics, page
from ssldiff_jax.runs import results_csv
from ssldiff_jax.runs.command import command_line
from ssldiff_jax.runs.workdir import stored_config
from tests.report import test_report, test_training
from tests.report.test_training import build

workdir = test_training.workdir


def words(text):
    """What is read: texts of elements, and of attributes that are spoken or shown."""
    spoken = re.findall(r'(?:alt|title|aria-label)="([^"]*)"', text)
    body = re.sub(r"<(script|style)>.*?</\1>", " ", text, flags=re.S)
    return html.unescape(re.sub("<[^>]*>", " ", body) + " ".join(spoken))


def test_pictures_stand_before_numbers(workdir):
    names = re.findall('<section id="(.*?)"', build(workdir))
    shown = (
        "regions",
        "patches",
        "reconstructions",
        "metrics",
        "slides",
        "curves",
        "cost",
        "files",
    )
    assert [name for name in names if name in shown] == list(shown)
    text = build(workdir)
    assert text.index("<img ") < text.index('class="cards"')


def test_title_names_the_run(workdir):
    assert f"<title>Images generated from embeddings: {workdir.name}</title>" in build(workdir)


def test_every_picture_has_its_size(workdir):
    text = build(workdir)
    figures = re.findall(r"<figure[^>]*>(?:(?!</figure>).)*<img.*?</figure>", text, re.S)
    assert len(figures) == 7
    for figure in figures:
        seen = re.sub("<[^>]*>", " ", figure)
        assert re.search(r"[\d,]+ × [\d,]+ px, [\d.,]+ × [\d.,]+ µm", seen), figure[:300]


def test_pictures_of_scenes_are_in_metres(workdir):
    config = json.loads((workdir / "config.json").read_text())
    config["data"]["patch_mpp"] = 1e6
    test_report.write(workdir / "config.json", config)
    text = build(workdir)
    assert "48 × 32 px, 48 × 32 m" in text
    assert "1 m per pixel" in text
    assert all(view["scene"] for view in views(text))


def views(text):
    return [json.loads(html.unescape(v)) for v in re.findall(r"data-view='([^']*)'", text)]


def test_viewers_have_scale_and_place_in_the_slide(workdir):
    place = json.loads((workdir / "patches" / "regions.json").read_text())[0]
    (workdir / "patches" / "regions.json").write_text(json.dumps([place, place | {"slide": 1}]))
    text = build(workdir)
    assert text.count('class="scale scripted"') == 4
    for view in views(text):
        assert (view["mpp"], view["scene"]) == (0.5, False)
        assert view["origin"] == {"top": 1, "left": 2, "native_px": 2.0}  # 0.25 µm at full scale
    assert "its top left corner is at x 4, y 2 px of the slide at full resolution" in text


def test_pages_of_patches_have_no_place(workdir):
    place = json.loads((workdir / "patches" / "regions.json").read_text())[0]
    (workdir / "patches" / "regions.json").write_text(json.dumps([place | {"kind": "page"}]))
    test_report._png(workdir / "sample" / "patches_0.png", 32, 48)
    (view,) = views(build(workdir))
    assert "origin" not in view
    assert view["mpp"] == 0.5


FORBIDDEN = re.compile(
    r"\b(drawn?|draws|drawing|drew|told|tells?|asked|asks|taken for|judged|imagined|say what it)\b",
    re.IGNORECASE,
)


def everything(workdir):
    """All optional parts at once, with the keys of results as stages write them."""
    judge = {"extraction": {"dim": 96}, "frechet": test_report.FEW, "kid": test_report.ESTIMATE}
    found = {
        "patches": {"judge": judge},
        "large_image_frechet": {"judge": {"crops": test_report.ESTIMATE}},
    }
    steps = [{"step": 100, "patches": found["patches"]}]
    test_report.write(workdir / "watch" / "results.json", {"steps": steps})
    ways = {name: {"agreement": 0.5} for name in imagined._WAYS}
    test_report.write(workdir / "prior" / "results.json", ways)
    figures = {"figures": {"water": test_report.PART}, "chance": 0.1}
    heard = dict.fromkeys(imagined._CONDITIONS, figures)
    told = {"conditions": ["water 0.50"], "heard": heard}
    test_report.write(workdir / "imagine" / "results.json", told)
    test_report._png(workdir / "imagine" / "image_0.png", 16, 16)
    row = {"task": "t", "model": "m", "mixture": "real", "fraction": 0.5,
           "auc": {"mean": 0.8, "low": 0.7, "high": 0.9}}  # fmt: skip
    test_report.write(workdir / "study" / "results.json", {"rows": [row]})
    confusion = {"labels": ["a", "b"], "counts": [[3, 1], [0, 2]], "accuracy": 0.8}
    test_report.write(workdir / "evaluate" / "confusion.json", confusion)
    pairs = {"threshold": 0.9, "fraction": 0.1, "pairs": [{"similarity": 0.9}]}
    results = json.loads((workdir / "evaluate" / "results.json").read_text())
    pairs = {"memorisation": pairs}
    test_report.write(workdir / "evaluate" / "results.json", results | found | pairs)
    test_report._png(workdir / "evaluate" / "nearest.png", 16, 32)
    test_report._png(workdir / "variations" / "real.png", 32, 48)
    page.build(workdir, workdir / "report", metrics.collect(workdir), compare=[workdir])
    return (workdir / "report" / "index.html").read_text()


def test_page_speaks_plainly(workdir):
    text = everything(workdir)
    names = re.findall('<section id="(.*?)"', text)
    assert len(names) == 18  # all of them
    assert FORBIDDEN.findall(words(text)) == []


def test_every_section_and_table_has_a_title(workdir):
    text = everything(workdir)
    for table in re.findall('<div class="wide"[^>]*>', text):
        assert re.search('tabindex="0" role="region" aria-label="[^"]+"', table)
    outside = re.sub(r'<div class="wide".*?</table></div>', "", text, flags=re.S)
    tables = re.findall('<table class="([^"]*)"', outside)
    assert set(tables) == {"asked"}  # a caption: it wraps
    assert "Embedding similarity per cell" in text


def card(text, title):
    """The words of a card."""
    found = text.partition(f"<h3>{title}</h3>")[2].partition("</div>")[0]
    return re.sub(r"\s+", " ", re.sub("<[^>]*>", "", found))


def test_cards_have_chance_floor_ceiling_and_goal_in_words(workdir):
    text = key_figures.part(metrics.collect(workdir))
    retrieval = card(text, "Cell retrieval, top 1")
    assert "Chance: 0.167." in retrieval
    assert "Ceiling, what real patches moved by 4 px reach among 4: 0.900 (encoder)" in retrieval
    assert "Goal: at least 0.5 (judge: at least 0.3). Met." in retrieval
    similarity = card(text, "Embedding similarity")
    assert "Unrelated cells: 0.300 (encoder), 0.300 (judge)." in similarity
    assert "Goal: at least 0.5 above unrelated cells. Met." in similarity
    distance = card(text, "Fréchet distance of large images")
    floor = "Floor, real cells against real cells half a cell away: 0.0500 (encoder), 0.0500"
    assert floor in distance
    assert "Goal" not in distance
    assert "Goal: at least 0.95, and 0.4 above the transposed image. Missed." in card(
        text, "Layout correlation"
    )
    seams = card(text, "Seams at window borders")
    assert "Generated: 1.06 ± 0.0200 (n = 2). Real images: 0.980." in seams
    assert "Goal: at most 1.1. Met." in seams


def test_loss_of_held_out_patches_stands_beside_that_of_training(workdir):
    share = {"value": 0.25, "low": 0.2, "high": 0.3, "counts": [0, 40]}
    path = workdir / "evaluate" / "results.json"
    loss = {"denoising_loss": {"held_out": share, "training": share | {"value": 0.21}}}
    atomic.write_json(path, atomic.read_json(path) | loss)
    said = card(key_figures.part(metrics.collect(workdir)), "Denoising loss")
    assert "0.250 held-out patches 0.210 training patches" in said
    assert "0.200…0.300 (held-out, n = 40), 0.200…0.300 (training, n = 40)." in said


def test_goal_that_one_column_misses_names_both(workdir):
    found = metrics.collect(workdir)
    found["judge"] = found["judge"] | {"cell_retrieval_top1": 1 / 6}
    said = card(key_figures.part(found), "Cell retrieval, top 1")
    assert "Met by the encoder, missed by the judge." in said


def test_ceiling_without_moved_patches_is_that_of_views(workdir):
    found = metrics.collect(workdir)
    for name in ("encoder", "judge_encoder"):
        found[name] = found[name] | {"retrieval_top1": {}, "num_tested": None}
    said = "real patches enlarged and with changed colours reach: 0.700 (encoder), 0.700 (judge)."
    assert said in key_figures.ceiling(found)
    for name in ("encoder", "judge_encoder"):
        found[name] = found[name] | {"retrieval_of_views": None}
    assert key_figures.ceiling(found) == ""


def test_files_are_linked_and_the_small_ones_go_with_the_page(workdir):
    (workdir / "sample" / "image_1.tif").write_bytes(bytes(2_500_000))
    done = json.loads((workdir / "sample" / "done.json").read_text())
    test_report.write(workdir / "sample" / "done.json", done | {"digest": "abc"})
    for sample in ("old", "", "abc", "new"):
        results_csv.add(workdir, {"tool": "evaluate", "sample": sample}, {"kid": 0.5})
    text = build(workdir).partition('<section id="files">')[2].partition("</section>")[0]
    assert (workdir / "report" / "../sample/image_1.tif").is_file()
    assert '<a href="../sample/image_1.tif">image_1.tif</a> <small>pyramidal TIFF, 2.5 MB' in text
    for name, source in (
        ("results.json", "evaluate/results.json"),
        ("config.json", "config.json"),
        ("results.csv", "results.csv"),
    ):
        assert f'<a href="{name}">' in text
        assert (workdir / "report" / name).read_bytes() == (workdir / source).read_bytes()
    assert re.search(r"the metrics of this page are row 3 of 4 \(20[\d-]+T[\d:]+\)", text)


@pytest.mark.parametrize(
    ("commit", "first"), [("f00-dirty", "git checkout f00"), ("unknown", "mk")]
)
def test_command_repeats_the_run_from_its_config(workdir, monkeypatch, commit, first):
    """The command, once its config is copied, asks for the config of the run and all stages."""
    lines = files.command(workdir, commit).splitlines()
    assert lines[0].startswith(first)
    copy, launch = (shlex.split(line) for line in lines[-2:])
    assert copy == ["cp", str(workdir / "config.json"), "runs/again/"]
    monkeypatch.chdir(workdir)
    values = json.loads((workdir / "config.json").read_text()) | {"stages": "report"}
    copied = stored_config.stamped(values)  # as a run writes it
    test_report.write(workdir / "runs" / "again" / "config.json", copied)
    monkeypatch.setattr(command_line, "_check", lambda values, folder: None)
    parsed = command_line.parse(["main", *launch[3:]])
    assert parsed.values["stages"] == "all"
    assert parsed.values["seed"] == 3
    assert parsed.values["data"]["patch_mpp"] == 0.5
    assert f"<code>{html.escape(files.command(workdir, 'f00'))}</code>" in build(workdir)
