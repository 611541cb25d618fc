"""What a command says: its config, its work directory, and one line for what is misspelt."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

import ssldiff_jax
from configs import default, tcga, tiny
from ssldiff_jax.core import schema, schema_comments
from ssldiff_jax.runs.command import catalog, command_line, listing
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import stored_config
from ssldiff_jax.stages import table

ROOT = pathlib.Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def parse(*words):
    return command_line.parse(["main", *words])


def refusal(*words):
    with pytest.raises((command_line.CommandError, schema.ConfigError)) as caught:
        parse(*words)
    (line,) = str(caught.value).splitlines()
    return line


@pytest.fixture
def run(tmp_path):
    """A run whose config is that of tiny, but for a tuple, a number and what it forced."""
    config = tiny.get_config()
    config.seed, config.force, config.stages = 7, "encoder", "patches,encoder"
    config.generate.size = (3, 4)
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(stored_config.stamped(config.to_dict())))
    return folder


def test_the_catalog_is_the_table():
    assert list(catalog.ROWS) == list(table.STAGES)
    for name, row in catalog.ROWS.items():
        assert row.tool == table.STAGES[name].tool, name
        assert row.reads == bool(table.STAGES[name].needs), name


@pytest.mark.parametrize(
    ("config", "folder"),
    [("configs/tcga.py", "runs/tcga"), ("configs/tcga.py:paper", "runs/tcga_paper"),
     ("./configs/naip_demo.py", "runs/naip_demo")],
)  # fmt: skip
def test_a_config_has_a_workdir_of_its_name(config, folder):
    mine = "--config.data.slides=mine"
    assert parse(f"--config={config}", mine).workdir == pathlib.Path(folder)
    assert parse("--config", config, mine).workdir == pathlib.Path(folder)
    assert parse(f"--config={config}", "--workdir=other", mine).workdir == pathlib.Path("other")
    found = parse("--config.seed=1", mine, "--config", config, "--config.seed", "2")
    assert (found.workdir, found.values["seed"]) == (pathlib.Path(folder), 2)


def test_runtime_is_checked_before_jax_is_set_up(run):
    """It says which devices jax has, and how this process finds the others."""
    words = f"--workdir={run}"
    assert parse(words, "--config.runtime.cpu_devices=2").runtime.cpu_devices == 2
    line = refusal(words, "--config.runtime.distributed=slurm")
    assert line == (
        "config.runtime.distributed must be one of ('off', 'auto', 'given'), got 'slurm'"
    )
    line = refusal(words, "--config.runtime.cpu_devices=-1")
    assert line == "config.runtime: cpu_devices must be 0 or more, got -1"
    values = json.loads((run / "config.json").read_text())
    values["runtime"]["cpu_devises"] = 2
    (run / "config.json").write_text(json.dumps(values))
    line = refusal(words)
    assert line == "config.runtime.cpu_devises is no config key; did you mean 'cpu_devices'?"
    values["runtime"] = {"cpu_devices": "two"}
    (run / "config.json").write_text(json.dumps(values))
    assert refusal(words) == "config.runtime.cpu_devices must be int, got 'two'"


def test_a_command_is_read_without_jax():
    """What jax is told must be known before it is imported."""
    code = (
        "import sys; from ssldiff_jax.runs.command import command_line;"
        "command_line.parse(['main', '--config=configs/tiny.py']); assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_runs_own_config_is_taken_and_changed(run):
    found = parse(
        f"--workdir={run}", "--config.data.patch_mpp=2", "--config.generate.outpaint_px=64"
    )
    wanted = stored_config.read(run)
    changed = {"force": "", "data.patch_mpp": 2.0, "generate.outpaint_px": 64}
    flat = schema.flatten(wanted) | changed
    as_tuples = {k: tuple(v) if isinstance(v, list) else v for k, v in flat.items()}
    assert schema.flatten(found.values) == as_tuples
    assert found.workdir == run


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("--config.generate.refrence=a.png", "did you mean config.generate.reference"),
        ("--config.generate=a.png", "--list=generate shows them"),
        ("--config.seed=many", "'many'"),
    ],
)
def test_a_misspelt_change_of_a_run_gets_a_line(run, word, told):
    assert told in refusal(f"--workdir={run}", word)


def test_a_run_of_earlier_code_has_the_defaults_of_later_keys(run):
    path = run / "config.json"
    values = json.loads(path.read_text())
    now = parse(f"--workdir={run}").values
    del values["generate"]["name"], values["export"]
    path.write_text(json.dumps(values))
    assert parse(f"--workdir={run}").values == now
    assert schema.build(run_config.RunConfig, stored_config.of_run(run)) == schema.build(
        run_config.RunConfig, now | {"force": "encoder"}
    )
    path.write_text("[]")
    assert "must hold a config, got list" in refusal(f"--workdir={run}")


@pytest.mark.parametrize("found", [None, 1, 3])
def test_a_run_of_another_format_is_refused_in_one_line(run, tmp_path, found):
    """Its keys and random numbers are others: it could not be gone on with."""
    path = run / "config.json"
    values = stored_config.read(run) | ({} if found is None else {"format_version": found})
    path.write_text(json.dumps(values))
    new = [f"--workdir={tmp_path / 'new'}", f"--config.models={run}", "--config.stages=generate"]
    for words in ([f"--workdir={run}"], new):
        assert refusal(*words) == (
            f"{run} must be a work directory of format 2, got format {found or 1} of another "
            "version of the code: start the run again in another --workdir, or use that version"
        )


def test_a_stage_that_is_being_made_anew_is_read_as_the_old_one_was_made(run):
    """The config.json is that of the command which makes it anew."""
    values = json.loads((run / "config.json").read_text())
    old, new = run / "prior", run / ".prior.new"
    for folder in (old, new):
        folder.mkdir()
    noted = {
        "seed": 7,
        "inputs": {"x": 1},
        "prior": values["prior"],
        "data.crops": {"patch_px": 64},
    }
    (old / "stage.json").write_text(json.dumps({"config": noted}))
    values["prior"] = {**values["prior"], "train": {**values["prior"]["train"], "num_steps": 2000}}
    values["data"]["crops"]["patch_px"] = 32
    (run / "config.json").write_text(json.dumps(values))
    steps = lambda: parse(f"--workdir={run}").values["prior"]["train"]["num_steps"]
    assert steps() == 2000  # nothing is whole
    (old / "done.json").write_text("{}")
    assert steps() == 4
    assert parse(f"--workdir={run}").values["data"]["crops"]["patch_px"] == 64
    assert (
        parse(f"--workdir={run}", "--config.prior.train.num_steps=9").values["prior"]["train"][
            "num_steps"
        ]
        == 9
    )
    for name in ("variations", ".variations.new"):  # what a tool was told is not the run's
        (run / name).mkdir()
        (run / name / "done.json").touch()
    (run / ".variations.new" / "done.json").unlink()
    assert steps() == 4
    (new / "done.json").write_text("{}")  # a kill before it took its place
    assert steps() == 2000


def test_home_is_where_the_user_is(run, monkeypatch):
    """Shells leave the ~ of --workdir=~/… as it is."""
    monkeypatch.setenv("HOME", str(run.parent))
    assert parse("--workdir=~/mine").workdir == run
    (run.parent / "own.py").write_text("from configs import tiny\nget_config = tiny.get_config\n")
    assert parse("--config=~/own.py", "--workdir=~/other").workdir == run.parent / "other"


def test_a_new_workdir_takes_the_config_of_the_models(run, tmp_path):
    for folder in (tmp_path / "pictures", tmp_path):
        found = parse(f"--workdir={folder}", f"--config.models={run}", "--config.stages=generate")
        assert (found.workdir, found.values["seed"]) == (folder, 7)
        assert (found.values["models"], found.values["stages"]) == (str(run), "generate")
    # With a config of its own it is a run of its own.
    values = stored_config.stamped(tiny.get_config().to_dict())
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert parse(f"--workdir={tmp_path}", f"--config.models={run}").values["seed"] == 0
    words = [f"--workdir={tmp_path / 'pictures'}", "--config=configs/tiny.py"]
    assert parse(*words, f"--config.models={run}", "--config.stages=generate")
    line = refusal(f"--workdir={tmp_path / 'x'}", f"--config.models={tmp_path / 'mime'}")
    assert f"did you mean {run}?" in line


def test_a_config_beside_a_run_is_taken_instead(run):
    found = parse(f"--workdir={run}", "--config=configs/tiny.py")
    assert found.values["seed"] == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "--list"),
        (["--config=configs/tcag.py"], "did you mean configs/tcga.py"),
        (["--config=tcga"], "did you mean configs/tcga.py"),
        (["--config=nowhere/demo.py"], "did you mean configs/demo.py"),
        (["--config=configs/tcga.py:papr"], "no mode or paper, got 'papr'"),
        (["--config=README.md"], "README.md must be a config, got SyntaxError"),
        (["--confg=configs/tcga.py"], "did you mean --config?"),
        (["--config=configs/tiny.py", "demo"], "got demo"),
        (["--config=configs/tiny.py", "--config.seed=x"], "'x'"),
        (["--config=configs/tiny.py", "--config.denoiser.train.num_step=3"], "train.num_steps"),
        (["--config=configs/tiny.py:small"], "configs/tiny.py must have no mode, got 'small'"),
        (
            ["--config=configs/tiny.py", "--config.generat.name=a"],
            "did you mean config.generate.name",
        ),
        (["--config=configs/tiny.py", "--config.generate=a"], "--list=generate"),
        (["--config=configs/tiny.py", "--config.stages=sampel"], "did you mean 'sample'?"),
        (["--config=configs/tiny.py", "--config.force=denoizer"], "did you mean 'denoiser'?"),
        (["--list=data.holdot"], "data.holdout"),
        (["--config=configs/tcga.py"], "--config.data.slides='/data/*.svs'"),
        (["--config=configs/naip_demo.py", "--config.stages=patches"], "--config.data.slides="),
    ],
)
def test_what_is_misspelt_gets_a_line(words, told):
    assert told in refusal(*words)


def test_a_workdir_where_nothing_can_be_written_is_told(run, monkeypatch):
    for file in (run / "config.json", run / "config.json" / "deep" / "in"):
        line = refusal("--config=configs/tiny.py", f"--workdir={file}")
        assert f"--workdir must be a folder, got {file}: {run / 'config.json'} is a file" in line
    monkeypatch.setattr(os, "access", lambda path, mode: path != run.parent)  # as of a disk
    line = refusal("--config=configs/tiny.py", f"--workdir={run.parent / 'new' / 'one'}")
    assert f"must be writable, got {run.parent / 'new' / 'one'}: {run.parent} is not" in line


def test_models_that_are_no_run_are_told_by_their_key(run, tmp_path):
    words = [f"--workdir={tmp_path / 'new'}", "--config.stages=generate"]
    line = refusal(*words, f"--config.models={tmp_path}")
    assert line.startswith(f"config.models must be a run, with a config.json, got {tmp_path}")


@pytest.mark.parametrize("scheme", ["gs", "s3", "az", "memory", "file"])
def test_a_bucket_is_refused_where_only_a_folder_will_do(run, tmp_path, monkeypatch, scheme):
    address, own, new = (
        f"{scheme}://bucket/run",
        f"--workdir={run}",
        f"--workdir={tmp_path / 'new'}",
    )
    tiny_py = f"--config={ROOT / 'configs' / 'tiny.py'}"
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    for name, words in (
        ("--workdir", [tiny_py, f"--workdir={address}"]),
        ("--workdir", [f"--workdir={address}", "--config.stages=report"]),
        ("config.models", [new, "--config.stages=generate", f"--config.models={address}"]),
        ("config.models", [tiny_py, new, f"--config.models={address}"]),
        ("config.data.archive", [own, f"--config.data.archive={address}"]),
    ):
        line = refusal(*words)
        assert line.startswith(f"{name} must be the path of a folder that all hosts share")
        assert f"got {address}" in line
    # Nothing is made, and neither slides nor checkpoints are work directories.
    assert os.listdir(empty) == []
    slides = f"--config.data.slides={address}/*.svs"
    assert parse(own, slides, f"--config.runtime.checkpoints={address}").workdir == run


@pytest.mark.parametrize("stages", ["generate", "evaluate,report", "denoiser"])
def test_a_mistyped_workdir_is_told_and_not_made(run, stages):
    words = [f"--workdir={run.parent}/mime", f"--config.stages={stages}"]
    for config in ([], ["--config=configs/tiny.py"]):
        line = refusal(*words, *config)
        assert f"did you mean {run}?" in line
    assert os.listdir(run.parent) == ["mine"]
    assert parse("--config=configs/tiny.py", words[0], "--config.stages=patches,encoder")


def test_no_stages_lists_them():
    with pytest.raises(ValueError, match="must name stages") as caught:
        parse("--config=configs/tiny.py", "--config.stages=")
    for name in table.STAGES:
        assert f"\n  {name} " in str(caught.value)


def test_every_key_is_listed_with_its_value_and_comment():
    """Values by running the file, comments by looking at its text."""
    flat = schema.flatten(default.get_config().to_dict())
    comments = schema_comments.comments(ROOT / "configs" / "default.py")
    assert flat.keys() <= comments.keys()
    text = parse("--list")
    for key, value in flat.items():
        assert f"\n  {key} = {value!r}\n" in f"{text}\n", key
    for key, words in {
        "seed": "Root of every random stream.",
        "judge.train.batch_size": "Over all devices and hosts.",  # a function within a function
        "study.patches.l2": "Of linear: half of it",  # a local name of a section
        "data.reading.high": "",  # below another key's comment
        "autoencoder.model.conv": "Of kl and vq.",  # a section
        "denoiser.train.compute.remat": "recomputes nothing; products keeps the outputs of blocks\n"
        "and of matrix products",
    }.items():
        assert comments[key] == words or (words and words in comments[key]), key
    assert "data.holdout.by" in parse("--list=data.holdout")
    assert "data.crops" not in parse("--list=data.holdout")
    assert "mesh.data = -1" in parse("--list=config.mesh")


def test_defaults_are_those_beside_the_package(tmp_path, monkeypatch):
    """Also for who has another package of that name, which stays as it was imported."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "__init__.py").write_text("")
    for name in [name for name in sys.modules if name.partition(".")[0] == "configs"]:
        monkeypatch.delitem(sys.modules, name)
    import configs

    assert configs.__file__ == str(tmp_path / "configs" / "__init__.py")
    assert listing.defaults() == default.get_config().to_dict()
    assert sys.modules["configs"] is configs
    monkeypatch.delitem(sys.modules, "configs")


