"""How long a plan says that work takes: by its table, and by what this machine measured."""

import dataclasses
import json

import numpy as np
import pytest

from configs import tiny
from ssldiff_jax.core import estimates, schema
from ssldiff_jax.runs import environment
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.stages.tools.plan import devices as devices_lib
from ssldiff_jax.stages.tools.plan import rates
from ssldiff_jax.stages.tools.plan.rows import Row

Estimate = estimates.Estimate


def devices(name=""):
    config = tiny.get_config()
    config.plan.devices = name
    return devices_lib.Devices.of(schema.build(run_config.RunConfig, config.to_dict()))


def training(flops, pixels=0.0):
    work = {"flops train bfloat16": Estimate(flops), "pixels decoded": Estimate(pixels)}
    return Row({"steps": Estimate(10)}, work=work)


def seconds(name, row, there):
    return rates.of_table(name, row, there).seconds.value


@pytest.mark.parametrize(("kind", "count"), [("h100", 1), ("h100", 8), ("h200", 1), ("a100", 4)])
def test_twice_the_work_takes_as_much_longer_as_devices_allow(kind, count):
    there = devices(f"{kind}:{count}")
    once, twice = (seconds("denoiser", training(n * 1e18), there) for n in (1, 2))
    alone = devices(f"{kind}:1")
    on_one = [seconds("denoiser", training(n * 1e18), alone) for n in (1, 2)]
    assert (on_one[1] - on_one[0]) / (twice - once) == pytest.approx(count)


def test_the_published_step_is_as_fast_as_the_paper_figures():
    """520 patches a second of one H100, 590 of one H200, 607 GFLOP each."""
    for kind, rate in (("h100", 520), ("h200", 590)):
        there = devices(f"{kind}:1")
        many = seconds("denoiser", training(607e9 * 1e7), there)
        few = seconds("denoiser", training(0), there)
        assert 1e7 / (many - few) == pytest.approx(rate, rel=0.03)


def test_batches_are_decoded_while_an_accelerator_works():
    there = devices("h100:1")
    flops, pixels = 1e18, 1e12
    alone = [seconds("encoder", training(*w), there) for w in ((flops, 0), (0, pixels))]
    assert seconds("encoder", training(flops, pixels), there) == pytest.approx(max(alone))
    # A CPU does both.
    here, none = devices(), seconds("encoder", training(0), devices())
    parts = [seconds("encoder", training(*w), here) - none for w in ((1e13, 0), (0, 1e9))]
    assert seconds("encoder", training(1e13, 1e9), here) - none == pytest.approx(sum(parts))


def test_what_is_not_measured_says_so():
    there = rates.of_table("denoiser", training(1e18), devices("h100:1"))
    assert "not measured" in there.seconds.source
    assert there.seconds.low < there.seconds.value < there.seconds.high


def test_devices_are_known_by_how_their_kind_begins():
    """As jax names those at hand; of others nothing is said."""
    named = devices("h100:1")
    here = dataclasses.replace(named, kind="NVIDIA H100 80GB HBM3", are_here=True)
    row = training(1e18)
    assert seconds("denoiser", row, here) == seconds("denoiser", row, named)
    other = rates.of_table("denoiser", row, dataclasses.replace(named, kind="AMD Instinct MI300X"))
    assert np.isnan(other.seconds.value)
    assert other.seconds.as_json()["value"] is None


@pytest.fixture
def benched(tmp_path):
    """A work directory in which the tool bench measured the denoiser's step."""
    folder = tmp_path / "benched" / "bench"
    folder.mkdir(parents=True)
    rows = [
        {"name": "train/denoiser/16/rate", "value": 80.0},
        {"name": "train/denoiser/16/model_flops", "value": 1e9},
        {"name": "device/bf16_matmul", "value": 1e11},
    ]
    (folder / "results.json").write_text(json.dumps(rows))
    done = {"machine": environment.describe_machine(), "finished": "2026-11-28T12:00:00+0000"}
    (folder / "done.json").write_text(json.dumps(done))
    return folder


def test_what_bench_measured_here_goes_before_the_table(tmp_path, benched):
    measured = rates.Measured.of(tmp_path / "new", devices())
    few, many = (
        measured.of_stage("denoiser", training(flops)).seconds.value for flops in (0.0, 8e12)
    )
    assert many - few == pytest.approx(8e12 / (80 * 1e9))
    assert measured.of_stage("encoder", training(1e12)) is None
    # Devices that are elsewhere were not measured here.
    assert rates.Measured.of(tmp_path / "new", devices("h100:1")).trainings == {}


def test_another_machine_measured_nothing_here(tmp_path, benched):
    done = json.loads((benched / "done.json").read_text())
    done["machine"]["processor"] = "another"
    (benched / "done.json").write_text(json.dumps(done))
    assert rates.Measured.of(tmp_path / "new", devices()).trainings == {}


@pytest.mark.parametrize(("times", "is_alike"), [(0.3, True), (3.0, True), (5.0, False)])
def test_a_stage_of_another_size_is_no_measurement(tmp_path, times, is_alike):
    there, run = devices(), tmp_path / "earlier"
    work = {"flops forward float32": {"value": 1e12, "basis": "exact"}}
    line = {"stage": "latents", "work": work, "counts": {}}
    planned = {"devices": {"kind": there.kind}, "stages": [line]}
    done = {"machine": environment.describe_machine(), "finished": "2026-11-28T", "seconds": 20.0}
    for folder, name, content in (("plan", "results", planned), ("latents", "done", done)):
        (run / folder).mkdir(parents=True)
        (run / folder / f"{name}.json").write_text(json.dumps(content))
    measured = rates.Measured.of(tmp_path / "new", there)
    row = Row(work={"flops forward float32": Estimate(times * 1e12)})
    time = measured.of_stage("latents", row)
    assert (time is not None) == is_alike
    if is_alike:
        assert time.seconds.value == pytest.approx(times * 20)
    assert measured.of_stage("latents", dataclasses.replace(row, work={})) is None
    assert np.isfinite(seconds("latents", row, there))
