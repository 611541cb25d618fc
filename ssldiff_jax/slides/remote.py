"""Slides behind an address (`gs://`, `s3://`, `https://` … whatever fsspec opens)."""

import dataclasses
import hashlib
import pathlib
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ssldiff_jax.core import exhausted
from ssldiff_jax.slides import attempts, content, dicom, ngff
from ssldiff_jax.slides import reading as reading_lib
from ssldiff_jax.slides import slide as slide_lib
from ssldiff_jax.slides.protocol import SlideError

if TYPE_CHECKING:
    import fsspec

_GLOB = frozenset("*?[")
_RASTERS = (".tif", ".tiff", ".jp2", ".j2k")  # beside which there may be files of GDAL
_CONTENT = (
    "md5Hash", "ETag", "etag", "Content-MD5", "content_md5", "Digest", "checksum", "mtime",
    "LastModified", "Last-Modified", "last_modified", "updated", "modified",
)  # fmt: skip
"""What file systems call a check sum, or the time of the last change, best first."""


def is_remote(source: str) -> bool:
    """Whether it is an address and no path."""
    return "://" in source


def name_of(source: str) -> str:
    """The file name at the end of a path or address, without what signs a request; of an image in a
    Zarr store that of both."""
    if source.startswith(("http://", "https://")):
        source = source.partition("?")[0]
    if ngff.is_named(name := source.rstrip("/")) and not name.lower().endswith(ngff.SUFFIX):
        return ngff.name_of(source)
    return source.rstrip("/").rpartition("/")[2]


def read_bytes(source: str) -> bytes:
    """All of a small file behind an address."""
    system, path = system_of(source)
    return system.cat_file(path)


def printable(name: str) -> str:
    """A name as text: bytes of one that is no UTF-8 are written out."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def find(pattern: str) -> list[str]:
    """Addresses of slides: those that a glob matches, those in a folder, or one alone, which need
    not be there.

    Raises SlideError where a glob or folder has none, or does not answer.
    """
    try:
        system, path = system_of(pattern)
        if _is_one(pattern):
            paths = _named(system, path)
        else:
            paths = attempts.until_answered(pattern, lambda: _slides(system, path))
    except Exception as error:  # every file system has its own
        raise SlideError.because(pattern, "an address that opens", error) from error
    if not paths:
        raise SlideError(f"no slide matches '{pattern}': expected a file, a glob or a folder")
    return sorted(system.unstrip_protocol(p) for p in paths)


def system_of(source: str) -> tuple["fsspec.AbstractFileSystem", str]:
    """The file system of an address, and the path in it."""
    # Not at the top: a machine that only computes need not have it.
    import fsspec

    return fsspec.core.url_to_fs(source, **attempts.http_options(source))


def _is_one(pattern: str) -> bool:
    """Whether it names one slide: what signs an address of the web may hold a question mark."""
    is_web = pattern.startswith(("http://", "https://"))
    is_glob = (_GLOB - {"?"} if is_web else _GLOB) & set(pattern)
    return not is_glob and pathlib.PurePath(name_of(pattern)).suffix.lower() in slide_lib.SUFFIXES


def _named(system: "fsspec.AbstractFileSystem", path: str) -> list[str]:
    """A slide that was named, also where it does not answer, is not there or is forbidden: who
    reads it asks again, says so, and can do without it."""
    try:
        return _slides(system, path) or [path]
    except Exception:  # every file system has its own
        return [path]


def _slides(system: "fsspec.AbstractFileSystem", path: str) -> list[str]:
    if ngff.is_named(path) and not _GLOB & set(path):
        # Whether it is there says who reads it: no server lists it for all.
        return [path.rstrip("/")]
    if _GLOB & set(path):
        paths = system.glob(path)
    elif system.isdir(path):
        inside = [p.rstrip("/") for p in system.ls(path, detail=False)]
        paths = [p for p in inside if pathlib.PurePath(p).suffix.lower() in slide_lib.SUFFIXES]
    else:
        paths = [path] if _exists(system, path) else []
    return _without_parts(system, sorted(paths))


def _exists(system: "fsspec.AbstractFileSystem", path: str) -> bool:
    """Raises what a server says that failed; file systems' own `exists` takes it for a no."""
    try:
        system.info(path)
    except FileNotFoundError as error:
        if not attempts.is_absent(error):
            raise
        return False
    return True


def fingerprint(source: str) -> list[Any]:
    """Name and size of a slide and a fingerprint of its content: a check sum or time where the file
    system knows one, else a hash of its first MiB; of a series or an MRXS, of all files."""
    if ngff.is_named(source):
        return [name_of(source), _content_hash(source)]
    try:
        system, path = system_of(source)
        look = lambda: [_facts(system, part) for part in (path, *_parts(system, path))]
        parts = attempts.until_answered(source, look)
    except Exception as error:
        raise SlideError.because(source, "an address that opens", error) from error
    (size, *content_facts), *others = parts
    return [name_of(source), size, *content_facts, *others]


def _content_hash(source: str) -> str:
    slide = open_remote(source, mpp=1.0)
    try:
        return slide_lib.identity(slide)
    finally:
        slide.close()


