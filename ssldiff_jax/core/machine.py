"""What this process may use of the machine, settled before jax looks at it."""

import importlib.util
import os
import pathlib

# Device files of TPUs (two drivers) and of NVIDIA GPUs.
_ACCELERATORS = ("accel*", "vfio/[0-9]*", "nvidia[0-9]*")


def cores() -> int:
    """Cores this process may use."""
    # Containers and taskset grant fewer than os.cpu_count says.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


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


def keep_compiled(folder: str) -> None:
    """Keep compiled programs in `folder`, "" nowhere; what the environment names goes before."""
    import jax

    if folder and jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", os.path.expanduser(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
