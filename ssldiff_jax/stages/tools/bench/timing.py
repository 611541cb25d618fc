"""Seconds of the tool `bench`: of calls, and of the compiler."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax import monitoring

from ssldiff_jax.core import platform
from ssldiff_jax.stages.tools.bench import results
from ssldiff_jax.train import chips

REPETITIONS = 10


def seconds(call: Callable[[], Any], repetitions: int = REPETITIONS) -> list[float]:
    """Of a call, after one that is not counted."""
    call()
    each = []
    for _ in range(repetitions):
        began = time.perf_counter()
        call()
        each.append(time.perf_counter() - began)
    return each


class CompilerClock:
    """Seconds of compiling. A program that an earlier call left in the cache is only loaded, which
    is no measure of the compiler: the name of the figure says so."""

    def __init__(self):
        self._hits = 0
        monitoring.register_event_listener(self._heard)

    def _heard(self, event: str, **_: Any) -> None:
        self._hits += event == "/jax/compilation_cache/cache_hits"

    def compiled(self, lowered: Any, label: str) -> tuple[Any, results.Figure]:
        """A lowered program, compiled as the programs of a run are, and what that took."""
        self._hits = 0
        began = time.perf_counter()
        program = lowered.compile(platform.compiler_options())
        return program, self.figure(label, time.perf_counter() - began)

    def figure(self, label: str, taken: float) -> results.Figure:
        """Seconds of what was compiled since the last figure."""
        what = "load_compiled" if self._hits else "compile"
        self._hits = 0
        return f"{label}/{what}", [taken], "s"


def mfu_figure(label: str, flops: list[float]) -> Iterator[results.Figure]:
    """FLOP a second of one device as parts of what its maker states; nothing of devices that are
    not known."""
    chip = chips.chip(jax.devices()[0].device_kind)
    if chip is not None:
        yield f"{label}/mfu", [f / chip.flops for f in flops], "×"
