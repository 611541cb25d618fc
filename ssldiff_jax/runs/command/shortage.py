"""The message of a stage that ran out of memory or disk: what was short, and which keys help."""

import contextlib
import pathlib
import shutil
from collections.abc import Iterator

import jax

from ssldiff_jax.core import exhausted, memory
from ssldiff_jax.runs import stage as stage_lib
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import trainings

_GENERATING = (
    "config.sample.window_batch={window_batch} says how many windows are computed together, "
    "config.sample.canvas_dtype={canvas_dtype} is that of the canvas (bfloat16 halves it), "
    "config.sample.split={split} shares the canvas between devices (rows), "
    "config.sample.decode.tile={tile} is what is decoded at once"
)
_TILING = "config.data.engine.processes={processes} is how many slides are read at once (0: cores)"
_READING = "config.data.loader.prefetch={prefetch} is how many examples are kept ready"
_TRAINING = (
    "config.{name}.train.compute.accumulate={accumulate} computes a batch in parts, "
    "compute.remat={remat} recomputes what it does not keep (products, blocks), "
    "compute.dtype={dtype} halves activations (bfloat16), batch_size={batch_size} may be smaller; "
    "a training that resumes may change all of them"
)
_TILED = ("patches", "verify")
_LONGEST = 300  # characters of an error that is quoted


class ShortageError(RuntimeError):
    """Memory or a disk is full."""


@contextlib.contextmanager
def reported(
    name: str, stage: stage_lib.Stage, config: run_config.RunConfig, folder: pathlib.Path
) -> Iterator[None]:
    """Turn what a stage that writes into `folder` raises for want of memory or disk into one line.

    Raises ShortageError for it, and anything else as it is.
    """
    try:
        yield
    except stage_lib.FoundError:
        # What a tool says of devices that are not here, in words of their compilers.
        raise
    except Exception as error:
        shortage = exhausted.shortage(error)
        if shortage is None:
            raise
        if shortage.of == "disk":
            raise ShortageError(_of_disk(name, config, folder, error, shortage.needed)) from error
        line = _of_memory(name, shortage.needed)
        step = exhausted.of_step(error)
        sizes = f"; {_of_step(step)}" if step else ""
        raise ShortageError(f"{line}{sizes}; {_help(name, stage, config)}") from error


@contextlib.contextmanager
def reported_of(workdir: pathlib.Path) -> Iterator[None]:
    """The same of what is written into the work directory before its first stage."""
    try:
        yield
    except OSError as error:
        if exhausted.shortage(error) is None:
            raise
        raise ShortageError(
            f"the disk of {workdir} must hold what a run writes, got "
            f"{amount(_free(workdir))} free ({error}); free some space and the same "
            "command resumes, or choose a --workdir on a larger disk"
        ) from error


def _free(folder: pathlib.Path) -> int:
    """Bytes on the disk of a folder that may still have to be made."""
    return shutil.disk_usage(next(f for f in (folder, *folder.parents) if f.exists())).free


def _of_disk(
    name: str,
    config: run_config.RunConfig,
    folder: pathlib.Path,
    error: Exception,
    needed: int | None,
) -> str:
    other = exhausted.full_folder(error)
    folder = pathlib.Path(other) if other else folder
    free = _free(folder)
    what_for = f"the {amount(needed)} it writes next" if needed else "what it writes"
    elsewhere = "a --workdir"
    if other:
        elsewhere = "a folder for it (TMPDIR)"
    elif trainings.section(config, name):
        elsewhere = "config.runtime.checkpoints (where checkpoints lie) or a --workdir"
    elif name in _TILED:
        elsewhere = "config.data.archive (where slides are kept as patches) or a --workdir"
    # Ours name the file; those of libraries are pages long.
    what = f" ({error})" if isinstance(error, OSError) and len(str(error)) < _LONGEST else ""
    return (
        f"the disk of {folder} must hold {what_for} of stage {name!r}, got {amount(free)} "
        f"free{what}; free some space and the same command resumes, or choose {elsewhere} on a "
        "larger disk"
    )


def _of_memory(name: str, needed: int | None) -> str:
    what_for = f"another {amount(needed)}" if needed else "what it computes at once"
    return f"memory must hold {what_for} for stage {name!r}, got {_free_memory()}"


def _of_step(step: exhausted.StepTooLargeError) -> str:
    """What a training step takes, and what of it is saved by computing half as much at once."""
    # A fourth of AdamW's state: the gradient is there whatever the batch.
    of_examples = max(step.beside - step.state // 4, 0)
    return (
        f"a step of {step.examples} examples on a device takes {amount(step.beside)} beside a "
        f"state of {amount(step.state)}: compute.accumulate twice as large or batch_size half as "
        f"large saves about {amount(of_examples // 2)}, config.mesh.fsdp over twice as many "
        f"devices {amount(step.state // 2)}"
    )


def _help(name: str, stage: stage_lib.Stage, config: run_config.RunConfig) -> str:
    train = trainings.section(config, name)
    if train is not None and train.num_steps:
        compute = train.compute
        return _TRAINING.format(
            name=name, accumulate=compute.accumulate, remat=compute.remat, dtype=compute.dtype,
            batch_size=train.batch_size,
        )  # fmt: skip
    if name in _TILED:
        return _TILING.format(processes=config.data.engine.processes)
    if "sample" in stage.sections or name == "evaluate":
        sample = config.sample
        return _GENERATING.format(
            window_batch=sample.window_batch,
            canvas_dtype=sample.canvas_dtype,
            split=sample.split,
            tile=sample.decode.tile,
        )
    return _READING.format(prefetch=config.data.loader.prefetch)


def _free_memory() -> str:
    """Of the first device, or of this machine where the device does not say."""
    device = jax.local_devices()[0]
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        # Not the machine's: a device has memory of its own.
        free = stats["bytes_limit"] - stats.get("bytes_in_use", 0)
        return f"{amount(free)} free of {amount(stats['bytes_limit'])} on {device.device_kind}"
    return f"{amount(memory.available_bytes())} free of {amount(memory.total_bytes())}"


def amount(count: float) -> str:
    """A number of bytes in the unit that suits it."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count:.0f} bytes"
