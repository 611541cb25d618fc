"""The README tells the truth: its commands parse, its files exist, its tables match the code."""

import ast
import inspect
import pathlib
import re
import shlex
import subprocess
import sys

import pytest
from absl import flags
from ml_collections import config_flags

from ssldiff_jax.core import config as config_lib
from ssldiff_jax.core import files
from ssldiff_jax.encoders import known
from ssldiff_jax.evaluation.report import goals, readme
from ssldiff_jax.stages import config as run_config
from ssldiff_jax.stages import generator, runner, table

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, re.S)


def _commands() -> list[list[str]]:
    text = "".join(code for language, code in BLOCKS if language == "bash")
    lines = text.replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.strip()]


MAIN = [c for c in _commands() if c[:3] == ["python", "-m", "ssldiff_jax.main"]]
SCRIPTS = [c for c in _commands() if c[0] == "bash"]


@pytest.mark.parametrize("command", MAIN, ids=" ".join)
def test_main_commands_name_real_configs_keys_and_stages(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    # config_flags looks for overrides here.
    monkeypatch.setattr(sys, "argv", command[2:])
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values)
    flags.DEFINE_string("workdir", None, "", flag_values=values)
    values(command[2:])

    config = config_lib.build(run_config.RunConfig, values.config.to_dict())
    assert runner.parse_names(config.stages, table.STAGES, "stages")
    assert values.workdir


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
    found = files.read_json(ROOT / ".assets" / f"{name}.json")
    assert readme.put(README, name, readme.BLOCKS[name].markdown(found)) == README


def test_goals_of_the_demo_are_the_ones_in_force():
    found = files.read_json(ROOT / ".assets" / "demo.json")
    assert len(found["figures"]) >= 10
    rows = {row.name: row for row in goals.ROWS}
    for figure in found["figures"]:
        row = rows[figure["name"]]
        assert figure["goal"] == row.aims
        missed = [e for e in goals.EYES if e in figure and not row.aim(e).is_met(figure[e])]
        assert figure["missed"] == missed
