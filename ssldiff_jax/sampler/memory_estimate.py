"""How many windows fit into free memory at once."""

from typing import Any

import jax
import jax.extend
import numpy as np

from ssldiff_jax.core import memory

_SHARE = 0.5  # of free memory: compilers keep copies, and other programs grow
_MOST = 256


def max_windows(window_bytes: int) -> int:
    """Windows that a device can hold: as many as half its free memory takes, 256 at most."""
    return max(1, min(int(_SHARE * free_bytes() / max(window_bytes, 1)), _MOST))


def free_bytes() -> int:
    """Free memory of the first local device, or of the machine where the device is its CPU."""
    device = jax.local_devices()[0]
    stats = device.memory_stats() if device.platform != "cpu" else None
    if not stats:
        return memory.available_bytes()
    return stats["bytes_limit"] - stats["bytes_in_use"]


def peak_live_bytes(jaxpr: Any) -> int:
    """The most bytes of results that are alive at once while a program runs as it is written;
    what goes into it is not counted, and nothing is fused."""
    last_use = {}
    for i, equation in enumerate(jaxpr.eqns):
        for var in equation.invars:
            if isinstance(var, jax.extend.core.Var):
                last_use[var] = i
    for var in jaxpr.outvars:
        if isinstance(var, jax.extend.core.Var):
            last_use[var] = len(jaxpr.eqns)
    alive, now, most = {}, 0, 0
    for i, equation in enumerate(jaxpr.eqns):
        inside = max((peak_live_bytes(sub) for sub in _inner(equation)), default=0)
        for var in equation.outvars:
            alive[var] = _bytes(var.aval)
            now += alive[var]
        most = max(most, now + inside)
        for var in [v for v in alive if last_use.get(v, i) <= i]:
            now -= alive.pop(var)
    return most


def _inner(equation: Any) -> list[Any]:
    """Programs inside an equation."""
    programs = []
    for value in equation.params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            inner = getattr(item, "jaxpr", item)
            if hasattr(inner, "eqns"):
                programs.append(inner)
    return programs


def _bytes(aval: Any) -> int:
    shape, dtype = getattr(aval, "shape", ()), getattr(aval, "dtype", None)
    return int(np.prod(shape)) * getattr(dtype, "itemsize", 0)
