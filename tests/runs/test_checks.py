"""What can be known before the first stage is told before it, all together."""

import collections
import dataclasses
import itertools
import json

import jax
import jax.numpy as jnp
import pytest

from configs import tiny
from ssldiff_jax.core import schema
from ssldiff_jax.runs import batches, checks, launch, programs
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.stages import table


def values_for(**changes):
    config = tiny.get_config()
    config.update_from_flattened_dict(changes)
    return config.to_dict()


def refusal(workdir, **changes):
    with pytest.raises(launch.USER_ERRORS) as caught:
        launch.launch(values_for(**changes), workdir, table.STAGES)
    assert not workdir.exists()
    return str(caught.value).splitlines()


def test_batches_are_those_that_can_be_cut_evenly():
    """By cutting them."""
    whole = schema.build(run_config.RunConfig, values_for()).encoder.train
    for devices, parts, size in itertools.product((1, 2, 6, 8), (1, 3), range(1, 50)):
        compute = dataclasses.replace(whole.compute, accumulate=parts)
        train = dataclasses.replace(whole, batch_size=size, compute=compute)
        lines = list(batches.uneven({"encoder": train}, devices))
        pieces = [len(range(i, size, devices * parts)) for i in range(devices * parts)]
        assert bool(lines) == (len(set(pieces)) > 1), (devices, parts, size)
        if lines:
            near = int(lines[0].rsplit("=", 1)[1])
            assert near % (devices * parts) == 0
            assert f"{devices} devices" in lines[0]


