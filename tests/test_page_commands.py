"""Commands and Python examples of the pages: they name configs, keys, stages, scripts and methods
that exist."""

import ast
import inspect
import re
import shlex
import subprocess

import pages
import pytest

from configs import default
from ssldiff_jax.core import schema
from ssldiff_jax.generation import generator
from ssldiff_jax.runs import batches, checks, stage
from ssldiff_jax.runs.command import command_line
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.stages import table

ROOT, TEXTS = pages.ROOT, pages.texts()
COMMANDS = [pages.words(command) for command in pages.all_commands()]
MAIN = [c for c in COMMANDS if c[:3] == ["python", "-m", "ssldiff_jax.main"]]
STARTED = [c for c in MAIN if any(w.startswith("--config=") for w in c)]
DEMO = ["--config=configs/demo.py"]  # launch/demo.sh
SCRIPTS = [c for c in COMMANDS if c[0] == "bash"]
each_page = pytest.mark.parametrize("page", TEXTS)


def _parsed(command, monkeypatch) -> run_config.RunConfig:
    """The config of a command; one without --config has that of the command which made its run."""
    monkeypatch.chdir(ROOT)
    workdir = [word for word in command if word.startswith("--workdir=")]
    if not any(word.startswith("--config=") for word in command):
        makers = [c for c in STARTED if workdir[0] in c]
        own = [w for w in (makers[0] if makers else DEMO) if w.startswith("--config")]
        said = {word.partition("=")[0] for word in command}
        own = [w for w in own if w.partition("=")[0] not in {*said, "--config.stages"}]
        command = [*command[:3], *own, *command[3:]]
    # Where runs would be is no matter here, and slides are those of another command.
    words = [w for w in command[3:] if not w.startswith("--workdir=")]
    values = command_line.parse(["main", "--config.data.slides=any", *words]).values
    return schema.build(run_config.RunConfig, values)


@pytest.mark.parametrize("command", [c for c in MAIN if "--list" not in c], ids=" ".join)
def test_main_commands_name_real_configs_keys_and_stages(command, monkeypatch):
    monkeypatch.setattr(command_line.catalog, "reads_alone", lambda values: False)
    config = _parsed(command, monkeypatch)
    assert stage.parse_names(config.stages, table.STAGES, "stages")


@each_page
def test_page_names_keys_that_exist(page):
    """In prose and tables too: `config.KEY`, a section or a key, and `--config.KEY=VALUE`."""
    known_keys = set(schema_keys(default.get_config().to_dict()))
    named = set(re.findall(r"config\.((?:[a-z_]\w*\.)*[a-z_]\w*)", TEXTS[page]))
    files = {"json", "py"}
    assert {key for key in named if key not in known_keys} <= files


def schema_keys(values, prefix=""):
    """Every dotted key of a config, and every section."""
    for key, value in values.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from schema_keys(value, f"{prefix}{key}.")


@each_page
def test_page_says_how_the_environment_is_activated(page):
    text = TEXTS[page]
    assert ".venv/bin/" not in text.replace(".venv/bin/activate", "")
    own = [c for c in pages.commands(text) if c.startswith(("python", "pip"))]
    if own and page != "README.md":
        head = text.partition("```bash\npython")[0]
        assert "`source .venv/bin/activate`" in head


DEVICES = r"^(.*ssldiff_jax\.main|.*launch/\S+)((?:[^`#]|\n)*?)# (\d+) devices"


def test_commands_for_many_devices_divide_their_batches(monkeypatch):
    section = TEXTS["launch/README.md"].partition("\n## Training on many devices\n")[2]
    matches = re.findall(DEVICES, section, re.M)
    assert [int(count) for *_, count in matches] == [8, 2, 16, 256, 32]
    for _, flags, count in matches:
        words = [w for w in shlex.split(flags.replace("\\\n", " ")) if w.startswith("--config")]
        config = _parsed(["", "", "", *words], monkeypatch)
        trainings = {name: getattr(config, name).train for name in checks.TRAINED}
        if not config.distill.visits:
            del trainings["distill"]
        assert list(batches.uneven(trainings, int(count))) == []


COMPILED = [c for c in MAIN if any(re.search(r"stages=\S*compile", word) for word in c)]


@pytest.mark.parametrize("command", COMPILED, ids=" ".join)
def test_commands_that_compile_divide_their_batches(command, monkeypatch):
    assert list(batches.uneven_compiled(_parsed(command, monkeypatch))) == []


def test_a_command_that_compiles_is_on_a_page():
    assert COMPILED


@pytest.mark.parametrize("command", SCRIPTS, ids=" ".join)
def test_scripts_exist_and_parse(command):
    script = ROOT / command[1]
    checked = subprocess.run(
        ["bash", "-n", str(script)], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr


def test_commands_of_python_name_files_and_modules_that_exist():
    others = [c for c in COMMANDS if c[0] == "python" and c not in MAIN]
    assert others
    for command in others:
        path = command[1]
        if path == "-m":
            path = f"{command[2].replace('.', '/')}.py" if "." in command[2] else ""
        assert not path or (ROOT / path).is_file(), command
        for word in command[2:]:
            assert not word.startswith("tests/") or (ROOT / word).exists(), command
        if "-k" in command:
            chosen = command[command.index("-k") + 1]
            files = [(ROOT / word).read_text() for word in command if word.startswith("tests/")]
            assert any(re.search(rf"def test_\w*{chosen}", text) for text in files), command


def test_both_kinds_of_command_are_on_the_pages():
    assert len(MAIN) >= 25
    scripts = {"demo.sh", "earth.sh", "setup.sh", "test.sh", "local_multiprocess.sh", "readme.sh"}
    assert {c[1] for c in SCRIPTS} == {f"launch/{name}" for name in scripts}


def test_python_examples_call_what_exists():
    blocks = [block for text in TEXTS.values() for block in pages.blocks(text)]
    trees = [ast.parse(code) for language, code in blocks if language == "python"]
    calls = [n for tree in trees for n in ast.walk(tree) if isinstance(n, ast.Call)]
    methods = [call for call in calls if isinstance(call.func, ast.Attribute)]
    named = [call for call in methods if isinstance(call.func.value, ast.Name)]
    ours = [call for call in named if call.func.value.id.lower() == "generator"]
    assert len(ours) >= 7
    for call in ours:
        method = getattr(generator.Generator, call.func.attr)
        self_argument = [] if inspect.ismethod(method) else [None]
        keywords = {k.arg: None for k in call.keywords}
        inspect.signature(method).bind(*self_argument, *call.args, **keywords)
