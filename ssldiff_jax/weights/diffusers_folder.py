"""Folders as diffusers saves a pipeline or a part of one: weights and what is said of them. Code
that lies in them is never run."""

import json
import logging
import pathlib
from collections.abc import Mapping
from typing import Any

from ssldiff_jax.formats.torch_zip import WeightsError

_LOG = logging.getLogger(__name__)

_PIPELINE = "model_index.json"
_CONFIG = "config.json"


def part(path: pathlib.Path, name: str) -> pathlib.Path:
    """Where the part `name` of a pipeline lies, where `path` is the folder of one that has it; for
    anything else `path` itself."""
    inside = path / name
    return inside if inside.is_dir() else path


def is_pipeline(path: pathlib.Path) -> bool:
    """Whether a folder holds the parts of a pipeline and no weights itself."""
    return (path / _PIPELINE).is_file() or (path / "transformer" / _CONFIG).is_file()


def config(path: pathlib.Path, name: str = _CONFIG) -> Mapping[str, Any]:
    """What a folder's config.json, or another file `name`, says; nothing where there is none.

    Raises WeightsError for a file that is no JSON object.
    """
    file = path / name
    if not file.is_file():
        return {}
    try:
        values = json.loads(file.read_text())
    except ValueError as error:
        raise WeightsError(f"{file}: expected JSON, got {error!s:.200}") from error
    if not isinstance(values, dict):
        raise WeightsError(f"{file}: expected a JSON object, got {type(values).__name__}")
    return values


def say_code(path: pathlib.Path) -> None:
    """Warn of Python files in a folder: they are left alone, whatever asks for them."""
    if not path.is_dir():
        return
    found = sorted(str(file.relative_to(path)) for file in path.rglob("*.py"))
    if found:
        _LOG.warning("%s has code that is not run: %s", path, ", ".join(found))
