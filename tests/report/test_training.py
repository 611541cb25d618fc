"""The head of the page: what was trained, how long, and that a short run shows no ceiling."""

import json
import re

import pytest

from ssldiff_jax.formats import atomic
from ssldiff_jax.report import losses, metrics, page, training
from tests.report import test_report

TABLE = "| kernel | (2, 2) | float32 | 4 |\nTotal: 1,234,567 -- 4 bytes\n"


def train(workdir, name, *, steps, seconds, weights=""):
    """A finished training of a model, as its stage leaves it."""
    folder = workdir / name
    done = {"seconds": 9e9, "peak_rss_mb": 1, "finished": "2020-01-01T00:00:00+0000"}
    path = folder / "done.json"
    before = json.loads(path.read_text()) if path.exists() else done | {"facts": {}}
    test_report.write(path, before)
    lines = [{"step": step, "loss": 1.0, "seconds": seconds * step / steps}
             for step in (steps // 2, steps)]  # fmt: skip
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (folder / "parameters.txt").write_text(TABLE)
    config = json.loads((workdir / "config.json").read_text())
    config[name] = {"weights": weights, "train": {"batch_size": 8, "num_steps": steps}}
    test_report.write(workdir / "config.json", config)


@pytest.fixture
def workdir(tmp_path):
    """A run with slides and patches, and four trained models."""
    test_report.make_workdir(tmp_path)
    done = json.loads((tmp_path / "patches" / "done.json").read_text())
    facts = {"slides": {"0": "a.svs", "1": test_report.HOSTILE},
             "records": {"train": 1200, "test": 34}}  # fmt: skip
    test_report.write(tmp_path / "patches" / "done.json", done | {"facts": facts})
    rows = f'number,slide,mpp,height,width,train,test\n0,a.svs,0.25,90,80,1200,0\n' \
           f'1,"{test_report.HOSTILE}",0.25,70,60,0,34\n'  # fmt: skip
    (tmp_path / "patches" / "slides.csv").write_text(rows)
    config = json.loads((tmp_path / "config.json").read_text())
    config["data"] |= {"patch_mpp": 0.5, "records": {"record_px": 32}}
    test_report.write(tmp_path / "config.json", config)
    for name in ("encoder", "judge", "autoencoder", "denoiser"):
        train(tmp_path, name, steps=100, seconds=300.0)
    return tmp_path


def build(workdir):
    page.build(workdir, workdir / "report", metrics.collect(workdir))
    return (workdir / "report" / "index.html").read_text()


def header(workdir):
    text = build(workdir).partition("<header>")[2].partition("</header>")[0]
    return text, re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", text))


def test_head_says_what_was_trained_on_what_and_how_long(workdir):
    text, said = header(workdir)
    assert f"run {workdir.name}, digest " in said
    assert "seed 3" in said
    assert "Trained on 1,200 squares of 1 slide (a.svs)." in said
    assert "Held out: 34 squares of 1 slide (&lt;/script&gt;" in said
    assert "Each is 32 × 32 px, 16 × 16 µm, at 0.5 µm per pixel (20×)." in said
    assert "Patches of 16 × 16 px, 8 × 8 µm are cropped from them." in said
    assert "2 cores of Z&lt;80&gt;, 8 GB, no accelerator" in said
    assert "20.0 min, all models together" in said  # as the trainings logged, all processes
    rows = re.findall('<tr><th scope="row">(.*?)</th>(.*?)</tr>', text)
    cells = {name.split(":")[0]: re.findall("<td>(.*?)</td>", row) for name, row in rows}
    assert list(cells) == ["encoder", "autoencoder", "denoiser", "the judge"]
    assert set(map(tuple, cells.values())) == {("1,234,567", "100", "8", "5.0 min")}


def test_head_names_the_config_file_of_the_first_command(workdir):
    words = ["--config=configs/<demo>.py", "--workdir=x"], ["--workdir=x"]
    text = "".join(json.dumps({"words": each}) + "\n" for each in words)
    (workdir / "commands.jsonl").write_text(text)
    assert f"configs/&lt;demo&gt;.py, run {workdir.name}, digest " in header(workdir)[1]


def test_hardware_is_that_of_the_training(workdir):
    path = workdir / "denoiser" / "done.json"
    machine = {"backend": "gpu", "devices": ["cuda:0"] * 8, "cores": 96, "processor": "Y",
               "memory_gb": 512.0}  # fmt: skip
    test_report.write(path, json.loads(path.read_text()) | {"machine": machine})
    assert "96 cores of Y, 512 GB, 8 × gpu" in header(workdir)[1]


def test_judge_is_introduced_once(workdir):
    assert build(workdir).count("the judge: an encoder the generator never sees") == 1


def test_short_run_is_named_with_its_numbers_by_what_it_recorded(workdir):
    text, said = header(workdir)
    note = "does not show what the method can do. All models together trained for 20.0 minutes on"
    assert 'role="note"' in text
    assert note in said
    assert "the denoiser for 100 steps" in said
    assert f"below {training.SHORT_MINUTES} minutes" in said
    assert f"{training.SHORT_STEPS:,} steps of the denoiser" in said


@pytest.mark.parametrize(
    ("seconds", "steps", "is_short"),
    [(3600, 20_000, False), (3599, 20_000, True), (1e5, 19_999, True), (1e5, 10**6, False)],
)
def test_rule_of_short_runs_is_of_minutes_and_steps(seconds, steps, is_short):
    model = training.Model("denoiser", 1, steps, 8, seconds)
    assert bool(training.caution([model], "a machine")) == is_short


def test_denoiser_of_published_weights_is_not_called_short():
    model = training.Model("denoiser", 1, 10, 8, 10.0, "published weights")
    assert training.caution([model], "a machine") == ""
    assert training.caution([], "a machine") == ""


def test_models_of_another_run_are_told_with_its_training(workdir, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    test_report.make_workdir(other)
    config = json.loads((other / "config.json").read_text())
    test_report.write(other / "config.json", config | {"models": str(workdir)})
    _, said = header(other)
    assert "Trained on 1,200 squares of 1 slide (a.svs)." in said
    assert "1,234,567" in said
    assert f"models of run {workdir.name}" in said


def log(folder, lines):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))


def test_curves_are_smoothed_over_the_raw_ones_and_say_how(tmp_path):
    assert losses.part(tmp_path) == ""
    log(tmp_path / "denoiser", [{"step": 20 * i, "loss": 1 + (-1) ** i} for i in range(1, 201)])
    text = losses.part(tmp_path)
    raw, smooth = (
        re.search(f'class="line {name}" d="M([^"]*)"', text)[1].split("L")
        for name in ("raw", "smooth")
    )
    assert len(raw) == len(smooth) == 200
    heights = [[float(point.split(",")[1]) for point in line] for line in (raw, smooth)]
    spread = [max(line[10:-10]) - min(line[10:-10]) for line in heights]
    assert spread[1] < spread[0] / 5
    assert "Smoothed over 11 logged values, about 220 steps." in text


def test_smoothing_is_a_mean_around_each_value():
    points = [(step, float(step**2)) for step in range(5)]
    assert losses.smooth(points, 3) == [
        (0, 0.5), (1, 5 / 3), (2, 14 / 3), (3, 29 / 3), (4, 12.5)
    ]  # fmt: skip
    assert [losses.window(count) for count in (2, 14, 15, 200, 10_000)] == [1, 1, 5, 11, 501]


def test_few_values_are_not_smoothed(tmp_path):
    log(tmp_path / "prior", [{"step": step, "loss": 1 / step} for step in (1, 2, 3)])
    text = losses.part(tmp_path)
    assert "Too few values to smooth." in text
    assert "line smooth" not in text


def test_held_out_loss_is_shown_of_every_checkpoint_that_was_evaluated(tmp_path):
    lines = [{"step": step, "loss": 1 / step} for step in range(1, 40)]
    log(tmp_path / "denoiser", lines)
    log(tmp_path / "prior", lines)
    assert "dashed" not in losses.part(tmp_path)

    loss = lambda value: {"denoising_loss": {"held_out": {"value": value}}}
    (tmp_path / "evaluate").mkdir()
    atomic.write_json(tmp_path / "evaluate" / "results.json", loss(0.25))
    assert losses.held_out_points(tmp_path, 39) == [(39, 0.25)]
    (tmp_path / "watch").mkdir()
    watched = [{"step": 20} | loss(0.5), {"step": 10} | loss(0.75), {"step": 30, "patches": {}}]
    atomic.write_json(tmp_path / "watch" / "results.json", {"steps": watched})
    assert losses.held_out_points(tmp_path, 39) == [(10, 0.75), (20, 0.5), (39, 0.25)]

    text = losses.part(tmp_path)
    assert text.count('class="line held-out"') == 1  # of the denoiser alone
    assert text.count('<circle class="held-out"') == 3
    assert "dashed: held-out loss, 0.250 at the end" in text


def test_a_step_that_had_nothing_to_train_is_no_model(workdir):
    """That of tokens, where a cell has one."""
    train(workdir, "tokens", steps=20, seconds=2.0)
    done = json.loads((workdir / "tokens" / "done.json").read_text())
    for per_side, shown in ((2, True), (1, False)):
        test_report.write(
            workdir / "tokens" / "done.json", done | {"facts": {"tokens_per_side": per_side}}
        )
        _, said = header(workdir)
        assert ("tokens: generates the tokens of a cell from its embedding" in said) == shown
