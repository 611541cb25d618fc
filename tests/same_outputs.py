"""What differs between the outputs of two runs of one config, but for what holds times."""

import csv
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import safetensors

from ssldiff_jax.train import checkpoint

TIMES = frozenset((
    "seconds", "peak_rss_mb", "finished", "date", "time", "versions", "machine", "command",
    "workdir", "step_seconds", "examples_per_second", "input_wait", "flops_per_second", "mfu",
    "peak_memory_gb", "device_memory_gb", "created", "datetime", "look_seconds",
))  # fmt: skip
"""Keys of JSON files and columns of tables that say when, where and how fast."""

_SKIPPED = frozenset((
    "commands.jsonl", "environment.json", "config.json", "traceback.txt", "stage.json",
    "index.html", "figures.md", "figures.json",
))  # fmt: skip
"""Files about commands, and pages that quote times; their figures are in others as well."""


def differences(expected: pathlib.Path, actual: pathlib.Path) -> list[str]:
    """A line for each output of the work directory `expected` that `actual` has otherwise, or has
    not, and for each that it has beside."""
    names, others = set(_outputs(expected)), set(_outputs(actual))
    lines = [f"{name}: missing" for name in sorted(names - others)]
    lines += [f"{name}: not expected" for name in sorted(others - names)]
    for name in sorted(names & others):
        if not _are_same(expected / name, actual / name):
            lines.append(f"{name}: differs")
    return lines + list(_differing_checkpoints(expected, actual))


def _outputs(workdir: pathlib.Path) -> Iterator[str]:
    """Files that hold results; checkpoints are compared by their values."""
    for path in workdir.rglob("*"):
        inside = path.relative_to(workdir)
        hidden = any(part.startswith(".") for part in inside.parts)
        # What `plan` says depends on what was measured before.
        apart = {"checkpoints", "tensorboard", "compiled", "plan"} & set(inside.parts)
        if path.is_file() and not hidden and not apart and path.name not in _SKIPPED:
            yield str(inside)


def _are_same(one: pathlib.Path, other: pathlib.Path) -> bool:
    if one.suffix == ".json":
        return _without_times(json.loads(one.read_text())) == _without_times(
            json.loads(other.read_text())
        )
    if one.suffix == ".jsonl" and one.stem == "metrics":
        return _curve(one) == _curve(other)
    if one.suffix == ".csv":
        return _rows(one) == _rows(other)
    if one.suffix == ".safetensors":
        return _tensors(one) == _tensors(other)
    return one.read_bytes() == other.read_bytes()


def _tensors(path: pathlib.Path) -> tuple[dict[str, str], dict[str, bytes]]:
    """Its writer puts the metadata in any order."""
    with safetensors.safe_open(path, "np") as file:
        values = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return file.metadata(), {k: v.tobytes() for k, v in values.items()}


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_times(v) for k, v in value.items() if k not in TIMES}
    return [_without_times(v) for v in value] if isinstance(value, list) else value


def _curve(path: pathlib.Path) -> dict[int, dict[str, Any]]:
    """By step: those that were repeated after a kill are there twice."""
    lines = map(json.loads, path.read_text().splitlines())
    return {line["step"]: _without_times(line) for line in lines}


def _rows(path: pathlib.Path) -> list[dict[str, Any]]:
    with path.open() as file:
        return [_without_times(row) for row in csv.DictReader(file)]


def _differing_checkpoints(expected: pathlib.Path, actual: pathlib.Path) -> Iterator[str]:
    for folder in sorted(expected.glob("*/checkpoints")):
        there = actual / folder.relative_to(expected)
        steps, others = checkpoint.steps(folder), checkpoint.steps(there)
        name = folder.relative_to(expected)
        if steps[-1:] != others[-1:]:
            yield f"{name}: of step {steps[-1:]}, got {others[-1:]}"
            continue
        one, other = (_state(f / str(steps[-1])) for f in (folder, there))
        leaves, same_tree = jax.tree.leaves_with_path(one), jax.tree.structure(one)
        if same_tree != jax.tree.structure(other):
            yield f"{name}: of another form"
            continue
        for (path, leaf), value in zip(leaves, jax.tree.leaves(other), strict=True):
            if np.asarray(leaf).tobytes() != np.asarray(value).tobytes():
                yield f"{name}: {jax.tree_util.keystr(path)} differs"


def _state(saved: pathlib.Path) -> Any:
    """All that a checkpoint holds, on this process's first device, wherever it was saved."""
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    placed = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here)
    handler = ocp.CompositeCheckpointHandler(state=ocp.StandardCheckpointHandler())
    with ocp.Checkpointer(handler) as checkpointer:
        stored = checkpointer.metadata(saved.absolute()).item_metadata["state"].tree
        target = ocp.args.StandardRestore(jax.tree.map(placed, stored))
        return checkpointer.restore(saved.absolute(), ocp.args.Composite(state=target))["state"]
