"""Torch's zip archives, written without torch."""

import io
import pathlib
import pickle
import sys
import zipfile
from typing import Any

import ml_dtypes
import numpy as np

STORAGES = {
    np.dtype(np.float64): "DoubleStorage",
    np.dtype(np.float32): "FloatStorage",
    np.dtype(np.float16): "HalfStorage",
    np.dtype(ml_dtypes.bfloat16): "BFloat16Storage",
    np.dtype(np.int64): "LongStorage",
    np.dtype(np.int32): "IntStorage",
    np.dtype(np.int16): "ShortStorage",
    np.dtype(np.int8): "CharStorage",
    np.dtype(np.uint8): "ByteStorage",
    np.dtype(np.bool_): "BoolStorage",
}


class Named:
    """Pickled as the bare name `module name`."""

    def __init__(self, full: str):
        self.module, self.name = full.split(" ")


class Tensor:
    """Pickled as a call of `rebuild` on a storage."""

    def __init__(self, key: str, values: np.ndarray, view: tuple, rebuild: str):
        self.key, self.values, self.view, self.rebuild = key, values, view, rebuild


class Storage:
    """Pickled as a persistent id."""

    def __init__(self, tensor: Tensor):
        self.tensor = tensor


class Pickler(pickle._Pickler):
    """Protocol 2, as torch.save writes it."""

    def __init__(self, file: io.BytesIO):
        super().__init__(file, protocol=2)

    def persistent_id(self, obj: Any) -> Any:
        if isinstance(obj, Storage):
            kind = Named(f"torch {STORAGES[obj.tensor.values.dtype]}")
            return ("storage", kind, obj.tensor.key, "cpu", obj.tensor.values.size)
        return None

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        if isinstance(obj, Named):
            self.write(b"c" + f"{obj.module}\n{obj.name}\n".encode())
        elif isinstance(obj, Tensor):
            self.save(Named(obj.rebuild))
            offset, size, stride = obj.view
            self.save((Storage(obj), offset, size, stride, False, {}))
            self.write(pickle.REDUCE)
        else:
            super().save(obj, save_persistent_id)


class TorchFile:
    """Collects tensors, then writes them with whatever holds them."""

    def __init__(self):
        self.tensors: list[Tensor] = []

    def tensor(self, values: np.ndarray, *, size=None, stride=None, offset=0,
               rebuild="torch._utils _rebuild_tensor_v2") -> Tensor:  # fmt: skip
        """A tensor over a storage of its own, by default the whole of it in C order."""
        values = np.ascontiguousarray(values)
        strides = tuple(s // values.itemsize for s in values.strides)
        view = (offset, size or values.shape, stride or strides)
        self.tensors.append(Tensor(str(len(self.tensors)), values, view, rebuild))
        return self.tensors[-1]

    def write(self, path: pathlib.Path, value: Any) -> None:
        """Write the archive."""
        out = io.BytesIO()
        Pickler(out).dump(value)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"{path.stem}/data.pkl", out.getvalue())
            archive.writestr(f"{path.stem}/byteorder", sys.byteorder)
            for tensor in self.tensors:
                with archive.open(f"{path.stem}/data/{tensor.key}", "w", force_zip64=True) as file:
                    file.write(tensor.values.reshape(-1).view(np.uint8).data)
            archive.writestr(f"{path.stem}/version", "3\n")
