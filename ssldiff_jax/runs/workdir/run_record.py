"""The record of a run in its work directory: `config.json`, `environment.json`, `commands.jsonl`.

The first command that makes a step writes all three. A later one that makes steps changes in
`config.json` what these steps read, and how the run is done (its devices, its stages): so that it
says of every step what made it, `--workdir` alone continues with the latest values, and a value
that a command gives for a step it does not make is lost with that command. `environment.json` stays
that of the first command; the `done.json` of a stage has the machine and versions that made it.
`commands.jsonl` has a line for each of these commands: the first with the whole config, later ones
with what they changed, all with their machine. Tools leave the record as it is; the `stage.json` in
the folder of a tool has its sections.
"""

import functools
import json
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ssldiff_jax.core import schema
from ssldiff_jax.formats import atomic
from ssldiff_jax.runs import stage as stage_lib
from ssldiff_jax.runs.command import catalog
from ssldiff_jax.runs.workdir import stored_config

COMMANDS = "commands.jsonl"
_HOW = ("seed", "stages", "force", "models", "runtime", "logging", "mesh", "data.loader")
"""What every command of a run says again."""


def note(
    workdir: pathlib.Path,
    values: Mapping[str, Any],
    table: stage_lib.Table,
    chosen: Sequence[str],
    environment: Mapping[str, Any],
    words: Sequence[str] = (),
) -> None:
    """Note a command before it makes the stages `chosen`.

    Args:
        values: its config.
        environment: `versions` and `machine` that it runs on.
        words: the command's own, without the program's.
    """
    # As JSON gives it back, with lists for tuples: it is compared with what was read.
    own = json.loads(json.dumps(without_tools(values)))
    steps = [name for name in chosen if not table[name].tool]
    log = workdir / COMMANDS
    if steps and log.exists():
        before = stored_config.read(workdir)
        now = functools.reduce(
            lambda tree, key: _with(tree, own, key), _sections(table, steps, own), before
        )
        changed = _changes(before, now)
        if changed:
            _write_config(workdir, now)
        entry: dict[str, Any] = {"changes": changed}
    elif steps or not (workdir / stored_config.NAME).exists():
        # What a tool in a new work directory wrote down is that of no step.
        _write_config(workdir, own)
        atomic.write_json(workdir / "environment.json", environment)
        entry = {"config": own}
    if steps:
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "words": list(words),
            "stages": steps,
            **entry,
            **environment,
        }
        # Written anew, whole or not at all: an appended line may be cut off.
        text = log.read_text(encoding="utf-8") if log.exists() else ""
        atomic.write_text(log, f"{text}{json.dumps(line)}\n")


def without_tools(values: Mapping[str, Any]) -> dict[str, Any]:
    """A config without the sections of tools."""
    tools = {name for name, row in catalog.ROWS.items() if row.tool}
    return {name: value for name, value in values.items() if name not in tools}


def _write_config(workdir: pathlib.Path, values: Mapping[str, Any]) -> None:
    atomic.write_json(workdir / stored_config.NAME, stored_config.stamped(values))


def _sections(table: stage_lib.Table, steps: Sequence[str], values: Mapping[str, Any]) -> list[str]:
    """Dotted keys of what steps read; that of their own name may hold what changes no result."""
    named = [name for name in steps if name in values]
    return [*_HOW, *named, *(key for name in steps for key in table[name].sections)]


def _with(tree: Mapping[str, Any], values: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The tree with what `values` have at a dotted key."""
    name, _, rest = key.partition(".")
    inner = _with(tree.get(name, {}), values[name], rest) if rest else values[name]
    return {**tree, name: inner}


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Dotted key → [old, new]."""
    old, new = schema.flatten(before), schema.flatten(now)
    keys = sorted(old.keys() | new.keys())
    return {key: [old.get(key), new.get(key)] for key in keys if old.get(key) != new.get(key)}
