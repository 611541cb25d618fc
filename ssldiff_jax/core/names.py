"""Names of folders: made from the request, or given."""

import collections
import pathlib
import re
from collections.abc import Sequence

from ssldiff_jax.core import schema

# Characters: at most 160 bytes in UTF-8, of the 255 that a file name may have.
_LONGEST = 40


def slug(words: str, *more: str) -> str:
    """A file name of words, cut short, and of what follows them:
    ("a large lake", "512x768", "seed0") → "a-large-lake-512x768-seed0"."""
    parts = (_plain(words)[:_LONGEST].rstrip("-._"), *map(_plain, more))
    return "-".join(part for part in parts if part)


def _plain(text: str) -> str:
    return re.sub(r"[^\w.]+", "-", text).strip("-._")


def require(key: str, name: str) -> None:
    """Raises ConfigError for a name that cannot be a folder's; "" is none."""
    if name and not re.fullmatch(r"\w[\w.-]*", name):
        raise schema.ConfigError(
            f"config.{key} must be letters, digits, '_', '-' and '.', and begin with none of the "
            f"last two, got {name!r}"
        )


def distinct(paths: Sequence[str]) -> list[str]:
    """A file name for each path or address: its own without suffix, after as many of its folders
    as tell it from the others: ("a/x.svs", "b/x.svs", "b/y.svs") → ("a_x", "b_x", "y")."""
    parts = [pathlib.PurePosixPath(path.replace("\\", "/")).parts for path in paths]
    stems = [pathlib.PurePosixPath(own[-1]).stem for own in parts]
    folders, own_names = [0] * len(paths), list(stems)
    while shared := _shared(own_names):
        for number in shared:
            folders[number] += 1
            before = [part.strip("/:") for part in parts[number][:-1]][-folders[number] :]
            # Of one folder, or of folders that spell the same: the suffix, then the place here.
            is_all = folders[number] > len(parts[number]) - 1
            last = parts[number][-1] if is_all else stems[number]
            tail = [str(number)] if folders[number] > len(parts[number]) else []
            own_names[number] = "_".join(part for part in (*before, last, *tail) if part)
    return own_names


def _shared(own_names: Sequence[str]) -> list[int]:
    """Where names stand that are not alone, also where case does not count."""
    counts = collections.Counter(name.casefold() for name in own_names)
    return [number for number, name in enumerate(own_names) if counts[name.casefold()] > 1]
