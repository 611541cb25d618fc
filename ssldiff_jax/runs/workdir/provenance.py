"""What a stage's outputs were made from: they are never mixed with those of another config."""

import dataclasses
import functools
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ssldiff_jax.core import changes as changes_lib
from ssldiff_jax.core import digests, pixel_units, schema
from ssldiff_jax.data import config as data_config
from ssldiff_jax.formats import atomic
from ssldiff_jax.runs import stage as stage_lib
from ssldiff_jax.runs.command import listing
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import changed_facts, trainings
from ssldiff_jax.runs.workdir import folders as folders_lib
from ssldiff_jax.train import stretches

_FRESH = object()
# Of how data were cut, what a model sees of it: these may not differ from another run's.
_SHOWN = (
    "data.crops.patch_px", "data.crops.context_px", "data.crops.condition_on", "data.levels",
)  # fmt: skip


def values(stage: stage_lib.Stage, config: run_config.RunConfig, inputs: Any) -> dict[str, Any]:
    """What a stage's outputs depend on, itself alone, as JSON gives it back."""
    values_by_section: dict[str, Any] = {"seed": config.seed, "inputs": inputs}
    values_by_section |= {section: section_of(config, section) for section in stage.sections}
    return plain(values_by_section)


def stored(folders: folders_lib.Folders, name: str) -> dict[str, Any] | None:
    """What a stage noted when it started: its config, and the digests of what it reads; of a
    training also what was changed on the way."""
    version = _version(folders, name)
    return dict(_read(version)) if version else None


@dataclasses.dataclass(frozen=True)
class _Version:
    """A file as it is now: what is written anew is another."""

    path: pathlib.Path
    inode: int
    changed_ns: int
    num_bytes: int


def _version(folders: folders_lib.Folders, name: str) -> _Version | None:
    path = folders.of_stage(name) / "stage.json"
    if not path.exists():
        return None
    stat = path.stat()
    return _Version(path, stat.st_ino, stat.st_mtime_ns, stat.st_size)


# A command looks some hundred times; that of 30 000 slides, whose every file is named, has 3 MB.
@functools.lru_cache(64)
def _read(version: _Version) -> dict[str, Any]:
    return atomic.read_json(version.path)


def digest(table: stage_lib.Table, name: str, folders: folders_lib.Folders) -> str:
    """A hash of what a stage and all before it depend on, as they were made."""
    if folders.borrows(name):
        return atomic.read_json(folders.of_stage(name) / "done.json")["digest"]
    before = upstream(table, name, folders, followed(table, name, folders))
    return _digest(_version(folders, name), tuple(before.items()))


@functools.lru_cache(256)
def _digest(version: _Version | None, before: tuple[tuple[str, str], ...]) -> str:
    noted = _read(version) if version else {}
    return digest_of(noted.get("config"), dict(before), changed(noted))


def digest_of(config: Any, before: dict[str, str], changes_since: list[trainings.Change]) -> str:
    """A hash of a stage's config, of what it reads, and of what was changed on the way: a training
    that was changed is another than one that began so."""
    # Without changes nothing is added: what was never resumed otherwise keeps its digest.
    return digests.of_values(config, before, *([changes_since] if changes_since else []))


def changed(noted: Mapping[str, Any]) -> list[trainings.Change]:
    """What `stage.json` says was changed of a training, and decides its results."""
    return [trainings.Change(**change) for change in noted.get("changes", ())]


def past(folders: folders_lib.Folders, name: str) -> tuple[stretches.Stretch, ...]:
    """The stretches of a training before its config last changed."""
    noted = stored(folders, name) or {"config": {}}
    return trainings.past(schema.flatten(noted["config"]), name, changed(noted))


def upstream(
    table: stage_lib.Table,
    name: str,
    folders: folders_lib.Folders,
    followed: Iterable[str] = (),
) -> dict[str, str]:
    """The digests of what a stage reads, and of those that it `followed`."""
    names = (*table[name].reads(folders), *followed)
    return {need: digest(table, need, folders) for need in names}


def followed(table: stage_lib.Table, name: str, folders: folders_lib.Folders) -> tuple[str, ...]:
    """The stages that it need not have had, and that it read where it began."""
    noted = stored(folders, name) or {"upstream": {}}
    return tuple(need for need in table[name].follows if need in noted["upstream"])


