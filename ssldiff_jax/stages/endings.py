"""What a command tells last: what it made, and where that is."""

import pathlib
from collections.abc import Mapping
from typing import Any

from ssldiff_jax.core import files
from ssldiff_jax.stages import stage as stage_lib


def lines(table: stage_lib.Table, made: Mapping[str, stage_lib.Context]) -> list[str]:
    """Of the stages of a command, by name with the context that has their folder: what those tell
    that have something to tell, or else the folders."""
    told = [
        f"{name}: {line}"
        for name, context in made.items()
        if (ending := table[name].ending) is not None
        for line in ending(context, _facts(context, name))
    ]
    return told or [f"{name}: {context.folder(name)}" for name, context in made.items()]


def _facts(context: stage_lib.Context, name: str) -> Any:
    return files.read_json(context.folder(name) / "done.json")["facts"]


def files_in(folder: pathlib.Path, *patterns: str) -> list[str]:
    """Paths of what `patterns` find in a folder, sorted."""
    return sorted(str(path) for pattern in patterns for path in folder.glob(pattern))
