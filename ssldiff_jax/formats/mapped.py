"""Safetensors files mapped into memory: views of the file, and pages of it given back."""

import json
import math
import mmap
import pathlib
from typing import Any

import ml_dtypes
import numpy as np

from ssldiff_jax.core import arrays

_DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Tensors by name, read-only views of the mapped file: a model of 2 GB takes no memory beyond
    that of its parameters.

    Raises what the library that checks the file raises, KeyError for a dtype that is none of ours.
    """
    # Not at the top: a machine that only computes need not have it.
    import safetensors

    # It checks the whole header: that offsets lie inside the file, one tensor after the other.
    with safetensors.safe_open(path, "np"):
        pass
    with path.open("rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(start - 8))
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    header.pop("__metadata__", None)
    return {name: _view(content, start, about) for name, about in header.items()}


def _view(content: mmap.mmap, start: int, about: dict[str, Any]) -> np.ndarray:
    shape, dtype = tuple(about["shape"]), np.dtype(_DTYPES[about["dtype"]])
    if not math.prod(shape):
        return np.zeros(shape, dtype)
    return np.ndarray(shape, dtype, content, start + about["data_offsets"][0])


def release(array: arrays.AnyArray) -> None:
    """Let the system have the pages of a view of a mapped file: it reads them again if they are
    asked for again. Does nothing for any other array."""
    base = array
    while isinstance(base, np.ndarray):
        base = base.base
    content = base.obj if isinstance(base, memoryview) else base
    # Where the C library has no such call they stay until memory is short.
    if not isinstance(content, mmap.mmap) or not hasattr(mmap, "MADV_DONTNEED"):
        return
    first = np.frombuffer(content, np.uint8, 1).__array_interface__["data"][0]
    low, high = np.lib.array_utils.byte_bounds(array)
    # Whole pages: the first and the last are shared with a neighbour, which is read again.
    page = (low - first) // mmap.PAGESIZE * mmap.PAGESIZE
    content.madvise(mmap.MADV_DONTNEED, page, high - first - page)
