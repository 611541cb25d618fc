"""Run stages: skip what is done, resume what was cut off, refuse to mix two configs."""

import dataclasses
import importlib.metadata
import logging
import pathlib
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
from etils import epath
from jax.sharding import Mesh

from ssldiff_jax.core import config as config_lib
from ssldiff_jax.core import files, machine
from ssldiff_jax.stages import config as run_config
from ssldiff_jax.stages import memory
from ssldiff_jax.train import hosts
from ssldiff_jax.train import mesh as mesh_lib

_LOG = logging.getLogger(__name__)

_SAVED = "checkpoints"

MODELS = ("encoder", "embeddings", "autoencoder", "latents", "denoiser", "grids", "prior",
          "imagine", "judge")  # fmt: skip
"""Stages that make models or tell of these alone: `config.models` takes them from another run."""


@dataclasses.dataclass(frozen=True)
class Context:
    """What a stage is given: the config, the work directory and the devices.

    With `config.models` the models are those of another work directory, and data they never saw
    are this one's.
    """

    config: run_config.RunConfig
    workdir: pathlib.Path
    mesh: Mesh

    def folder(self, stage: str) -> pathlib.Path:
        """Where `stage` writes, or wrote."""
        return (self.models if self.borrows(stage) else self.workdir) / stage

    @property
    def models(self) -> pathlib.Path:
        """The work directory of the models."""
        other = self.config.models
        return pathlib.Path(other).expanduser() if other else self.workdir

    def borrows(self, stage: str) -> bool:
        """Whether a stage's outputs are another run's."""
        return bool(self.config.models) and stage in MODELS

    @property
    def of_models(self) -> "Context":
        """That of the run which made the models: its training data are theirs.

        Raises WorkdirError where there is none.
        """
        if not self.config.models:
            return self
        path = self.models / "config.json"
        if not path.exists():
            raise WorkdirError(f"config.models must name a work directory, got none: no {path}")
        values = files.read_json(path)
        return Context(config_lib.build(run_config.RunConfig, values), self.models, self.mesh)

    def checkpoints(self, stage: str) -> epath.Path:
        """Where its checkpoints lie: in its folder, or in a bucket."""
        if self.borrows(stage):
            return self.of_models.checkpoints(stage)
        bucket = self.config.runtime.checkpoints
        return epath.Path(bucket) / stage if bucket else epath.Path(self.folder(stage)) / _SAVED


@dataclasses.dataclass(frozen=True)
class Stage:
    """A row of the stage table.

    Attributes:
        run: does the work; returns facts for done.json, or None where it only told what it would
            do.
        sections: the config sections it reads (dotted).
        needs: the stages whose folders it reads.
        follows: a stage whose outputs it reads while they are made.
        inputs: facts about files outside the workdir that its outputs depend on.
        tool: not a step of the run: it is not among "all".
        always: runs whenever it is named, and begins anew.
        elsewhere: is about other devices than those at hand.
        on: the hosts of a run that do its work: all of them together, or the first alone.
    """

    run: Callable[[Context], dict[str, Any] | None]
    sections: tuple[str, ...]
    needs: tuple[str, ...] = ()
    follows: str = ""
    inputs: Callable[[run_config.RunConfig], Any] = lambda config: None
    tool: bool = False
    always: bool = False
    elsewhere: bool = False
    on: Literal["all", "first"] = "first"


class WorkdirError(ValueError):
    """A work directory that does not fit the config, or lacks what a stage reads."""


def check(table: Mapping[str, Stage], context: Context, chosen: list[str], force: set[str]) -> None:
    """Refuse, before anything is written, what the chosen stages would refuse later.

    Raises WorkdirError for outputs of another config, for a stage that is read but neither done nor
    chosen, and for one that is to be made anew but not chosen.
    """
    if force - set(chosen):
        raise WorkdirError(
            f"config.force must be of the stages {','.join(chosen)}, got "
            f"{','.join(sorted(force - set(chosen)))}; choose it with --config.stages"
        )
    borrowed = [name for name in chosen if context.borrows(name)]
    if borrowed:
        raise WorkdirError(
            f"config.stages must be of what is done with the models of {context.models}, got "
            f"{','.join(borrowed)}, which make them"
        )
    for name in chosen:
        for need in table[name].needs:
            if need not in chosen:
                _require(table, need, context, wanted_by=name)
        if table[name].follows:
            _refuse_foreign(table, table[name].follows, context)
        if name not in force and not table[name].always:
            _refuse_foreign(table, name, context)
            _refuse_outdated(table, name, context, force)
        if not (context.folder(name) / "done.json").exists():
            # Files that are missing are missed now, not after the stages before.
            table[name].inputs(context.config)


