"""Counts what jax traces and compiles, by the events that it reports."""

import contextlib
import dataclasses
from collections.abc import Iterator

import jax

_TRACE = "/jax/core/compile/jaxpr_trace_duration"
_LOWER = "/jax/core/compile/jaxpr_to_mlir_module_duration"
_COMPILE = "/jax/core/compile/backend_compile_duration"


@dataclasses.dataclass
class Counts:
    """Programs that were traced, lowered, and compiled or taken from the cache of compiled ones;
    and the names of the functions that these are made of."""

    traces: int = 0
    lowerings: int = 0
    programs: int = 0
    names: list[str] = dataclasses.field(default_factory=list)

    def of(self, part: str) -> list[str]:
        """Names that hold `part`."""
        return [name for name in self.names if part in name]


@contextlib.contextmanager
def counted() -> Iterator[Counts]:
    """Count while the block runs."""
    counts = Counts()

    def note(event: str, seconds: float, fun_name: str = "", **_: object) -> None:
        counts.traces += event == _TRACE
        counts.lowerings += event == _LOWER
        counts.programs += event == _COMPILE
        if event == _COMPILE:
            counts.names.append(fun_name)

    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        yield counts
    finally:
        jax.monitoring.unregister_event_duration_listener(note)
