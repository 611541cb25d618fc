"""Tool `features`: the embeddings of whole slides, one HDF5 file each, as TRIDENT and CLAM have
them; of the run's slides, or of any others, such as drawn ones."""

import contextlib
import dataclasses
import functools
import logging
import pathlib
from collections.abc import Callable, Generator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, UInt

from ssldiff_jax.core import digests, exhausted, names, schema
from ssldiff_jax.data import (
    ahead,
    embedding_table,
    named_slides,
    patch_list,
    slide_source,
    slide_table,
)
from ssldiff_jax.data.precomputed import bag_table, bags, slide_grid
from ssldiff_jax.encoders import encoder as encoder_lib
from ssldiff_jax.formats import atomic
from ssldiff_jax.generation import user_images
from ssldiff_jax.runs import amounts, artifacts, shard_writing, stage
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.slides import optional, pyramid, remote
from ssldiff_jax.slides import slide as slide_lib
from ssldiff_jax.train import logs

_LOG = logging.getLogger(__name__)

_PATCHES = 128  # of a batch that is read and embedded


@dataclasses.dataclass(frozen=True)
class _Slide:
    """A slide that becomes a bag; `fingerprint` changes when its file does."""

    name: str
    source: str
    fingerprint: Any
    open: Callable[[], slide_lib.Slide]


@dataclasses.dataclass(frozen=True)
class _Bags:
    """How slides become bags, and where they lie."""

    config: run_config.RunConfig
    model: encoder_lib.Encoder
    folder: pathlib.Path

    @functools.cached_property
    def _encoder(self) -> str:
        return artifacts.encoder_digest(self.model)

    def make(self, slide: _Slide) -> tuple[int, bool]:
        """How many embeddings the bag of a slide has, and whether it was there already.

        Raises what a file trips its reader over.
        """
        bag = self._bag(slide)
        count = bag.count()
        was_there = count is not None
        if not was_there:
            count = self._write(slide, bag)
        if embedding_table.FORMAT in self.config.features.formats:
            bag_table.write(bag, self.config.data.patch_mpp)
        return count, was_there

    def _write(self, slide: _Slide, bag: bags.Bag) -> int:
        """How many embeddings were written."""
        with contextlib.closing(slide.open()) as opened:
            data, section = self.config.data, self.config.features
            grid = slide_grid.SlideGrid.of(
                opened, data.crops.patch_px, data.patch_mpp,
                config=data.tissue, min_tissue=section.min_tissue,
            )  # fmt: skip
            with contextlib.closing(self._embeddings(opened, grid)) as batches:
                bag.write(
                    opened, grid, batches, dim=self.model.dim, encoder=self.config.encoder.name
                )
        return len(grid)

    def _bag(self, slide: _Slide) -> bags.Bag:
        data, section = self.config.data, self.config.features
        # All that decides its numbers.
        made_of = digests.of_values(
            slide.fingerprint, self._encoder, data.crops.patch_px, data.patch_mpp,
            data.mpp, section.mpp, section.min_tissue,
            data.reading.facts, data.tissue if section.min_tissue else None,
        )  # fmt: skip
        path = self.folder / bags.FOLDER / f"{slide.name}.h5"
        source = slide.source
        if not remote.is_remote(source) and pathlib.Path(source).exists():
            source = str(pathlib.Path(source).resolve())  # the same from any folder
        return bags.Bag(path, remote.printable(source), made_of)

    def _embeddings(
        self, slide: slide_lib.Slide, grid: slide_grid.SlideGrid
    ) -> Generator[Float[np.ndarray, "B D"], None, None]:
        """Batch by batch; read ahead by one thread, as a slide's file takes no more."""

        def read(numbers: range) -> UInt[np.ndarray, "N s s bands"]:
            places, px = grid.places[numbers.start : numbers.stop].tolist(), grid.px
            try:
                return np.stack([slide.read_region(*at, px, px, mpp=grid.mpp) for at in places])
            except OSError as error:  # else it would be taken for one of the file that is written
                raise slide_lib.SlideError.because(slide.path, "a readable slide", error) from error

        count = len(grid)
        parts = (range(i, min(i + _PATCHES, count)) for i in range(0, count, _PATCHES))
        pixels = ahead.ahead(read, parts, threads=1, count=shard_writing.BEGUN)
        return ahead.started(self.model.start, pixels, count=shard_writing.BEGUN)


