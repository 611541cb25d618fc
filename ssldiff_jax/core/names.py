"""Names of folders: made from the request, or given."""

import re

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
