"""Compiles one program for devices that are not here; started by the tool `compile`, in a process
of its own because the compiler is chosen before jax is first imported."""

import dataclasses
import json
import pathlib
import sys
import time
from typing import Any

import jax
from jax.experimental import topologies

from ssldiff_jax.core import platform, program_cost, schema
from ssldiff_jax.runs import programs
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.stages.tools.compile import named_program
from ssldiff_jax.train import chips, hlo_stats, scaling
from ssldiff_jax.train import mesh as mesh_lib


def row(values: dict[str, Any], topology: str, name: str, batch_size: int) -> dict[str, Any]:
    """What the compiler says of a program of the config for a topology."""
    config = schema.build(run_config.RunConfig, values)
    slice_ = chips.Slice.named(topology)
    devices = _devices(slice_, topology)
    kind = devices[0].device_kind
    mesh = mesh_lib.make_mesh(config.mesh, devices)
    with platform.compile_for(slice_.platform):
        program = named_program.program(name, config, mesh, batch_size)
        flops, (function, args) = programs.flops_of_one(program), program.of_device
        chip = chips.chip(kind)
        least = program_cost.least_seconds(
            function, *args, flops_per_second=chip.flops, bytes_per_second=chip.bandwidth
        )
        lowered = program.function.lower(*program.args)
        began, worked = time.monotonic(), time.process_time()
        compiled = lowered.compile()
        seconds, cpu_seconds = time.monotonic() - began, time.process_time() - worked
    per_device = program.batch_size / len(devices)
    stats = hlo_stats.describe(compiled, chip, flops * per_device if flops else None)
    sent = hlo_stats.collectives(compiled.as_text())
    # The windows of a chunk come together on purpose, once.
    gathered = hlo_stats.gathers_of_batch(sent, program.batch_size) if program.num_params else []
    answer = {
        "program": name,
        "topology": topology,
        "devices": len(devices),
        "kind": kind,
        "mesh": dict(mesh.shape),
        "batch_size": program.batch_size,
        "num_params": program.num_params,
        "optimization_level": str(jax.config.jax_optimization_level).rpartition(".")[2],
        **stats,
        "products_seconds": least,
        "products_mfu": flops * per_device / least / chip.flops if flops else None,
        "gathers_of_batch": [dataclasses.asdict(c) for c in gathered],
        "compile_seconds": round(seconds, 1),
        "compile_cpu_seconds": round(cpu_seconds, 1),
    }
    if config.compile.scaling and program.num_params and flops:
        seconds = flops * per_device / (chip.flops * scaling.ASSUMED_MFU)
        answer["scaling"] = [
            _scaling(name, config, slice_, devices, seconds) for devices in config.compile.scaling
        ]
    return answer


def _scaling(
    name: str,
    config: run_config.RunConfig,
    slice_: chips.Slice,
    devices: int,
    compute_seconds: float,
) -> dict[str, Any]:
    """What a step sends on so many devices of this kind, and how long it takes; counted, not
    measured."""
    exchanges = programs.exchanges(name, config, devices, slice_.platform)
    counted = scaling.Scaling.of(
        exchanges, chips.network(slice_.generation), devices, compute_seconds
    )
    return dataclasses.asdict(counted) | {
        "assumed_mfu": scaling.ASSUMED_MFU,
        "exchanges": [dataclasses.asdict(exchange) for exchange in exchanges],
        "efficiency": counted.efficiency,
        "efficiency_overlapped": counted.efficiency_overlapped,
    }


def _devices(slice_: chips.Slice, topology: str) -> list[Any]:
    if slice_.platform == "tpu":
        return topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    # Hosts × slices × GPUs of one.
    shape = f"1x1x{slice_.shape[0]}"
    return topologies.get_topology_desc(
        platform="cuda", topology_name=shape, topology=shape, target_config=slice_.gpu_target
    ).devices


def main() -> None:
    """Read a request, write a row."""
    request, result = (pathlib.Path(path) for path in sys.argv[1:])
    values = json.loads(request.read_text())
    try:
        answer = row(**values)
    # jax's errors from compilers are RuntimeErrors.
    except (ValueError, RuntimeError) as error:
        answer = {"error": " ".join(str(error).split())[:2000]}
    result.write_text(json.dumps(answer))


if __name__ == "__main__":
    main()
