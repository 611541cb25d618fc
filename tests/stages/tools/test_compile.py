"""The tool `compile`, by the TPU compiler, where it is installed."""

import functools
import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import patience
import pytest

from ssldiff_jax.core import schema
from ssldiff_jax.runs.config import tools
from ssldiff_jax.stages.tools.compile import compile as compile_stage
from ssldiff_jax.train import scaling

ROOT = pathlib.Path(__file__).parents[3]

needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed"
)


def start(folder, *flags):
    command = [
        sys.executable, "-m", "ssldiff_jax.main", "--config=configs/tiny.py",
        f"--workdir={folder}", "--config.stages=compile", *flags,
        # Tiles of memory are 128 wide: narrower arrays are mostly padding.
        "--config.denoiser.unet.channels=128", "--config.denoiser.unet.context_dim=128",
    ]  # fmt: skip
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | {"JAX_PLATFORMS": "cpu"}, **pipes)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Program → row, of two commands that ran at once: one whole state a device, one in parts."""
    folder = tmp_path_factory.mktemp("compile")
    whole = ("--config.mesh.fsdp=1", "--config.compile.programs=('denoiser',)")
    split = ("--config.mesh.fsdp=4", "--config.compile.programs=('denoiser','sampler')",
             "--config.compile.scaling=(4,)")  # fmt: skip
    running = {name: start(folder / name, *flags) for name, flags in
               (("whole", whole), ("split", split))}  # fmt: skip
    found = {}
    for name, process in running.items():
        _, errors = patience.communicate(process)
        assert process.returncode == 0, errors[-3000:]
        told = json.loads((folder / name / "compile" / "results.json").read_text())
        found |= {(name, row["program"]): row for row in told}
    return found


@needs_compiler
def test_a_state_is_sixteen_bytes_a_parameter(rows):
    row = rows["whole", "denoiser"]
    state = 16 * row["num_params"]
    assert row["devices"] == 4
    assert state <= row["argument_bytes"] <= 1.05 * state


@needs_compiler
def test_split_over_four_devices_it_is_a_quarter(rows):
    whole, split = rows["whole", "denoiser"], rows["split", "denoiser"]
    assert split["argument_bytes"] < 0.3 * whole["argument_bytes"]
    assert split["mesh"] == {"data": 1, "fsdp": 4, "model": 1}


@needs_compiler
def test_a_step_takes_the_place_of_its_state(rows):
    for name in ("whole", "split"):
        row = rows[name, "denoiser"]
        assert row["alias_bytes"] > 0.95 * row["output_bytes"]


@needs_compiler
def test_parameters_are_gathered_once_and_activations_never(rows):
    whole, split = (rows[name, "denoiser"]["collectives"] for name in ("whole", "split"))
    assert set(whole) == {"all-reduce"}
    assert whole["all-reduce"]["count"] <= 2
    params = rows["split", "denoiser"]["num_params"]
    assert set(split) == {"all-gather", "reduce-scatter", "all-reduce"}
    # float32 here: each parameter of a kernel once, array by array.
    assert split["all-gather"]["bytes"] <= 4 * params
    assert 1 < split["all-gather"]["count"] <= 60
    assert 1 < split["reduce-scatter"]["count"] <= 60
    assert not rows["split", "denoiser"]["gathers_of_batch"]


@needs_compiler
def test_devices_share_the_windows_of_a_chunk(rows):
    """Each evaluates its own: nothing is sent while the network works."""
    assert rows["split", "sampler"]["collectives"] == {}


@needs_compiler
def test_rooflines_are_positive_and_named(rows):
    for row in rows.values():
        assert row["optimization_level"] == "O0"
        assert row["roofline_seconds"] is None or row["roofline_seconds"] > 0
        assert row["flops"] > 0
        assert row["peak_bytes"] < row["memory_bytes"]


@needs_compiler
def test_a_compiled_step_sends_what_was_reckoned(rows):
    """Gathered to the byte. A TPU sums up a few arrays whole instead of scattering their sum, which
    takes twice the bytes; biases with the same gradient are summed up once."""
    (reckoned,) = rows["split", "denoiser"]["scaling"]
    counted = {kind: c["sent_bytes"]
               for kind, c in rows["split", "denoiser"]["collectives"].items()}  # fmt: skip
    by_kind = {e["kind"]: scaling.Exchange(**e).sent_bytes for e in reckoned["exchanges"]}
    assert reckoned["devices"] == 4
    assert reckoned["sent_bytes"] == sum(by_kind.values())
    assert counted["all-gather"] == by_kind["all-gather"]
    summed_whole = by_kind["reduce-scatter"] - counted["reduce-scatter"]
    assert 0 <= summed_whole < 0.1 * by_kind["reduce-scatter"]
    rest = counted["all-reduce"] - 2 * summed_whole
    assert 0.8 * by_kind["all-reduce"] < rest < by_kind["all-reduce"] + 64
    assert 0 < reckoned["efficiency"] < reckoned["efficiency_overlapped"] <= 1
    assert "scaling" not in rows["whole", "denoiser"]
    assert "scaling" not in rows["split", "sampler"]


def test_scaling_needs_devices_and_a_network_that_is_known():
    section = functools.partial(tools.CompileSection, programs=(), batch_size=(0,),
                                optimization_level="O0")  # fmt: skip
    with pytest.raises(schema.ConfigError, match=r"at least 1, got \(8, 0\)"):
        section(topology=("v5e:2x2",), scaling=(8, 0))
    with pytest.raises(ValueError, match="needs a network of v5e, v6e, h100, h200, got v4"):
        section(topology=("v4:2x2x1",), scaling=(8,))
    assert section(topology=("v4:2x2x1",), scaling=()).scaling == ()


ROW = {
    "program": "denoiser", "topology": "v5e:2x2", "batch_size": 8, "peak_bytes": 3e9,
    "memory_bytes": 16e9, "gathers_of_batch": [],
}  # fmt: skip


def test_faults_say_what_was_wanted_and_what_came():
    assert compile_stage._faults(ROW) == []
    (large,) = compile_stage._faults(ROW | {"peak_bytes": 17e9})
    assert "denoiser on v5e:2x2 at batch 8 must fit 16.0 GB a device, got 17.0 GB" in large
    (gathered,) = compile_stage._faults(ROW | {"gathers_of_batch": [{"arrays": "f32[8,64]"}]})
    assert "must gather no batch, got f32[8,64]" in gathered
    (broken,) = compile_stage._faults(ROW | {"error": "out of memory"})
    assert "must compile, got: out of memory" in broken


def test_without_the_compiler_the_tool_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="got no libtpu: pip install"):
        compile_stage.require_compiler("tpu")
