"""Stage `patches`: slides, or patches already cut → records of both splits, and references.

What every slide becomes lies in the archive and outlives the stage: run again, it costs only the
slides that are new or changed.
"""

import dataclasses
import json
import logging
import pathlib
from typing import Any

from ssldiff_jax.core import digests, pixel_units, schema
from ssldiff_jax.data import (
    archive,
    engine,
    list_source,
    named_slides,
    patch_list,
    plan,
    records,
    region_files,
    slide_source,
    tiling,
)
from ssldiff_jax.data import config as data_config
from ssldiff_jax.data import tiled as tiled_lib
from ssldiff_jax.data.precomputed import cells as imported_cells
from ssldiff_jax.data.precomputed import slides as imported_slides
from ssldiff_jax.data.precomputed import source as imported
from ssldiff_jax.formats import atomic
from ssldiff_jax.runs import amounts, artifacts, stage
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.slides import pyramid, written
from ssldiff_jax.slides import slide as slide_lib
from ssldiff_jax.train import hosts, logs

_LOG = logging.getLogger(__name__)


def fingerprint(config: run_config.RunConfig) -> dict[str, Any]:
    """What every slide or list is known by, and embeddings computed elsewhere."""
    spec = config.data.slides
    patches = None
    if patch_list.is_list(spec):
        patches = patch_list.open_list(spec, config.data.reading)
        # A data set of TFDS has a version.
        files = patches.fingerprint() if hasattr(patches, "fingerprint") else None
        slides = [[patches.source, len(patches), files]]
        table = {}
    else:
        named = named_slides.slides(config.data)
        slides = slide_source.fingerprints([slide.source for slide in named])
        table = named_slides.table_facts(named)
    known_by = {"slides": slides, "embeddings": config.embeddings.fingerprint()} | table
    return known_by | slide_source.marked_by(config.data, patches)


@dataclasses.dataclass(frozen=True)
class _Request:
    """What is cut, and where it goes.

    Attributes:
        folder: of the stage.
        archive: where entries of slides lie.
    """

    data: data_config.DataConfig
    embeddings: imported.EmbeddingsSection
    folder: pathlib.Path
    archive: pathlib.Path


def run(context: stage.Context) -> dict[str, Any] | None:
    """Write `records/` (TFDS), `region_N.png` with `regions.json` (and
    `region_N.tif` of all bands, where a config names others than RGB), `quarantine.jsonl`, and what
    slides are made of: `slides.csv`, `overview_N.png`, `tissue/NAME.geojson`; and `table.csv`,
    which names the slides, and the split of each, as a table that `config.data.slides` takes."""
    config, data = context.config, context.config.data
    archive_ = artifacts.archive_folder(data, context.workdir)
    request = _Request(data, config.embeddings, context.folder("patches"), archive_)
    is_list = patch_list.is_list(data.slides)
    patches = patch_list.open_list(data.slides, data.reading) if is_list else None
    # Arrays and data sets of one size say no side, and are patches.
    is_small = patches and getattr(patches, "largest_side", 0) <= amounts.LARGEST_PATCH_PX
    if not is_small:
        return _of_slides(request, patches)
    # By one host: a list has no slides to share.
    cut = lambda: _of_list(request, patches, fingerprint(config))
    return hosts.on_first_host("patches of a list", cut)


def _of_slides(request: _Request, listed: patch_list.PatchList | None) -> dict[str, Any] | None:
    data, section = request.data, request.embeddings
    known = imported_cells.ImportedCells(section, data) if section.source else None
    tasks = slide_source.tasks(data, request.archive, listed, known)
    split = slide_source.cases_of(data, listed)
    if split:
        _LOG.info("%s", split)
    if listed is None and (contradiction := named_slides.contradiction(data)):
        _LOG.warning("%s", contradiction)
    agreement = None
    if section.source and section.check == "pixels":
        agreement = hosts.on_first_host(
            "comparing embeddings with pixels", lambda: imported_slides.agreement(tasks, section)
        )
    mine = [t for t in tasks if not isinstance(t.outcome(), archive.Entry)]
    # All hosts have looked before one finishes a slide, so that they count alike.
    hosts.barrier("checked which slides are done")
    mine = mine[hosts.share()]
    _LOG.info("%d of %d slides are left for this host to tile", len(mine), len(tasks))
    progress = logs.Progress("slides", len(mine))
    for _ in engine.for_each(
        tiling.tile, mine, data.engine,
        died=lambda task: task.fail("the process that read it died"),
    ):  # fmt: skip
        progress.update(1)
    progress.close()
    hosts.barrier("slides are tiled")
    return hosts.on_first_host(
        "assembling the records of all slides", lambda: _assemble(request, tasks, agreement)
    )


