"""What this process may use of the machine, settled before jax looks at it."""

import contextlib
import importlib.util
import itertools
import os
import pathlib
from collections.abc import Collection

# Device files of TPUs (two drivers) and of NVIDIA GPUs.
_ACCELERATORS = ("accel*", "vfio/[0-9]*", "nvidia[0-9]*")


def cores() -> int:
    """Cores this process may use."""
    # Containers and taskset grant fewer than os.cpu_count says.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


_AT_START = cores()


def cores_at_start() -> int:
    """Cores this process could use when it started: of several that share a machine, all."""
    return _AT_START


def parts(count: int) -> list[tuple[int, ...]]:
    """The cores this process may use in `count` parts of neighbours, as even as can be; where
    there are fewer cores than parts, or they have no numbers, each part is all of them."""
    if not hasattr(os, "sched_getaffinity"):
        return [()] * count
    all_ = sorted(os.sched_getaffinity(0))
    if len(all_) < count:
        return [tuple(all_)] * count
    ends = [len(all_) * i // count for i in range(count + 1)]
    return [tuple(all_[a:b]) for a, b in itertools.pairwise(ends)]


def move(process: int, cores_: Collection[int]) -> None:
    """Let a process, all its threads and the processes that it started run on these cores alone;
    does nothing where the system knows no such thing."""
    # Not at the top: a machine that only computes need not have it.
    import psutil

    if not hasattr(os, "sched_setaffinity"):
        return
    with contextlib.suppress(psutil.NoSuchProcess):
        one = psutil.Process(process)
        for each in (one, *one.children(recursive=True)):
            # What a thread starts meanwhile runs where it does: what is found the second time
            # was started by one that had not been moved.
            for thread in (*_threads(each.pid), *_threads(each.pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.sched_setaffinity(thread, cores_)


def _threads(process: int) -> list[int]:
    with contextlib.suppress(FileNotFoundError):
        return [int(name) for name in os.listdir(f"/proc/{process}/task")]
    return []


def look_for_no_tpu() -> None:
    """Keep jax on the CPU where libtpu is installed and no accelerator is: it is there for the
    tool compile alone, and jax would look for a TPU at every start."""
    devices = pathlib.Path("/dev")
    # jax is imported below, late: a command that is misspelt is answered without it.
    there = any(any(devices.glob(name)) for name in _ACCELERATORS)
    if importlib.util.find_spec("libtpu") and not there and "JAX_PLATFORMS" not in os.environ:
        import jax

        os.environ["JAX_PLATFORMS"] = "cpu"  # of this process, had it not read it, and its children
        jax.config.update("jax_platforms", "cpu")


def leave_accelerators() -> None:
    """Keep this process on the CPU: its first look at a GPU or a TPU would take its memory from the
    processes that it starts, which look by themselves."""
    import jax

    # Not in the environment, which those inherit.
    jax.config.update("jax_platforms", "cpu")


def make_cpu_devices(count: int) -> None:
    """Let a CPU be several devices; 0 leaves it to jax."""
    if count > 1:
        # XLA's CPU runtime takes as many threads as cores; a collective that waits holds one.
        os.environ.setdefault("NPROC", str(4 * count))
    import jax

    if count:
        jax.config.update("jax_num_cpu_devices", count)


def keep_compiled(folder: str) -> None:
    """Keep compiled programs in `folder`, "" nowhere; what the environment names goes before."""
    import jax

    if folder and jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", os.path.expanduser(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
