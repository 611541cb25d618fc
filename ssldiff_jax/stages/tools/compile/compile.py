"""Tool `compile`: what the TPU or GPU compiler says of a run's programs for devices that are not
here."""

import dataclasses
import importlib.util
import json
import logging
import os
import subprocess
import sys
from typing import Any

from ssldiff_jax.formats import atomic
from ssldiff_jax.runs import stage
from ssldiff_jax.train import chips

_LOG = logging.getLogger(__name__)


class DoesNotFitError(stage.FoundError):
    """A program that a device of the topology could not hold, or that would gather a batch."""


def run(context: stage.Context) -> dict[str, Any]:
    """Compile every program for every topology; a row each in `results.json`.

    Raises DoesNotFitError, after all rows are written, for a program that needs more memory than
    a device has, that brings a whole batch to every device, or that the compiler refuses.
    """
    section, folder = context.config.compile, context.folder("compile")
    for topology in section.topology:
        # Of all topologies, before the first program is compiled for minutes.
        require_compiler(chips.Slice.named(topology).platform)
    values = dataclasses.asdict(context.config)
    rows, faults = [], []
    for topology in section.topology:
        for batch_size in section.batch_size:
            for name in section.programs:
                request = {"values": values, "topology": topology, "name": name,
                           "batch_size": batch_size}  # fmt: skip
                row = _compile(folder, request, section.optimization_level)
                rows.append(row)
                atomic.write_json(folder / "results.json", rows)
                _LOG.info("%s", line(row))
                faults += _faults(row)
    if faults:
        raise DoesNotFitError("; ".join(faults), {"rows": len(rows)})
    return {"rows": len(rows)}


_COMPILERS = {
    "tpu": ("libtpu", "pip install 'jax[tpu]'"),
    "gpu": (
        "jax_cuda12_plugin",
        "pip install --no-deps jax-cuda12-plugin jax-cuda12-pjrt nvidia-cuda-nvcc-cu12",
    ),
}
"""Module and command, by platform."""


def require_compiler(platform: str) -> None:
    """Raises ValueError where the compiler is not installed."""
    module, command = _COMPILERS[platform]
    if importlib.util.find_spec(module) is None:
        raise ValueError(
            f"the tool compile needs the {platform.upper()} compiler, got no {module}: {command}"
        )


def line(row: dict[str, Any]) -> str:
    """A row as one line of a log."""
    what = f"{row['program']} on {row['topology']}, batch {row['batch_size']}"
    if "error" in row:
        return f"{what}: {row['error']}"
    sent = ", ".join(f"{c['count']} {kind} ({c['bytes'] / 1e9:.2f} GB)"
                     for kind, c in row["collectives"].items())  # fmt: skip
    roofline = row["roofline_seconds"]
    time = f"roofline {1e3 * roofline:.0f} ms" if roofline else "no roofline"
    mfu = f", MFU {row['roofline_mfu']:.2f} of it" if row.get("roofline_mfu") else ""
    mfu += f", {row['products_mfu']:.2f} of its products" if row.get("products_mfu") else ""
    scaling = "".join(
        f"; {s['devices']} devices: efficiency {s['efficiency']:.2f} to "
        f"{s['efficiency_overlapped']:.2f}, counted, not measured"
        for s in row.get("scaling", ())
    )
    return (
        f"{what}: {row['peak_bytes'] / 1e9:.2f} of {row['memory_bytes'] / 1e9:.1f} GB, "
        f"{time}{mfu}, {sent or 'no collectives'}{scaling}"
    )


def _compile(folder, request: dict[str, Any], level: str) -> dict[str, Any]:
    named = {key: request[key] for key in ("topology", "batch_size")} | {"program": request["name"]}
    ask, answer = folder / "request.json", folder / "answer.json"
    atomic.write_json(ask, request)
    answer.unlink(missing_ok=True)
    worker = "ssldiff_jax.stages.tools.compile.worker"
    command = [sys.executable, "-m", worker, str(ask), str(answer)]
    # Flags for another compiler do not concern this one.
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    environment |= compiler_environment(request["topology"], level)
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if not answer.exists():
        # A compiler that aborts says why in its last line.
        last = (result.stderr.strip().splitlines() or ["no message"])[-1]
        return named | {"error": f"the compiler ended with status {result.returncode}: {last}"}
    answered = json.loads(answer.read_text())
    ask.unlink()
    answer.unlink()
    return named | answered


def compiler_environment(topology: str, level: str) -> dict[str, str]:
    """Variables by which a compiler works on a machine without its devices, beside other processes
    that do the same."""
    # No cache: the question is whether it compiles, now.
    common = {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_COMPILATION_CACHE": "false"}
    slice_ = chips.Slice.named(topology)
    if slice_.platform == "gpu":
        (tools,) = importlib.util.find_spec("nvidia.cuda_nvcc").submodule_search_locations
        path = f"{tools}/bin{os.pathsep}{os.environ.get('PATH', '')}"
        # Without a GPU there is nothing to try kernels on, and Triton has none by default.
        flags = (
            f"--xla_gpu_cuda_data_dir={tools} --xla_gpu_autotune_level=0 "
            "--xla_gpu_enable_triton_gemm=false"
        )
        return common | {"PATH": path, "XLA_FLAGS": flags}
    return common | {
        # libtpu would otherwise ask the metadata server of a cloud machine, and wait for it.
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_ACCELERATOR_TYPE": slice_.accelerator_type,
        # It takes a lock file that allows one process a machine.
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        # At O0 a step of 400 M parameters takes 100–200 s; at the default it did not end in 11
        # minutes.
        "JAX_OPTIMIZATION_LEVEL": level,
    }


def _faults(row: dict[str, Any]) -> list[str]:
    what = f"{row['program']} on {row['topology']} at batch {row['batch_size']}"
    if "error" in row:
        return [f"{what} must compile, got: {row['error'][:300]}"]
    faults = []
    if row["peak_bytes"] > row["memory_bytes"]:
        faults.append(
            f"{what} must fit {row['memory_bytes'] / 1e9:.1f} GB a device, got "
            f"{row['peak_bytes'] / 1e9:.1f} GB"
        )
    for gather in row["gathers_of_batch"]:
        faults.append(f"{what} must gather no batch, got {gather['arrays']}")
    return faults
