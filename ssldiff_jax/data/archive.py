"""The archive: what became of every slide, made once, and the data set that slides make together.

An entry is a folder with the records of one slide (`SPLIT-00000.array_record`, of bounded size),
their places (`SPLIT.npy`) and `entry.json`. It is named by the slide and a digest of its file and
of all settings, appears whole or not at all, and can be shared by any number of runs.
"""

import contextlib
import dataclasses
import os
import pathlib
import secrets
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int

from ssldiff_jax.core import arrays
from ssldiff_jax.data import plan, records
from ssldiff_jax.formats import atomic, rows
from ssldiff_jax.formats import shards as shards_lib
from ssldiff_jax.slides import multiband as multiband_lib

SHARD_RECORDS = 4096
"""Records of a shard at most: 100 MB of 256 px ones."""

_DATASET, _SUFFIX = "patches", shards_lib.SUFFIX


@dataclasses.dataclass(frozen=True)
class Entry:
    """What a slide became.

    Attributes:
        folder: where it lies.
        name: of the slide.
        shards: files of records, by split.
        facts: what was found: its `case`, `mpp`, `identity` and whatever the writer added.
    """

    folder: pathlib.Path
    name: str
    shards: Mapping[str, tuple[shards_lib.Shard, ...]]
    facts: Mapping[str, Any]

    @classmethod
    def read(cls, folder: pathlib.Path) -> "Entry | None":
        """The entry in a folder; None where there is none, or a shard of it is missing or short."""
        path = folder / "entry.json"
        if not path.exists():
            return None
        record = atomic.read_json(path)
        shards = {
            split: tuple(shards_lib.Shard(**shard) for shard in parts)
            for split, parts in record["shards"].items()
        }
        for shard in (s for parts in shards.values() for s in parts):
            stored = folder / shard.file
            # By its size: a hash would read all records at every start, which is the tool verify's
            # work.
            if not stored.exists() or stored.stat().st_size != shard.bytes:
                return None
        return cls(folder, record["name"], shards, record["facts"])

    @property
    def count(self) -> int:
        """Records, of all splits."""
        return sum(shard.count for parts in self.shards.values() for shard in parts)

    def places(self, split: str) -> Int[np.ndarray, "N 4"]:
        """(image, top, left, row) of its records; `image` is 0 but in a list of images."""
        # Mapped: a split may have millions of records.
        return np.load(self.folder / f"{split}.npy", mmap_mode="r")


class EntryWriter:
    """Writes the records of an entry; use `new_entry`."""

    def __init__(self, folder: pathlib.Path, about: Mapping[str, Any]):
        self._folder, self._about = folder, about
        self._places: dict[str, list[tuple[int, int, int, int]]] = {}
        self._shards: dict[str, list[shards_lib.Shard]] = {}
        self._open: dict[str, shards_lib.ShardWriter] = {}

    def declare(self, split: str) -> None:
        """A split that may stay empty."""
        self._places.setdefault(split, [])
        self._shards.setdefault(split, [])

    def add(
        self,
        split: str,
        square: plan.Square,
        pixels: arrays.Pixels,
        quality: int | None,
        **about: Any,
    ) -> None:
        """One more record, after all that lie above it; `quality` as `records.encode` has it."""
        encoded = records.encode(pixels, quality)
        self.add_record(
            split, square, records.serialize(encoded, square, **{**self._about, **about})
        )

    def add_record(self, split: str, square: plan.Square, record: bytes) -> None:
        """One more that is serialised already."""
        self.declare(split)
        if split not in self._open:
            name = f"{split}-{len(self._shards[split]):05d}.{_SUFFIX}"
            self._open[split] = shards_lib.ShardWriter(self._folder / name)
        self._open[split].write(record)
        self._places[split].append((square.slide, square.top, square.left, square.row))
        if len(self._open[split]) == SHARD_RECORDS:
            self._end(split)

    def close(self, **facts: Any) -> None:
        """Write what the records are."""
        for split in list(self._open):
            self._end(split)
        for split, places in self._places.items():
            np.save(self._folder / f"{split}.npy", np.array(places, np.int32).reshape(-1, 4))
        shards = {
            split: [dataclasses.asdict(shard) for shard in parts]
            for split, parts in self._shards.items()
        }
        # Last: a folder without it is no entry.
        record = {"name": self._about["slide"], "shards": shards, "facts": facts}
        atomic.write_json(self._folder / "entry.json", record)

    def _end(self, split: str) -> None:
        self._shards[split].append(self._open.pop(split).close())

    def abandon(self) -> None:
        """Close what is open."""
        for writer in self._open.values():
            writer.abandon()


