"""Slides behind an address (`gs://`, `s3://`, `https://` … whatever fsspec opens)."""

import dataclasses
import pathlib
import tempfile
from typing import Any

import fsspec

from ssldiff_jax.slides import slide as slide_lib
from ssldiff_jax.slides.protocol import SlideError

_GLOB = frozenset("*?[")


def is_remote(source: str) -> bool:
    """Whether it is an address and no path."""
    return "://" in source


def name_of(source: str) -> str:
    """The file name at the end of a path or address."""
    return source.rstrip("/").rpartition("/")[2]


def find(pattern: str) -> list[str]:
    """Addresses of slides: those that a glob matches, those in a folder, or one alone.

    Raises SlideError where nothing is there, or it cannot be asked.
    """
    try:
        system, path = fsspec.core.url_to_fs(pattern)
        if _GLOB & set(path):
            found = system.glob(path)
        elif system.isdir(path):
            inside = system.ls(path, detail=False)
            found = [p for p in inside if pathlib.PurePath(p).suffix.lower() in slide_lib.SUFFIXES]
        else:
            found = [path] if system.exists(path) else []
    except Exception as error:  # every file system has its own
        raise SlideError.because(pattern, "an address that opens", error) from error
    if not found:
        raise SlideError(f"no slide matches '{pattern}': expected a file, a glob or a folder")
    return sorted(system.unstrip_protocol(p) for p in found)


def fingerprint(source: str) -> list[Any]:
    """Name and size of a file, and its check sum where the file system knows one."""
    try:
        system, path = fsspec.core.url_to_fs(source)
        told = system.info(path)
    except Exception as error:
        raise SlideError.because(source, "an address that opens", error) from error
    known = [told[key] for key in ("md5Hash", "ETag", "etag", "mtime") if key in told]
    return [name_of(source), told.get("size"), *known[:1]]


def open_remote(source: str, **options: Any) -> slide_lib.Slide:
    """Copy a slide to this machine and open it; closing it deletes the copy. `options` are those
    of `open_slide`.

    Of formats of several files, MRXS with its folder is understood.
    Raises SlideError where it cannot be copied or opened.
    """
    folder = tempfile.TemporaryDirectory(prefix="slide-")
    try:
        copy = pathlib.Path(folder.name) / name_of(source)
        try:
            system, path = fsspec.core.url_to_fs(source)
            system.get_file(path, str(copy))
            beside = path.removesuffix(copy.suffix)
            if copy.suffix.lower() == ".mrxs" and system.isdir(beside):
                system.get(beside, str(copy.with_suffix("")), recursive=True)
        except Exception as error:
            problem = SlideError.because(source, "a file to copy", error)
            raise problem from error
        return _Copied(slide_lib.open_slide(copy, **options), folder)
    except BaseException:
        folder.cleanup()
        raise


@dataclasses.dataclass
class _Copied:
    """A slide in a folder that goes with it."""

    slide: slide_lib.Slide
    folder: tempfile.TemporaryDirectory

    def __getattr__(self, name: str) -> Any:
        return getattr(self.slide, name)

    def close(self) -> None:
        self.slide.close()
        self.folder.cleanup()
