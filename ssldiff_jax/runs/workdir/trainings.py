"""Trainings whose config changed after they had begun: which changes they can resume with, and how
they are recorded."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ssldiff_jax.core import changes
from ssldiff_jax.runs import stage as stage_lib
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import folders as folders_lib
from ssldiff_jax.train import loop, stretches


@dataclasses.dataclass(frozen=True)
class Change:
    """A config key that changed after `step` steps were done."""

    step: int
    key: str
    was: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.key}: {self.was!r} → {self.now!r}"


def section(config: run_config.RunConfig, name: str) -> loop.TrainConfig | None:
    """The config of the training that a stage does; None where it does none."""
    train = getattr(getattr(config, name, None), "train", None)
    return train if isinstance(train, loop.TrainConfig) else None


def kinds(config: run_config.RunConfig, name: str) -> dict[str, changes.Kind]:
    """Dotted key → kind, of the training that a stage does."""
    train = section(config, name)
    return changes.kinds(train, f"{name}.train.") if train else {}


def onward_keys(config: run_config.RunConfig, name: str) -> set[str]:
    """Dotted keys of what may change from a step on."""
    return {key for key, kind in kinds(config, name).items() if kind == "onward"}


def steps_done(folders: folders_lib.Folders, name: str) -> int | None:
    """The step of the last whole checkpoint, where there is one."""
    # Not at the top: a machine that only computes need not have Orbax.
    from ssldiff_jax.train import checkpoint

    saved = checkpoint.steps(folders.checkpoints(name))
    return saved[-1] if saved else None


def gone_on_with(
    config: run_config.RunConfig,
    folders: folders_lib.Folders,
    name: str,
    differ: Mapping[str, tuple[Any, Any]],
) -> list[Change]:
    """Those of the differences that a training which was begun can follow from here on.

    Args:
        differ: dotted key → (old, new), of what decides results.
    """
    if section(config, name) is None or folders.borrows(name):
        return []
    step = steps_done(folders, name)
    # Where nothing is left of what was done, all of the training may be another.
    may = kinds(config, name) if step is None else onward_keys(config, name)
    return [Change(step or 0, key, *pair) for key, pair in differ.items() if key in may]


def require_steps(
    config: run_config.RunConfig, folders: folders_lib.Folders, name: str, new: Sequence[Change]
) -> None:
    """Refuse changes that no step is left to follow.

    Raises WorkdirError.
    """
    step = steps_done(folders, name)
    if step is None or not new:
        return
    planned, key = section(config, name).num_steps, f"config.{name}.train.num_steps"
    where, line = f"stage {name!r} of {folders.workdir}", "; ".join(map(str, new[:4]))
    if step == 0 or planned == 0:
        raise stage_lib.WorkdirError(
            f"weights used without training have no training to resume, got {line} for {where}; "
            f"rebuild it with --config.force={name}"
        )
    if planned < step:
        raise stage_lib.WorkdirError(
            f"{key} must be at least the {step} steps that {where} has done, got {planned}"
        )
    if planned == step and (folders.of_stage(name) / "done.json").exists():
        raise stage_lib.WorkdirError(
            f"{where} is finished, and settings that affect its results must not change, got "
            f"{line}; with {key} above {step} it continues from there, with --config.force={name} "
            "it is trained again"
        )


def merged(before: Sequence[Change], after: Sequence[Change]) -> list[Change]:
    """All changes that count: of those of a key at one step the first value and the last, and
    none where these are the same or no step was done."""
    # A change that is taken back before a step was done with it has decided nothing.
    by_step_and_key: dict[tuple[int, str], Change] = {}
    for change in (*before, *after):
        first = by_step_and_key.pop((change.step, change.key), change)
        if change.step and first.was != change.now:
            by_step_and_key[change.step, change.key] = dataclasses.replace(change, was=first.was)
    return list(by_step_and_key.values())


def past(
    config: Mapping[str, Any], name: str, history: Sequence[Change]
) -> tuple[stretches.Stretch, ...]:
    """The stretches of a training before its config last changed.

    Args:
        config: dotted key → value as it is, of the whole stage.
    """
    own = f"{name}.train."
    values = {key.removeprefix(own): value for key, value in config.items() if key.startswith(own)}
    stretched = []
    for step in sorted({change.step for change in history}, reverse=True):
        values |= {c.key.removeprefix(own): c.was for c in history if c.step == step}
        stretched.append(stretches.Stretch.of(step, values))
    return tuple(reversed(stretched))
