"""The memory and processor of this process's machine."""

import ctypes
import os
import pathlib
import platform
import resource
from collections.abc import Callable

_STATUS = pathlib.Path("/proc/self/status")
_CLEAR = pathlib.Path("/proc/self/clear_refs")
_MACHINE = pathlib.Path("/proc/meminfo")


# glibc's mallopt parameters.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8


def keep_freed() -> None:
    """Let glibc keep what XLA frees at the end of a step for the next one.

    Otherwise every step's buffers go back to the system and come again page by page, a third of
    the time of a small model's step on CPU. Does nothing where the C library is another.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    # mallopt(3): one heap for all threads, and large blocks in it as well, since a block that is
    # mapped alone goes back to the system as soon as it is freed.
    mallopt(_ARENA_MAX, 1)
    mallopt(_MMAP_MAX, 0)
    # Its end is never given back (the largest int), and grows by 64 MiB at a time.
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_TOP_PAD, 64 << 20)


def give_back_freed() -> None:
    """Let the system have what glibc keeps of freed memory; nothing where the C library is
    another."""
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        return


def reset_peak() -> None:
    """Reset the peak; where the kernel does not offer that, it stays the process's."""
    try:
        # proc(5): 5 sets VmHWM, the peak, to what is resident now.
        _CLEAR.write_text("5")
    except OSError:
        return


def peak_rss_mb() -> float:
    """Peak resident memory since `reset_peak`, MiB."""
    peak = _kilobytes(_STATUS, "VmHWM")
    if peak is not None:
        return peak / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def rss_mb() -> float:
    """Resident memory now, MiB."""
    resident = _kilobytes(_STATUS, "VmRSS")
    if resident is not None:
        return resident / 1024
    # Not at the top: where there is /proc it is not needed.
    import psutil

    return psutil.Process().memory_info().rss / 2**20


def peak_mb_beyond(call: Callable[[], object]) -> float:
    """Peak resident memory while `call` runs beyond what the process holds before, MiB."""
    # What glibc kept of freed memory would serve the call, and not show.
    give_back_freed()
    reset_peak()
    before = rss_mb()
    call()
    return peak_rss_mb() - before


def total_gb() -> float:
    """Memory of the machine, GB."""
    return total_bytes() / 1e9


def total_bytes() -> int:
    """Memory of the machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def available_bytes() -> int:
    """Memory of the machine that programs can still have."""
    available = _kilobytes(_MACHINE, "MemAvailable")
    if available is not None:
        return 1024 * available
    import psutil

    return psutil.virtual_memory().available


def _kilobytes(file: pathlib.Path, name: str) -> int | None:
    """A line of a file of the kernel; None where it has no such file or line."""
    if not file.exists():
        return None
    lines = (line.partition(":") for line in file.read_text().splitlines())
    return next((int(value.split()[0]) for key, _, value in lines if key == name), None)


def processor() -> str:
    """The processor's name."""
    info = pathlib.Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
