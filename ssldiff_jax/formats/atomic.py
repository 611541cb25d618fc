"""Files that are either whole or absent."""

import json
import logging
import math
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any

_LOG = logging.getLogger(__name__)

# Of `write_atomic` and of images; of shards.
_UNFINISHED = re.compile(r"\..+\.[a-z0-9_]{8}(\.[^.]+)?|\.[0-9a-f]{12}")

# Of images that are folders.
_UNFINISHED_FOLDER = re.compile(r"\..+\.(zarr|dcm)\.[0-9a-f]{8}")


def write_atomic(path: pathlib.Path, write: Callable[[pathlib.Path], None]) -> None:
    """Let `write` fill a temporary neighbour of `path`, then move it into place.

    Raises OSError that names `path`; the temporary file is gone then.
    """
    path = pathlib.Path(path)
    name = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        prefix = f".{path.name}."
        # Beside the file, since a rename is atomic within one file system alone; with its suffix,
        # which writers such as np.savez would add.
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=prefix, suffix=path.suffix)
        os.close(handle)
        write(pathlib.Path(name))
        # mkstemp makes files that their owner alone may read.
        os.chmod(name, 0o644)
        os.replace(name, path)
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if name is not None:
            pathlib.Path(name).unlink(missing_ok=True)


def unfinished(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Files below a folder that were on their way when a process was killed, where no other is at
    work there, and images that are folders: each has a name that is never used again."""
    for path in folder.rglob(".*"):
        is_file = _UNFINISHED.fullmatch(path.name) and path.is_file()
        is_folder = _UNFINISHED_FOLDER.fullmatch(path.name) and path.is_dir()
        if (is_file or is_folder) and not path.is_symlink():
            yield path


def remove(paths: Iterable[pathlib.Path]) -> int:
    """Remove files and folders; returns the bytes that were in them."""
    size = 0
    for path in paths:
        inside = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
        size += sum(p.stat().st_size for p in inside)
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return size


def write_json(path: pathlib.Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically. NaN and infinity, which JSON has not, are
    written as null, and a warning names their keys."""
    try:
        text = json.dumps(value, indent=2, default=_plain, allow_nan=False)
    except ValueError:
        # Through JSON, which has NaN in Python: tuples and NumPy's scalars are plain after it.
        value = json.loads(json.dumps(value, default=_plain))
        bad: list[str] = []
        text = json.dumps(_finite(value, "", bad), indent=2, allow_nan=False)
        _LOG.warning("%s: not finite, written as null: %s", path, ", ".join(bad))
    write_text(path, text + "\n")


def _finite(value: Any, key: str, bad: list[str]) -> Any:
    """With None for what is not finite; its keys are added to `bad`."""
    if isinstance(value, dict):
        return {k: _finite(v, f"{key}.{k}".lstrip("."), bad) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(v, f"{key}[{i}]", bad) for i, v in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        bad.append(key)
        return None
    return value


def write_text(path: pathlib.Path, text: str) -> None:
    """Write text, atomically."""
    write_atomic(path, lambda p: _write(p, text))


def _write(path: pathlib.Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)


def read_json(path: pathlib.Path) -> Any:
    """Read JSON; ValueError names the file when it is damaged."""
    try:
        return json.loads(pathlib.Path(path).read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