def _facts(system: "fsspec.AbstractFileSystem", path: str) -> list[Any]:
    info = system.info(path)
    content_facts = [str(info[key]) for key in _CONTENT if info.get(key)][:1]
    if not content_facts:
        with system.open(path) as file:
            content_facts = [hashlib.sha256(file.read(2**20)).hexdigest()[:32]]
    return [info.get("size"), *content_facts]


def _parts(system: "fsspec.AbstractFileSystem", path: str) -> list[str]:
    """The other files of a slide: the folder beside an MRXS, instances of a DICOM series, what
    GDAL reads beside a raster."""
    suffix = pathlib.PurePath(path).suffix
    if suffix.lower() in _RASTERS:
        return _beside(system, path)
    if suffix.lower() == ".mrxs" and system.isdir(path.removesuffix(suffix)):
        return sorted(system.find(path.removesuffix(suffix)))
    if suffix.lower() != ".dcm":
        return []
    folder, uid = path.rpartition("/")[0], _series(system, path)
    inside = (p for p in system.ls(folder, detail=False) if p.lower().endswith(".dcm"))
    return sorted(p for p in inside if uid and p != path and _series(system, p) == uid)


def _beside(system: "fsspec.AbstractFileSystem", path: str) -> list[str]:
    folder, slash, name = path.rpartition("/")
    expected = [folder + slash + other for other in content.names_beside(name)]
    try:
        listed = set(system.ls(folder, detail=False))
    except Exception:  # a server without lists
        listed = set()
    # A list without the slide itself is none of this folder.
    is_list = path in listed
    return [other for other in expected if (other in listed if is_list else _exists(system, other))]


def _series(system: "fsspec.AbstractFileSystem", path: str) -> str | None:
    with system.open(path) as file:
        return dicom.series_uid(file)


def _without_parts(system: "fsspec.AbstractFileSystem", paths: list[str]) -> list[str]:
    """One file for each DICOM series: the first."""
    whole, seen = [], set()
    for path in paths:
        is_dicom = path.lower().endswith(".dcm")
        series = (path.rpartition("/")[0], _series(system, path)) if is_dicom else (path, None)
        if series[1] is None or series not in seen:
            whole.append(path)
            seen.add(series)
    return whole


def open_remote(
    source: str,
    *,
    open_copy: Callable[..., slide_lib.Slide] = slide_lib.open_slide,
    **options: Any,
) -> slide_lib.Slide:
    """Copy a slide to this machine and open it; closing it deletes the copy. `options` are those
    of `open_copy`. OME-Zarr is read where it lies, chunk by chunk.

    Of formats of several files, MRXS with its folder, DICOM series, and rasters with what GDAL
    reads beside them are understood.
    Raises SlideError where it cannot be copied or opened, DiskFullError where this machine has no
    room for it.
    """
    if ngff.is_named(source):
        return _open_in_place(source, **options)
    folder = tempfile.TemporaryDirectory(prefix="slide-")
    try:
        copy = copied(source, pathlib.Path(folder.name))
        return _Copied(_opened(source, copy, open_copy, options), folder)
    except BaseException:
        folder.cleanup()
        raise


def copied(source: str, folder: pathlib.Path) -> pathlib.Path:
    """Copy a file, and what belongs to it, into a folder.

    Raises SlideError where it cannot be copied, DiskFullError where there is no room for it.
    """
    copy = folder / name_of(source)
    try:
        system, path = system_of(source)
        _copy(source, system, path, copy)
        for part in attempts.until_answered(source, lambda: _parts(system, path)):
            inside = part.removeprefix(path.rpartition("/")[0]).lstrip("/")
            target = copy.parent / inside
            target.parent.mkdir(parents=True, exist_ok=True)
            _copy(source, system, part, target)
    except Exception as error:
        shortage = exhausted.shortage(error)
        if shortage is not None and shortage.of == "disk":
            what, parent = f"a copy of {source}", tempfile.gettempdir()
            raise exhausted.DiskFullError(what, shortage.needed, folder=parent) from error
        if isinstance(error, FileNotFoundError):  # says the address alone
            raise SlideError(f"expected a file to copy, got {source}: nothing is there") from error
        raise SlideError.because(source, "a file to copy", error) from error
    return copy


def _open_in_place(
    source: str,
    *,
    mpp: float | None = None,
    otherwise_mpp: float | None = None,
    reading: reading_lib.ReadingConfig = reading_lib.AS_STORED,
) -> slide_lib.Slide:
    # Not at the top: a machine that only computes can open no slides.
    from ssldiff_jax.slides import zarr_image

    slide_lib.require_mpp(source, mpp)
    return slide_lib.of_backend(source, zarr_image.ZarrBackend(source, reading), mpp, otherwise_mpp)


def _copy(
    source: str, system: "fsspec.AbstractFileSystem", path: str, target: pathlib.Path
) -> None:
    attempts.until_answered(source, lambda: system.get_file(path, str(target)))


def _opened(
    source: str, copy: pathlib.Path, open_copy: Callable[..., slide_lib.Slide], options: Any
) -> slide_lib.Slide:
    try:
        return open_copy(copy, **options)
    except SlideError as error:  # the copy is gone when this is read
        # Of its own kind, whose parts are all text.
        raise type(error)(*(str(a).replace(str(copy), source) for a in error.args)) from error


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