def _assemble(
    request: _Request, tasks: list[tiling.Task], agreement: dict[str, float] | None
) -> dict[str, Any]:
    data, folder, section = request.data, request.folder, request.embeddings
    tiled = tiled_lib.Tiled.of(tasks)
    if section.source:
        tiled = tiled.without(imported_slides.of_other_dims(tiled, section))
    if tiled.marked:
        _LOG.info("%s", tiled.marked)
    tiled, references = _readable(request, tiled)
    _write_quarantine(folder, tiled.quarantine)
    if not tiled.entries:
        raise slide_lib.SlideError(
            f"no slide could be used; the first: {tiled.quarantine[0]['reason']}"
        )
    config = slide_source.tiling_config(data)
    counts = {
        split: sum(s.count for e in tiled.entries.values() for s in e.shards.get(split, ()))
        for split in ("train", "test", *tiled.validation)
    }
    _check_splits(counts, references, data)
    facts = _publish(request, tiled.entries, references, tiled.names, tiled.quarantine)
    atomic.write_text(folder / "slides.csv", tiled.as_csv())
    atomic.write_text(folder / "table.csv", tiled.as_table())
    tiled.write_tissue(folder / "tissue")
    for number, overview in tiled.overviews(references, config):
        pyramid.write_png(folder / f"overview_{number}.png", overview)
    empty = [entry.name for entry in tiled.entries.values() if not entry.count]
    for name in empty:
        _LOG.warning("%s has no records: none of its squares has enough tissue", name)
    return facts | {"alignment": agreement, "without_records": empty}


def _readable(
    request: _Request, tiled: tiled_lib.Tiled
) -> tuple[tiled_lib.Tiled, list[plan.Reference]]:
    """Write the references; slides whose held-out part cannot be read are left out."""
    data = request.data
    # Another slide's region may take the place of one that cannot be read.
    while True:
        references = tiled.references(slide_source.tiling_config(data))
        try:
            pixels = tiled.pixels(references, data.patch_mpp)
            region_files.write_all(request.folder, pixels, references, _scale(data))
            _write_coarser(request, tiled, references)
        except tiled_lib.UnreadableSlide as error:
            tiled = tiled.without({error.number: str(error)})
        else:
            return tiled, references


def _of_list(
    request: _Request, patches: patch_list.PatchList, made_of: dict[str, Any]
) -> dict[str, Any]:
    """`made_of` is the fingerprint of the list."""
    section, data, folder = request.embeddings, request.data, request.folder
    data.annotations.require_none(patches.source)
    if data.levels != (1.0,):
        raise schema.ConfigError(
            "config.data.levels must be (1.0,) of patches already cut, which have one "
            f"magnification, got {data.levels}"
        )
    embeddings = section.of_list() if section.source else None
    source = list_source.read_source(data, patches, embeddings)
    _write_quarantine(folder, source.skipped)
    counts = {split: len(squares) for split, squares in source.splits.items()}
    _check_splits(counts, source.references, data)
    agreement = None
    if embeddings and section.check == "pixels":
        train = source.splits["train"]
        pixels = lambda i: source.read(train[i])
        agreement = imported.check_alignment(
            len(train), train.__getitem__, pixels, lambda number: embeddings
        )
    how = slide_source.tiling_config(data)
    # All that decides what is in it: another list or setting is another entry.
    digest = digests.of_values(made_of, how, data.reading.facts)
    entry = _list_entry(request.archive / f"list-{digest}", source, patches, data)
    facts = _publish(request, {0: entry}, source.references, source.names, source.skipped)
    cells = ([source.read(cell) for cell in r.cells] for r in source.references)
    region_files.write_all(folder, cells, source.references, _scale(data))
    return facts | {"alignment": agreement and dataclasses.asdict(agreement)}


