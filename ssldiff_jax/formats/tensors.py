"""Tensors of a file, a set of shards or a folder, whatever they were written with."""

import json
import pathlib

import numpy as np

from ssldiff_jax.formats import hub, hub_files, mapped, torch_legacy, torch_zip
from ssldiff_jax.formats.torch_zip import WeightsError

_ZIP_MAGIC = b"PK\x03\x04"


def read(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """Tensors by name from a safetensors or torch file, a `*.index.json` of shards, or a folder
    that holds one of these under its usual name or alone; also by the address of one on the Hub.

    Raises WeightsError for anything else, for a shard that is missing, or for a tensor that the
    index places in a shard that lacks it.
    """
    where = hub.local(path)
    try:
        return _read(where)
    except WeightsError as error:
        if not hub.is_address(path):
            raise
        # Where the cache has it is no name that anyone gave it.
        raise WeightsError(str(error).replace(str(where), hub.pinned(path))) from error


def _read(path: pathlib.Path) -> dict[str, np.ndarray]:
    if path.is_dir():
        path = _within(path)
    if not path.is_file():
        raise WeightsError(f"no such file of weights: {path}")
    if path.name.endswith(".index.json"):
        return _read_shards(path)
    with path.open("rb") as file:
        head = file.read(9)
    if head.startswith(_ZIP_MAGIC):
        return torch_zip.read(path)
    # safetensors: the length of the header in eight bytes, then the header, a JSON object.
    if head[8:9] == b"{":
        return _read_safetensors(path)
    if torch_legacy.is_one(path):
        return torch_legacy.read(path)
    raise WeightsError(f"{path}: expected safetensors or a torch file, got neither")


def metadata(path: str | pathlib.Path) -> dict[str, str]:
    """What a safetensors file says beside its tensors; nothing for any other file."""
    # Not at the top: a machine that only computes need not have it.
    import safetensors.numpy

    path = hub.local(path)
    if not path.is_file():
        return {}
    with path.open("rb") as file:
        head = file.read(9)
    if head[8:9] != b"{":
        return {}
    try:
        with safetensors.safe_open(path, "np") as file:
            return file.metadata() or {}
    except safetensors.SafetensorError as error:
        raise WeightsError(f"{path}: expected safetensors, got {error!s:.200}") from error


def _within(folder: pathlib.Path) -> pathlib.Path:
    """The file of weights in a folder; safetensors come before torch files, shards before one."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    hub_files.warn_of_code(folder, names)
    usual = [n for n in names if n.endswith((".safetensors.index.json", ".bin.index.json"))]
    usual += [name for name in hub_files.WHOLE if name in names]
    # Safetensors first; sorting keeps the order else.
    usual.sort(key=lambda name: ".safetensors" not in name)
    of_kinds = ([n for n in names if n.endswith(ends)] for ends in hub_files.KINDS)
    alone = [files[0] for files in of_kinds if len(files) == 1]
    if not usual + alone:
        raise WeightsError(
            f"{folder}: expected one of {', '.join(hub_files.WHOLE)}, a *.index.json or one file "
            f"of another name, got {hub_files.listed(names)}"
        )
    return folder / (usual + alone)[0]


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    import safetensors

    try:
        return mapped.read(path)
    except (safetensors.SafetensorError, TypeError, ValueError, KeyError, OSError) as error:
        raise WeightsError(f"{path}: expected safetensors, got {error!s:.200}") from error


def _read_shards(index: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        placed = json.loads(index.read_text())["weight_map"]
        # By the last part of a name: an index must not lead out of its folder.
        shards = {str(name): index.parent / pathlib.Path(name).name for name in placed.values()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{index}: expected an index with a weight_map, got {error}") from error
    missing = [name for name, path in shards.items() if not path.is_file()]
    if missing:
        raise WeightsError(
            f"{index}: {len(shards)} shards expected, missing {', '.join(sorted(missing))}"
        )
    tensors: dict[str, np.ndarray] = {}
    for path in shards.values():
        tensors |= read(path)
    lacking = sorted(set(placed) - set(tensors))
    if lacking:
        raise WeightsError(f"{index}: shards lack {len(lacking)} tensors, first {lacking[0]}")
    return tensors
