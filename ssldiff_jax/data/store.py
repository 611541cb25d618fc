"""Arrays of fixed shape by the million: ArrayRecord shards and a manifest."""

import dataclasses
import pathlib
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ssldiff_jax.formats import atomic
from ssldiff_jax.formats import shards as shards_lib

# To read a record takes time in proportion to those of its file (formats/shards.py).
SHARD_SIZE = 8192
"""Examples of a shard."""

Batch = Mapping[str, np.ndarray]


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

    def __init__(self, folder: pathlib.Path, fields: tuple[Field, ...], shard_size: int = 0):
        self._folder, self._fields = folder, fields
        self._shard_size = shard_size or SHARD_SIZE
        folder.mkdir(parents=True, exist_ok=True)
        # First, so that what is half removed is no store either.
        (folder / "manifest.json").unlink(missing_ok=True)
        for stale in folder.glob(f"*.{shards_lib.SUFFIX}"):
            stale.unlink()
        self._shards: list[shards_lib.Shard] = []
        self._writer: shards_lib.ShardWriter | None = None

    def append(self, **batch: np.ndarray) -> None:
        """Add a batch `(B, *shape)` of every field."""
        for record in _packed(self._fields, batch):
            if self._writer is None:
                path = self._folder / _file(len(self._shards))
                self._writer = shards_lib.ShardWriter(path)
            self._writer.write(record)
            if len(self._writer) == self._shard_size:
                self._end_shard()

    def _end_shard(self) -> None:
        if self._writer is not None:
            self._shards.append(self._writer.close())
            self._writer = None

    def close(self, **facts: Any) -> None:
        """Finish, and write the manifest with whatever `facts` readers should know."""
        self._end_shard()
        _write_manifest(self._folder, self._fields, self._shards, facts)


