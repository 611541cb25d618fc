"""Stage `grids`: whitened grids of embeddings of neighbouring cells, and their conditions.

All hosts share it, each some of the shards, and what is interrupted resumes at the shard. What
makes embeddings white is measured on the first grids of training, which are kept as the encoder
gives them (`raw_train`) until they are stored white.
"""

import contextlib
import dataclasses
import functools
import logging
import pathlib
import shutil
from collections.abc import Callable, Generator, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float

from ssldiff_jax.core import moments
from ssldiff_jax.data import ahead, mosaic, store
from ssldiff_jax.data.annotations import captions
from ssldiff_jax.encoders import encoder
from ssldiff_jax.formats import atomic, hub
from ssldiff_jax.prior import whitening
from ssldiff_jax.runs import amounts, region_labels, region_reader, shard_writing, stage
from ssldiff_jax.runs import artifacts as artifacts_lib
from ssldiff_jax.train import hosts, logs

_LOG = logging.getLogger(__name__)

_MEASURED = 16  # shards that whitening is measured on: 260 000 embeddings of 4 × 4 cells
_BATCH = 32
# Held-out captions are of other sentences: a prior that learnt sentences by heart is found out.
_SPLITS: dict[str, captions.Phrasing] = {"train": "train", "test": "held_out"}

_Embedded = tuple[
    Float[np.ndarray, "N D"], list[region_labels.RegionAnnotation], Float[np.ndarray, "B 4"]
]


def run(context: stage.Context) -> dict[str, Any] | None:
    """Write for both splits an array store of white grids with their conditions and the captions,
    `whitening.npz`, and `spec.json`. Patches of a list have no neighbours: grids of one cell.

    Raises MosaicError where no records lie side by side.
    """
    if context.config.embeddings.source:
        # There is no encoder to embed neighbours with.
        return {"imported": context.config.embeddings.source}
    folder, artifacts = context.folder("grids"), context.artifacts
    model, labels = artifacts.encoder(), artifacts.region_labels()
    threads = context.config.data.loader.num_threads
    work = {
        split: _Work(folder, split, artifacts.regions(split), model, labels, threads)
        for split in _SPLITS
    }
    # Of both, before hours are spent on one.
    for split in work.values():
        split.table.require_some()
    white = _whitening(work["train"])
    for split in work.values():
        split.write(white)
    if not hosts.is_first():
        return None
    facts = {
        "dim": model.dim,
        "side": artifacts.grid_side,
        "encoder": artifacts_lib.encoder_digest(model),
        "spec": dataclasses.asdict(labels.spec),
        "scales": labels.scales,
    }
    counts = {split: each.close(facts) for split, each in work.items()}
    atomic.write_json(folder / "spec.json", facts)
    # Last: until the manifests are there, a stage that resumes needs it.
    shutil.rmtree(work["train"].raw.folder, ignore_errors=True)
    text_encoder = context.config.prior.conditions.text_encoder
    return facts | {"grids": counts} | hub.noted(text_encoder=text_encoder)


