"""The figures that the README shows: values, goals and text of a run, and where they are put."""

import json
import re
import sys

import pytest

from launch.pages import archive_table, evaluation_table, readme, study_table, unseen_table
from ssldiff_jax.report import figures, goals, metrics
from tests.report import test_report


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    """A run of two regions of 2 × 3 cells, by an interpreter that was not installed for it."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    test_report.make_workdir(tmp_path)
    told = {"backend": "cpu", "devices": ["cpu:0"], "cores": 2, "processor": "Z80"}
    machine = told | {"memory_gb": 25.3}
    versions = {"jax": "1.2", "git": "f00"}
    test_report.write(tmp_path / "environment.json", {"versions": versions, "machine": machine})
    return tmp_path


def add(workdir, **values):
    """More results of stage evaluate."""
    path = workdir / "evaluate" / "results.json"
    test_report.write(path, json.loads(path.read_text()) | values)


def collect(workdir):
    """Figures by name."""
    found = figures.collect(metrics.collect(workdir))
    return found, {figure["name"]: figure for figure in found["figures"]}


def row(text, name):
    """Cells of a row of the Markdown table, after its name."""
    (found,) = re.findall(rf"^\| {re.escape(name)}\S* (?:.*?)\|(.*)\|$", text, re.M)
    return [cell.strip() for cell in found.split(" | ")]


def test_values_become_text_with_goals(workdir):
    kid = {"corrected": 0.041, "low": 0.035, "high": 0.05, "uncorrected": 0.05, "counts": [64, 64],
           "interval": "95%"}  # fmt: skip
    large = {"crops": kid, "whole": kid | {"low": -0.01}}
    add(
        workdir,
        patches={"judge": {"kid": kid}, "encoder": {}},
        large_image_frechet={"encoder": large},
    )
    found, _ = collect(workdir)
    text = figures.markdown(json.loads(json.dumps(found)))
    assert text.startswith("2 cores of Z80, 25 GB, no accelerator; 2020-01-01, jax 1.2, seed 3.\n")
    assert "2 held-out images together, 12 cells of 16 px." in text
    assert row(text, "embedding similarity") == ["0.80 / 0.30", "0.80 / 0.30", "0.5 apart"]
    z = 1.959964  # Wilson's interval of 3 of 6
    half = z * (1 / 24 + z**2 / 144) ** 0.5 / (1 + z**2 / 6)
    said = f"0.50 ({0.5 - half:.2f} … {0.5 + half:.2f}); 0.167"
    assert row(text, "cell retrieval") == [said, said, "≥ 0.5; judge ≥ 0.3"]
    assert row(text, "KID") == ["", "0.04 (0.04 … 0.05)", "–"]
    assert row(text, "Fréchet distance of whole") == ["0.041 (−0.010 … 0.050)", "", "–"]
    assert row(text, "seams at window borders") == ["1.06 ± 0.02 (0.98 ± –)", "", "≤ 1.1"]
    assert row(text, "seams at the worst offset") == ["1.06 ± 0.02 (0.98 ± –)", "", "–"]
    assert row(text, "outermost pixels") == ["+1.1 ± 0.0 (+1.0 ± –)", "", "–"]
    assert row(text, "layout") == ["✗ 0.90 / –", "", "≥ 0.95, 0.4 apart"]
    assert row(text, "time of all stages") == ["1.2 min", "", "≤ 20 min"]  # 10 + 11 + … + 15 s
    assert row(text, "one large image")[0].endswith("7 UNet calls, 1 decodes, 2 s; the next 2 s")
    assert text.endswith(
        "\n\nSeconds for each stage: patches 10, encoder 11, judge 12, embeddings 13, "
        "autoencoder 14, sample 15.\n"
    )


def test_what_a_run_has_not_is_left_out(workdir):
    absent = dict.fromkeys([*test_report._FEATURES, *test_report._PIXELS])
    add(workdir, **absent)
    path = workdir / "sample" / "done.json"
    done = json.loads(path.read_text())
    test_report.write(path, done | {"facts": {"large_images": []}})
    found, by_name = collect(workdir)
    first = ("embedding", "cell retrieval", "Fréchet", "autoencoder", "time of all", "peak")
    names = {row.name for row in goals.ROWS if row.name.startswith(first)}
    assert set(by_name) == {n for n in names if "raw features" not in n and "EfficientNet" not in n}
    single = by_name["Fréchet distance of single patches, unit features, uncorrected"]
    assert "encoder" not in single
    assert row(figures.markdown(found), "embedding similarity")[0] == ""


def test_a_group_meets_a_goal_with_its_worst(workdir):
    shown = {"nuclei": 0.9, "empty": 0.65}
    told = {"all_conditions": shown, "real_pixels": {"nuclei": 0.98, "empty": 1.0}}
    test_report.write(workdir / "imagine" / "results.json", {"conditions": [], "agreement": told})
    found, _ = collect(workdir)
    said = row(figures.markdown(found), "images generated from labels")
    assert said == ["", "✗ 0.90, 0.65 (0.98, 1.00)", "≥ 0.7"]


@pytest.mark.parametrize(
    ("goal", "values", "is_met", "said"),
    [
        (goals.Goal(low=0.5), [0.5], True, "≥ 0.5"),
        (goals.Goal(low=0.5), [{"value": 0.4, "low": 0.3, "high": 0.6}], False, "≥ 0.5"),
        (goals.Goal(high=6, unit=" GB"), [6.1], False, "≤ 6 GB"),
        (goals.Goal(apart=0.5), [0.75, 0.25], True, "0.5 apart"),
        (goals.Goal(apart=0.5), [0.75, 0.26], False, "0.5 apart"),
        (goals.Goal(low=0.95, apart=0.4), [0.96, None], True, "≥ 0.95, 0.4 apart"),
        (goals.Goal(), [-1.0], True, "–"),
        (goals.Goal(high=1), [test_report.ESTIMATE], False, "≤ 1"),
        (goals.Goal(high=1), [test_report.FEW], True, "≤ 1"),
    ],
)
def test_goals(goal, values, is_met, said):
    assert goal.is_met(values) == is_met
    assert str(goal) == said


def test_an_estimate_is_written_with_its_interval_or_why_it_has_none():
    said = "2.5 uncorrected; too few: 40 vectors of 96 numbers, 203 needed"
    assert format(figures.Shown(test_report.FEW), ".1f") == said
    assert format(figures.Shown(test_report.ESTIMATE), ".2f") == "1.50 (1.25 … 1.75)"


@pytest.mark.parametrize("row", goals.ROWS, ids=lambda row: row.name)
def test_every_value_has_its_place_in_the_text(row):
    for keys in (row.encoder, row.judge):
        assert len(keys) in (0, row.text.count("{"))
    assert row.encoder or row.judge


def test_installation_counts_when_it_is_known(workdir, monkeypatch):
    (workdir / ".installed-run").write_text("45\n")
    monkeypatch.setattr(metrics.sys, "prefix", str(workdir))
    _, by_name = collect(workdir)
    assert by_name["time from clone to report, installation included"]["encoder"] == [
        (75 + 45) / 60
    ]
    (workdir / ".installed-run").write_text("")
    assert "time from clone to report, installation included" not in collect(workdir)[1]


BENCH = {
    "tiled_per_core": 100.0, "tiling_memory": 63.6, "bytes": 30_000.0, "hashed_per_core": 50_000.0,
    "decoded_per_core": 2_000.0, "read_at_random": 39_925.0,
}  # fmt: skip


def add_bench(workdir):
    """Rows of the tool bench."""
    rows = [
        {"name": f"archive/{name}", "value": value, "unit": "", "hardware": "1 × abacus"}
        for name, value in BENCH.items()
    ]
    rows.append({"name": "input/cached", "value": 1.0, "unit": "", "hardware": ""})
    test_report.write(workdir / "bench" / "results.json", rows)
    done = {"finished": "2020-01-02T00:00:00+0000", "versions": {"jax": "1.2"}}
    test_report.write(workdir / "bench" / "done.json", done)


def test_archives_of_many_slides_take_core_hours(workdir):
    assert archive_table.collect(workdir) is None
    add_bench(workdir)
    found = archive_table.collect(workdir)
    assert set(found["rows"]) == set(BENCH)
    text = archive_table.markdown(found)
    assert text.startswith("1 × abacus; 2020-01-02, jax 1.2.\n\n| | measured |")
    rows = dict(re.findall(r"^\| (.+?) \| (.*) \|$", text, re.M))
    missed = "✗ 100 patches/s a core (goal ≥ 150)"
    # 10⁷ / 100 s = 27.8 h; 10⁷ · (1/50000 + 1/2000) s = 1.44 h
    assert rows["tiling, from tissue to shards"] == f"{missed} | 28 core hours | 830 core hours"
    verified = "50 000 / 2 000 patches/s a core | 1.4 core hours | 43 core hours"
    assert rows["verify: hashing / decoding"] == verified
    assert rows["size"] == "30.0 kB a patch | 0.3 TB | 9 TB"


def test_readme_renews_the_page_of_each_block(workdir, monkeypatch):
    collected, _ = collect(workdir)
    monkeypatch.chdir(workdir)
    for arguments, message in (
        (["demo", "."], "expected . to have results for demo, got none"),
        (["."], "expected one of demo, archive, .* and a work directory, got ."),
        (["demos", "."], "got demos ."),
    ):
        with pytest.raises(SystemExit, match=message):
            readme.main(arguments)
    texts: dict[str, str] = {}
    for name, block in readme.BLOCKS.items():
        texts.setdefault(block.page, "before\n")
        texts[block.page] += "between\n".join(readme.marks(name))
    for page, text in texts.items():
        (workdir / page).parent.mkdir(parents=True, exist_ok=True)
        (workdir / page).write_text(text)
    read = lambda: {page: (workdir / page).read_text() for page in texts}
    test_report.write(workdir / "report" / "figures.json", collected)
    readme.main(["demo", str(workdir)])
    page = readme.BLOCKS["demo"].page
    one = texts | {page: readme.put(texts[page], "demo", figures.markdown(collected))}
    assert read() == one != texts
    assert json.loads((workdir / ".assets" / "demo.json").read_text()) == collected
    assert not (workdir / ".assets" / "archive.json").exists()
    add_bench(workdir)
    readme.main(["archive", str(workdir)])
    benched = json.loads((workdir / ".assets" / "archive.json").read_text())
    page = readme.BLOCKS["archive"].page
    both = one | {page: readme.put(one[page], "archive", archive_table.markdown(benched))}
    assert read() == both != one
    readme.main(["demo", str(workdir)])
    assert read() == both


@pytest.mark.parametrize("order", [(), (0,), (1, 0), (0, 1, 0, 1)])
def test_a_readme_without_marks_is_refused(order):
    text = "".join(readme.marks("demo")[i] for i in order)
    with pytest.raises(ValueError, match=r"expected <!-- demo --> and then <!-- /demo --> once"):
        readme.put(text, "demo", "block")


def test_judging_is_held_against_its_goals(tmp_path):
    unit = {"encoder_own_weights/per_core": "patches/s", "frechet_9x4/memory": "MB",
            "kid_9x4/seconds": "s"}  # fmt: skip
    value = dict(zip(unit, (99.0, 12.0, 40.0), strict=True))
    told = {"repetitions": 3, "hardware": "any"}
    rows = [
        {"name": f"evaluation/{name}", "value": value[name], "unit": unit[name], **told}
        for name in unit
    ]
    folder = tmp_path / "bench"
    test_report.write(folder / "results.json", [{"name": "unet/step", "value": 1.0}])
    done = {"finished": "2026-01-02T03:04:05", "versions": {"jax": "1.2"}}
    test_report.write(folder / "done.json", done)
    assert evaluation_table.collect(tmp_path) is None
    test_report.write(folder / "results.json", rows)
    lines = evaluation_table.markdown(evaluation_table.collect(tmp_path)).splitlines()
    assert lines[0] == "any; 2026-01-02, jax 1.2; medians of 3."
    assert lines[-3] == "| encoder own weights, per core | ✗ 99 patches/s | ≥ 100 |"
    assert lines[-2].startswith("| frechet 9x4, memory | 12 MB | ≤ ")
    assert lines[-1] == "| kid 9x4, seconds | 40 s | – |"


def study_rows(gains):
    """Rows of a study: by classifier and fraction, the interval of the gain of both."""
    for (model, fraction), (mean, low, high) in gains.items():
        for mixture in ("real", "synthetic", "real + synthetic"):
            count = 0 if mixture == "synthetic" else int(100 * fraction)
            row = {"task": "patches", "model": model, "fraction": fraction, "mixture": mixture}
            row |= {"seeds": 3, "real": count, "auc": {"mean": 0.5 + len(mixture) / 100}}
            if mixture != "real":
                row["gain"] = {"auc": {"mean": mean, "low": low, "high": high}}
            yield row


def test_a_study_shows_its_first_classifier_and_all_that_is_sure(tmp_path):
    gains = {
        ("linear", 0.1): (0.01, -0.02, 0.04),
        ("vit", 0.1): (-0.05, -0.09, -0.01),
        ("vit", 1.0): (0.00, -0.01, 0.01),
    }
    study, labels = tmp_path / "study", {"study": {"patches": {"labels": "stain"}}}
    results = {"rows": list(study_rows(gains)), "tasks": {"patches": {"class_agreement": 0.9}}}
    test_report.write(study / "results.json", results)
    test_report.write(study / "stage.json", {"config": labels})
    done = {"finished": "2026-01-02T03:04:05", "versions": {"jax": "1.2"}}
    test_report.write(study / "done.json", done)
    machine = {"cores": 2, "processor": "any"}
    test_report.write(tmp_path / "environment.json", {"machine": machine})
    assert study_table.collect(tmp_path, "clusters") is None
    found = study_table.collect(tmp_path, "stain")
    assert [row["examples"] for row in found["rows"]] == [10, 10, 100]
    text = study_table.markdown(found)
    assert (
        "Of 3 gains the interval lies above zero in 0 and below it in 1; by chance 0.1 of each"
    ) in text
    assert "Class agreement of generated patches: 0.90" in text
    assert "| patches | linear | 10 | 0.540 | 0.590 | 0.660 | 0.010 (−0.020 … 0.040) |" in text
    assert "| patches | vit | 10 | 0.540 | 0.590 | 0.660 | **−0.050** (−0.090 … −0.010) |" in text
    assert "| vit | 100 |" not in text


def test_a_model_is_shown_on_data_it_never_saw_beside_its_own(tmp_path):
    estimate = lambda value: {
        "corrected": value, "low": value / 2, "high": 2 * value, "uncorrected": 3 * value,
        "counts": [9, 9], "interval": "95%",
    }  # fmt: skip

    def results(value):
        judge = {"frechet": estimate(value), "kid": estimate(value / 10)}
        judge["precision_recall"] = {name: estimate(0.4) for name in ("precision", "recall")}
        cells = {"cell_retrieval_top1": value / 10, "num_cells": 64}
        return {
            "patches": {"judge": judge}, "judge": cells, **cells,
            "memorisation": {"fraction": 0.02, "p_value": 0.25},
        }  # fmt: skip

    own, other = tmp_path / "own", tmp_path / "other"
    done = {"finished": "2026-01-02T03:04:05", "versions": {"jax": "1.2"}}
    for folder, value in ((own, 1.0), (other, 3.0)):
        test_report.write(folder / "evaluate" / "results.json", results(value))
        test_report.write(folder / "evaluate" / "done.json", done)
        test_report.write(folder / "environment.json", {"machine": {"cores": 2, "processor": "x"}})
        models = "" if folder == own else str(own)
        test_report.write(folder / "config.json", {"models": models})
    assert unseen_table.collect(own) is None
    lines = unseen_table.markdown(unseen_table.collect(other)).splitlines()
    assert lines[-2].startswith("| of the training data set | 1.00 (0.50 … 2.00) | 0.100 (0.050 …")
    assert lines[-1].startswith(
        "| of another data set | 3.00 (1.50 … 6.00) | 0.300 (0.150 … 0.600) |"
    )
    assert lines[-1].endswith("| 0.30 / 0.30 | 0.020 (p = 0.2) |")
