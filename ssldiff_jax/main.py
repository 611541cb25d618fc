"""Command line: `python -m ssldiff_jax.main --config=configs/demo.py`; `--list` shows the rest."""

import contextlib
import logging
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Iterator

from absl import logging as absl_logging

from ssldiff_jax.core import interrupt, machine, memory, schema
from ssldiff_jax.runs.command import catalog, command_line
from ssldiff_jax.runs.config import runtime as runtime_config

STOPPED = 128 + signal.SIGTERM
"""Exit status after SIGTERM, as of a process that the signal ended: what starts runs again sees
that this one is not done."""

QUARANTINED = 3
"""Exit status of a run that is done, where some slides or patches could not be used, by the stage
`patches` or the tool `features`."""

_JOIN_S = 30.0  # seconds that processes may begin apart without a word

_SERVE = "from ssldiff_jax import main; main.serve_stages()"


def main(argv: list[str]) -> None:
    """Set up jax for the config, then run its stages."""
    # First: the imports below take seconds, in which Ctrl-C would end in a traceback.
    interrupt.install()
    command = command_line.main(argv)
    _set_up_logs()
    log = logging.getLogger("ssldiff_jax")
    if catalog.is_apart(command.values):
        machine.leave_accelerators()
    _set_up_jax(command.runtime)

    # Only now: this imports what asks jax for its devices.
    from ssldiff_jax.runs import launch
    from ssldiff_jax.stages import table
    from ssldiff_jax.train import gone, hosts

    hosts.pass_on_interrupts()
    with gone.leaving():
        try:
            # Also while the command is checked.
            with gone.missed():
                quarantined = launch.launch(
                    command.values,
                    command.workdir,
                    table.STAGES,
                    words=command.words,
                    start=(sys.executable, "-c", _SERVE),
                )
                hosts.leave_together()
            if quarantined:
                log.warning("%s", quarantined)
                sys.exit(QUARANTINED)
        except launch.StoppedError as error:
            log.info("%s", error)
            hosts.leave_together()
            sys.exit(interrupt.STATUS if interrupt.came() else STOPPED)
        except launch.FailedError as error:
            sys.exit(str(error))
        except (*launch.REFUSALS, *launch.USER_ERRORS) as error:
            sys.exit(launch.message(error, command.workdir))


def console() -> None:
    """The command `ssldiff_jax` of an installed package."""
    main(sys.argv)


def serve_stages() -> None:
    """What a process does that `main` starts: run the stages whose names it is sent."""
    # Whatever is printed goes beside: reports alone are read there.
    reports = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    order = pickle.load(sys.stdin.buffer)
    runtime = schema.build(runtime_config.RuntimeConfig, order["values"]["runtime"])
    _set_up_jax(runtime)

    # Only now: this imports what asks jax for its devices.
    from ssldiff_jax.runs import worker
    from ssldiff_jax.stages import table

    lines = worker.StageOfLines()
    _set_up_logs().addFilter(lines)
    try:
        worker.serve(table.STAGES, order, sys.stdin.buffer, reports, lines.begin)
    except Exception:
        traceback.print_exc()
        sys.stderr.flush()
        # Whoever listens for stages may be inside of the reader: at its end the interpreter would
        # wait for that, and abort.
        os._exit(1)


def _set_up_logs() -> logging.Handler:
    # The libraries below narrate every file they touch; the run's own lines are what one reads.
    absl_logging.set_verbosity(absl_logging.ERROR)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("ssldiff_jax")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    # A library's handler on the root logger would say every line a second time.
    logger.propagate = False
    return handler


def _join_hosts(how: str) -> None:
    """Make this process one of several: found from the environment of a TPU pod, GKE, SLURM or
    Open MPI, or as three variables say."""
    import jax

    if how == "auto":
        try:
            with _saying_who_is_missing("all"):
                jax.distributed.initialize()
        except (ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            sys.exit(
                "error: runtime.distributed=auto expects a TPU pod, GKE, SLURM or Open MPI, got: "
                f"{reason}"
            )
    elif how == "given":
        names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
        missing = [name for name in names if name not in os.environ]
        if missing:
            sys.exit(
                "error: runtime.distributed=given expects the environment to have "
                f"{', '.join(names)}, got none of {', '.join(missing)}"
            )
        address, count, number = (os.environ[name] for name in names)
        if not (count.isdigit() and number.isdigit() and int(number) < int(count)):
            sys.exit(
                "error: JAX_PROCESS_ID must be a number below JAX_NUM_PROCESSES, got "
                f"{number!r} and {count!r}"
            )
        with _saying_who_is_missing(f"{count}"):
            jax.distributed.initialize(address, int(count), int(number))


@contextlib.contextmanager
def _saying_who_is_missing(count: str) -> Iterator[None]:
    """Say after a while that not all processes are there: jax waits in silence, then aborts."""
    line = "waits for %s processes of this run to begin; without them jax ends this one in minutes"
    timer = threading.Timer(_JOIN_S, logging.getLogger("ssldiff_jax").warning, (line, count))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _set_up_jax(runtime: runtime_config.RuntimeConfig) -> None:
    if runtime.keep_freed_memory:
        # Before jax makes its threads, each of which would get an arena of its own.
        memory.keep_freed()
    machine.look_for_no_tpu()
    machine.make_cpu_devices(runtime.cpu_devices)
    _join_hosts(runtime.distributed)
    machine.keep_compiled(runtime.compilation_cache)


if __name__ == "__main__":
    main(sys.argv)
