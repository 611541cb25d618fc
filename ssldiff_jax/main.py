"""Command line: `python -m ssldiff_jax.main --config=configs/demo.py --workdir=runs/demo`."""

import contextlib
import logging
import os
import pathlib
import signal
import sys
import traceback

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

from ssldiff_jax.core import machine
from ssldiff_jax.stages import memory

_CONFIG = config_flags.DEFINE_config_file("config", None, "The config: a file in configs/.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Where everything is written.")
# As of a process that the signal ended: what starts runs again sees that this one is not done.
_STOPPED = 128 + signal.SIGTERM
_QUARANTINED = 3

flags.mark_flags_as_required(["config", "workdir"])


def main(argv: list[str]) -> None:
    """Set up jax for the config, then run its stages."""
    if len(argv) > 1:
        raise app.UsageError(f"expected flags only, got {argv[1:]}")
    _set_up_logs()
    values, workdir = _CONFIG.value.to_dict(), pathlib.Path(_WORKDIR.value)
    _set_up_jax(values.get("runtime", {}))

    # Only now: this imports what asks jax for its devices.
    from ssldiff_jax.stages import launch

    try:
        quarantined = launch.launch(values, workdir)
        if quarantined:
            logging.getLogger("ssldiff_jax").warning("%s", quarantined)
            sys.exit(_QUARANTINED)
    except launch.StoppedError as error:
        logging.getLogger("ssldiff_jax").info("%s", error)
        sys.exit(_STOPPED)
    except launch.USER_ERRORS as error:
        trace = workdir / "traceback.txt"
        with contextlib.suppress(OSError):
            workdir.mkdir(parents=True, exist_ok=True)
            trace.write_text(traceback.format_exc())
        sys.exit(f"error: {error} [details in {trace}]")


def _parse_flags(argv: list[str]) -> list[str]:
    """absl's parser, with one line for a config key that does not exist."""
    try:
        return app.parse_flags_with_usage(argv)
    except (KeyError, AttributeError, TypeError) as error:
        # ml_collections quotes its own message again, newline and all.
        reason = " ".join(str(error).replace("\\n", " ").replace("\\", "").strip("\"'").split())
        sys.exit(f"error: a --config flag names no config key: {reason}")


def _set_up_logs() -> None:
    # The libraries below narrate every file they touch; the run's own lines are what one reads.
    absl_logging.set_verbosity(absl_logging.ERROR)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("ssldiff_jax")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


def _join_hosts(how: str) -> None:
    """Make this process one of several: found from the environment of a TPU pod, GKE, SLURM or
    Open MPI, or as three variables say."""
    import jax

    if how == "auto":
        try:
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
        jax.distributed.initialize(address, int(count), int(number))


def _set_up_jax(runtime: dict) -> None:
    if runtime.get("keep_freed_memory"):
        # Before jax makes its threads, each of which would get an arena of its own.
        memory.keep_freed()
    machine.look_for_no_tpu()
    if runtime.get("cpu_devices", 0) > 1:
        # XLA's CPU runtime takes as many threads as cores; a collective that waits holds one.
        os.environ.setdefault("NPROC", str(4 * runtime["cpu_devices"]))
    import jax

    if runtime.get("cpu_devices"):
        jax.config.update("jax_num_cpu_devices", runtime["cpu_devices"])
    _join_hosts(runtime.get("distributed", "off"))
    machine.keep_compiled(runtime.get("compilation_cache", ""))


if __name__ == "__main__":
    app.run(main, flags_parser=_parse_flags)
