"""Errors that mean that memory or a disk is full, whichever library raises them."""

import dataclasses
import errno
import functools
import re
from collections.abc import Iterator
from typing import Literal

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# Rust and C++ report it in words alone; numpy counts what it could not write.
_DISK = re.compile(
    r"ENOSPC|EDQUOT|EFBIG|No space left on device|[Dd]isk quota exceeded|File too large|"
    r"\d+ requested and \d+ written"
)
_MEMORY = re.compile(
    r"RESOURCE_EXHAUSTED|[Oo]ut of memory|bad_alloc|Cannot allocate memory|Unable to allocate"
)
# XLA: allocating 40000000000 bytes, allocate 1.50GiB; TPU: Used 20.5G of; numpy: allocate 7 TiB.
_AMOUNT = re.compile(r"(?:allocat(?:e|ing)|Used) ([\d.]+) ?(bytes|[KMGTPE]?i?B?)\b", re.IGNORECASE)
_PREFIXES = "KMGTPE"


@dataclasses.dataclass(frozen=True)
class Shortage:
    """What is full, and how many bytes were needed, where that is known."""

    of: Literal["memory", "disk"]
    needed: int | None


class DiskFullError(OSError):
    """A file of `needed` bytes did not fit; into `folder`, where it is another than that of the
    work."""

    def __init__(self, what: str, needed: int | None, *, folder: str = ""):
        super().__init__(errno.ENOSPC, f"no room for {what}")
        self.what, self.needed, self.folder = what, needed, folder

    def __reduce__(self):
        # OSError would be made again of its number and text, in the process that waits for it.
        return functools.partial(DiskFullError, folder=self.folder), (self.what, self.needed)


class StepTooLargeError(MemoryError):
    """A training step that its device did not hold.

    Attributes:
        state: bytes of parameters, their average and moments on the device.
        beside: bytes that the step takes beside them: gradients, and what examples leave behind.
        examples: those that the device computes at once.
    """

    def __init__(self, state: int, beside: int, examples: int):
        super().__init__(f"a step of {examples} examples did not fit")
        self.state, self.beside, self.examples = state, beside, examples


def of_step(error: BaseException) -> StepTooLargeError | None:
    """The training step that did not fit, where that is what an error came from."""
    return next((e for e in _chain(error) if isinstance(e, StepTooLargeError)), None)


def full_folder(error: BaseException) -> str:
    """The folder that was full, where an error or any that led to it names another than that of the
    work."""
    folders = (e.folder for e in _chain(error) if isinstance(e, DiskFullError) and e.folder)
    return next(folders, "")


def shortage(error: BaseException) -> Shortage | None:
    """What was short, where an error or any that led to it says so."""
    chain = list(_chain(error))
    needed = [e.needed for e in chain if isinstance(e, DiskFullError) and e.needed]
    # A full disk is RESOURCE_EXHAUSTED too.
    if any(_is_of_disk(e) for e in chain):
        return Shortage("disk", needed[0] if needed else None)
    short = [e for e in chain if _is_of_memory(e)]
    if not short:
        return None
    amounts = [amount for e in short if (amount := _amount(str(e)))]
    return Shortage("memory", amounts[0] if amounts else None)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error, those it holds and those it came from."""
    waiting, seen = [error], set()
    while waiting:
        this = waiting.pop(0)
        # `raise … from e` makes e both cause and context.
        if this is None or id(this) in seen:
            continue
        seen.add(id(this))
        yield this
        # `exceptions` are those of an ExceptionGroup.
        waiting += [*getattr(this, "exceptions", ()), this.__cause__, this.__context__]


def _is_of_disk(error: BaseException) -> bool:
    return (isinstance(error, OSError) and error.errno in _FULL) or bool(_DISK.search(str(error)))


def _is_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or (
        isinstance(error, OSError) and error.errno == errno.ENOMEM
    ):
        return True
    # Of other kinds only what a runtime raises: a text may speak of memory for any reason.
    return isinstance(error, RuntimeError | ValueError) and bool(_MEMORY.search(str(error)))


def _amount(text: str) -> int | None:
    """The first number of bytes in a message."""
    match = _AMOUNT.search(text)
    if not match:
        return None
    number, unit = float(match[1]), match[2].upper()
    power = _PREFIXES.find(unit[0]) + 1 if unit and unit != "BYTES" else 0
    # XLA and numpy count by 1024; in messages of TPUs G means GiB.
    return int(number * 1024**power)