def require(
    table: stage_lib.Table,
    need: str,
    config: run_config.RunConfig,
    folders: folders_lib.Folders,
    *,
    wanted_by: str,
) -> None:
    """Refuse to read a stage that is not done, or was made by another config.

    Raises WorkdirError.
    """
    _require(table, need, config, folders, wanted_by, set())


def _require(
    table: stage_lib.Table,
    need: str,
    config: run_config.RunConfig,
    folders: folders_lib.Folders,
    wanted_by: str,
    seen: set[str],
) -> None:
    """Each stage once, by however many ways it is read."""
    if need in seen:
        return
    seen.add(need)
    path = folders.of_stage(need) / "done.json"
    if not path.exists():
        raise stage_lib.WorkdirError(
            f"stage {wanted_by!r} reads what stage {need!r} writes, but {path} is missing; run "
            f"--config.stages={need} first"
        )
    # A job that only reads what was made may run where the slides are not.
    made_from = (stored(folders, need) or {"config": {}})["config"].get("inputs")
    refuse_foreign(table, need, config, folders, inputs=made_from)
    for earlier in table[need].reads(folders):
        # What another run's models were trained on is not this run's data.
        if folders.borrows(earlier) or not folders.borrows(need):
            _require(table, earlier, config, folders, need, seen)


def refuse_foreign(
    table: stage_lib.Table,
    name: str,
    config: run_config.RunConfig,
    folders: folders_lib.Folders,
    inputs: Any = _FRESH,
) -> None:
    """Refuse a stage that was begun with another config, or after stages that were rebuilt since;
    of a stage that is another run's, what says only how its data were cut may differ.

    Raises WorkdirError that names the keys.
    """
    if stored(folders, name) is not None:
        refuse(name, config, folders, differences(table, name, config, folders, inputs))
        refuse_outdated(table, name, folders)


def differences(
    table: stage_lib.Table,
    name: str,
    config: run_config.RunConfig,
    folders: folders_lib.Folders,
    inputs: Any = _FRESH,
) -> dict[str, tuple[Any, Any]]:
    """Dotted key → (old, new) of what decides the results of a stage that was begun."""
    if inputs is _FRESH:
        inputs = table[name].inputs(config)
    old = schema.flatten(stored(folders, name)["config"])
    new = schema.flatten(values(table[name], config, inputs))
    # What was recorded before a key was there was made as the key's default has it.
    old = {key: value for key, value in _defaults().items() if key in new} | old
    elsewhere, free = folders.borrows(name), _free(table[name], config)
    return {
        key: (old.get(key), new.get(key))
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
        # Slides were once known by name and size alone; such runs go on.
        and not _says_more(old.get(key), new.get(key))
        and not _is_moved_table(key, old.get(key), new.get(key))
        and not (elsewhere and _is_of_data(key))
        and not any(key == one or key.startswith(f"{one}.") for one in free)
    }


@functools.cache
def _defaults() -> Mapping[str, Any]:
    """Dotted key → its value in configs/default.py, as JSON gives it back."""
    return schema.flatten(plain(listing.defaults()))


def _says_more(old: Any, new: Any) -> bool:
    """Whether a list of facts says of each of its things what an earlier record said of it, and
    more: so slides whose name and size were noted are those whose content is noted beside."""
    if not (isinstance(old, list) and isinstance(new, list) and old and len(old) == len(new)):
        return False
    pairs = list(zip(old, new, strict=True))
    are_lists = all(isinstance(a, list) and isinstance(b, list) and a for a, b in pairs)
    return are_lists and all(b[: len(a)] == a for a, b in pairs)


def _is_moved_table(key: str, old: Any, new: Any) -> bool:
    """Whether slides are named by a table as before, wherever it stands: what it says of them is
    among the inputs of the step that cuts them."""
    named = [value for value in (old, new) if isinstance(value, str)]
    return key == "data.slides" and len(named) == 2 and all(map(data_config.names_table, named))


def changes(
    table: stage_lib.Table, name: str, config: run_config.RunConfig, folders: folders_lib.Folders
) -> list[str]:
    """What differs between a stage as it was begun and as the config asks for it, "key: old → new";
    none where it was not begun."""
    if stored(folders, name) is None:
        return []
    lines = _lines(differences(table, name, config, folders), _slides(name, folders))
    if not lines and is_outdated(table, name, folders):
        lines = ["an earlier stage was rebuilt"]
    return lines


