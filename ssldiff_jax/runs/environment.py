"""What code and machine a run is made with."""

import contextlib
import importlib.metadata
import pathlib
import platform
import subprocess
from typing import Any

import jax

import ssldiff_jax
from ssldiff_jax.core import machine, memory


def versions() -> dict[str, str]:
    """What the outputs depend on besides the config."""
    # Those whose version may change numbers.
    names = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
    installed = {}
    for name in names:
        # A machine that only computes need not have them all.
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[name] = importlib.metadata.version(name)
    own = {"ssldiff_jax": ssldiff_jax.__version__, "git": git_commit()}
    return installed | {"python": platform.python_version()} | own


def git_commit() -> str:
    """The commit of the code, "unknown" outside a repository."""
    here = pathlib.Path(__file__).parent
    # "-dirty" is said too: such results have no commit that makes them again.
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
        "cores": machine.cores_at_start(),
        "memory_gb": round(memory.total_gb(), 1),
        "platform": platform.platform(),
    }