def run_stages(
    table: Mapping[str, Stage], context: Context, chosen: list[str], force: set[str]
) -> None:
    """Run the chosen stages in the order of the table."""
    for name in table:
        if name in chosen:
            forced = name in force or table[name].always
            _run_stage(table, name, context, forced=forced)
            hosts.stop_between(name)


def parse_names(
    text: str, table: Mapping[str, Stage], what: str, without: tuple[str, ...] = ()
) -> list[str]:
    """Stage names from a comma-separated list; "all" is every stage that is no tool, and not of
    `without`.

    Raises ConfigError for a name that is no stage.
    """
    names = [n.strip() for n in text.split(",") if n.strip()]
    if names == ["all"]:
        return [name for name, stage in table.items() if not stage.tool and name not in without]
    for name in names:
        if name not in table:
            hint = config_lib.nearest_path(name, dict.fromkeys(table))
            raise config_lib.ConfigError(f"config.{what}: {name!r} is no stage{hint}")
    return names


def _run_stage(table: Mapping[str, Stage], name: str, context: Context, *, forced: bool) -> None:
    stage = table[name]
    _make_way(table, name, context, forced=forced)
    if (context.folder(name) / "done.json").exists():
        _LOG.info("stage %s is done", name)
        return
    was_begun = _begin(table, name, context)

    memory.reset_peak()
    began = time.monotonic()
    if stage.on == "all":
        facts = stage.run(context)
    else:
        facts = hosts.first_alone(f"stage {name}", lambda: stage.run(_alone(context)))
    if hosts.is_first():
        if facts is not None:
            _finish(table, name, context, facts, time.monotonic() - began)
        elif not was_begun:
            shutil.rmtree(context.folder(name))
    hosts.meet(f"{name} is done")


def _make_way(table: Mapping[str, Stage], name: str, context: Context, *, forced: bool) -> None:
    """Refuse what does not fit, and delete what is to be made anew."""
    stage = table[name]
    for need in stage.needs:
        _require(table, need, context, wanted_by=name)
    read = {need: files.read_json(context.folder(need) / "done.json") for need in stage.needs}
    hosts.require_same(f"data for stage {name}", read)
    if forced and hosts.is_first():
        for made in (context.checkpoints(name), epath.Path(context.folder(name))):
            if made.exists():
                made.rmtree()
    hosts.meet(f"{name} is begun anew")
    _refuse_foreign(table, name, context)


def _begin(table: Mapping[str, Stage], name: str, context: Context) -> bool:
    """Note what a stage depends on; returns whether it was begun before."""
    folder, saved = context.folder(name), context.checkpoints(name)
    was_begun = (folder / "stage.json").exists()
    hosts.meet(f"{name} was looked at")
    _LOG.info("stage %s %s", name, "goes on" if was_begun else "starts")
    if was_begun:
        return True
    if saved.exists() and any(saved.iterdir()):
        raise WorkdirError(
            f"{saved} must hold no checkpoints before stage {name!r} of {context.workdir} starts, "
            "got those of another run; choose another runtime.checkpoints, or "
            f"--config.force={name}"
        )
    if hosts.is_first():
        values = _values(table[name], context, table[name].inputs(context.config))
        upstream = _upstream(table, name, context)
        files.write_json(folder / "stage.json", {"config": values, "upstream": upstream})
    return False


def _finish(
    table: Mapping[str, Stage], name: str, context: Context, facts: dict[str, Any], seconds: float
) -> None:
    peak = memory.peak_rss_mb()
    _LOG.info("stage %s took %.1f s, peak memory %.0f MB", name, seconds, peak)
    files.write_json(
        context.folder(name) / "done.json",
        {
            "digest": _digest(table, name, context),
            "seconds": round(seconds, 2),
            "peak_rss_mb": round(peak),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "versions": versions(),
            "facts": facts,
        },
    )


def _alone(context: Context) -> Context:
    """The same on the devices of this host."""
    if jax.process_count() == 1:
        return context
    here = mesh_lib.make_mesh(mesh_lib.MeshConfig(-1, 1, 1, ()), jax.local_devices())
    return dataclasses.replace(context, mesh=here)


