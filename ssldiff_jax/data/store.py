"""Arrays of fixed shape by the million: ArrayRecord shards and a manifest."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from array_record.python import array_record_data_source, array_record_module

from ssldiff_jax.core import files


@dataclasses.dataclass(frozen=True)
class Field:
    """Name, shape of one example and dtype of an array in a store."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def num_bytes(self) -> int:
        """Bytes of one example."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


class StoreWriter:
    """Appends examples; a store without its manifest is not a store, so a killed writer leaves
    nothing that could be read."""

    def __init__(self, folder: pathlib.Path, fields: tuple[Field, ...], shard_size: int = 65536):
        self._folder, self._fields, self._shard_size = folder, fields, shard_size
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "manifest.json").unlink(missing_ok=True)
        for stale in folder.glob("*.array_record"):
            stale.unlink()
        self._shards: list[str] = []
        self._count = 0
        self._writer: Any = None

    def append(self, **batch: np.ndarray) -> None:
        """Add a batch `(B, *shape)` of every field."""
        columns = [np.ascontiguousarray(batch[f.name], f.dtype) for f in self._fields]
        for field, column in zip(self._fields, columns, strict=True):
            if column.shape[1:] != field.shape:
                raise ValueError(
                    f"{field.name} must be {field.shape} an example, got {column.shape[1:]}"
                )
        for row in zip(*columns, strict=True):
            if self._count % self._shard_size == 0:
                self._next_shard()
            self._writer.write(b"".join(value.tobytes() for value in row))
            self._count += 1

    def _next_shard(self) -> None:
        if self._writer is not None:
            self._writer.close()
        name = f"{len(self._shards):05d}.array_record"
        self._shards.append(name)
        self._writer = array_record_module.ArrayRecordWriter(
            # Compressing noise saves nothing, and reading it back takes four times as long.
            str(self._folder / name),
            "group_size:1,uncompressed",
        )

    def close(self, **facts: Any) -> None:
        """Finish, and write the manifest with whatever `facts` readers should know."""
        if self._writer is not None:
            self._writer.close()
        manifest = {
            "fields": [dataclasses.asdict(f) for f in self._fields],
            "shards": self._shards,
            "count": self._count,
            "facts": facts,
        }
        files.write_json(self._folder / "manifest.json", manifest)


class Store:
    """Random access to what a StoreWriter wrote.

    Raises ValueError where the manifest is absent or a shard is missing or short.
    """

    def __init__(self, folder: pathlib.Path):
        path = pathlib.Path(folder) / "manifest.json"
        if not path.exists():
            raise ValueError(f"no array store at {folder}: expected a manifest.json")
        manifest = files.read_json(path)
        self.fields = tuple(
            Field(f["name"], tuple(f["shape"]), f["dtype"]) for f in manifest["fields"]
        )
        self.facts: dict[str, Any] = manifest["facts"]
        self._folder = pathlib.Path(folder)
        shards = [self._folder / name for name in manifest["shards"]]
        for shard in shards:
            if not shard.exists():
                raise ValueError(f"{path} names {shard.name}, which is missing")
        self._source = array_record_data_source.ArrayRecordDataSource([str(s) for s in shards])
        if len(self._source) != manifest["count"]:
            raise ValueError(
                f"{path} promises {manifest['count']} examples, got {len(self._source)}"
            )

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, number: int) -> dict[str, np.ndarray]:
        raw, offset, example = self._source[int(number)], 0, {}
        for field in self.fields:
            value = np.frombuffer(raw, field.dtype, int(np.prod(field.shape)), offset)
            example[field.name] = value.reshape(field.shape)
            offset += field.num_bytes
        return example

    def batch(self, numbers: Sequence[int]) -> dict[str, np.ndarray]:
        """Any examples, every field stacked."""
        raw = np.frombuffer(b"".join(self._source.__getitems__(list(numbers))), np.uint8)
        rows, offset, found = raw.reshape(len(numbers), -1), 0, {}
        for field in self.fields:
            part = rows[:, offset : offset + field.num_bytes]
            values = np.ascontiguousarray(part).view(field.dtype)
            found[field.name] = values.reshape(len(numbers), *field.shape)
            offset += field.num_bytes
        return found

    def read(self, name: str, count: int) -> np.ndarray:
        """The first `count` values of a field, stacked."""
        return self.batch(range(min(count, len(self))))[name]

    def __repr__(self) -> str:
        return f"Store({self._folder.name}, {len(self)})"
