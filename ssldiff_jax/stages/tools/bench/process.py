"""One part of the tool `bench` in a process of its own, which alone has the devices.

The parent sends the order through stdin and reads lines of JSON from stdout: {"hardware": …} first,
then a figure a line, and {"failed": …} where the part could not be measured.
"""

import json
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, TextIO

import jax

from ssldiff_jax.core import exhausted, machine, memory
from ssldiff_jax.runs import stage
from ssldiff_jax.stages.tools.bench import parts, results
from ssldiff_jax.train import mesh as mesh_lib

COMMAND = (sys.executable, "-c", f"from {__name__} import main; main()")
"""Starts a process that waits for its order; a part's name follows, for lists of processes."""

CACHE = "compiled"
"""Folder of the work directory with compiled programs and the kernels that were tried for them."""

_LONGEST = 300  # characters of an error


def main() -> None:
    """What such a process does."""
    lines = _lines()
    order: parts.Order = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    runtime = order.config.runtime
    if runtime.keep_freed_memory:
        # Before jax makes its threads, each of which would get an arena of its own.
        memory.keep_freed()
    machine.make_cpu_devices(runtime.cpu_devices)
    machine.keep_compiled(str(order.workdir / CACHE) if runtime.compilation_cache else "")
    began = time.monotonic()
    try:
        _say(lines, hardware=_hardware())
        for name, values, unit in _figures(order):
            _say(lines, figure=[name, values, unit])
        peak = _device_peak()
        if peak is not None:
            _say(lines, figure=[f"{order.part.name}/device_peak", [peak], "B"])
    except Exception as error:
        _say(lines, failed=_reason(error), seconds=time.monotonic() - began)
        raise


def _lines() -> TextIO:
    """Where the parent reads; whatever libraries print goes to stderr instead."""
    lines = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return lines


def _end_with_parent() -> None:
    """The parent keeps stdin open for as long as it lives."""
    # Not through `sys.stdin`, whose lock Python wants when this process ends.
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGKILL)


def _say(lines: TextIO, **message: Any) -> None:
    print(json.dumps(message), file=lines, flush=True)


def _hardware() -> str:
    return f"{jax.device_count()} × {jax.devices()[0].device_kind}, {memory.processor()}"


def _device_peak() -> int | None:
    """Bytes; None of devices that do not say, as CPUs."""
    return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def _reason(error: Exception) -> str:
    shortage = exhausted.shortage(error)
    text = " ".join(str(error).split())[:_LONGEST]
    if shortage is None:
        return f"{type(error).__name__}: {text}"
    needed = f": another {shortage.needed / 1e9:.1f} GB were needed" if shortage.needed else ""
    return f"out of {shortage.of}{needed} ({text})"


def _figures(order: parts.Order) -> Iterator[results.Figure]:
    """Each part imports what it needs: a machine for training has no slides to read."""
    config, folder, argument = order.config, order.folder, order.part.argument
    match order.part.kind:
        case "network":
            from ssldiff_jax.stages.tools.bench import network

            return network.forward_rows(config)
        case "weights":
            from ssldiff_jax.stages.tools.bench import network

            return network.loading_rows(config, folder)
        case "decode":
            from ssldiff_jax.stages.tools.bench import decoder

            return decoder.rows(config)
        case "archive":
            from ssldiff_jax.stages.tools.bench import archive

            return archive.rows(folder)
        case "input":
            from ssldiff_jax.stages.tools.bench import loader

            return loader.rows(folder, config.data.loader)
        case "images":
            from ssldiff_jax.stages.tools.bench import sampler

            return sampler.rows(config, mesh_lib.make_mesh(config.mesh), *argument)
        case "training":
            from ssldiff_jax.stages.tools.bench import train_step

            traces = folder / "profile" if config.bench.profile else None
            return train_step.rows(config, mesh_lib.make_mesh(config.mesh), *argument, traces)
        case "evaluation":
            from ssldiff_jax.stages.tools.bench import evaluation

            mesh = mesh_lib.make_mesh(config.mesh)
            return evaluation.rows(stage.Context(config, order.workdir, mesh).artifacts)
    raise ValueError(f"config.bench.parts must be known, got {order.part.kind!r}")
