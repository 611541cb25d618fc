"""Stages that would be outdated by earlier ones: reported before anything runs."""

from ssldiff_jax.runs import stage as stage_lib
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import folders as folders_lib
from ssldiff_jax.runs.workdir import provenance, record, trainings


def refuse(
    table: stage_lib.Table,
    chosen: list[str],
    config: run_config.RunConfig,
    folders: folders_lib.Folders,
    force: set[str],
) -> None:
    """Refuse stages that were begun, if one before them was rebuilt, or is to be rebuilt or
    trained on, and becomes another.

    Raises WorkdirError that names them all.
    """
    digests: dict[str, str] = {}
    causes: dict[str, str] = {}
    for name in chosen:
        noted = provenance.stored(folders, name)
        if noted is None or name in force or table[name].always or folders.borrows(name):
            continue
        if table[name].slug is not None:  # what becomes of the others is another request
            continue
        for need, was in noted["upstream"].items():
            if _planned(table, need, config, folders, force, chosen, digests) != was:
                causes.setdefault(name, need)
    if not causes:
        return
    # What is outdated already is another message than what would become so.
    provenance.refuse_outdated(table, next(iter(causes)), folders)
    first, cause = next(iter(causes.items()))
    why = f"--config.force={','.join(sorted(force))}" if force else "further training"
    raise stage_lib.WorkdirError(
        f"stage {first!r} of {folders.workdir} depends on results that {why} will change (stage "
        f"{cause!r}): add {','.join(causes)} to config.force, or leave "
        f"{'it' if len(causes) == 1 else 'them'} out of config.stages"
    )


def _planned(
    table: stage_lib.Table,
    name: str,
    config: run_config.RunConfig,
    folders: folders_lib.Folders,
    force: set[str],
    chosen: list[str],
    digests: dict[str, str],
) -> str:
    """The digest that a stage will have once those of `force` are rebuilt, and trainings have
    continued; `digests` keeps those that are known."""
    if name in digests:
        return digests[name]
    if folders.borrows(name):
        return provenance.digest(table, name, folders)
    noted = provenance.stored(folders, name)
    fresh = lambda: provenance.values(table[name], config, table[name].inputs(config))
    if noted is None or name in force:
        values, changes = fresh(), []
    else:
        values, changes = noted["config"], provenance.changed(noted)
        if name in chosen and (new := record.changes(table, name, config, folders)):
            values, changes = fresh(), trainings.merged(changes, new)
    plan = lambda need: _planned(table, need, config, folders, force, chosen, digests)
    followed = provenance.followed(table, name, folders)
    before = {need: plan(need) for need in (*table[name].reads(folders), *followed)}
    digests[name] = provenance.digest_of(values, before, changes)
    return digests[name]
