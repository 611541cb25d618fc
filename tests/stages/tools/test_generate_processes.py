"""One large image drawn by two processes of two devices each, saved on the way and gone on with."""

import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import patience
import pytest

from configs import tiny
from ssldiff_jax.core import schema
from ssldiff_jax.formats import atomic
from ssldiff_jax.generation import render
from ssldiff_jax.runs import stage
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import stored_config
from ssldiff_jax.slides import pyramid
from ssldiff_jax.stages.tools import generate
from ssldiff_jax.train import mesh as mesh_lib

pytestmark = pytest.mark.e2e


class StoppedError(Exception):
    """The canvas is done, its files are not."""


def draw_here(workdir, folder, split):
    """By all devices of all processes; returns what was asked of the encoder."""
    values = stored_config.of_run(pathlib.Path(workdir))
    # Whatever was drawn in that run since.
    values["generate"] = tiny.get_config().generate.to_dict()
    values["sample"] |= {"split": split, "conditioning": "dense", "window_batch": 4}
    values["sample"]["checkpoint_minutes"] = 0.0
    values["sample"]["output"]["formats"] = ["png"]
    context = stage.Context(
        schema.build(run_config.RunConfig, values),
        pathlib.Path(folder),
        mesh_lib.make_mesh(mesh_lib.MeshConfig(-1, 1, 1, ())),
    )
    return generate.run(context)


def draw_twice(workdir, folder, split):
    """Stopped before the image is written, and gone on with."""
    import jax

    write = render.LargeImageRender._write_pixels

    def stop(self, state):
        raise StoppedError

    render.LargeImageRender._write_pixels = stop
    with pytest.raises(StoppedError):
        draw_here(workdir, folder, split)
    render.LargeImageRender._write_pixels = write
    draw_here(workdir, folder, split)
    print(jax.process_count(), jax.device_count(), flush=True)


def start(code, log):
    here = pathlib.Path(__file__)
    environment = os.environ | {
        "XLA_FLAGS": os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=2",
        "NPROC": "16",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": f"{here.parent}:{here.parents[2]}:{here.parents[3]}",
    }
    with log.open("w") as told:
        return subprocess.Popen(
            [sys.executable, "-c", code], env=environment, text=True,
            stdout=subprocess.PIPE, stderr=told,
        )  # fmt: skip


def linked(workdir, folder):
    """A run whose trained stages are those of another."""
    (folder / "generate").mkdir(parents=True)
    for name in ("patches", "encoder", "autoencoder", "latents", "denoiser"):
        (folder / name).symlink_to(workdir / name)
    return folder


@pytest.mark.parametrize("split", ["windows", "rows"])
def test_processes_draw_one_image(workdir, tmp_path, split):
    alone, together = linked(workdir, tmp_path / "alone"), linked(workdir, tmp_path / "together")
    draw_here(workdir, alone, split)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    logs = [tmp_path / f"{number}.log" for number in range(2)]
    runs = [
        start(
            "import jax; "
            f"jax.distributed.initialize('127.0.0.1:{port}', 2, {number}); "
            "import logging; logging.basicConfig(level='INFO'); "
            "import test_generate_processes as t; "
            f"t.draw_twice({str(workdir)!r}, {str(together)!r}, {split!r}); "
            "from ssldiff_jax.train import hosts; hosts.leave_together()",
            logs[number],
        )
        for number in range(2)
    ]
    for run, log in zip(runs, logs, strict=True):
        out, _ = patience.communicate(run)
        said = log.read_text()
        assert run.returncode == 0, said[-3000:]
        assert "resumes at step 3, chunk 0" in said
        assert out.splitlines()[-1] == "2 4"
    expected, found = (
        pyramid.read_image(folder / "generate" / "image.png").astype(int)
        for folder in (alone, together)
    )
    assert expected.std() > 1
    # Sums in another order: a grey level at the most.
    assert np.abs(found - expected).max() <= 1
    told = [
        atomic.read_json(f / "generate" / "image.json")["decoder_calls"] for f in (alone, together)
    ]
    assert told[0] == told[1]