def _list_entry(
    folder: pathlib.Path,
    source: plan.Source,
    patches: patch_list.PatchList,
    data: data_config.DataConfig,
) -> archive.Entry:
    if (entry := archive.Entry.read(folder)) is not None:
        return entry
    bands = data.reading.multiband
    quality = records.quality_of(data.records.jpeg_quality, bands)
    progress = logs.Progress("patches", sum(map(len, source.splits.values())))
    about = {"slide": "", "case": "", "label": "", "mpp": data.patch_mpp}
    with archive.new_entry(folder, **about) as (writer, _):
        for split, squares in source.splits.items():
            for square in squares:
                number = square.slide
                name = patches.name(number)
                case = plan.case_of(name, data.holdout.case_regex)
                metadata = {"slide": name, "case": case, "label": patches.label(number)}
                writer.add(split, square, source.read(square), quality, **metadata)
                progress.update(1)
        writer.close(source=patches.source, **records.facts_of(bands))
    progress.close()
    return archive.Entry.read(folder)


def _publish(
    request: _Request,
    entries: dict[int, archive.Entry],
    references: list[plan.Reference],
    names: dict[int, str],
    quarantine: list[dict[str, str]],
) -> dict[str, Any]:
    folder, data = request.folder, request.data
    config = dataclasses.asdict(slide_source.tiling_config(data))
    bands = data.reading.multiband
    counts = archive.publish(folder / "records", entries, bands, config=config, slides=len(entries))
    atomic.write_json(folder / "regions.json", [region_files.about(r, names) for r in references])
    return {
        "slides": names,
        "quarantined": len(quarantine),
        "records": counts,
        "regions": len(references),
        "alignment": None,
    }


def _write_quarantine(folder: pathlib.Path, quarantine: list[dict[str, str]]) -> None:
    # As file names are written, in any alphabet.
    lines = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in quarantine)
    atomic.write_text(folder / artifacts.QUARANTINE, lines)
    for line in quarantine:
        _LOG.warning("quarantined: %s: %s", line["slide"], line["reason"])


def _write_coarser(
    request: _Request, tiled: tiled_lib.Tiled, references: list[plan.Reference]
) -> None:
    """The same regions at the further magnifications of records, where they hold a cell."""
    data = request.data
    # Patches whose embeddings were computed elsewhere are of one magnification.
    scales = () if request.embeddings.source else data.records.scales
    for scale in (scale for scale in scales if scale > 1):
        coarser = [reference.at(scale) for reference in references]
        # Of smaller regions no image of it has a real one beside it.
        if None not in coarser:
            pixels = tiled.pixels(coarser, data.patch_mpp * scale)
            own = _scale(data, scale)
            region_files.write_all(request.folder, pixels, coarser, own, scale)


def _scale(data: data_config.DataConfig, level: float = 1) -> written.Scale:
    """That of references."""
    return written.Scale(data.patch_mpp * level, bands=data.reading.multiband)


def _check_splits(
    counts: dict[str, int], references: list[plan.Reference], data: data_config.DataConfig
) -> None:
    for name, count in counts.items():
        if not count:
            raise slide_lib.SlideError(
                f"no tissue, or no patch of embeddings, for the {name} split in {data.slides!r}: "
                f"expected squares of {data.records.record_px} px at "
                f"{pixel_units.per_pixel(data.patch_mpp)} with tissue ≥ "
                f"{data.records.min_tissue}, held out by {data.holdout.by}; got none"
            )
    regions, px = data.regions, data.crops.patch_px
    size = f"{regions.rows * px} × {regions.cols * px} px"
    if not references:
        raise schema.ConfigError(
            f"config.data.regions must find {regions.count} held-out regions of {size}, got none: "
            f"smaller ones may be found (config.data.regions has rows={regions.rows}, "
            f"cols={regions.cols}), or some where more is held out (config.data.holdout has "
            f"fraction={data.holdout.fraction:g})"
        )
    if len(references) < regions.count:
        _LOG.warning(
            "%d of the %d held-out regions of %s of config.data.regions were found without "
            "overlap: large images are generated for these alone",
            len(references), regions.count, size,
        )  # fmt: skip
