"""What tells that a file is the one that was read before, without reading it."""

import pathlib
from typing import Any

from ssldiff_jax.formats.torch_zip import WeightsError


def of_path(path: str, key: str = "") -> dict[str, Any] | None:
    """Size and time of a file of weights, or of all files of a folder; None for no path. `key` is
    what names it.

    Raises WeightsError where there is no such file.
    """
    if not path:
        return None
    found = pathlib.Path(path).expanduser()
    if not found.exists():
        told = f"config.{key} must be a file or folder, got " if key else ""
        raise WeightsError(f"{told}no such file or folder: {path}")
    stats = [f.stat() for f in (sorted(found.iterdir()) if found.is_dir() else [found])]
    return {
        "bytes": sum(s.st_size for s in stats),
        "time": int(max((s.st_mtime for s in stats), default=0)),
    }
