"""Arrays of numbers or of names in .npy files, of which nothing is executed."""

import pathlib
from typing import Any

import numpy as np

from ssldiff_jax.formats import pickles


class PatchListError(ValueError):
    """A list of patches that cannot be used; the message is one line and names it."""


def read_array(path: pathlib.Path) -> np.ndarray | list[str]:
    """A .npy file: numbers as a mapped array, strings as a list. Nothing in it is executed.

    Raises PatchListError for a damaged file, and for objects that are no names.
    """
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            # Version 3 is for names of fields in UTF-8, which neither pixels nor names of files
            # have.
            read = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, _, dtype = read(file)
            rest = file.read() if dtype.hasobject else b""
        if dtype.hasobject:
            return _names(rest, shape)
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except PatchListError as error:
        raise PatchListError(f"{path}: {error}") from None
    except Exception as error:
        # Whatever a damaged file trips over, the file is what is wrong.
        detail = " ".join(str(error).split()) or type(error).__name__
        raise PatchListError(f"{path}: expected a .npy array, got {detail:.200}") from error
    return [str(name) for name in array] if array.dtype.kind == "U" and array.ndim == 1 else array


class _ObjectArray:
    """An array of Python objects, its items as a list."""

    def __init__(self, *args: Any):
        self.items: Any = None

    def __setstate__(self, state: Any) -> None:
        # An array's state ends with its items; version, shape, dtype and order stand before.
        *_, self.items = state


class _NamesUnpickler(pickles.Unpickler):
    """Rebuilds an array of strings or paths."""

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("numpy") and name == "_reconstruct":
            return _ObjectArray
        if module.startswith("pathlib") and name in ("PosixPath", "PurePosixPath"):
            # A path is pickled as its parts.
            return lambda *parts: "/".join(parts)
        return super().find_class(module, name)


def _names(data: bytes, shape: tuple[int, ...]) -> list[str]:
    array = _NamesUnpickler(data).load()
    items = array.items if isinstance(array, _ObjectArray) else None
    if len(shape) != 1 or not isinstance(items, list) or len(items) != shape[0]:
        raise PatchListError(f"expected one row of names, got objects of shape {shape}")
    wrong = [item for item in items if not isinstance(item, str)]
    if wrong:
        raise PatchListError(f"expected names of files, got {type(wrong[0]).__name__}")
    return items
