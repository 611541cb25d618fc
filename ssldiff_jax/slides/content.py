"""What a slide is known by: the content of all its files, never their names and sizes."""

import functools
import hashlib
import os
import pathlib
from collections.abc import Iterable, Iterator

from ssldiff_jax.slides import dicom, ngff

_MIB = 2**20
_WHOLE = 16 * _MIB  # larger files are known by samples: a scanner's has a GB
_SAMPLES, _SAMPLE = 1024, 4096  # spread evenly between the first and the last MiB, bytes
_BESIDE = (".msk", ".ovr", ".aux.xml")  # GDAL reads them with a raster, and:
_WORLD = "wld"  # instead of the suffix: it says where a raster lies
_KEY_FILES = (".vms", ".vmu")  # of Hamamatsu: text that names the images


def files_of(path: pathlib.Path) -> list[pathlib.Path]:
    """All files of a slide, itself first: the folder beside an MRXS, a series of DICOM instances,
    what a Hamamatsu key file names, what GDAL reads beside a raster.

    Itself alone where it cannot be read: the reason is reported where it is opened, and costs that
    slide.
    """
    try:
        more = _more(path)
    except OSError:
        more = []
    return [path, *(p for p in more if p != path)]


def _more(path: pathlib.Path) -> list[pathlib.Path]:
    suffix = path.suffix.lower()
    if ngff.is_folder(path):
        return []  # a slide of its own, whose chunks may be a million
    if suffix == ".mrxs":
        return sorted(p for p in path.with_suffix("").rglob("*") if os.path.isfile(p))
    if suffix == ".dcm":
        return dicom.series_of(path)
    if suffix in _KEY_FILES:
        return _named_in(path)
    beside = (path.with_name(name) for name in names_beside(path.name))
    return [p for p in beside if os.path.isfile(p)]


def names_beside(name: str) -> list[str]:
    """What GDAL reads with a raster of a name, if it is there: a mask, overviews, what it notes in
    a file of its own, world files (scene.tfw or .tifw of scene.tif)."""
    stem, dot, suffix = name.rpartition(".")
    if not (stem and suffix):
        return [name + end for end in _BESIDE]
    lies = (f"{suffix[0]}{suffix[-1]}w", f"{suffix}w", _WORLD)
    lies = dict.fromkeys(end for one in lies for end in (one, one.lower(), one.upper()))
    return [*(name + end for end in _BESIDE), *(stem + dot + end for end in lies)]


def without_parts(paths: Iterable[pathlib.Path]) -> list[pathlib.Path]:
    """Slides in their order, without files that are parts of one before or behind them."""
    parts, slides = set(), []
    for path in paths:
        if path not in parts:
            slides.append(path)
            parts.update(files_of(path)[1:])
    return [path for path in slides if path not in parts]


def size(path: pathlib.Path) -> int:
    """Bytes of the file of a slide, or of all files in the folder that is one."""
    if not ngff.is_folder(path):
        return path.stat().st_size
    return sum(stat.st_size for _, stat in _inside(path))


def digest(path: pathlib.Path) -> str:
    """A hash of a slide's files: of the whole of those up to 16 MiB, and of the size, both ends and
    1024 places between them of others. Of a folder of OME-Zarr: of what describes it, of names and
    sizes of all chunks, and of the begin of 1024 of them.

    Writing a slide again changes it nearly everywhere; a change of less than a thousandth of a
    large file in place may be missed. Raises OSError for files that cannot be read.
    """
    if ngff.is_folder(path):
        inside = [(str(p), s.st_size, s.st_mtime_ns, s.st_ctime_ns) for p, s in _inside(path)]
        return _digest_of_folder(path, hashlib.sha256(repr(inside).encode()).hexdigest())
    stats = [(str(p), p.stat()) for p in files_of(path)]
    # Times are the key of the cache alone: mtime can be set back, ctime can't.
    return _digest(tuple((name, s.st_size, (s.st_mtime_ns, s.st_ctime_ns)) for name, s in stats))


@functools.lru_cache(2**16)  # a launch asks several times
def _digest(stats: tuple[tuple[str, int, tuple[int, int]], ...]) -> str:
    hasher = hashlib.sha256()
    for name, size, _ in stats:
        # A buffer would read more than each of the 1024 samples has.
        with open(name, "rb", buffering=0) as file:
            hasher.update(size.to_bytes(8, "big"))
            for start, length in _places(size):
                file.seek(start)
                hasher.update(file.read(length))
    return hasher.hexdigest()[:32]


def _inside(folder: pathlib.Path) -> list[tuple[pathlib.Path, os.stat_result]]:
    """All files below a folder, in the order of their names."""
    paths = (pathlib.Path(top) / name for top, _, names in os.walk(folder) for name in names)
    return [(path, path.stat()) for path in sorted(paths)]


@functools.lru_cache(2**12)
def _digest_of_folder(folder: pathlib.Path, _stats: str) -> str:
    hasher, inside = hashlib.sha256(), _inside(folder)
    step = max(len(inside) // _SAMPLES, 1)
    for number, (path, stat) in enumerate(inside):
        # Within the folder the names of chunks are their places: they are content.
        hasher.update(f"{path.relative_to(folder).as_posix()} {stat.st_size}\n".encode())
        is_document = path.name in ngff.DOCUMENTS
        if is_document or number % step == 0:
            with open(path, "rb", buffering=0) as file:
                hasher.update(file.read(-1 if is_document else _SAMPLE))
    return hasher.hexdigest()[:32]


def _places(size: int) -> Iterator[tuple[int, int]]:
    if size <= _WHOLE:
        yield 0, size
        return
    yield 0, _MIB
    step = (size - 2 * _MIB) // _SAMPLES
    yield from ((_MIB + number * step, _SAMPLE) for number in range(_SAMPLES))
    yield size - _MIB, _MIB


def whole_digest(path: pathlib.Path) -> str:
    """A hash of all that is in a slide's files, which copies share whatever they are called, and
    whatever lies beside them: a viewer of rasters leaves notes there."""
    hashes, beside = [], names_beside(path.name)
    for part in (p for p in files_of(path) if p.name not in beside):
        with part.open("rb") as file:
            hashes.append(hashlib.file_digest(file, "sha256").hexdigest())
    first, *others = hashes
    # Instances of a series, and parts of a folder, may be called anything.
    named = [first, *others] if path.suffix.lower() != ".dcm" else sorted(hashes)
    return hashlib.sha256("".join(named).encode()).hexdigest()


def _named_in(path: pathlib.Path) -> list[pathlib.Path]:
    text = path.read_text("utf-8", "replace") if path.stat().st_size < _MIB else ""
    values = (line.partition("=")[2].strip() for line in text.splitlines())
    folder = path.parent
    named = (folder / value for value in values if value and os.sep not in value)
    return sorted({p for p in named if os.path.isfile(p)})  # False for names too long to be
