"""NumPy's array files, written part by part."""

import pathlib
from collections.abc import Iterable

import numpy as np


def write(
    path: pathlib.Path, shape: tuple[int, ...], dtype: np.typing.DTypeLike, parts: Iterable
) -> None:
    """An array of `shape` whose rows come in `parts`, of which one is in memory at a time.

    Not by a mapped file, whose pages stay with the process until there is no more room, and which
    on a full disk ends it by SIGBUS, without a word.
    Raises ValueError where the parts have not as many rows.
    """
    dtype, count = np.dtype(dtype), 0
    header = np.lib.format.header_data_from_array_1_0(np.zeros((0, *shape[1:]), dtype))
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header | {"shape": shape})
        for part in parts:
            rows = np.ascontiguousarray(part, dtype)
            if rows.shape[1:] != shape[1:]:
                raise ValueError(f"{path} must have rows of {shape[1:]}, got {rows.shape[1:]}")
            file.write(rows.data)
            count += len(rows)
    if count != shape[0]:
        raise ValueError(f"{path} must have {shape[0]} rows, got {count}")
