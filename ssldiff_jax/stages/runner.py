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
from typing import Any

import jax
from jax.sharding import Mesh

from ssldiff_jax.core import config as config_lib
from ssldiff_jax.core import files
from ssldiff_jax.stages import config as run_config
from ssldiff_jax.stages import memory

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Context:
    """What a stage is given: the config, the work directory and the devices."""

    config: run_config.RunConfig
    workdir: pathlib.Path
    mesh: Mesh

    def folder(self, stage: str) -> pathlib.Path:
        """Where `stage` writes."""
        return self.workdir / stage


@dataclasses.dataclass(frozen=True)
class Stage:
    """A row of the stage table.

    Attributes:
        run: does the work; returns facts for done.json.
        sections: the config sections it reads (dotted).
        needs: the stages whose folders it reads.
        inputs: facts about files outside the workdir that its outputs depend on.
    """

    run: Callable[[Context], dict[str, Any]]
    sections: tuple[str, ...]
    needs: tuple[str, ...] = ()
    inputs: Callable[[run_config.RunConfig], Any] = lambda config: None


class WorkdirError(ValueError):
    """A work directory that does not fit the config, or lacks what a stage reads."""


def run_stages(table: Mapping[str, Stage], context: Context, chosen: list[str], force: set[str]):
    """Run the chosen stages in the order of the table."""
    for name, stage in table.items():
        if name in chosen:
            _run_stage(table, name, stage, context, forced=name in force)


def parse_names(text: str, table: Mapping[str, Stage], what: str) -> list[str]:
    """Stage names from a comma-separated list; "all" is every stage.

    Raises ConfigError for a name that is no stage.
    """
    names = [n.strip() for n in text.split(",") if n.strip()]
    if names == ["all"]:
        return list(table)
    for name in names:
        if name not in table:
            hint = config_lib.nearest_path(name, dict.fromkeys(table))
            raise config_lib.ConfigError(f"config.{what}: {name!r} is no stage{hint}")
    return names


def _run_stage(table, name: str, stage: Stage, context: Context, *, forced: bool) -> None:
    folder = context.folder(name)
    values = _relevant(stage, context.config)
    upstream = {need: _done(context, need, name)["digest"] for need in stage.needs}
    digest = config_lib.digest(values, upstream)
    if forced and folder.exists():
        shutil.rmtree(folder)
    if (folder / "done.json").exists() and _same(folder, digest, name, values, context):
        _LOG.info("stage %s is done", name)
        return
    if (folder / "stage.json").exists():
        _same(folder, digest, name, values, context)
        _LOG.info("stage %s goes on", name)
    else:
        _LOG.info("stage %s starts", name)
        files.write_json(folder / "stage.json", {"digest": digest, "config": values})

    memory.reset_peak()
    began = time.monotonic()
    facts = stage.run(context)
    seconds = time.monotonic() - began
    peak = memory.peak_rss_mb()
    _LOG.info("stage %s took %.1f s, peak memory %.0f MB", name, seconds, peak)
    files.write_json(
        folder / "done.json",
        {
            "digest": digest,
            "seconds": round(seconds, 2),
            "peak_rss_mb": round(peak),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "versions": versions(),
            "facts": facts,
        },
    )


def _relevant(stage: Stage, config: run_config.RunConfig) -> dict[str, Any]:
    values: dict[str, Any] = {"seed": config.seed, "inputs": stage.inputs(config)}
    for section in stage.sections:
        part: Any = config
        for key in section.split("."):
            part = getattr(part, key)
        values[section] = dataclasses.asdict(part) if dataclasses.is_dataclass(part) else part
    return values


def _done(context: Context, need: str, wanted_by: str) -> dict[str, Any]:
    path = context.folder(need) / "done.json"
    if not path.exists():
        raise WorkdirError(
            f"stage {wanted_by!r} reads what stage {need!r} writes, but {path} is missing; run "
            f"--config.stages={need} first"
        )
    return files.read_json(path)


def _same(folder: pathlib.Path, digest: str, name: str, values: dict, context: Context) -> bool:
    before = files.read_json(folder / "stage.json")
    if before["digest"] == digest:
        return True
    old, new = (config_lib.flatten(_plain(v)) for v in (before["config"], values))
    changed = [
        f"{key}: {old.get(key)!r} → {new.get(key)!r}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]
    what = "; ".join(changed[:4]) or "an earlier stage was made anew"
    raise WorkdirError(
        f"{context.workdir} holds stage {name!r} of another config ({what}); choose another "
        f"--workdir, or make it anew with --config.force={name}"
    )


def _plain(values: Any) -> Any:
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
        "cores": memory.cores(),
        "memory_gb": round(memory.total_gb(), 1),
        "platform": platform.platform(),
    }
