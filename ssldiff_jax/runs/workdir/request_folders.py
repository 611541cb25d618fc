"""Folders of what tools make for each request, so that no request overwrites another."""

import itertools
import pathlib
from collections.abc import Iterator

from ssldiff_jax.runs import stage as stage_lib
from ssldiff_jax.runs.workdir import provenance


def placed(
    table: stage_lib.Table, name: str, context: stage_lib.Context, *, forced: bool
) -> stage_lib.Context:
    """The context in which a stage that keeps every request writes into the folder of its own.

    That is `config.<stage>.name`; by default the stage's slug or, where another request has it,
    the slug and a number. Raises WorkdirError where the name is another request's, unless it is
    `forced`.
    """
    if table[name].slug is None or name in context.places:
        return context
    root, given = context.folder(name), getattr(context.config, name).name
    if given:
        there = context.at(name, root / given)
        if not forced:
            _require_own(table, name, there)
        return there
    first = root / table[name].slug(context.config)
    places = (context.at(name, folder) for folder in _numbered(first))
    return next(at for at in places if _is_free(at.folder(name)) or _is_own(table, name, at))


def _numbered(first: pathlib.Path) -> Iterator[pathlib.Path]:
    yield first
    yield from (first.with_name(f"{first.name}-{number}") for number in itertools.count(2))


def _is_free(folder: pathlib.Path) -> bool:
    """Whether nothing is there but what a process left that ended as it began."""
    if not folder.exists():
        return True
    return folder.is_dir() and all(path.name.startswith(".") for path in folder.iterdir())


def _is_own(table: stage_lib.Table, name: str, there: stage_lib.Context) -> bool:
    return provenance.stored(there.folders, name) is not None and not provenance.changes(
        table, name, there
    )


def _require_own(table: stage_lib.Table, name: str, there: stage_lib.Context) -> None:
    folder = there.folder(name)
    if _is_free(folder) or _is_own(table, name, there):
        return
    changed = "; ".join(provenance.changes(table, name, there)[:4]) or "no stage.json"
    free = next(path.name for path in _numbered(folder) if _is_free(path))
    raise stage_lib.WorkdirError(
        f"config.{name}.name must be free or of the same request, got {folder.name!r}, but "
        f"{folder} is of another ({changed}); a free name: --config.{name}.name={free}"
    )