def _slides(name: str, folders: folders_lib.Folders) -> list[Any]:
    """What a stage noted of its slides, if it did."""
    inputs = stored(folders, name)["config"].get("inputs")
    return inputs.get("slides", []) if isinstance(inputs, Mapping) else []


def _lines(differ: Mapping[str, tuple[Any, Any]], slides: Sequence[Any] = ()) -> list[str]:
    """The differences of a stage that was made of `slides`."""
    slides_now = differ.get("inputs.slides", (slides, slides))[1]
    # What decides others stands higher: another network has other sizes.
    keys = sorted(differ, key=lambda key: (key.count("."), key))
    return [
        changed_facts.line(key, *differ[key], slides, slides_now)
        if changed_facts.are_of_slides(key, *differ[key])
        else _line(key, *differ[key])
        for key in keys
    ]


def _line(key: str, old: Any, new: Any) -> str:
    """A difference; scales of scenes in metres, as they can be said."""
    section, _, field = key.partition(".")
    is_scale = field in pixel_units.UNSAID_MPP.get(section, ()) and None not in (old, new)
    if is_scale and pixel_units.is_scene(min(old, new)):
        key, old, new = pixel_units.in_metres(key), old / 1e6, new / 1e6
    return f"{key}: {old!r} → {new!r}"


def refuse(
    name: str,
    config: run_config.RunConfig,
    folders: folders_lib.Folders,
    differ: Mapping[str, tuple[Any, Any]],
) -> None:
    """Refuse a stage that was begun, if its config differs.

    Raises WorkdirError that names the keys.
    """
    if not differ:
        return
    can_follow = not differ.keys() - trainings.onward_keys(config, name)
    # Four name the kind of difference; another config file differs in dozens.
    line = "; ".join(_lines(differ, _slides(name, folders))[:4])
    raise _foreign(name, folders, line, can_follow and not folders.borrows(name))


def refuse_outdated(table: stage_lib.Table, name: str, folders: folders_lib.Folders) -> None:
    """Refuse a stage that was begun, if what it reads was rebuilt since.

    Raises WorkdirError.
    """
    if is_outdated(table, name, folders):
        raise _foreign(name, folders, "an earlier stage was rebuilt", False)


def is_outdated(table: stage_lib.Table, name: str, folders: folders_lib.Folders) -> bool:
    """Whether what a stage that was begun reads was rebuilt since."""
    noted = stored(folders, name)
    if noted is None:
        return False
    whose = folders.of_models if folders.borrows(name) else folders
    now = upstream(table, name, whose, followed(table, name, folders))
    return noted["upstream"] != now


def _foreign(
    name: str, folders: folders_lib.Folders, difference: str, can_follow: bool
) -> stage_lib.WorkdirError:
    instead = (
        "choose another config.models, or the config that made it"
        if folders.borrows(name)
        else f"choose another --workdir, or rebuild it with --config.force={name} among "
        "--config.stages"
    )
    on = f"resume the training with --config.stages={name}, " if can_follow else ""
    return stage_lib.WorkdirError(
        f"{folders.of_stage(name).parent} holds stage {name!r} of another config ({difference}); "
        f"{on}{instead}"
    )


def _free(stage: stage_lib.Stage, config: run_config.RunConfig) -> set[str]:
    """Dotted keys of what changes no results: a record made when they were thought to may have
    them."""
    sections = {name: section_of(config, name) for name in stage.sections}
    return {
        f"{name}.{key}"
        for name, section in sections.items()
        if dataclasses.is_dataclass(section)
        for key, kind in changes_lib.kinds(section).items()
        if kind == "free"
    }


def section_of(config: run_config.RunConfig, name: str) -> Any:
    """A section of the config by its dotted name."""
    return functools.reduce(getattr, name.split("."), config)


def _is_of_data(key: str) -> bool:
    """Whether a key says how data were cut, and not what a model is shown."""
    return key.startswith("data.") and key not in _SHOWN


def plain(values: Any) -> Any:
    """As JSON gives it back, without fields that change no results."""
    if dataclasses.is_dataclass(values):
        # Fields that are marked so change no results, nor does what the others leave unused.
        unused = getattr(values, "unused", ())
        counted = [
            f.name
            for f in dataclasses.fields(values)
            if f.metadata.get("digest", True) and f.name not in unused
        ]
        return {name: plain(getattr(values, name)) for name in counted}
    if isinstance(values, Mapping):
        return {str(k): plain(v) for k, v in values.items()}
    if isinstance(values, list | tuple):
        return [plain(v) for v in values]
    return values