@contextlib.contextmanager
def new_entry(
    folder: pathlib.Path, *, slide: str, case: str, label: str, mpp: float
) -> Iterator[tuple[EntryWriter, pathlib.Path]]:
    """A writer and the folder it fills, which becomes `folder` at the end, or is gone.

    Of two that write the same entry, the first one's stays.
    """
    # A random name: other processes and hosts may be making the same entry.
    temporary = folder.with_name(f".{secrets.token_hex(6)}")
    temporary.mkdir(parents=True)
    writer = EntryWriter(temporary, {"slide": slide, "case": case, "label": label, "mpp": mpp})
    try:
        yield writer, temporary
        # One that is damaged gives way.
        if Entry.read(folder) is None:
            shutil.rmtree(folder, ignore_errors=True)
        # A folder that holds something cannot be replaced: another writer was first.
        with contextlib.suppress(OSError):
            os.rename(temporary, folder)
        if not (folder / "entry.json").exists():
            raise OSError(
                f"cannot write {folder}: the finished temporary folder could not be renamed to it"
            )
    finally:
        writer.abandon()
        shutil.rmtree(temporary, ignore_errors=True)


def publish(
    folder: pathlib.Path,
    entries: Mapping[int, Entry],
    bands: multiband_lib.MultibandConfig = multiband_lib.NO_BANDS,
    **facts: Any,
) -> dict[str, int]:
    """Make one data set, for us and for TFDS, of entries by the number of their slide, whose
    records have these bands.

    Shards are linked, not copied. Returns the number of records of every split.
    """
    facts |= records.facts_of(bands)
    folder.mkdir(parents=True, exist_ok=True)
    splits = list(dict.fromkeys(s for entry in entries.values() for s in entry.shards))
    splits_by_name, infos = {}, []
    for split in splits:
        shards = [(e.folder, shard) for e in entries.values() for shard in e.shards.get(split, ())]
        names = [f"{_DATASET}-{split}.{_SUFFIX}-{i:05d}-of-{len(shards):05d}"
                 for i in range(len(shards))]  # fmt: skip
        for name, (source, shard) in zip(names, shards, strict=True):
            _link(source / shard.file, folder / name)
        _write_places(folder, split, entries)
        splits_by_name[split] = {
            "count": sum(shard.count for _, shard in shards),
            "shards": [
                dataclasses.asdict(shard) | {"file": name, "of": f"{source.name}/{shard.file}"}
                for name, (source, shard) in zip(names, shards, strict=True)
            ],
        }
        infos.append(_split_info(folder, split, [shard for _, shard in shards]))
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=records.features(bands),
        split_infos=[info for info in infos if info.num_examples],
        filename_template=_template(folder, None),
        version="2.0.0",
        check_data=False,
        description="Squares of slides with enough tissue.",
    )
    atomic.write_json(folder / "manifest.json", {"facts": facts, "splits": splits_by_name})
    return {split: split_info["count"] for split, split_info in splits_by_name.items()}


def _write_places(folder: pathlib.Path, split: str, entries: Mapping[int, Entry]) -> None:
    """Places of all records, and how many each slide has; never all in memory."""
    counts, total = [], 0
    for number, entry in entries.items():
        if split in entry.shards:
            places = entry.places(split)
            images, num_records = np.unique(places[:, 0], return_counts=True)
            counts.append(np.stack([images + number, num_records], axis=1))
            total += len(places)
    np.save(folder / f"slides-{split}.npy", np.concatenate([*counts, np.zeros((0, 2), int)]))
    # An entry counts from 0, a data set through all its slides.
    parts = (
        entry.places(split) + np.array([number, 0, 0, 0], np.int32)
        for number, entry in entries.items()
        if split in entry.shards
    )
    rows.write(folder / f"places-{split}.npy", (total, 4), np.int32, parts)


def _template(folder: pathlib.Path, split: str | None) -> tfds.core.ShardedFileTemplate:
    return tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name=_DATASET, split=split, filetype_suffix=_SUFFIX
    )


def _split_info(
    folder: pathlib.Path, split: str, shards: list[shards_lib.Shard]
) -> tfds.core.SplitInfo:
    return tfds.core.SplitInfo(
        name=split,
        shard_lengths=[shard.count for shard in shards],
        num_bytes=sum(shard.bytes for shard in shards),
        filename_template=_template(folder, split),
    )


def _link(source: pathlib.Path, target: pathlib.Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        target.symlink_to(source.resolve())


def damaged(folder: pathlib.Path) -> Iterator[tuple[str, str]]:
    """Shards of a data set that are not as they were written, by their name in the archive, and
    what is wrong; all are read."""
    for split in atomic.read_json(folder / "manifest.json")["splits"].values():
        for entry in split["shards"]:
            fields = {key: entry[key] for key in ("file", "count", "bytes", "sha256")}
            reason = shards_lib.damage(folder / entry["file"], shards_lib.Shard(**fields))
            if reason is not None:
                yield entry["of"], reason
