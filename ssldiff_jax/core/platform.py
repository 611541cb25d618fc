"""For which kind of device a program is written: the one at hand, or another it is compiled for."""

import contextlib
from collections.abc import Iterator

import jax

_OTHER: list[str] = []


def target() -> str:
    """cpu, gpu or tpu."""
    return _OTHER[-1] if _OTHER else jax.default_backend()


@contextlib.contextmanager
def compile_for(platform: str) -> Iterator[None]:
    """Write what is traced in the block for another kind of device."""
    _OTHER.append(platform)
    try:
        yield
    finally:
        _OTHER.pop()
