"""Files that say something of slides, such as polygons and masks, and may lie behind addresses."""

import contextlib
import pathlib
import tempfile
from collections.abc import Iterator

from ssldiff_jax.slides import attempts, remote
from ssldiff_jax.slides.protocol import SlideError

_GLOB = frozenset("*?[")


def is_one(address: str, suffixes: tuple[str, ...]) -> bool:
    """Whether an address is that of one file with these ends, and no glob or folder."""
    return _ends(address, suffixes) and not _GLOB & set(_unsigned(address))


def listed(address: str, suffixes: tuple[str, ...]) -> list[str]:
    """Addresses of files with these ends: of one that is named, whether or not it is there, those
    that a glob matches, or those in a folder. Raises SlideError where nothing answers."""
    if is_one(address, suffixes):
        return [address]
    try:
        system, path = remote.system_of(address)
        inside = system.glob if _GLOB & set(path) else lambda p: system.ls(p, detail=False)
        paths = attempts.until_answered(address, lambda: inside(path))
    except Exception as error:  # every file system has its own
        raise SlideError.because(address, "an address that opens", error) from error
    addresses = (system.unstrip_protocol(p.rstrip("/")) for p in paths)
    return sorted(a for a in addresses if _ends(a, suffixes))


def _ends(address: str, suffixes: tuple[str, ...]) -> bool:
    return _unsigned(address).lower().endswith(suffixes)


def _unsigned(address: str) -> str:
    """Without what signs a request."""
    is_http = address.startswith(("http://", "https://"))
    return address.partition("?")[0] if is_http else address


def read(address: str, at_most: int) -> bytes:
    """The first bytes of a file.

    Raises FileNotFoundError where it is not there, SlideError where it cannot be read.
    """
    try:
        return attempts.until_answered(address, lambda: _beginning(address, at_most))
    except FileNotFoundError as error:
        if attempts.is_absent(error):
            raise
        raise SlideError.because(address, "an address that opens", error) from error
    except Exception as error:  # every file system has its own
        raise SlideError.because(address, "an address that opens", error) from error


def _beginning(address: str, at_most: int) -> bytes:
    system, path = remote.system_of(address)
    with system.open(path) as file:
        return file.read(at_most)


@contextlib.contextmanager
def nearby(source: str) -> Iterator[pathlib.Path]:
    """Lend a file of this machine: itself or, of an address, a copy with what belongs to it.

    Raises SlideError where it cannot be copied, DiskFullError where there is no room for it. What
    is wrong with a copy is said of its address.
    """
    if not remote.is_remote(source):
        yield pathlib.Path(source)
        return
    with tempfile.TemporaryDirectory(prefix="slide-") as folder:
        copy = remote.copied(source, pathlib.Path(folder))
        try:
            yield copy
        except SlideError as error:  # the copy is gone when this is read
            raise SlideError(str(error).replace(str(copy), source)) from error
