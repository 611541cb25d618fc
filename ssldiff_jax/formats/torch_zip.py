"""Tensors of torch files (.ckpt, .pt, .pth, .bin) without torch, and without running any of them.

A torch file is a zip archive: a pickle that describes tensors, and one raw member for each storage.
The pickle's instructions may name any function of any module. None is ever imported: four names
that build tensors and containers are rebuilt here, every other becomes an object without behaviour.
"""

import collections
import dataclasses
import math
import mmap
import pathlib
import struct
import zipfile
import zlib
from typing import Any

import ml_dtypes
import numpy as np

from ssldiff_jax.formats import pickles

_STORAGES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}

# Of a zip member: signature, what the directory repeats, lengths of name and extra field.
_LOCAL_HEADER = struct.Struct("<4s22xHH")


class WeightsError(ValueError):
    """A file of weights that cannot be read, or is not what was expected."""


@dataclasses.dataclass(frozen=True)
class _Callable:
    """One of the names that may be called, standing in for what it names."""

    name: str

    def __call__(self, *args: Any) -> Any:
        return _REBUILD[self.name](*args)


@dataclasses.dataclass(frozen=True)
class _Foreign:
    """A tensor that some other function of torch would build; calling it changes nothing."""

    builder: str

    def __call__(self, *args: Any) -> "_Foreign":
        return self


@dataclasses.dataclass(frozen=True)
class _StorageType:
    """The name of a type of storage. Not a dtype: an instruction could change numpy's own."""

    name: str


@dataclasses.dataclass(frozen=True)
class _Storage:
    """A member of the archive, as a flat array."""

    values: np.ndarray


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """A strided view of a storage, not yet checked."""

    storage: Any
    offset: Any
    size: Any
    stride: Any

    def array(self) -> np.ndarray:
        """The view, read-only."""
        numbers = (self.offset, *self.size, *self.stride)
        # Not isinstance: True is an int to Python, and no size.
        if not all(type(n) is int and n >= 0 for n in numbers):
            raise WeightsError(f"sizes and strides are integers ≥ 0, got {numbers}")
        values = self.storage.values
        count = math.prod(self.size)
        if not count:
            return np.zeros(self.size, values.dtype)
        # Where the last element lies. `count` is looked at too: strides of 0 fit any storage, and
        # copies of such a view could take all memory.
        last = sum((n - 1) * s for n, s in zip(self.size, self.stride, strict=True))
        if self.offset + last >= len(values) or count > len(values):
            raise WeightsError(f"a tensor of {numbers} is beyond a storage of {len(values)} values")
        strides = [s * values.itemsize for s in self.stride]
        base = values[self.offset :]
        return np.lib.stride_tricks.as_strided(base, self.size, strides, writeable=False)


_REBUILD = {
    "collections.OrderedDict": lambda *items: collections.OrderedDict(*items),
    "torch._utils._rebuild_tensor_v2": lambda *args: _Tensor(*args[:4]),
    "torch._utils._rebuild_parameter": lambda tensor, *rest: tensor,
    "torch.Size": lambda *sizes: tuple(*sizes),
}


class _Unpickler(pickles.Unpickler):
    """Rebuilds tensors and plain containers."""

    def __init__(self, data: bytes, archive: "_Archive"):
        super().__init__(data)
        self._archive = archive

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if module == "torch" and name in _STORAGES:
            return _StorageType(name)
        if full in _REBUILD:
            return _Callable(full)
        if module.partition(".")[0] == "torch" and name.startswith("_rebuild"):
            return _Foreign(full)
        return super().find_class(module, name)

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            case ("storage", _StorageType(name), str() as key, str(), int() as count):
                return _Storage(self._archive.storage(key, np.dtype(_STORAGES[name]), count))
        raise WeightsError(f"a storage is (storage, type, key, device, count), got {pid!r:.100}")


class _Archive:
    """The members of a torch zip archive, mapped into memory and not copied."""

    def __init__(self, path: pathlib.Path):
        with path.open("rb") as file:
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        with zipfile.ZipFile(path) as archive:
            self._members = {info.filename: info for info in archive.infolist()}
        pickles = [name for name in self._members if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise WeightsError(f"a torch archive holds one data.pkl, got {len(pickles)}")
        # torch names the folder in an archive after the file it was saved as.
        self._root = pickles[0].removesuffix("data.pkl")
        if bytes(self._member("byteorder", default=b"little")).strip() != b"little":
            raise WeightsError("a torch archive of this machine's byte order was expected")

    def root(self) -> Any:
        """What the pickle describes."""
        return _Unpickler(bytes(self._member("data.pkl")), self).load()

    def storage(self, key: str, dtype: np.dtype, count: int) -> np.ndarray:
        """A storage as a flat read-only array."""
        values = np.frombuffer(self._member(f"data/{key}"), np.uint8)
        if len(values) != count * dtype.itemsize:
            raise WeightsError(
                f"storage {key} must hold {count} × {dtype}, got {len(values)} bytes"
            )
        return values.view(dtype)

    def _member(self, name: str, default: bytes | None = None) -> memoryview | bytes:
        info = self._members.get(self._root + name)
        if info is None:
            if default is not None:
                return default
            raise WeightsError(f"the archive has no member {name}")
        # torch compresses nothing; what is compressed can't be mapped.
        if info.compress_type != zipfile.ZIP_STORED:
            raise WeightsError(f"members are stored, got a compressed {name}")
        start = info.header_offset
        # The directory does not say where a member's bytes begin: torch pads local headers so that
        # storages lie on multiples of 64.
        magic, name_length, extra_length = _LOCAL_HEADER.unpack_from(self._bytes, start)
        start += _LOCAL_HEADER.size + name_length + extra_length
        content = memoryview(self._bytes)[start : start + info.file_size]
        if magic != b"PK\x03\x04" or len(content) != info.file_size:
            raise WeightsError(f"member {name} ends beyond the file")
        # zipfile checks it when it reads; a map does not.
        if zlib.crc32(content) != info.CRC:
            raise WeightsError(f"member {name} is damaged (checksum)")
        return content


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """All tensors of a torch file, named by their way through its dictionaries and lists:
    `state_dict.model.weight`, `optimizer_states.0.state.0.exp_avg`.

    Arrays are read-only views of the mapped file; bfloat16 ones have ml_dtypes' type.

    Raises WeightsError for what is not a whole torch zip archive.
    """
    try:
        return _named_tensors(_Archive(path).root())
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None
    except Exception as error:
        # Whatever a damaged archive or pickle trips over, the file is what is wrong.
        raise WeightsError(
            f"{path}: expected a torch zip archive, got {type(error).__name__}: {error!s:.200}"
        ) from error


def _named_tensors(root: Any) -> dict[str, np.ndarray]:
    """Walk dictionaries, lists and tuples, each once."""
    tensors, seen, waiting = {}, set(), [("", root)]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, _Tensor):
            try:
                tensors[name] = value.array()
            except (AttributeError, TypeError, ValueError) as error:
                raise WeightsError(f"tensor {name}: {error}") from None
        elif isinstance(value, _Foreign):
            raise WeightsError(f"tensor {name} is built by {value.builder}, which is not read")
        elif isinstance(value, (dict, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            items = value.items() if isinstance(value, dict) else enumerate(value)
            waiting.extend((f"{name}.{key}" if name else str(key), v) for key, v in items)
    # The stack gives the last first.
    return dict(reversed(tensors.items()))
