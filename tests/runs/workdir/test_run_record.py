"""What a work directory keeps of the commands that made it."""

import json

import pytest
import small_configs

from ssldiff_jax.runs import environment, launch, stage
from ssldiff_jax.runs.command import command_line
from ssldiff_jax.runs.workdir import run_record, stored_config

TABLE = {
    "patches": stage.Stage(lambda context: {}, ("data",)),
    "latents": stage.Stage(lambda context: {}, ("data.crops",), ("patches",)),
    "sample": stage.Stage(lambda context: {}, ("sample",), ("latents",)),
    "generate": stage.Stage(lambda context: {}, ("sample", "generate"), ("patches",), tool=True),
}


@pytest.fixture
def command(tmp_path, monkeypatch):
    """(stages, on="a machine", **changes) → runs them; a machine is its processor's name."""

    def run(stages, on="first", **changes):
        describe = environment.describe_machine
        with monkeypatch.context() as patched:
            patched.setattr(environment, "describe_machine", lambda: describe() | {"processor": on})
            launch.launch(small_configs.values_for(stages, **changes), tmp_path / "run", TABLE)
        return tmp_path / "run"

    return run


def read(path):
    return json.loads(path.read_text())


def lines(folder):
    return [json.loads(line) for line in (folder / run_record.COMMANDS).read_text().splitlines()]


def test_a_run_that_goes_on_elsewhere_keeps_what_made_its_stages(command):
    folder = command("patches,latents", seed=7)
    command("patches,latents,sample", on="second", seed=7, sample__window_batch=3)
    assert read(folder / "environment.json")["machine"]["processor"] == "first"
    machine = lambda name: read(folder / name / "done.json")["machine"]["processor"]
    assert [machine(name) for name in ("patches", "latents", "sample")] == [
        "first", "first", "second",
    ]  # fmt: skip
    begun, went_on = lines(folder)
    assert [line["machine"]["processor"] for line in (begun, went_on)] == ["first", "second"]
    assert begun["config"]["sample"]["window_batch"] == 8
    assert went_on["changes"]["sample.window_batch"] == [8, 3]
    assert went_on["stages"] == ["patches", "latents", "sample"]
    assert went_on["versions"] == begun["versions"]


def test_the_record_has_the_words_of_commands(tmp_path):
    found = command_line.parse(["main", "--config=configs/tiny.py", f"--workdir={tmp_path}/run"])
    words = ("--config=configs/tiny.py", f"--workdir={tmp_path}/run")
    assert found.words == words
    launch.launch(small_configs.values_for("patches"), found.workdir, TABLE, words=found.words)
    assert [line["words"] for line in lines(found.workdir)] == [list(words)]


def test_a_command_changes_the_record_of_the_steps_it_makes(command):
    """Of others it says what made them, or would."""
    folder = command("patches,latents")
    command("sample", sample__window_batch=3, denoiser__train__num_steps=9)
    config = read(folder / "config.json")
    assert config["sample"]["window_batch"] == 3
    assert config["denoiser"]["train"]["num_steps"] == 4
    assert config["stages"] == "sample"
    assert lines(folder)[1]["changes"] == {
        "sample.window_batch": [8, 3], "stages": ["patches,latents", "sample"],
    }  # fmt: skip


def test_the_workdir_alone_goes_on_with_the_latest_values(command):
    folder = command("patches")
    command("patches,latents,sample", sample__solver__num_solver_steps=5)
    found = command_line.parse(["main", f"--workdir={folder}"])
    assert found.values["sample"]["solver"]["num_solver_steps"] == 5
    assert found.values["stages"] == "patches,latents,sample"


def test_tools_stay_out_of_the_record(command):
    """Their sections are in the stage.json of their own folder."""
    folder = command("patches", generate__outpaint_px=64)
    kept = {path.name: path.read_text() for path in folder.glob("*.json*")}
    assert not {"generate", "study", "bench", "sweep"} & read(folder / "config.json").keys()
    command("generate", on="second", generate__outpaint_px=128, sample__window_batch=3)
    assert {path.name: path.read_text() for path in folder.glob("*.json*")} == kept
    assert read(folder / "generate" / "stage.json")["config"]["generate"]["outpaint_px"] == 128
    assert stored_config.of_run(folder)["generate"]["outpaint_px"] == 0


def test_a_workdir_of_another_format_is_refused_before_anything_is_written(command, tmp_path):
    """By its own config, and as that of the models."""
    folder = command("patches")
    values = read(folder / "config.json")
    assert values.pop("format_version") == stored_config.FORMAT
    (folder / "config.json").write_text(json.dumps(values))
    kept = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(
        launch.REFUSALS, match=r"must be a work directory of format 2, got format 1"
    ):
        command("patches,latents")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == kept
    with pytest.raises(
        launch.REFUSALS, match=r"must be a work directory of format 2, got format 1"
    ):
        launch.launch(
            small_configs.values_for("generate", models=str(folder)), tmp_path / "other", TABLE
        )


def test_what_a_tool_wrote_first_is_no_record_of_a_step(command):
    """Such as a tool that reads only models of another run."""
    folder = command("patches")
    (folder / run_record.COMMANDS).unlink()  # as after a tool alone
    command("patches", on="second", sample__window_batch=5)
    assert read(folder / "config.json")["sample"]["window_batch"] == 5
    assert read(folder / "environment.json")["machine"]["processor"] == "second"
    assert len(lines(folder)) == 1
