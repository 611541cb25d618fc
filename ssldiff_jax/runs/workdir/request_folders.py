"""Folders of what tools make for each request, so that no request overwrites another."""

import itertools
import pathlib
from collections.abc import Iterator

from ssldiff_jax.runs import stage as stage_lib
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import folders as folders_lib
from ssldiff_jax.runs.workdir import provenance


def placed(
    table: stage_lib.Table,
    name: str,
    config: run_config.RunConfig,
    folders: folders_lib.Folders,
    *,
    forced: bool,
) -> pathlib.Path:
    """The folder of a stage, which is one of its own for every request where it keeps them all.

    That is `config.<stage>.name`; by default the stage's slug or, where another request has it,
    the slug and a number. Raises WorkdirError where the name is another request's, unless it is
    `forced`.
    """
    root = folders.of_stage(name)
    if table[name].slug is None or name in folders.places:
        return root
    # A name that the user gave is not numbered: it is theirs to replace or to change.
    if given := getattr(config, name).name:
        if not forced:
            _require_own(table, name, config, folders.at(name, root / given))
        return root / given
    is_own = lambda folder: _is_own(table, name, config, folders.at(name, folder))
    # The slug is short, so that requests may share it.
    names = _numbered(root / table[name].slug(config))
    return next(folder for folder in names if _is_free(folder) or is_own(folder))


def _numbered(first: pathlib.Path) -> Iterator[pathlib.Path]:
    yield first
    yield from (first.with_name(f"{first.name}-{number}") for number in itertools.count(2))


def _is_free(folder: pathlib.Path) -> bool:
    """Whether nothing is there but what a process left that ended as it began."""
    if not folder.exists():
        return True
    return folder.is_dir() and all(path.name.startswith(".") for path in folder.iterdir())


def _is_own(
    table: stage_lib.Table, name: str, config: run_config.RunConfig, folders: folders_lib.Folders
) -> bool:
    was_begun = provenance.stored(folders, name) is not None
    return was_begun and not provenance.changes(table, name, config, folders)


def _require_own(
    table: stage_lib.Table, name: str, config: run_config.RunConfig, folders: folders_lib.Folders
) -> None:
    folder = folders.of_stage(name)
    if _is_free(folder) or _is_own(table, name, config, folders):
        return
    changed = "; ".join(provenance.changes(table, name, config, folders)[:4]) or "no stage.json"
    free = next(path.name for path in _numbered(folder) if _is_free(path))
    raise stage_lib.WorkdirError(
        f"config.{name}.name must be free or of the same request, got {folder.name!r}, but "
        f"{folder} is of another ({changed}); a free name: --config.{name}.name={free}"
    )