def run(context: stage.Context) -> dict[str, Any]:
    """Write `h5_files/NAME.h5` into the folder of bags, `h5ad_files/NAME.h5ad` where asked for, and
    `results.json`. Files that are there are left as they are.

    Raises ConfigError for a run without an encoder or slides, SlideError where no slide could be
    used, ValueError where a library that files are written with is not installed.
    """
    config = context.config
    optional.require(config.features.formats)
    if config.embeddings.source:
        raise schema.ConfigError(
            "config.embeddings.source must be '' for the tool features, which embeds by the run's "
            f"encoder, got {config.embeddings.source!r}"
        )
    section = config.features
    own = pathlib.Path(section.folder).expanduser() if section.folder else context.workdir / "bags"
    slides = _named(config) if section.slides else _of_run(config, context.workdir)
    made = _Bags(config, context.artifacts.encoder().in_batches(_PATCHES), own)
    done, failed, progress = [], [], logs.Progress("slides", len(slides))
    for slide in slides:
        try:
            count, was_there = made.make(slide)
        except Exception as error:  # whatever a file trips over costs that file
            failed.append(_failure(slide, error))
        else:
            about = {"name": slide.name, "slide": remote.printable(slide.source)}
            done.append(about | {"patches": count, "was_there": was_there})
        progress.update(1)
    progress.close()
    facts = {"folder": str(own), "bags": len(done), "failed": len(failed)}
    facts["patches"] = sum(entry["patches"] for entry in done)
    results = facts | {"dim": made.model.dim, "slides": done, "not_used": failed}
    atomic.write_json(context.folder("features") / "results.json", results)
    if not done:
        raise slide_lib.SlideError(f"no slide could be used; the first: {failed[0]['reason']}")
    return facts


def ending(folder: pathlib.Path, facts: Mapping[str, Any]) -> list[str]:
    """How many bags there are, and where."""
    line = f"{facts['bags']} bags of {facts['patches']} patches in {facts['folder']}/{bags.FOLDER}"
    if facts["failed"]:
        line += f"; {facts['failed']} slides failed: {folder / 'results.json'}"
    return [line]


def _failure(slide: _Slide, error: Exception) -> dict[str, str]:
    """One line about a slide that could not be used. Raises the error where the disk is full."""
    shortage = exhausted.shortage(error)
    if shortage is not None and shortage.of == "disk":
        raise error
    # Readers raise these of a bad file; anything else may be ours and leaves its traceback.
    if not isinstance(error, ValueError | OSError | MemoryError):
        _LOG.error("%s", remote.printable(slide.source), exc_info=error)
    reason = remote.printable(" ".join(str(error).split()) or type(error).__name__)
    source = remote.printable(slide.source)
    _LOG.warning("no bag of %s: %s", source, reason)
    return {"slide": source, "reason": reason}


def _of_run(config: run_config.RunConfig, workdir: pathlib.Path) -> list[_Slide]:
    """The slides that the run was cut from, or the large images of its list."""
    data, images = config.data, None
    if patch_list.is_list(data.slides):
        images = patch_list.open_list(data.slides, data.reading)
        if getattr(images, "largest_side", 0) <= amounts.LARGEST_PATCH_PX:
            raise schema.ConfigError(
                "config.features.slides must name slides where config.data.slides has patches "
                f"already cut, got '' and {data.slides!r}"
            )
    tasks = slide_source.tasks(data, artifacts.archive_folder(data, workdir), images)
    distinct = names.distinct([task.source for task in tasks])
    return [
        _Slide(name, task.source, task.fingerprint, task.open)
        for name, task in zip(distinct, tasks, strict=True)
    ]


def _named(config: run_config.RunConfig) -> list[_Slide]:
    """Those that `config.features.slides` names: their microns per pixel are their own."""
    section = config.features
    folder = config.data.folder if slide_table.is_table(section.slides) else ""
    # What overrides the scale of the run's slides is not said of others, least of drawn ones.
    data = dataclasses.replace(config.data, slides=section.slides, folder=folder, mpp=section.mpp)
    named = named_slides.slides(data)
    fingerprints = slide_source.fingerprints([slide.source for slide in named])
    distinct = names.distinct([_called(slide.source) for slide in named])
    of_slides = []
    for name, slide, facts in zip(distinct, named, fingerprints, strict=True):
        how = dataclasses.replace(data, mpp=slide.mpp, reading=slide.reading)
        opener = functools.partial(user_images.open_slide, how, slide.source)
        of_slides.append(_Slide(name, slide.source, [facts, slide.mpp], opener))
    return of_slides


def _called(source: str) -> str:
    """The path that names a slide: of an image that the tool `generate` wrote, the folder of its
    request, as all of them are called `image`."""
    path = pathlib.Path(source)
    is_drawn = path.name in {f"image.{suffix}" for suffix in pyramid.FORMATS}
    if is_drawn and (path.parent / "image.json").exists():
        # With a suffix to take away: a name of a folder may have dots.
        return f"{path.resolve().parent}.tif"
    return source
