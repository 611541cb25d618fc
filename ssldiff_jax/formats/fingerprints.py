"""Fingerprints that show whether a file is the one that was read before, without reading it."""

import pathlib
from typing import Any

from ssldiff_jax.formats.torch_zip import WeightsError


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    """Those of a folder, and of the folders in it that are parts of a model."""
    inside = sorted(folder.iterdir())
    parts = (path for path in inside if (path / "config.json").is_file())
    return inside + [file for part in parts for file in sorted(part.iterdir())]


def of_path(path: str, key: str = "") -> dict[str, Any] | None:
    """Size and time of a file of weights, or of all files of a folder; None for no path. `key` is
    what names it.

    Raises WeightsError where there is no such file.
    """
    if not path:
        return None
    file = pathlib.Path(path).expanduser()
    if not file.exists():
        prefix = f"config.{key} must be a file or folder, got " if key else ""
        raise WeightsError(f"{prefix}no such file or folder: {path}")
    stats = [f.stat() for f in (_files(file) if file.is_dir() else [file])]
    return {
        "bytes": sum(s.st_size for s in stats),
        "time": int(max((s.st_mtime for s in stats), default=0)),
    }
