"""The tool `bench` on a machine that has only what models are computed with."""

import json
import os
import pathlib
import sys

import bare_machine
import patience
import pytest

ROOT = pathlib.Path(__file__).parents[3]
ABSENT = ("rasterio", "pyvips", "openslide", "tensorflow_datasets", "grain", "array_record",
          "orbax.checkpoint", "skimage", "scipy", "tensorboardX", "clu", "h5py", "tokenizers",
          "safetensors", "PIL", "psutil", "etils", "fsspec", "tifffile", "tqdm")  # fmt: skip


@pytest.fixture
def python(tmp_path):
    env = os.environ | bare_machine.environment(tmp_path)
    return lambda *words: patience.run([sys.executable, *words], cwd=ROOT, env=env)


def test_a_generator_is_imported_without_what_reads_slides(python):
    code = f"""
import importlib
def is_here(name):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        return False
    return True
assert not any(map(is_here, {ABSENT!r}))
from ssldiff_jax import Generator
from ssldiff_jax.runs import launch
from ssldiff_jax.stages import table
assert Generator.load and launch.launch and len(table.STAGES) > 20
"""
    done = python("-c", code)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.e2e
def test_what_is_measured_of_models(python, tmp_path):
    done = python(
        "-m", "ssldiff_jax.main", "--config=configs/tiny.py", f"--workdir={tmp_path / 'run'}",
        "--config.stages=bench", "--config.bench.parts=('network','training','images')",
        "--config.bench.batch_size=(4,)", "--config.bench.sizes=(128,)",
        "--config.bench.paper_steps=0",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    folder = tmp_path / "run" / "bench"
    rows = {row["name"]: row for row in json.loads((folder / "results.json").read_text())}
    lines = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert {line["name"]: line for line in lines} == rows
    assert rows.keys() >= {
        "unet/forward_batch_1", "unet/forward_batch_8", "train/denoiser/4/step",
        "train/denoiser/4/rate", "train/denoiser/4/of_matmul_rate", "device/bf16_matmul",
        "sampler/offset/128/seconds", "sampler/offset/128/device_waits",
        "network/process", "training/denoiser/4/process", "images/128/process",
    }  # fmt: skip
    assert not any(row["failed"] for row in rows.values())
    assert all(row["unit"] and row["hardware"] and row["date"] for row in rows.values())
    assert {row["weights"] for row in rows.values()} == {"random"}
    value = lambda name: rows[name]["value"]
    assert value("train/denoiser/4/rate") == pytest.approx(4 / value("train/denoiser/4/step"))
    waits = 1 - value("sampler/offset/128/network_alone") / value("sampler/offset/128/sampling")
    assert value("sampler/offset/128/device_waits") == pytest.approx(max(waits, 0))
    parts = value("sampler/offset/128/sampling") + value("sampler/offset/128/decoding")
    assert value("sampler/offset/128/seconds") == pytest.approx(parts)
    # Of a machine without Grain no version of it is noted.
    versions = json.loads((folder / "done.json").read_text())["versions"]
    assert "jax" in versions
    assert not {"grain", "orbax-checkpoint"} & versions.keys()
