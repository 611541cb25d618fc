"""Tensors of files that torch wrote before 1.6, which are no zip archives; nothing in them is run.

Five pickles stand one after the other (a magic number, a version, the machine, the object, the keys
of its storages), then each storage: its length, int64, and its values.
"""

import dataclasses
import mmap
import pathlib
import pickletools
import struct
from typing import Any

import numpy as np

from ssldiff_jax.formats import torch_zip
from ssldiff_jax.formats.torch_zip import WeightsError

# The number 0x1950a86a20f9469cfc6c, pickled: files of torch before 1.6 begin with it.
_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_LENGTH = struct.Struct("<q")


@dataclasses.dataclass
class _Storage:
    """A storage whose values come after what names it."""

    dtype: np.dtype
    count: int
    values: np.ndarray | None = None


class _Unpickler(torch_zip._Unpickler):
    """Rebuilds tensors over storages that are still to be read."""

    def __init__(self, data: bytes):
        super().__init__(data, archive=None)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        # The first version lacks two arguments that are of no use here.
        name = "_rebuild_tensor_v2" if name == "_rebuild_tensor" else name
        return super().find_class(module, name)

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            case ("storage", torch_zip._StorageType(name), str() as key, str(), int() as n, None):
                storage = _Storage(np.dtype(torch_zip._STORAGES[name]), n)
                stored = self.storages.setdefault(key, storage)
                if (stored.dtype, stored.count) == (storage.dtype, n):
                    return stored
        raise WeightsError(
            f"a storage is (storage, type, key, device, count, None), got {pid!r:.100}"
        )


def is_one(path: pathlib.Path) -> bool:
    """Whether a file begins as torch's did."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """All tensors of the file, named as `torch_zip.read` names them; arrays are read-only views.

    Raises WeightsError for a file that is not whole.
    """
    try:
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return torch_zip._named_tensors(_root(data))
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None
    except Exception as error:
        # Whatever a damaged pickle trips over, the file is what is wrong.
        raise WeightsError(
            f"{path}: expected a torch file, got {type(error).__name__}: {error!s:.200}"
        ) from error


def _root(data: mmap.mmap) -> Any:
    """What the fourth pickle describes."""
    pickles, start = [], 0
    for _ in range(5):
        for _ in pickletools.genops(data):
            pass  # to where the pickle ends
        # Not loaded yet: the third says first whether the machine had our byte order.
        pickles.append(_Unpickler(data[start : data.tell()]))
        start = data.tell()
    _, _, machine, root, keys = (pickle.load() for pickle in pickles)
    if not machine.get("little_endian", True):
        raise WeightsError("a torch file of this machine's byte order was expected")
    _fill(pickles[3].storages, keys, memoryview(data)[start:])
    return root


def _fill(storages: dict[str, _Storage], keys: list[str], data: memoryview) -> None:
    if set(keys) != set(storages):
        raise WeightsError(f"{len(storages)} storages were expected, got {len(set(keys))}")
    # The file's own order, which need not be that of the fourth pickle.
    for key in keys:
        storage = storages[key]
        (count,) = _LENGTH.unpack_from(data)
        end = _LENGTH.size + storage.count * storage.dtype.itemsize
        if count != storage.count or end > len(data):
            raise WeightsError(
                f"storage {key} must hold {storage.count} × {storage.dtype}, got {count} values in "
                f"{len(data)} bytes"
            )
        storage.values = np.frombuffer(data[_LENGTH.size : end], storage.dtype)
        data = data[end:]
