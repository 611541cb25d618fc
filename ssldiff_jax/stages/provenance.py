"""What a stage's outputs were made from: they are never mixed with those of another config."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ssldiff_jax.core import config as config_lib
from ssldiff_jax.core import files
from ssldiff_jax.stages import stage as stage_lib

_FRESH = object()
_SHOWN = ("data.crops.patch_px", "data.crops.context_px", "data.crops.led_by")


def values(stage: stage_lib.Stage, context: stage_lib.Context, inputs: Any) -> dict[str, Any]:
    """What a stage's outputs depend on, itself alone, as JSON gives it back."""
    found: dict[str, Any] = {"seed": context.config.seed, "inputs": inputs}
    for section in stage.sections:
        part: Any = context.config
        for key in section.split("."):
            part = getattr(part, key)
        found[section] = part
    return _plain(found)


def stored(context: stage_lib.Context, name: str) -> dict[str, Any] | None:
    """What a stage noted when it started: its config, and the digests of what it reads."""
    path = context.folder(name) / "stage.json"
    return files.read_json(path) if path.exists() else None


def digest(table: stage_lib.Table, name: str, context: stage_lib.Context) -> str:
    """A hash of what a stage and all before it depend on, as they were made."""
    if context.borrows(name):
        return files.read_json(context.folder(name) / "done.json")["digest"]
    noted = stored(context, name) or {}
    return config_lib.digest(noted.get("config"), upstream(table, name, context))


def upstream(table: stage_lib.Table, name: str, context: stage_lib.Context) -> dict[str, str]:
    """The digests of what a stage reads."""
    return {need: digest(table, need, context) for need in table[name].reads(context)}


def require(
    table: stage_lib.Table, need: str, context: stage_lib.Context, *, wanted_by: str
) -> None:
    """Refuse to read a stage that is not done, or was made by another config.

    Raises WorkdirError.
    """
    path = context.folder(need) / "done.json"
    if not path.exists():
        raise stage_lib.WorkdirError(
            f"stage {wanted_by!r} reads what stage {need!r} writes, but {path} is missing; run "
            f"--config.stages={need} first"
        )
    # A job that only reads what was made may run where the slides are not.
    made_from = (stored(context, need) or {"config": {}})["config"].get("inputs")
    refuse_foreign(table, need, context, inputs=made_from)
    for earlier in table[need].reads(context):
        # What another run's models were trained on is not this run's data.
        if context.borrows(earlier) or not context.borrows(need):
            require(table, earlier, context, wanted_by=need)


def planned(table: stage_lib.Table, name: str, context: stage_lib.Context, force: set[str]) -> str:
    """The digest that a stage will have once those of `force` are made anew."""
    noted = stored(context, name)
    if noted is None or name in force:
        config = values(table[name], context, table[name].inputs(context.config))
    else:
        config = noted["config"]
    before = {need: planned(table, need, context, force) for need in table[name].reads(context)}
    return config_lib.digest(config, before)


def refuse_outdated(
    table: stage_lib.Table, name: str, context: stage_lib.Context, force: set[str]
) -> None:
    """Refuse a stage that was begun, if one before it is to be made anew and differently.

    Raises WorkdirError.
    """
    before = stored(context, name)
    if before is None or not force:
        return
    for need, was in before["upstream"].items():
        if planned(table, need, context, force) != was:
            raise stage_lib.WorkdirError(
                f"stage {name!r} of {context.workdir} was made from what --config.force="
                f"{','.join(sorted(force))} will change (stage {need!r}): add {name} to "
                "config.force, or leave it out of config.stages"
            )


def refuse_foreign(
    table: stage_lib.Table,
    name: str,
    context: stage_lib.Context,
    inputs: Any = _FRESH,
) -> None:
    """Refuse a stage that was begun with another config, or after stages that were made anew since;
    of a stage that is another run's, what says only how its data were cut may differ.

    Raises WorkdirError that names the keys.
    """
    changed = changes(table, name, context, inputs)
    if changed:
        where = context.folder(name).parent
        instead = (
            "choose another config.models, or the config that made it"
            if context.borrows(name)
            else f"choose another --workdir, or make it anew with --config.force={name} among "
            "--config.stages"
        )
        raise stage_lib.WorkdirError(
            f"{where} holds stage {name!r} of another config ({'; '.join(changed[:4])}); {instead}"
        )


def changes(
    table: stage_lib.Table,
    name: str,
    context: stage_lib.Context,
    inputs: Any = _FRESH,
) -> list[str]:
    """What differs between a stage as it was begun and as the config asks for it, "key: old → new";
    none where it was not begun."""
    before = stored(context, name)
    if before is None:
        return []
    if inputs is _FRESH:
        inputs = table[name].inputs(context.config)
    old = config_lib.flatten(before["config"])
    new = config_lib.flatten(values(table[name], context, inputs))
    elsewhere = context.borrows(name)
    changed = [
        f"{key}: {old.get(key)!r} → {new.get(key)!r}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not (elsewhere and _is_of_data(key))
    ]
    whose = context.of_models if elsewhere else context
    if not changed and before["upstream"] != upstream(table, name, whose):
        changed = ["an earlier stage was made anew"]
    return changed


def _is_of_data(key: str) -> bool:
    """Whether a key says how data were cut, and not what a model is shown."""
    return key.startswith("data.") and key not in _SHOWN


def _plain(values: Any) -> Any:
    if dataclasses.is_dataclass(values):
        # Fields that are marked so change no results.
        kept = [f.name for f in dataclasses.fields(values) if f.metadata.get("digest", True)]
        return {name: _plain(getattr(values, name)) for name in kept}
    if isinstance(values, Mapping):
        return {str(k): _plain(v) for k, v in values.items()}
    if isinstance(values, list | tuple):
        return [_plain(v) for v in values]
    return values
