"""Scales in metres: what is written down, and read, is one number of microns."""

import importlib
import json
import pathlib

import pytest

from configs import naip, tiny
from ssldiff_jax.core import pixel_units, schema
from ssldiff_jax.runs import launch, stage
from ssldiff_jax.runs.command import command_line, listing, scales
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import provenance, stored_config
from ssldiff_jax.stages import table

ROOT = pathlib.Path(__file__).parents[3]
NAIP = "--config=configs/naip_demo.py"


@pytest.fixture(autouse=True)
def at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def data(*words):
    return command_line.parse(["main", *words, "--config.data.slides=scene.tif"]).values["data"]


def test_defaults_are_those_of_the_configs():
    values = listing.defaults()
    for name, fields in pixel_units.UNSAID_MPP.items():
        for field, unsaid in fields.items():
            assert values[name][field] == unsaid
            assert values[name][pixel_units.in_metres(field)] == 0.0


@pytest.mark.parametrize(
    ("words", "mpp"),
    [
        ([NAIP], 1e6),
        ([NAIP, "--config.data.patch_metres=5"], 5e6),
        # A command goes before the config, whichever unit it speaks.
        ([NAIP, "--config.data.patch_mpp=5e6"], 5e6),
        ([NAIP, "--config.data.patch_mpp=5e6", "--config.data.patch_metres=5"], 5e6),
        (["--config=configs/tcga_brca_5x.py", "--config.data.patch_metres=0.6"], 6e5),
        (["--config=configs/tcga_brca_5x.py"], 2.0),
        (["--config=configs/tcga_brca_5x.py", "--config.data.patch_metres=0"], 2.0),
    ],
)
def test_a_command_in_metres(words, mpp):
    values = data(*words)
    assert (values["patch_mpp"], values["patch_metres"]) == (mpp, 0.0)


@pytest.mark.parametrize("mpp", ["0.5", "1e6"])
def test_a_command_that_says_two_scales_is_refused(mpp):
    """The default too, where it is said."""
    with pytest.raises(schema.ConfigError, match="must say one scale") as caught:
        data(NAIP, "--config.data.patch_metres=5", f"--config.data.patch_mpp={mpp}")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("key", ["data.metres", "generate.metres", "variations.metres"])
def test_images_without_a_scale_are_given_one_in_metres(key):
    values = command_line.parse(
        ["main", NAIP, "--config.data.slides=scene.tif", f"--config.{key}=0.6"]
    ).values
    name = key.partition(".")[0]
    assert (values[name]["mpp"], values[name]["metres"]) == (6e5, 0.0)


def test_a_config_in_python_that_says_two_scales_is_refused():
    values = naip.get_config()
    values.data.patch_mpp = 5e6
    for build in (scales.in_microns, lambda v: schema.build(run_config.RunConfig, v)):
        with pytest.raises(schema.ConfigError, match=r"patch_metres .* one scale, got 1 m"):
            build(values.to_dict())


@pytest.mark.parametrize(
    ("name", "mpp", "patch_mpp"),
    [
        ("naip", 0.0, 1e6), ("naip_demo", 0.0, 1e6), ("naip_study", 0.0, 5e6),
        ("eurosat", 1e7, 1e7),
        ("blue_marble", 40_075 * 1e9 / 5400, 40_075 * 1e9 / 5400),
        ("earth", 40_075 * 1e9 / 5400, 40_075 * 1e9 / 5400),
    ],
)  # fmt: skip
def test_configs_in_metres_have_the_very_numbers_that_they_had(name, mpp, patch_mpp):
    """In microns, with which earlier runs were made; nothing else of a run knows of metres."""
    values = importlib.import_module(f"configs.{name}").get_config().to_dict()
    now = schema.build(run_config.RunConfig, values).data
    assert (now.mpp, now.patch_mpp, now.metres, now.patch_metres) == (mpp, patch_mpp, 0.0, 0.0)
    earlier = values | {"data": values["data"] | {"mpp": mpp, "patch_mpp": patch_mpp}}
    earlier["data"] |= {"metres": 0.0, "patch_metres": 0.0}
    before = schema.build(run_config.RunConfig, earlier).data
    assert provenance.plain(now) == provenance.plain(before)
    assert not {"metres", "patch_metres"} & set(provenance.plain(now))


def test_a_level_is_so_many_times_the_scale():
    config = schema.build(run_config.RunConfig, naip.get_config().to_dict())
    assert config.data.at(4.0).patch_mpp == 4e6


@pytest.fixture
def run(tmp_path):
    """A run that was written down before there were metres, of 5 m."""
    config = tiny.get_config()
    config.data.patch_mpp = 5e6
    values = config.to_dict()
    for name, fields in pixel_units.UNSAID_MPP.items():
        for field in fields:
            del values[name][pixel_units.in_metres(field)]
    (tmp_path / "config.json").write_text(json.dumps(stored_config.stamped(values)))
    return tmp_path


def test_a_run_from_before_goes_on(run):
    for words, mpp in (
        ([], 5e6), (["--config.data.patch_metres=5"], 5e6), (["--config.data.patch_mpp=1e6"], 1e6)
    ):  # fmt: skip
        assert data(f"--workdir={run}", *words)["patch_mpp"] == mpp


def test_a_run_writes_down_microns(tmp_path):
    """Whoever starts it: a command, or Python with the tree of a config."""
    config = tiny.get_config()
    config.stages, config.data.patch_metres = "patches", 0.5e-6
    launch.launch(config.to_dict(), tmp_path, table.STAGES)
    written = json.loads((tmp_path / "config.json").read_text())["data"]
    assert (written["patch_mpp"], written["patch_metres"]) == (0.5, 0.0)
    # The same as one that says 0.5 microns.
    again = tiny.get_config()
    again.stages = "patches"
    launch.launch(again.to_dict(), tmp_path, table.STAGES)
    other = tiny.get_config()
    other.stages, other.data.patch_metres = "patches", 1e-6
    with pytest.raises(stage.WorkdirError, match=r"data\.patch_mpp: 0\.5 → 1\.0"):
        launch.launch(other.to_dict(), tmp_path, table.STAGES)
