"""The training loop, in the order of time. Every model is trained by it."""

import dataclasses
import functools
import pathlib
import time
from typing import Any, Literal

import clu.parameter_overview
import grain
from jax.sharding import Mesh

from ssldiff_jax.core import rng
from ssldiff_jax.train import checkpoint, logs, parallel
from ssldiff_jax.train import mesh as mesh_lib
from ssldiff_jax.train import step as step_lib


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How long, how wide, and how often something is written down.

    `max_skipped` non-finite updates stop the run. `method` is `jit` over the mesh, or `pmap`.
    """

    num_steps: int
    batch_size: int
    optimizer: step_lib.OptimizerConfig
    log_every: int
    checkpoint_every: int
    max_skipped: int
    method: Literal["jit", "pmap"]


@dataclasses.dataclass(frozen=True)
class Run:
    """Where a training runs: its folder, mesh, sharding rules and seed."""

    name: str
    folder: pathlib.Path
    mesh: Mesh
    rules: tuple[str, ...]
    seed: int


class NonFiniteError(RuntimeError):
    """Too many updates were not finite."""


def fit(
    task: step_lib.Task,
    data: grain.IterDataset,
    config: TrainConfig,
    run: Run,
    *,
    start: Any = None,
) -> Any:
    """Train, from the last checkpoint if there is one; returns the averaged parameters.

    `start` are parameters to begin with, of the whole model or of parts at the top of its tree;
    with no steps to train they are the result. A killed run that is started again ends with the
    same bits as one that was not.
    """
    if config.num_steps == 0:
        checkpoint.save_params(run.folder / "checkpoints", start)
        return start
    iterator = iter(data)
    first = _peek(data)
    tx = config.optimizer.transform(config.num_steps)
    state, shardings = parallel.born_sharded(
        task, tx, rng.stream(run.seed, f"{run.name}/init"), first, run.mesh, run.rules
    )
    if start is not None:
        state = parallel.start_from(start, state, shardings)
    _describe(state, run.folder)
    checkpoints = checkpoint.Checkpoints(run.folder / "checkpoints")
    if checkpoints.latest is not None:
        state = checkpoints.restore(state, iterator)

    step_fn = _compile(task, tx, config, run, shardings)
    key = rng.stream(run.seed, f"{run.name}/step")
    writer = logs.MetricsWriter(run.folder)
    start = int(state.step)
    progress = logs.Progress(run.name, config.num_steps, start=start)
    began = time.monotonic()
    for step in range(start + 1, config.num_steps + 1):
        batch = mesh_lib.to_global(next(iterator), run.mesh)
        state, metrics = step_fn(state, batch, key)
        if step % config.log_every == 0 or step == config.num_steps:
            scalars = {name: float(value) for name, value in metrics.items()}
            scalars |= {"skipped": int(state.skipped), "seconds": time.monotonic() - began}
            writer.write(step, scalars)
            _check_finite(scalars, config, step)
            progress.update(0, f"loss {scalars['loss']:.4g}")
        progress.update()
        if step % config.checkpoint_every == 0 or step == config.num_steps:
            checkpoints.save(step, state, iterator)
    progress.close()
    writer.close()
    checkpoints.close()
    return state.ema_params


def _peek(data: grain.IterDataset) -> dict[str, Any]:
    return next(iter(data))


def _compile(task, tx, config: TrainConfig, run: Run, shardings: Any) -> step_lib.StepFn:
    step = functools.partial(
        step_lib.train_step, task=task, tx=tx, ema_decay=config.optimizer.ema_decay
    )
    if config.method == "pmap":
        return parallel.pmap_step(functools.partial(step, axis_name="batch"))
    return parallel.jit_step(step, shardings, run.mesh)


def _describe(state: step_lib.TrainState, folder: pathlib.Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    table = clu.parameter_overview.get_parameter_overview(state.params, include_stats=False)
    (folder / "parameters.txt").write_text(table + "\n")


def _check_finite(scalars: dict[str, float], config: TrainConfig, step: int) -> None:
    if scalars["skipped"] > config.max_skipped:
        raise NonFiniteError(
            f"at most {config.max_skipped} updates may be non-finite, got "
            f"{scalars['skipped']} by step {step}; loss={scalars['loss']}, "
            f"grad_norm={scalars['grad_norm']}"
        )
