"""The training loop, in the order of time. Every model is trained by it."""

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from jax.sharding import Mesh

from ssldiff_jax.core import changes, exhausted, rng, tasks
from ssldiff_jax.train import (
    boards,
    feed,
    flat,
    hosts,
    logs,
    looks,
    named,
    parallel,
    stopwatch,
    stretches,
    throughput,
)
from ssldiff_jax.train import mesh as mesh_lib
from ssldiff_jax.train import optimizer as optimizer_lib
from ssldiff_jax.train import step as step_lib

if TYPE_CHECKING:
    from etils import epath


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How long, how wide, and how often something is written down.

    More than `max_skipped` non-finite updates stop the run. `method` is `jit` over the mesh, or
    `pmap`. `profile_steps` steps after the tenth are traced, for TensorBoard or Perfetto. What of
    it may change once a training has begun is in each field's metadata (`core.changes`).
    """

    num_steps: int = dataclasses.field(
        metadata=changes.onward("the end may move, never before the steps that were done")
    )
    batch_size: int = dataclasses.field(
        metadata=changes.onward("the stream of examples continues after the last batch")
    )
    optimizer: optimizer_lib.OptimizerConfig
    compute: step_lib.ComputeConfig
    log_every: int = dataclasses.field(metadata=changes.free("how often figures are logged"))
    checkpoint_every: int = dataclasses.field(metadata=changes.free("how often the state is saved"))
    max_skipped: int = dataclasses.field(metadata=changes.free("stops a run, changes no update"))
    method: Literal["jit", "pmap"] = dataclasses.field(
        metadata=changes.free("the same sums on the same examples, in another order")
    )
    profile_steps: int = dataclasses.field(metadata=changes.free("how much is traced"))

    def __post_init__(self):
        least = {"num_steps": 0, "batch_size": 1, "log_every": 1, "checkpoint_every": 1}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise ValueError(
                    f"train.{name} must be at least {value}, got {getattr(self, name)}"
                )


@dataclasses.dataclass(frozen=True)
class Run:
    """Where a training runs: its folder, where its checkpoints lie (in a bucket, if they must),
    mesh, sharding rules and seed; what it was configured as before, if that changed; how often it
    is looked at, and what opens the trackers that follow it."""

    name: str
    folder: pathlib.Path
    checkpoints: "epath.Path"
    mesh: Mesh
    rules: tuple[str, ...]
    seed: int
    past: tuple[stretches.Stretch, ...] = ()
    looks: int = 0
    open_boards: Callable[[], Sequence[boards.Board]] = tuple


class NonFiniteError(RuntimeError):
    """Too many updates were not finite."""


def fit(
    task: tasks.Task,
    data: feed.Batches,
    config: TrainConfig,
    run: Run,
    *,
    start: Any = None,
    look: looks.Look | None = None,
) -> Any:
    """Train, from the last checkpoint if there is one; returns the averaged parameters.

    `start` are parameters to begin with, of the whole model or of parts at the top of its tree;
    with no steps to train they are the result. What `look` sees is written down. A killed run that
    is started again ends with the same bits as one that was not. Raises ValueError where more steps
    were done than `num_steps`.
    """
    # Not at the top: a machine that only computes need not have Orbax.
    from ssldiff_jax.train import checkpoint

    if config.num_steps == 0:
        checkpoint.save_params(run.checkpoints, start)
        return start

    # a state, born on its devices, or as it was saved
    mesh_lib.require_divides(config.batch_size, run.mesh, config.compute.accumulate)
    tx = config.optimizer.transform(config.num_steps, run.past)
    init_key, step_key = (rng.stream(run.seed, f"{run.name}/{what}") for what in ("init", "step"))
    storage = config.optimizer.storage(mesh_lib.platform(run.mesh))
    state, shardings = parallel.born_sharded(task, tx, init_key, run.mesh, run.rules, storage)
    if start is not None:
        state = parallel.start_from(start, state)
    checkpoints = checkpoint.Checkpoints(run.checkpoints)
    state = checkpoints.restore(state)
    _require_not_past(done := int(state.step), config, run)

    # batches from there on, and a step
    data = data.shifted(stretches.shift(run.past, config.batch_size))
    batches = feed.Feed(data, run.mesh, done)
    update = step_lib.Update(task, tx, config.optimizer.ema_decay, config.compute)
    step_fn = parallel.compile_step(update, config.method, shardings, run.mesh)

    with (
        _Record(state, config, run, look) as record,
        hosts.StopSignal() as stop,
        _measured(step_fn, config, run),
    ):
        for step in range(done + 1, config.num_steps + 1):
            state, metrics = step_fn(state, next(batches), step_key)
            ends = step == config.num_steps or stop.came()
            if not ends:
                batches.fill()
            record.note(step, state, metrics, step_fn.flops, batches.waited)
            checkpoints.check()
            if ends or step % config.checkpoint_every == 0:
                checkpoints.save(step, state)
            if ends:
                break
        stopped = stop.came()
        # Still within: a second signal shall not end what is being saved.
        checkpoints.close()

    _require_whole(int(state.step), config, run, stopped=stopped)
    return named.on_this_host(state.ema_params)


@contextlib.contextmanager
def _measured(step: parallel.CompiledStep, config: TrainConfig, run: Run) -> Iterator[None]:
    """Say how large a step is that did not fit.

    Raises StepTooLargeError for it.
    """
    try:
        yield
    except Exception as error:
        shortage, memory = exhausted.shortage(error), step.memory
        if shortage is None or shortage.of != "memory" or memory is None:
            raise
        shares = run.mesh.shape["data"] * run.mesh.shape["fsdp"] * config.compute.accumulate
        examples = config.batch_size // shares
        raise exhausted.StepTooLargeError(memory.state, memory.beside, examples) from error


def _require_whole(done: int, config: TrainConfig, run: Run, *, stopped: bool) -> None:
    if stopped or done < config.num_steps:
        raise hosts.StoppedError(
            f"{run.name} was stopped at step {done} of {config.num_steps} and saved; the same "
            "command resumes"
        )


def _require_not_past(done: int, config: TrainConfig, run: Run) -> None:
    if done > config.num_steps:
        raise ValueError(
            f"{run.name}.train.num_steps must be at least the {done} steps that were done, got "
            f"{config.num_steps}"
        )


class _Record:
    """What is written down about a training while it runs."""

    def __init__(
        self,
        state: step_lib.TrainState,
        config: TrainConfig,
        run: Run,
        look: looks.Look | None,
    ):
        import clu.parameter_overview

        run.folder.mkdir(parents=True, exist_ok=True)
        table = clu.parameter_overview.get_parameter_overview(
            flat.shapes(state.params), include_stats=False
        )
        if hosts.is_first():
            (run.folder / "parameters.txt").write_text(table + "\n")
        done = int(state.step)
        self._config = config
        self._rate = config.optimizer.rate(config.num_steps, run.past)
        self._looks = looks.Looks(
            look, run.looks, num_steps=config.num_steps, log_every=config.log_every
        )
        self._writer = logs.MetricsWriter(run.folder, run.open_boards)
        self._progress = logs.Progress(run.name, config.num_steps, start=done)
        # The first steps compile as well: those that are traced come after them.
        self._profile = logs.Profile(run.folder / "profile", done + 10, config.profile_steps)
        self._throughput = throughput.Throughput(config.batch_size)
        seconds = run.folder / ".training_seconds.json"
        self._watch = stopwatch.Stopwatch(seconds if hosts.is_first() else None)

    def __enter__(self) -> "_Record":
        self._watch.__enter__()
        return self

    def __exit__(self, *_) -> None:
        self._watch.__exit__()
        with contextlib.ExitStack() as stack:
            for part in (self._writer, self._progress, self._profile):
                stack.callback(part.close)

    def note(self, step: int, state: step_lib.TrainState, metrics, flops, waited: float) -> None:
        """A step was started; its numbers are waited for only where they are written.

        Raises NonFiniteError where too many updates were not finite.
        """
        config = self._config
        self._profile.at(step)
        self._throughput.step()
        if step % config.log_every == 0 or step == config.num_steps:
            scalars = {name: float(value) for name, value in metrics.items()}
            scalars |= {"skipped": int(state.skipped), "seconds": self._watch.seconds}
            # Of this update: refused ones are not counted by the schedule.
            scalars["learning_rate"] = float(self._rate(max(step - 1 - scalars["skipped"], 0)))
            scalars |= self._throughput.read(flops, waited)
            self._write(step, state, scalars)
            _check_finite(scalars, config, step)
            self._progress.update(0, f"loss {scalars['loss']:.4g}")
        self._progress.update()

    def _write(self, step: int, state: step_lib.TrainState, scalars: dict[str, float]) -> None:
        """Write figures, and what is seen of the model where it is looked at."""
        if not self._looks.are_due(step):
            self._writer.write(step, scalars)
            return
        began = time.monotonic()
        seen = self._looks.at(state.ema_params, state.extra) or looks.Seen({})
        self._writer.write(step, scalars | seen.scalars, seen.pictures)
        self._throughput.pause(time.monotonic() - began)


def _check_finite(scalars: dict[str, float], config: TrainConfig, step: int) -> None:
    if scalars["skipped"] > config.max_skipped:
        raise NonFiniteError(
            f"at most {config.max_skipped} updates may be non-finite, got "
            f"{scalars['skipped']} by step {step}; loss={scalars['loss']}, "
            f"grad_norm={scalars['grad_norm']}"
        )