def test_a_config_is_found_by_its_name_in_any_folder(tmp_path, monkeypatch):
    """Where the folder has one of that name, that one is meant."""
    monkeypatch.chdir(tmp_path)
    assert command_line.of_config("configs/tcga.py:paper") == tcga.get_config("paper").to_dict()
    assert parse("--config=configs/tcga.py", "--config.data.slides=x").workdir == pathlib.Path(
        "runs/tcga"
    )
    (tmp_path / "configs").mkdir()
    mine = "from configs import default\n\n\ndef get_config():\n    return default.get_config()\n"
    (tmp_path / "configs" / "tcga.py").write_text(mine)
    assert command_line.of_config("configs/tcga.py") == default.get_config().to_dict()
    with pytest.raises(command_line.CommandError, match=r"configs/naip\.py"):
        ssldiff_jax.Generator.load("brca.ckpt", "configs/naipp.py")


def test_files_of_defaults_are_short():
    """A section is found by the name of its file, and read at a glance."""
    for path in (ROOT / "configs" / "defaults").glob("*.py"):
        assert len(path.read_text().splitlines()) <= 130, path


def test_listed_values_are_those_of_the_config():
    assert "\n  data.mpp = 0.495\n" in parse("--list=data", "--config=configs/colorectal.py")


def test_configs_are_listed_with_what_they_are():
    text = parse("--list=configs")
    for path in (ROOT / "configs").glob("*.py"):
        assert f"configs/{path.name} " in text
    assert listing.lines("stages")[0] == "stages:"


def test_refusals_come_before_jax_is_imported(tmp_path):
    """What costs seconds is never imported for a typing error."""
    program = (
        "import sys\nfrom ssldiff_jax import main\n"
        "try:\n    main.main(['main', *sys.argv[1:]])\n"
        "except SystemExit as end:\n    print(end.code, 'jax' in sys.modules)\n"
    )
    tiny_py = "--config=configs/tiny.py"
    for words in (
        ["--list"],
        [tiny_py, "--config.stages=sampel"],
        [tiny_py, "--workdir=gs://bucket/run"],
    ):
        done = subprocess.run(
            [sys.executable, "-c", program, *words], cwd=ROOT, capture_output=True, text=True,
            check=True,
        )  # fmt: skip
        assert done.stdout.splitlines()[-1].endswith("False")
