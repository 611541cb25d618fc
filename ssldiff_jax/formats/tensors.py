"""Tensors of a file, a set of shards or a folder, whatever they were written with."""

import json
import pathlib

import numpy as np

from ssldiff_jax.formats import mapped, torch_legacy, torch_zip
from ssldiff_jax.formats.torch_zip import WeightsError

_ZIP_MAGIC = b"PK\x03\x04"
_WHOLE = ("model.safetensors", "diffusion_pytorch_model.safetensors", "pytorch_model.bin")


def read(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """Tensors by name from a safetensors or torch file, a `*.index.json` of shards, or a folder
    that holds one of these under its usual name.

    Raises WeightsError for anything else, for a shard that is missing, or for a tensor that the
    index places in a shard that lacks it.
    """
    path = pathlib.Path(path)
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

    path = pathlib.Path(path)
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
    whole = [folder / name for name in _WHOLE if (folder / name).is_file()]
    candidates = sorted(folder.glob("*.index.json")) + whole
    if not candidates:
        raise WeightsError(f"{folder}: expected one of {', '.join(_WHOLE)} or a *.index.json")
    return candidates[0]


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
