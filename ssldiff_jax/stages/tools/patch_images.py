"""Tool `patch_images`: every record as a PNG, or a TIFF of other bands than red, green and blue, in
a folder for each split, for programs that take folders of images."""

import collections
import dataclasses
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ssldiff_jax.core import arrays, digests, machine, names, schema
from ssldiff_jax.data import ahead, csv_cells, records
from ssldiff_jax.formats import atomic
from ssldiff_jax.runs import stage
from ssldiff_jax.slides import geotiff, pyramid, written
from ssldiff_jax.slides import multiband as multiband_lib
from ssldiff_jax.train import logs

_NOTE = "patches.json"
_TABLE = "patches.csv"
_READ = 64  # records that a thread reads together
_COLUMNS = ("file", "slide", "case", "label", "mpp", "x", "y")


@dataclasses.dataclass(frozen=True)
class _Split:
    """Records of a split on their way into `folder/split`; `slides` are file names by number, and
    `bands` what their pixels are."""

    folder: pathlib.Path
    name: str
    source: records.RecordSource
    slides: Mapping[int, str]
    bands: multiband_lib.MultibandConfig

    def write(self, part: range) -> list[tuple[dict[str, Any], bool]]:
        """A row of the table for each record of a part, and whether its image was there."""
        places = self.source.places[part.start : part.stop].tolist()
        both = zip(places, self.source.encoded(part), strict=True)
        return [self._write(place, record) for place, record in both]

    def _write(self, place: list[int], record: bytes) -> tuple[dict[str, Any], bool]:
        slide, top, left, _ = place
        about = records.about(record)
        # A folder for each class, as lists of patches have.
        label = re.sub(r"[^\w.-]+", "-", about["label"]).strip(".-")
        suffix = "tif" if self.bands.is_used else "png"
        path = pathlib.Path(self.name, label, f"{self.slides[slide]}_{left}_{top}.{suffix}")
        was_there = (self.folder / path).exists()
        if not was_there:
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            pixels = records.decode(records.encoded_image(record))
            self._write_image(self.folder / path, pixels, about["mpp"])
        return {"file": path.as_posix(), **about, "x": left, "y": top}, was_there

    def _write_image(self, path: pathlib.Path, pixels: arrays.Pixels, mpp: float) -> None:
        if self.bands.is_used:
            scale = written.Scale(mpp, bands=self.bands)
            geotiff.write_bands(path, pixels, scale)
        else:
            pyramid.write_png(path, pixels)


def run(context: stage.Context) -> dict[str, Any]:
    """Write `SPLIT/SLIDE_x_y.png` into the folder that the config names, x and y px at the scale of
    the record, and `patches.csv`, a row for each; `.tif` of all bands, with their names, where the
    config names others than RGB. Images that are there stay.

    Raises ConfigError for no folder, and for one that holds something else.
    """
    section, patches = context.config.patch_images, context.folder("patches")
    if not section.folder:
        raise schema.ConfigError("config.patch_images.folder must name a folder, got ''")
    folder, found = pathlib.Path(section.folder).expanduser(), patches / "records"
    manifest = atomic.read_json(found / "manifest.json")
    _claim(folder, digests.of_values(manifest))
    sources = {name: records.RecordSource(found, name) for name in manifest["splits"]}
    slides = _slide_names(patches, sources)
    bands = context.config.data.reading.multiband
    splits = [_Split(folder, name, source, slides, bands) for name, source in sources.items()]
    counts: collections.Counter[str] = collections.Counter()

    def fill(path: pathlib.Path) -> None:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv_cells.Writer(file)
            writer.row(_COLUMNS)
            for split in splits:
                for row, was_there in _rows(split):
                    counts[split.name] += 1
                    counts["was_there"] += was_there
                    writer.row(row[name] for name in _COLUMNS)

    atomic.write_atomic(folder / _TABLE, fill)
    there = counts.pop("was_there", 0)
    facts = {"folder": str(folder), "images": dict(counts), "were_there": there}
    atomic.write_json(context.folder("patch_images") / "results.json", facts)
    return facts


def ending(folder: pathlib.Path, facts: Mapping[str, Any]) -> list[str]:
    """How many images there are, and where."""
    counts = ", ".join(f"{count} of {name}" for name, count in facts["images"].items())
    return [f"{counts} in {facts['folder']}"]


def _claim(folder: pathlib.Path, made_of: str) -> None:
    """Note which records a folder is of. Raises ConfigError where it is of others, or of none."""
    note = folder / _NOTE
    if note.exists():
        noted = atomic.read_json(note)
        if noted != {"records": made_of}:
            raise schema.ConfigError(
                f"config.patch_images.folder must be new or of these records, got {folder} with "
                f"others ({note})"
            )
    elif folder.exists() and any(folder.iterdir()):
        raise schema.ConfigError(
            f"config.patch_images.folder must be new or empty, got {folder} with files of another "
            "origin"
        )
    atomic.write_json(note, {"records": made_of})


def _slide_names(
    patches: pathlib.Path, sources: Mapping[str, records.RecordSource]
) -> dict[int, str]:
    """A name for each slide, or for each patch of a list, that no other has."""
    regions = atomic.read_json(patches / "regions.json")
    if all(region["kind"] == "page" for region in regions):
        named = {}
        for source in sources.values():
            for number, place in enumerate(source.places.tolist()):
                named[place[0]] = records.about(source.record(number))["slide"]
    else:
        facts = atomic.read_json(patches / "done.json")["facts"]
        named = {int(number): name for number, name in facts["slides"].items()}
    return dict(zip(named, names.distinct(list(named.values())), strict=True))


def _rows(split: _Split) -> Iterator[tuple[dict[str, Any], bool]]:
    count, cores = len(split.source), machine.cores()
    progress = logs.Progress(split.name, count)
    parts = (range(i, min(i + _READ, count)) for i in range(0, count, _READ))
    for rows in ahead.ahead(split.write, parts, threads=cores, count=2 * cores):
        yield from rows
        progress.update(len(rows))
    progress.close()