@dataclasses.dataclass(frozen=True)
class SharedStore:
    """A store that several hosts write, each some of its shards; one that was written whole is
    not written again, so that what is interrupted resumes at the shard. A shard may leave some out.

    Attributes:
        folder: where all hosts see it.
        fields: of an example.
        count: how many examples there will be.
        shard_size: examples of a shard.
    """

    folder: pathlib.Path
    fields: tuple[Field, ...]
    count: int
    shard_size: int

    @property
    def num_shards(self) -> int:
        """How many files it has."""
        return -(-self.count // self.shard_size)

    def missing(self, host: int = 0, hosts: int = 1) -> list[int]:
        """The shards that this host has to write."""
        return [i for i in range(host, self.num_shards, hosts) if self._read(i) is None]

    def examples(self, number: int) -> range:
        """The examples of a shard."""
        start = number * self.shard_size
        return range(start, min(start + self.shard_size, self.count))

    def write(
        self,
        number: int,
        batches: Iterable[Batch],
        tally: Callable[[Batch], np.ndarray] | None = None,
        *,
        left_out: int = 0,
    ) -> None:
        """Write a shard from batches of its examples, all but the `left_out` that there are not;
        `tally` of all of them is added up."""
        self.folder.mkdir(parents=True, exist_ok=True)
        # Hidden and random: another process may be writing the same shard.
        temporary = self.folder / f".{secrets.token_hex(6)}"
        writer, total = shards_lib.ShardWriter(temporary), None
        try:
            for batch in batches:
                for record in _packed(self.fields, batch):
                    writer.write(record)
                if tally is not None:
                    total = tally(batch) + (0 if total is None else total)
            shard = writer.close()
            if shard.count != (expected := len(self.examples(number)) - left_out):
                raise ValueError(
                    f"shard {number} of {self.folder} must have {expected} examples, got "
                    f"{shard.count}"
                )
            temporary.replace(self.folder / _file(number))
        finally:
            temporary.unlink(missing_ok=True)
        shard_info = dataclasses.asdict(shard) | {"file": _file(number)}
        tallied = None if total is None else np.asarray(total).tolist()
        note = {"shard": shard_info, "tally": tallied, "left_out": left_out}
        # After the shard: one without its note is written again.
        atomic.write_json(self._note(number), note)

    def tally(self) -> np.ndarray:
        """The sum over all shards of what was tallied."""
        return sum(np.array(self._read(i)["tally"]) for i in range(self.num_shards))

    def left_out(self) -> int:
        """How many examples its shards lack."""
        return sum(self._read(i).get("left_out", 0) for i in range(self.num_shards))

    def close(self, **facts: Any) -> None:
        """Write the manifest; one host does, when all shards are there.

        Raises ValueError where one is not.
        """
        notes = [self._read(i) for i in range(self.num_shards)]
        if None in notes:
            raise ValueError(f"{self.folder} lacks shard {notes.index(None)} of {len(notes)}")
        shards = [shards_lib.Shard(**note["shard"]) for note in notes]
        _write_manifest(self.folder, self.fields, shards, facts)

    def _note(self, number: int) -> pathlib.Path:
        return self.folder / f"{number:05d}.json"

    def _read(self, number: int) -> dict[str, Any] | None:
        """What a shard's note says; None where it is not there as it was written."""
        if not self._note(number).exists():
            return None
        note, path = atomic.read_json(self._note(number)), self.folder / _file(number)
        whole = path.exists() and path.stat().st_size == note["shard"]["bytes"]
        expected = len(self.examples(number)) - note.get("left_out", 0)
        return note if whole and note["shard"]["count"] == expected else None


class Store:
    """Random access to what was written.

    Raises ValueError where the manifest is absent or a shard is missing or short.
    """

    def __init__(self, folder: pathlib.Path):
        path = pathlib.Path(folder) / "manifest.json"
        if not path.exists():
            raise ValueError(f"no array store at {folder}: expected a manifest.json")
        manifest = atomic.read_json(path)
        self.fields = tuple(
            Field(f["name"], tuple(f["shape"]), f["dtype"]) for f in manifest["fields"]
        )
        self.facts: dict[str, Any] = manifest["facts"]
        self.shards = [shards_lib.Shard(**shard) for shard in manifest["shards"]]
        self._folder = pathlib.Path(folder)
        for shard in self.shards:
            stored = self._folder / shard.file
            if not stored.exists():
                raise ValueError(f"{path} names {shard.file}, which is missing")
            if (size := stored.stat().st_size) != shard.bytes:
                raise ValueError(f"{path} expects {shard.bytes} bytes of {shard.file}, got {size}")
        self._reader = shards_lib.ShardReader(
            [self._folder / shard.file for shard in self.shards], [s.count for s in self.shards]
        )

    def __len__(self) -> int:
        return len(self._reader)

    def __getitem__(self, number: int) -> dict[str, np.ndarray]:
        columns = self.batch([int(number)])
        return {name: values[0] for name, values in columns.items()}

    def batch(self, numbers: Sequence[int]) -> dict[str, np.ndarray]:
        """Any examples, every field stacked."""
        raw = np.frombuffer(b"".join(self._reader.read_many(numbers)), np.uint8)
        rows, offset, columns = raw.reshape(len(numbers), -1), 0, {}
        for field in self.fields:
            part = rows[:, offset : offset + field.num_bytes]
            # Another dtype can only view bytes that lie side by side.
            values = np.ascontiguousarray(part).view(field.dtype)
            columns[field.name] = values.reshape(len(numbers), *field.shape)
            offset += field.num_bytes
        return columns

    def of_shard(self, number: int) -> range:
        """The examples of a shard."""
        ends = np.cumsum([0, *(shard.count for shard in self.shards)])
        return range(int(ends[number]), int(ends[number + 1]))

    def read(self, name: str, count: int) -> np.ndarray:
        """The first `count` values of a field, stacked."""
        return self.batch(range(min(count, len(self))))[name]

    def damaged(self) -> Iterator[tuple[pathlib.Path, str]]:
        """Shards that are not as they were written, and what is wrong; all are read."""
        for shard in self.shards:
            path = self._folder / shard.file
            if (reason := shards_lib.damage(path, shard)) is not None:
                yield path, reason

    def __repr__(self) -> str:
        return f"Store({self._folder.name}, {len(self)})"


def _file(number: int) -> str:
    return f"{number:05d}.{shards_lib.SUFFIX}"


def _packed(fields: tuple[Field, ...], batch: Batch) -> Iterator[bytes]:
    """The examples of a batch as bytes, all of it checked before the first."""
    # In the dtype that is stored: float32 of a network may become float16 here.
    columns = [np.ascontiguousarray(batch[f.name], f.dtype) for f in fields]
    for field, column in zip(fields, columns, strict=True):
        if column.shape[1:] != field.shape:
            raise ValueError(
                f"{field.name} must be {field.shape} an example, got {column.shape[1:]}"
            )
    for row in zip(*columns, strict=True):
        yield b"".join(value.tobytes() for value in row)


def _write_manifest(
    folder: pathlib.Path,
    fields: tuple[Field, ...],
    shards: list[shards_lib.Shard],
    facts: dict[str, Any],
) -> None:
    manifest = {
        "fields": [dataclasses.asdict(f) for f in fields],
        "shards": [dataclasses.asdict(s) for s in shards],
        "count": sum(s.count for s in shards),
        "facts": facts,
    }
    atomic.write_json(folder / "manifest.json", manifest)
