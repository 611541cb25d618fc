"""Files whose names look as they are written, whichever way their accents are kept."""

import os
import pathlib

from ssldiff_jax.core import spelling


def on_disk(path: str) -> str:
    """A path as the disk has it; as it is given where nothing there looks alike, or where several
    do."""
    if path.isascii() or os.path.lexists(path):
        return path
    found = pathlib.Path(pathlib.Path(path).anchor)
    for name in pathlib.Path(path).parts[1 if found.anchor else 0 :]:
        if os.path.lexists(found / name):
            found /= name
            continue
        try:
            alike = [n for n in os.listdir(found) if spelling.same(n) == spelling.same(name)]
        except OSError:
            return path
        if len(alike) != 1:
            return path
        found /= alike[0]
    return str(found)