def test_all_reasons_are_told_together(tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text("case,lable\nA,x\n")
    lines = refusal(
        tmp_path / "run",
        **{
            "data.slides": str(tmp_path / "*.svs"),
            "denoiser.train.compute.accumulate": 3,
            "judge.train.batch_size": 9,
            "judge.train.compute.accumulate": 2,
            "autoencoder.weights": str(tmp_path / "ae.ckpt"),
            "evaluate.extractors": (f"clip={tmp_path}/clip",),
            "prior.conditions.measure": "none",
            "prior.conditions.labels": str(table),
            "report.compare": (f"{tmp_path}/other",),
        },
    )
    told = (
        "*.svs",
        "config.denoiser.train.batch_size must be a multiple of 3 (1 devices along data and fsdp × "
        "compute.accumulate=3), got 8",
        "config.judge.train.batch_size must be a multiple of 2",
        "config.autoencoder.weights",
        "config.evaluate.extractors",
        "config.report.compare",
        f"{table} must have rows and the columns case, label, got 1 rows and case, lable",
    )
    assert len(lines) == len(told)
    for words in told:
        assert sum(words in line for line in lines) == 1, words


def test_what_is_not_trained_is_not_asked(tmp_path):
    """Only the stages that were chosen, and those that take steps."""
    bad = {"denoiser.train.batch_size": 7, "denoiser.train.compute.accumulate": 2}
    lines = refusal(tmp_path / "run", **bad, stages="patches", **{"data.slides": "none.svs"})
    assert len(lines) == 1
    assert "none.svs" in lines[0]


def test_a_batch_that_bench_measures_is_asked(tmp_path):
    (line,) = refusal(
        tmp_path / "run", stages="bench",
        **{"bench.parts": ("training",), "denoiser.train.compute.accumulate": 3},
    )  # fmt: skip
    assert "config.denoiser.train.batch_size" in line


@pytest.mark.parametrize(("topology", "devices"), [("v5e:4x4", 16), ("v5p:2x4x4", 32)])
def test_a_batch_that_the_devices_of_a_topology_cannot_share_is_refused(
    tmp_path, topology, devices
):
    """Nearest multiples by counting up and down from the batch."""
    (line,) = refusal(
        tmp_path / "run", stages="compile",
        **{"compile.topology": (topology,), "compile.programs": ("denoiser", "sampler"),
           "compile.batch_size": (600,), "denoiser.train.compute.accumulate": 3},
    )  # fmt: skip
    even = [n for n in range(1, 1200) if n % devices == 0 and (n // devices) % 3 == 0]
    low, high = max(n for n in even if n < 600), min(n for n in even if n > 600)
    assert f"denoiser must be a multiple of {min(even)} for {topology}" in line
    assert f"got 600; the nearest are {low} and {high}" in line
    assert line.endswith(f"--config.compile.batch_size=({low},)")


def test_batches_that_a_topology_divides_are_not_refused():
    """Of several topologies and programs, those that are uneven, each with its own batch."""
    values = values_for(
        **{"compile.topology": ("v5e:2x2", "v5e:16x16", "h200:8"), "compile.batch_size": (0, 256),
           "compile.programs": ("denoiser", "encoder"), "encoder.train.batch_size": 12,
           "mesh.model": 2},
    )  # fmt: skip
    lines = list(batches.uneven_compiled(schema.build(run_config.RunConfig, values)))
    asked = itertools.product((("v5e:2x2", 2), ("v5e:16x16", 128), ("h200:8", 4)),
                              (("denoiser", (8, 256)), ("encoder", (12, 256))))  # fmt: skip
    uneven = [
        (topology, name, size)
        for (topology, devices), (name, sizes) in asked
        for size in sizes
        if size % devices
    ]
    assert uneven == [("v5e:16x16", "denoiser", 8), ("v5e:16x16", "encoder", 12)]
    for line, (topology, name, size) in zip(lines, uneven, strict=True):
        assert line.startswith(f"the batch of {name} must be a multiple of 128 for {topology}")
        assert f"got {size}; the nearest is 128:" in line


@pytest.fixture(scope="module")
def encoder_bytes():
    """Of parameters, their average and two moments, by making them."""
    config = schema.build(run_config.RunConfig, values_for())
    px = config.data.crops.patch_px + config.encoder.model.shift_px
    batch = {"pixels": jnp.zeros((1, px, px, 3), jnp.uint8), "index": jnp.zeros(1, int)}
    params, _ = jax.jit(config.encoder.model.task().init)(jax.random.key(0), batch)
    return 4 * sum(leaf.nbytes for leaf in jax.tree.leaves(params))


def test_a_state_is_counted_to_the_byte(encoder_bytes):
    config = schema.build(run_config.RunConfig, values_for())
    state = programs.state("encoder", config)
    found = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    assert encoder_bytes <= found <= encoder_bytes + 100  # counters
    own = values_for(**{"judge.model.vit.width": 64})
    larger = programs.state("judge", schema.build(run_config.RunConfig, own))
    assert sum(x.size for x in jax.tree.leaves(larger)) > sum(
        x.size for x in jax.tree.leaves(state)
    )


@pytest.mark.parametrize(("over", "refused"), [(-100, True), (200, False)])
def test_a_state_must_fit_memory_and_disk(tmp_path, monkeypatch, encoder_bytes, over, refused):
    room = encoder_bytes + over
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda path: usage(room, 0, room))
    monkeypatch.setattr(checks.memory, "total_bytes", lambda: room)
    lines = refusal(tmp_path / "run", stages="patches,encoder", **{"data.slides": "none.svs"})
    assert [("must fit" in line, "must have room" in line) for line in lines[1:]] == (
        [(True, False), (False, True)] if refused else []
    )


def test_what_no_prior_has_learnt_is_told_before_the_start(tmp_path):
    """By its name; beside what else is wrong, so that one try is enough."""
    (tmp_path / "grids").mkdir()
    spec = {"labels": ["nuclei", "stroma"], "numbers": [], "text_phrases": 0, "text_dim": 0}
    (tmp_path / "grids" / "spec.json").write_text(json.dumps({"spec": spec}))
    missing = str(tmp_path / "nowhere.png")
    changes = {
        "stages": "generate",
        "generate.prior.labels": ("nucle=0.5",),
        "generate.prior.numbers": ("age=3",),
        "generate.reference": missing,
    }
    with pytest.raises(launch.REFUSALS) as caught:
        launch.launch(values_for(**changes), tmp_path, table.STAGES)
    for line in (
        "unknown label 'nucle', expected one of nuclei",
        "unknown number 'age'",
        "config.generate.prior must come with config.generate.size=(height,width)",
        f"config.generate.reference must be a file or folder, got no such file or folder: "
        f"{missing}",
    ):
        assert line in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["grids"]


def test_what_is_refused_before_the_start_needs_no_traceback(tmp_path):
    changes = {"stages": "patches", "data.slides": str(tmp_path / "*.svs")}
    with pytest.raises(launch.REFUSALS, match=r"\*\.svs"):
        launch.launch(values_for(**changes), tmp_path / "run", table.STAGES)
    changes = {"stages": "compare", "compare.real": str(tmp_path), "compare.generated": "nowhere"}
    with pytest.raises(
        launch.REFUSALS, match=r"compare\.generated must name a folder, got nowhere"
    ):
        launch.launch(values_for(**changes), tmp_path / "run", table.STAGES)
    assert not (tmp_path / "run").exists()