def _values(stage: Stage, context: Context, inputs: Any) -> dict[str, Any]:
    """What a stage's outputs depend on, itself alone, as JSON gives it back."""
    values: dict[str, Any] = {"seed": context.config.seed, "inputs": inputs}
    for section in stage.sections:
        part: Any = context.config
        for key in section.split("."):
            part = getattr(part, key)
        values[section] = part
    return _plain(values)


def _stored(context: Context, name: str) -> dict[str, Any] | None:
    """What a stage noted when it started: its config, and the digests of what it reads."""
    path = context.folder(name) / "stage.json"
    return files.read_json(path) if path.exists() else None


def _digest(table: Mapping[str, Stage], name: str, context: Context) -> str:
    """A hash of what a stage and all before it depend on, as they were made."""
    if context.borrows(name):
        return files.read_json(context.folder(name) / "done.json")["digest"]
    stored = _stored(context, name) or {}
    return config_lib.digest(stored.get("config"), _upstream(table, name, context))


def _upstream(table: Mapping[str, Stage], name: str, context: Context) -> dict[str, str]:
    return {need: _digest(table, need, context) for need in table[name].needs}


def _require(table: Mapping[str, Stage], need: str, context: Context, *, wanted_by: str) -> None:
    path = context.folder(need) / "done.json"
    if not path.exists():
        raise WorkdirError(
            f"stage {wanted_by!r} reads what stage {need!r} writes, but {path} is missing; run "
            f"--config.stages={need} first"
        )
    # A job that only reads what was made may run where the slides are not.
    made_from = (_stored(context, need) or {"config": {}})["config"].get("inputs")
    _refuse_foreign(table, need, context, inputs=made_from)
    if context.borrows(need):
        return
    for earlier in table[need].needs:
        _require(table, earlier, context, wanted_by=need)


def _planned(table: Mapping[str, Stage], name: str, context: Context, force: set[str]) -> str:
    """The digest that a stage will have once those of `force` are made anew."""
    stored = _stored(context, name)
    if stored is None or name in force:
        config = _values(table[name], context, table[name].inputs(context.config))
    else:
        config = stored["config"]
    upstream = {need: _planned(table, need, context, force) for need in table[name].needs}
    return config_lib.digest(config, upstream)


def _refuse_outdated(
    table: Mapping[str, Stage], name: str, context: Context, force: set[str]
) -> None:
    """Refuse a stage that was begun, if one before it is to be made anew and differently."""
    before = _stored(context, name)
    if before is None or not force:
        return
    for need, digest in before["upstream"].items():
        if _planned(table, need, context, force) != digest:
            raise WorkdirError(
                f"stage {name!r} of {context.workdir} was made from what --config.force="
                f"{','.join(sorted(force))} will change (stage {need!r}): add {name} to "
                "config.force, or leave it out of config.stages"
            )


_FRESH = object()
_SHOWN = ("data.crops.patch_px", "data.crops.context_px", "data.crops.led_by")


def _refuse_foreign(
    table: Mapping[str, Stage], name: str, context: Context, inputs: Any = _FRESH
) -> None:
    before = _stored(context, name)
    if before is None:
        return
    if inputs is _FRESH:
        inputs = table[name].inputs(context.config)
    old = config_lib.flatten(before["config"])
    new = config_lib.flatten(_values(table[name], context, inputs))
    elsewhere = context.borrows(name)
    changed = [
        f"{key}: {old.get(key)!r} → {new.get(key)!r}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not (elsewhere and _is_of_data(key))
    ]
    if not changed and not elsewhere and before["upstream"] != _upstream(table, name, context):
        changed = ["an earlier stage was made anew"]
    if changed:
        where = context.folder(name).parent
        instead = (
            "choose another config.models, or the config that made it"
            if elsewhere
            else f"choose another --workdir, or make it anew with --config.force={name} among "
            "--config.stages"
        )
        raise WorkdirError(
            f"{where} holds stage {name!r} of another config ({'; '.join(changed[:4])}); {instead}"
        )


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


def versions() -> dict[str, str]:
    """What the outputs depend on besides the config."""
    names = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
    found = {name: importlib.metadata.version(name) for name in names}
    return found | {"python": platform.python_version(), "git": git_commit()}


def git_commit() -> str:
    """The commit of the code, "unknown" outside a repository."""
    here = pathlib.Path(__file__).parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def describe_machine() -> dict[str, Any]:
    """Devices, processor and memory, for the report."""
    return {
        "devices": [str(d) for d in jax.devices()],
        "backend": jax.default_backend(),
        "processor": memory.processor(),
        "cores": machine.cores(),
        "memory_gb": round(memory.total_gb(), 1),
        "platform": platform.platform(),
    }