@dataclasses.dataclass(frozen=True)
class _Work:
    """The grids of a split, and what it takes to make them.

    Attributes:
        folder: of the stage.
        table: where they lie.
        threads: that read regions.
    """

    folder: pathlib.Path
    split: str
    table: mosaic.RegionTable
    model: encoder.Encoder
    labels: region_labels.RegionLabels
    threads: int

    @functools.cached_property
    def made(self) -> store.SharedStore:
        """All of them, white."""
        # White numbers are near 1: half precision keeps three digits, at half the room.
        return self._store(self.split, len(self.table), "float16")

    @functools.cached_property
    def raw(self) -> store.SharedStore:
        """The first ones, as the encoder gives them."""
        count = min(len(self.table), _MEASURED * amounts.GRIDS_OF_SHARD)
        # Not white yet: components may be of any size.
        return self._store(f"raw_{self.split}", count, "float32")

    def _store(self, name: str, count: int, dtype: str) -> store.SharedStore:
        side = self.table.grid
        fields = (
            store.Field("grid", (side, side, self.model.dim), dtype),
            store.Field("condition", (self.labels.spec.dim,), "float16"),
        )
        return store.SharedStore(self.folder / name, fields, count, amounts.GRIDS_OF_SHARD)

    def write(self, white: whitening.Whitening) -> None:
        """Write this host's shards of `made`; those that are in `raw` are not embedded again."""
        manifest = self.raw.folder / "manifest.json"
        raw = store.Store(self.raw.folder) if manifest.exists() else None

        def write(number: int, progress: logs.Progress) -> None:
            if raw is not None and number < self.raw.num_shards:
                batches, count = _of_shard(raw, number), len(raw.of_shard(number))
            else:
                regions = list(self.table.among(self.made.examples(number)))
                batches, count = self.embedded(number, regions), len(regions)
            left_out = len(self.made.examples(number)) - count
            with contextlib.closing(batches):
                self.made.write(number, _white(batches, white, progress), left_out=left_out)

        shard_writing.each_shard(self.made, f"grids {self.split}", write)

    def write_raw(self, number: int, progress: logs.Progress) -> None:
        """Write a shard of `raw`, and beside it the moments of its embeddings."""
        regions = list(self.table.among(self.raw.examples(number)))
        embedded, sums = self.embedded(number, regions), moments.Moments(self.model.dim)

        def batches() -> Iterator[store.Batch]:
            for batch in embedded:
                sums.add(batch["grid"].reshape(-1, self.model.dim), "embeddings")
                progress.update(len(batch["grid"]))
                yield batch
            # Before the shard: where that is there, so are these.
            atomic.write_atomic(self.sums(number), lambda path: np.save(path, sums.pack()))

        left_out = len(self.raw.examples(number)) - len(regions)
        with contextlib.closing(embedded):
            self.raw.write(number, batches(), left_out=left_out)

    def sums(self, number: int) -> pathlib.Path:
        """Where the moments of a shard of `raw` lie."""
        return self.raw.folder / f"{number:05d}.npy"

    def captions(self, number: int) -> pathlib.Path:
        """Where the captions of a shard lie until all are there."""
        return self.folder / f".captions_{self.split}" / f"{number:05d}.json"

    def embedded(
        self, number: int, regions: list[tuple[int, mosaic.Region]]
    ) -> Generator[store.Batch, None, None]:
        """Batches of a shard's grids as the encoder gives them; its captions are written."""
        texts, side = [], self.table.grid
        reader = region_reader.RegionReader(self.table, self.labels, _SPLITS[self.split])
        read = reader.batches(regions, _BATCH, self.threads)
        # One more is enough: the encoder has several batches of these cells.
        with contextlib.closing(ahead.started(self._start, read, count=1)) as batches:
            for grid, annotations, places in batches:
                texts += [annotation.caption for annotation in annotations]
                condition = self.labels.pack(annotations, places)
                yield {"grid": grid.reshape(len(places), side, side, -1), "condition": condition}
        # After the last batch: a shard that was cut off writes them again.
        atomic.write_json(self.captions(number), texts)

    def _start(self, batch: list[region_reader.LabelledRegion]) -> Callable[[], _Embedded]:
        """Begin to embed cells; their pixels are not kept until they are."""
        wait = self.model.start(np.concatenate([one.cells for one in batch]))
        annotations = [one.annotation for one in batch]
        places = np.concatenate([one.place for one in batch])
        return lambda: (wait(), annotations, places)

    def close(self, facts: dict[str, Any]) -> int:
        """Write the manifest; returns how many grids there are."""
        left_out = self.made.left_out()
        if left_out:
            _LOG.warning(
                "%d of %d grids of %s are left out: no adjacent records were found for them",
                left_out, len(self.table), self.split,
            )  # fmt: skip
        paths = [self.captions(number) for number in range(self.made.num_shards)]
        if paths[0].exists():  # else they were put together before
            texts = [caption for path in paths for caption in atomic.read_json(path)]
            atomic.write_json(self.folder / f"captions_{self.split}.json", texts)
            shutil.rmtree(paths[0].parent)
        self.made.close(**facts, left_out=left_out)
        return len(self.table) - left_out


def _whitening(work: _Work) -> whitening.Whitening:
    """What makes embeddings white, measured where it was not before."""
    path = work.folder / "whitening.npz"
    # As the first host sees it: all measure, or none does.
    if not hosts.broadcast_first(path.exists()):
        shard_writing.each_shard(work.raw, "grids to measure", work.write_raw)
        hosts.on_first_host("measuring the whitening of grids", lambda: _measure(work, path))
    return whitening.Whitening.load(path)


def _measure(work: _Work, path: pathlib.Path) -> None:
    numbers = range(work.raw.num_shards)
    packed = (np.load(work.sums(number), allow_pickle=False) for number in numbers)
    sums = moments.Moments.merged(map(moments.Moments.unpack, packed))
    if not sums.count:
        raise mosaic.MosaicError(
            f"expected regions among the first {work.raw.count} of {work.split}, got none"
        )
    work.raw.close()
    atomic.write_atomic(path, whitening.Whitening.of(sums).save)


def _of_shard(raw: store.Store, number: int) -> Generator[store.Batch, None, None]:
    examples = raw.of_shard(number)
    for start in range(examples.start, examples.stop, _BATCH):
        yield raw.batch(range(start, min(start + _BATCH, examples.stop)))


def _white(
    batches: Iterator[store.Batch], white: whitening.Whitening, progress: logs.Progress
) -> Iterator[store.Batch]:
    white_batches = ({**batch, "grid": white.apply(batch["grid"])} for batch in batches)
    return shard_writing.counted(white_batches, progress)
