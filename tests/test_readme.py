"""The README tells the truth: its commands parse, its files exist, its tables match the code."""

import ast
import inspect
import pathlib
import re
import shlex
import subprocess

import pytest

from launch.pages import readme
from ssldiff_jax.core import schema
from ssldiff_jax.encoders import known
from ssldiff_jax.formats import atomic
from ssldiff_jax.generation import generator
from ssldiff_jax.report import goals
from ssldiff_jax.runs import checks, runner
from ssldiff_jax.runs.command import command_line
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.stages import table

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, re.S)


def _commands() -> list[list[str]]:
    text = "".join(code for language, code in BLOCKS if language == "bash")
    lines = text.replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.strip()]


MAIN = [c for c in _commands() if c[:3] == ["python", "-m", "ssldiff_jax.main"]]
SCRIPTS = [c for c in _commands() if c[0] == "bash"]


def _parsed(command, monkeypatch) -> run_config.RunConfig:
    """The config of a command; one without --config has that of the command which made its run."""
    monkeypatch.chdir(ROOT)
    workdir = [word for word in command if word.startswith("--workdir=")]
    if not any(word.startswith("--config=") for word in command):
        makers = [c for c in STARTED if workdir[0] in c and any("--config=" in w for w in c)]
        own = [w for w in (makers[0] if makers else DEMO) if w.startswith("--config")]
        command = [*command[:3], *(w for w in own if "stages" not in w), *command[3:]]
    # Where runs would be is no matter here, and slides are those of another command.
    words = [w for w in command[3:] if not w.startswith("--workdir=")]
    values = command_line.parse(["main", "--config.data.slides=any", *words]).values
    return schema.build(run_config.RunConfig, values)


STARTED = [c for c in MAIN if any(w.startswith("--config=") for w in c)]
DEMO = ["--config=configs/demo.py"]  # launch/demo.sh


@pytest.mark.parametrize("command", [c for c in MAIN if "--list" not in c], ids=" ".join)
def test_main_commands_name_real_configs_keys_and_stages(command, monkeypatch):
    monkeypatch.setattr(command_line.catalog, "reads_alone", lambda values: False)
    config = _parsed(command, monkeypatch)
    assert runner.parse_names(config.stages, table.STAGES, "stages")


DEVICES = r"^(.*ssldiff_jax\.main|.*launch/\S+)((?:[^`#]|\n)*?)# (\d+) devices"


def test_commands_for_many_devices_divide_their_batches(monkeypatch):
    section = README.partition("\n## Training on many devices\n")[2]
    found = re.findall(DEVICES, section, re.M)
    assert [int(count) for *_, count in found] == [8, 2, 16, 256, 32]
    for _, flags, count in found:
        words = [w for w in shlex.split(flags.replace("\\\n", " ")) if w.startswith("--config")]
        config = _parsed(["", "", "", *words], monkeypatch)
        trainings = {name: getattr(config, name).train for name in checks.TRAINED}
        assert list(checks.batches(trainings, int(count))) == []


@pytest.mark.parametrize("command", SCRIPTS, ids=" ".join)
def test_scripts_exist_and_parse(command):
    script = ROOT / command[1]
    found = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr


def test_both_kinds_of_command_were_found():
    assert len(MAIN) >= 3
    scripts = {"demo.sh", "test.sh", "local_multiprocess.sh"}
    assert {c[1] for c in SCRIPTS} == {f"launch/{name}" for name in scripts}


def test_stage_table_lists_every_stage_in_order():
    assert names_of_rows("## Stages") == list(table.STAGES)


def test_encoder_table_lists_every_known_encoder():
    assert names_of_rows("## Published weights") == list(known.ENCODERS)


def names_of_rows(heading):
    """The code-formatted first cells of the tables between a heading and the next."""
    section = README.partition(f"\n{heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| `([\w-]+)` \|", section, re.M)


def test_python_examples_call_what_exists():
    trees = [ast.parse(code) for language, code in BLOCKS if language == "python"]
    calls = [n for tree in trees for n in ast.walk(tree) if isinstance(n, ast.Call)]
    named = [call for call in calls if isinstance(call.func.value, ast.Name)]
    ours = [call for call in named if call.func.value.id.lower() == "generator"]
    assert len(ours) >= 7
    for call in ours:
        method = getattr(generator.Generator, call.func.attr)
        self_argument = [] if inspect.ismethod(method) else [None]
        keywords = {k.arg: None for k in call.keywords}
        inspect.signature(method).bind(*self_argument, *call.args, **keywords)


def test_layout_and_links_name_what_exists():
    rooms = re.findall(r"^  (\w+)/ ", README, re.M)
    assert rooms
    for room in rooms:
        assert (ROOT / "ssldiff_jax" / room).is_dir(), room
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / link).exists(), link


@pytest.mark.parametrize("name", readme.BLOCKS)
def test_figures_are_those_of_a_run(name):
    found = atomic.read_json(ROOT / ".assets" / f"{name}.json")
    assert readme.put(README, name, readme.BLOCKS[name].markdown(found)) == README


def test_goals_of_the_demo_are_the_ones_in_force():
    found = atomic.read_json(ROOT / ".assets" / "demo.json")
    assert len(found["figures"]) >= 10
    rows = {row.name: row for row in goals.ROWS}
    for figure in found["figures"]:
        row = rows[figure["name"]]
        assert figure["goal"] == row.aims
        missed = [e for e in goals.ENCODERS if e in figure and not row.aim(e).is_met(figure[e])]
        assert figure["missed"] == missed
