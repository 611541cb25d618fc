"""The package by `pip install`: what it declares, the files of its wheel, and that it works in
another environment, from a folder that has nothing of the clone."""

import os
import pathlib
import re
import subprocess
import sys
import tomllib
import venv
import zipfile

import numpy as np
import patience
import pytest
import random_models
from PIL import Image

import ssldiff_jax
from ssldiff_jax.data import demo_slide
from ssldiff_jax.generation import exported

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "ssldiff_jax"
PROJECT = tomllib.loads((PACKAGE / "pyproject.toml").read_text("utf-8"))["project"]


def requirements():
    """Lines of requirements.txt without their comments."""
    lines = (line.partition("#")[0].strip() for line in (ROOT / "requirements.txt").open())
    return [line for line in lines if line]


def test_it_requires_what_requirements_txt_names():
    assert PROJECT["dependencies"] == requirements()
    assert PROJECT["requires-python"] == ">=3.11"  # as launch/setup.sh has it


def test_extras_are_packages_that_the_code_asks_for():
    code = "".join(path.read_text("utf-8") for path in PACKAGE.rglob("*.*y"))
    code += "".join(path.read_text("utf-8") for path in PACKAGE.rglob("*.md"))
    asked = set(re.findall(r"pip install ['\"]?([\w\[\]-]+)", code))
    asked |= set(re.findall(r"pip install ['\"]?([\w\[\]-]+)", (ROOT / "README.md").read_text()))
    extras = PROJECT["optional-dependencies"].values()
    wanted = {re.split(r"[<>=]", name)[0] for extra in extras for name in extra}
    assert wanted - asked == set()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel, built without a network; nothing stays in the tree."""
    pytest.importorskip("hatchling", reason="pip install hatchling")
    before = {path for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=PACKAGE, check=True, capture_output=True)
    assert {path for path in PACKAGE.iterdir() if path.name != "__pycache__"} == before
    (path,) = folder.iterdir()
    return path


def files_below(folder):
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)) for p in paths if "__pycache__" not in p.parts}


def test_a_wheel_has_all_files_of_the_package_and_the_configs(wheel):
    assert wheel.name == f"ssldiff_jax-{ssldiff_jax.__version__}-py3-none-any.whl"
    names = zipfile.ZipFile(wheel).namelist()
    found = {name for name in names if ".dist-info/" not in name}
    own = files_below(PACKAGE) - {"pyproject.toml"}
    shipped = {f"_shipped/configs/{name}" for name in files_below(ROOT / "configs")}
    assert found == {f"ssldiff_jax/{name}" for name in own | shipped | {"LICENSE"}}
    # What is no code but needed, as a check of what was just compared.
    assert {"report/page.html", "report/vendor/openseadragon.LICENSE.txt"} <= own


def environment(folder, *what):
    """The interpreter of a new environment in which `what` is installed; what that requires is
    from here."""
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    there = [path for path in sys.path if path.endswith("-packages")]
    (site / "required.pth").write_text("\n".join(there))
    python = folder / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps"]
    options = ["--no-index", "--no-build-isolation"]
    subprocess.run([*command, *options, *map(str, what)], check=True, capture_output=True)
    return python


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    return environment(tmp_path_factory.mktemp("installed") / "venv", wheel)


def test_an_editable_one_follows_the_clone(wheel, tmp_path):
    python = environment(tmp_path / "venv", "-e", PACKAGE)
    code = (
        "import ssldiff_jax; from configs import tcga; print(ssldiff_jax.__file__, tcga.__file__)"
    )
    done = subprocess.run(
        [python, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    files = [PACKAGE / "__init__.py", ROOT / "configs" / "tcga.py"]
    assert done.stdout.split() == list(map(str, files))


@pytest.fixture
def run(python, tmp_path):
    """Runs words in the new environment, in an empty folder."""
    folder = tmp_path / "empty"
    folder.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def work(*words):
        done = patience.run([str(word) for word in words], cwd=folder, env=environment)
        assert "Traceback" not in done.stderr, done.stderr[-3000:]
        return done

    work.folder, work.python = folder, python
    return work


def test_the_command_lists_what_there_is_from_anywhere(run):
    for words in ([run.python, "-m", "ssldiff_jax.main"], [run.python.parent / "ssldiff_jax"]):
        listed = run(*words, "--list=configs").stdout
        assert "  configs/tcga.py " in listed
        assert "  # Licence of the models" in run(*words, "--list=export").stdout


def test_a_users_config_starts_from_one_of_the_package(run):
    (run.folder / "configs").mkdir()
    words = (
        "from configs import other, tiny\n\n\ndef get_config():\n    return other.seeded(tiny)\n"
    )
    (run.folder / "configs" / "mine.py").write_text(words)
    words = "def seeded(other):\n    c = other.get_config()\n    c.seed = 41\n    return c\n"
    (run.folder / "configs" / "other.py").write_text(words)
    command = [run.python.parent / "ssldiff_jax", "--config=configs/mine.py", "--list=seed"]
    assert "seed = 41" in run(*command).stdout


def test_a_step_runs_by_the_configs_name(run):
    done = run(
        run.python, "-m", "ssldiff_jax.main", "--config=configs/tiny.py", "--workdir=mine",
        f"--config.data.slides={demo_slide.demo_slide()}", "--config.stages=patches",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert (run.folder / "mine" / "patches" / "done.json").exists()


GENERATE = """
import sys
import numpy as np
from PIL import Image
import ssldiff_jax
assert ssldiff_jax.__file__.startswith(sys.prefix), ssldiff_jax.__file__
generator = ssldiff_jax.Generator.load("models")
grid = generator.embed(np.asarray(Image.open("region.png")))
generator.generate(grid, seed=3).save("image.png")
"""


def test_an_export_generates_the_same_pixels_there(run):
    here = random_models.make()
    exported.write(
        run.folder / "models", here.trained, exported.Card.of(here.config, here.trained, {})
    )
    region = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    Image.fromarray(region).save(run.folder / "region.png")
    done = run(run.python, "-c", GENERATE)
    assert done.returncode == 0, done.stderr[-3000:]
    image = np.asarray(Image.open(run.folder / "image.png"))
    there = ssldiff_jax.Generator.load(run.folder / "models")
    np.testing.assert_array_equal(image, np.asarray(there.generate(there.embed(region), seed=3)))
