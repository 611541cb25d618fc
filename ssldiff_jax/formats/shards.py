"""ArrayRecord files as parts of something larger: written with their hash, read by any number.

To read one record costs time in proportion to how many its file has (13 us at 4096, 790 us at
300 000), and an open file 8 bytes of memory for each: files are small, and a bounded number of
them is open, over all stores (`open_files`).
"""

import contextlib
import dataclasses
import errno
import hashlib
import math
import os
import pathlib
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ssldiff_jax.formats import open_files

if TYPE_CHECKING:
    from array_record.python import array_record_module

SUFFIX = "array_record"
_TRIES = 3  # to open a file where the process has too many


@dataclasses.dataclass(frozen=True)
class Shard:
    """A file of records."""

    file: str
    count: int
    bytes: int
    sha256: str


class ShardWriter:
    """Appends records to one file."""

    def __init__(self, path: pathlib.Path):
        # Not at the top: a machine that only computes need not have it.
        from array_record.python import array_record_module

        self._path, self._count = path, 0
        # A group is decoded whole, and records are read one by one. JPEG and noise cannot be
        # compressed, and reading back takes four times as long if tried.
        options = "group_size:1,uncompressed"
        self._writer = array_record_module.ArrayRecordWriter(str(path), options)

    def __len__(self) -> int:
        return self._count

    def write(self, record: bytes) -> None:
        """One more."""
        self._writer.write(record)
        self._count += 1

    def abandon(self) -> None:
        """Close the file, whatever is in it: one that could not be written does not close well."""
        with contextlib.suppress(ValueError, RuntimeError, OSError):
            self._writer.close()

    def close(self) -> Shard:
        """The finished file."""
        self._writer.close()
        path = self._path
        return Shard(path.name, self._count, path.stat().st_size, sha256(path))


class ShardReader:
    """Records of many files, counted through.

    Attributes:
        paths: of the files.
        ends: up to which record each one goes.
    """

    def __init__(self, paths: Sequence[pathlib.Path], counts: Sequence[int]):
        self.paths = list(paths)
        self._counts = np.asarray(counts, np.int64)
        self.ends = np.cumsum(self._counts)
        self._owner = open_files.new_owner()
        weakref.finalize(self, open_files.SHARED.forget, self._owner)

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def read(self, number: int) -> bytes:
        """One record."""
        # "right": the number that is an end is the first of the next file. Files without records,
        # whose ends are equal, are passed over.
        shard = int(np.searchsorted(self.ends, number, "right"))
        start = int(self.ends[shard - 1]) if shard else 0
        return self._opened(shard).read([number - start])[0]

    def read_many(self, numbers: Sequence[int]) -> list[bytes]:
        """Records in the order of their numbers in `numbers`; every file is read once."""
        numbers = np.asarray(numbers, np.int64)
        of_shard = np.searchsorted(self.ends, numbers, "right")
        records: list[bytes] = [b""] * len(numbers)
        for shard in np.unique(of_shard).tolist():
            here = np.flatnonzero(of_shard == shard)
            start = int(self.ends[shard - 1]) if shard else 0
            read = self._opened(shard).read((numbers[here] - start).tolist())
            for position, record in zip(here.tolist(), read, strict=True):
                records[position] = record
        return records

    def _opened(self, shard: int) -> "array_record_module.ArrayRecordReader":
        key, path = (self._owner, shard), self.paths[shard]
        return open_files.SHARED.get(key, lambda: _open(path, int(self._counts[shard])))


def _open(path: pathlib.Path, expected: int) -> "array_record_module.ArrayRecordReader":
    """Raises ValueError for a file that is not what was written, OSError where no more files may
    be open even after others were let go."""
    reader = _open_any(path)
    if (count := reader.num_records()) != expected:
        raise ValueError(f"expected {expected} records in {path}, got {count}")
    return reader


def _open_any(path: pathlib.Path) -> "array_record_module.ArrayRecordReader":
    from array_record.python import array_record_module

    for _ in range(_TRIES):
        try:
            # Reading ahead serves files that are read in order.
            reader = array_record_module.ArrayRecordReader(str(path), "readahead_buffer_size:0")
            if not reader.ok():
                reader.read([0])  # raises what opening it did not
            return reader
        except (ValueError, RuntimeError, OSError) as error:
            reason = " ".join(str(error).split())
            if not _is_exhausted(reason):
                raise ValueError(
                    f"expected a file of records, got {path}: {reason:.200}"
                ) from error
            open_files.SHARED.let_go()
    raise OSError(
        errno.EMFILE,
        f"expected room for one more open file, got {open_files.limit()} open, all that this "
        "process may have (ulimit -n)",
        str(path),
    )


def _is_exhausted(reason: str) -> bool:
    return any(os.strerror(code) in reason for code in (errno.EMFILE, errno.ENFILE))


_BLOCK, _BLOCK_HEADER = 1 << 16, 24
_SIGNATURE, _RECORD_HEADER = 64, 55
_LARGE, _LONGER_HEADER = 1 << 14, 3


def file_bytes(count: int, record_bytes: float) -> int:
    """Of a file with `count` records of `record_bytes` in the mean: each has a header, each 64 KiB
    a shorter one, and records and index end at whole 64 KiB. Off by one of these at most."""
    header = _RECORD_HEADER + (_LONGER_HEADER if record_bytes > _LARGE else 0)
    data = _SIGNATURE + count * (record_bytes + header)
    data *= 1 + _BLOCK_HEADER / (_BLOCK - _BLOCK_HEADER)
    return _BLOCK * (math.ceil(data / _BLOCK) + 1)


def store_bytes(count: int, record_bytes: float, shard_size: int) -> int:
    """Of the files of `count` records, `shard_size` in each but the last."""
    whole, rest = divmod(count, shard_size)
    last = file_bytes(rest, record_bytes) if rest else 0
    return whole * file_bytes(shard_size, record_bytes) + last


def sha256(path: pathlib.Path) -> str:
    """The hash of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def damage(path: pathlib.Path, shard: Shard) -> str | None:
    """What is wrong with a file, all of which is read; None where it is as it was written."""
    if not path.exists():
        return "missing"
    size = path.stat().st_size
    if size != shard.bytes:
        return f"expected {shard.bytes} bytes, got {size}"
    actual = sha256(path)
    if actual == shard.sha256:
        return None
    return f"expected sha256 {shard.sha256[:12]}…, got {actual[:12]}…"
