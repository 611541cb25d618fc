"""Slides that a config names, as tasks for the archive."""

import collections
import concurrent.futures
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from ssldiff_jax.core import schema
from ssldiff_jax.data import cases, demo_slide, patch_list, tiling
from ssldiff_jax.data import config as data_config
from ssldiff_jax.data.precomputed import cells as imported_cells
from ssldiff_jax.slides import content, remote
from ssldiff_jax.slides import reading as reading_lib
from ssldiff_jax.slides import slide as slide_lib

_QUERIED_TOGETHER = 32  # slides: more would be turned away by some servers


def sources(data: data_config.DataConfig) -> list[str]:
    """Paths and addresses of the slides that a config names, sorted by kind and name.

    Raises SlideError when there is none, ConfigError where none are named.
    """
    if not data.slides:
        raise schema.ConfigError("config.data.slides must name slides or patches, got ''")
    if data.slides in demo_slide.PACKAGED:
        return [str(demo_slide.packaged(data.slides))]
    if not remote.is_remote(data.slides):
        return [str(path) for path in slide_lib.find_slides(data.slides)]
    parts = [part.strip() for part in data.slides.split(",")]
    # Together, so that a path that two parts name is one slide, as it is without addresses.
    near = ",".join(part for part in parts if not remote.is_remote(part))
    local = slide_lib.find_slides(near) if near else []
    far = [address for part in parts if remote.is_remote(part) for address in remote.find(part)]
    return [*map(str, local), *dict.fromkeys(far)]


def fingerprint(source: str) -> list[Any]:
    """Name, size and a hash of the content of a slide; size −1 where it cannot be read."""
    try:
        if remote.is_remote(source):
            return list(_answer(source))
        path = pathlib.Path(source)
        return [path.name, path.stat().st_size, content.digest(path)]
    except (OSError, slide_lib.SlideError):
        return [remote.name_of(source), -1]


@functools.cache
def _answer(source: str) -> tuple[Any, ...]:
    """Kept for a command: several of its checks ask."""
    return tuple(remote.fingerprint(source))


def query_again() -> None:
    """Query remote slides again: a command begins."""
    _answer.cache_clear()


def fingerprints(slides: Sequence[str]) -> list[list[Any]]:
    """Those of slides, in their order; remote ones are queried several at a time, as each answer
    takes a while."""
    with concurrent.futures.ThreadPoolExecutor(_QUERIED_TOGETHER) as pool:
        return list(pool.map(fingerprint, slides))


def tiling_config(data: data_config.DataConfig) -> tiling.TilingConfig:
    """What decides the records of a slide."""
    return tiling.TilingConfig(
        data.patch_mpp, data.tissue, data.holdout, data.records, data.regions,
        data.crops.patch_px, data.crops.context_px,
    )  # fmt: skip


def cases_of(
    data: data_config.DataConfig, images: patch_list.PatchList | None = None
) -> cases.Cases | None:
    """The cases of all slides, or of a list's images; None where a part of every slide is held out.

    Raises ConfigError where names have no cases to hold out.
    """
    if data.holdout.by != "case":
        return None
    if images is not None:
        return cases.Cases.of([images.name(i) for i in range(len(images))], data.holdout)
    return cases.Cases.of(list(map(remote.name_of, sources(data))), data.holdout)


def tasks(
    data: data_config.DataConfig,
    folder: pathlib.Path,
    images: patch_list.PatchList | None = None,
    known: imported_cells.ImportedCells | None = None,
    only: Sequence[str] | None = None,
) -> list[tiling.Task]:
    """A task for every slide, or for every image of a list; `known` finds the patches of slides
    whose embeddings were computed elsewhere. Of slides `only` some, cases are those of all.

    Slides of one name whose embeddings are found by it cannot be opened. Raises SlideError where
    the config lacks the microns per pixel of images, ConfigError for names that have no
    cases to hold out.
    """
    how = tiling_config(data)
    split = cases_of(data, images)

    def make(source: str, opener: Callable[[], slide_lib.Slide], facts: list[Any]) -> tiling.Task:
        return tiling.Task(
            source,
            opener,
            [facts, data.mpp, dataclasses.astuple(data.reading)],
            how,
            folder,
            known,
            known and known.section.fingerprint(),
            split and split.moved(remote.name_of(source)),
        )

    if images is not None:
        if not data.mpp:
            raise slide_lib.SlideError(
                f"expected microns per pixel of {images.source}: pass --config.data.mpp=<number>"
            )
        # Partials of functions of modules, since a task is pickled for another process.
        openers = [
            functools.partial(_open_image, data.slides, data.reading, i, data.mpp)
            for i in range(len(images))
        ]
        return [
            make(images.name(i), opener, [images.source, i]) for i, opener in enumerate(openers)
        ]
    named = sources(data)
    shared = _shared_names(named) if known else set()
    tasks_of_slides = []
    chosen = named if only is None else only
    for source, facts in zip(chosen, fingerprints(chosen), strict=True):
        if pathlib.PurePath(source).stem in shared:
            opener = functools.partial(_refuse_shared_name, source)
            tasks_of_slides.append(make(source, opener, [*facts, "shared name"]))
        else:
            tasks_of_slides.append(make(source, _opener(source, data), facts))
    return tasks_of_slides


def _opener(source: str, data: data_config.DataConfig) -> Callable[[], slide_lib.Slide]:
    open_slide = remote.open_remote if remote.is_remote(source) else slide_lib.open_slide
    return functools.partial(open_slide, source, mpp=data.mpp or None, reading=data.reading)


def _open_image(
    spec: str, reading: reading_lib.ReadingConfig, number: int, mpp: float
) -> slide_lib.Slide:
    images = _open_list(spec, reading)
    return slide_lib.slide_of(images.name(number), images.read(number), mpp=mpp)


# Tasks travel to worker processes by the list's name: each opens it once for all its images.
_open_list = functools.lru_cache(1)(patch_list.open_list)


def _shared_names(slides: list[str]) -> set[str]:
    stems = collections.Counter(pathlib.PurePath(source).stem for source in slides)
    return {stem for stem, count in stems.items() if count > 1}


def _refuse_shared_name(source: str) -> slide_lib.Slide:
    raise slide_lib.SlideError(
        "slides must have names of their own to find their embeddings, got several called "
        f"{pathlib.PurePath(source).stem}"
    )
