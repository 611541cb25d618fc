"""Slides or images of a list, as tasks for the archive."""

import collections
import concurrent.futures
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ssldiff_jax.core import pixel_units
from ssldiff_jax.data import about_slide, cases, named_slides, patch_list, plan, tiling
from ssldiff_jax.data import config as data_config
from ssldiff_jax.data.annotations import places
from ssldiff_jax.data.precomputed import cells as imported_cells
from ssldiff_jax.slides import content, marked, remote, stac_files
from ssldiff_jax.slides import reading as reading_lib
from ssldiff_jax.slides import slide as slide_lib

_QUERIED_TOGETHER = 32  # slides: more would be turned away by some servers


def fingerprint(source: str) -> list[Any]:
    """Name, size and a hash of the content of a slide; size −1 where it cannot be read."""
    if remote.is_remote(source):
        return list(_answer(source))
    path = pathlib.Path(source)
    return _fingerprint(source, lambda: [path.name, content.size(path), content.digest(path)])


@functools.cache
def _answer(source: str) -> tuple[Any, ...]:
    """Kept for a command, also where none came: several of its checks ask, and a server that is
    down would be waited for each time."""
    return tuple(_fingerprint(source, lambda: remote.fingerprint(source)))


def _fingerprint(source: str, ask: Callable[[], list[Any]]) -> list[Any]:
    try:
        return ask()
    except (OSError, slide_lib.SlideError):
        return [remote.name_of(source), -1]


def query_again() -> None:
    """Query remote slides again: a command begins."""
    _answer.cache_clear()
    marked.query_again()
    places.query_again()
    stac_files.query_again()


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
    named = named_slides.slides(data)
    listed = named_slides.listed(named, data.holdout)
    names = list(listed) or [remote.name_of(slide.source) for slide in named]
    return cases.Cases.of(names, data.holdout, listed)


def marks_of(
    data: data_config.DataConfig, images: patch_list.PatchList | None = None
) -> dict[str, marked.Marks]:
    """What a user says of the tissue of slides, or of a list's images, by their sources.

    Raises ConfigError where files are named, and none is of a slide.
    """
    own: list[tuple[str, str]] = []
    if images is not None:
        named = [images.name(i) for i in range(len(images))]
    elif data.annotations.is_given or data.is_table:
        slides = named_slides.slides(data)
        named = [slide.source for slide in slides]
        own = [(s.row.annotations, s.row.mask) if s.row else ("", "") for s in slides]
    if not (data.annotations.is_given or any(map(any, own))):
        data.annotations.require_files(in_table=False)
        return {}
    found = data.annotations.of_slides(list(map(remote.name_of, named)), own)
    return {source: marks for source, marks in zip(named, found, strict=True) if marks}


def require_purpose(data: data_config.DataConfig) -> None:
    """Raise ConfigError where slides have polygons, and the config does not say what for."""
    if data.annotations.is_given or data.is_table:
        data.annotations.require_purpose(list(marks_of(data).values()))


def marked_by(
    data: data_config.DataConfig, images: patch_list.PatchList | None = None
) -> dict[str, Any]:
    """What decides the tissue that a user marks, by the slides' names; nothing without."""
    marks = marks_of(data, images)
    # Together, as those of slides: some may lie behind addresses.
    with concurrent.futures.ThreadPoolExecutor(_QUERIED_TOGETHER) as pool:
        facts = pool.map(marked.Marks.fingerprint, marks.values())
        found = [[remote.name_of(s), *of] for s, of in zip(marks, facts, strict=True)]
    return {"annotations": found} if found else {}


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
    if images is not None and not data.mpp:
        of_scenes = pixel_units.is_scene(data.patch_mpp)
        unit, key = ("metres", "metres") if of_scenes else ("microns", "mpp")
        raise slide_lib.SlideError(
            f"expected {unit} per pixel of {images.source}: pass --config.data.{key}=<number>"
        )
    split = cases_of(data, images)
    marks = marks_of(data, images)
    known_by = known and known.section.fingerprint()
    alike = functools.partial(
        tiling.Task, config=tiling_config(data), archive=folder, find_cells=known, known=known_by
    )
    if images is None:
        shared = known is not None
        return list(_of_slides(data, alike, split, marks, only, has_cells=shared))
    return list(_of_images(data, alike, split, marks, images))


def _of_images(
    data: data_config.DataConfig,
    alike: Callable[..., tiling.Task],
    split: cases.Cases | None,
    marks: Mapping[str, marked.Marks],
    images: patch_list.PatchList,
) -> Iterator[tiling.Task]:
    for number in range(len(images)):
        name = images.name(number)
        # A partial of a function of a module, since a task is pickled for another process.
        opener = functools.partial(_open_image, data.slides, data.reading, number, data.mpp)
        yield alike(
            name,
            opener,
            [[images.source, number], data.mpp, data.reading.facts],
            about=about_slide.About(
                case=_other_case(name, split), side=split and split.moved(name)
            ),
            marks=_deciding(marks.get(name)),
        )


def _of_slides(
    data: data_config.DataConfig,
    alike: Callable[..., tiling.Task],
    split: cases.Cases | None,
    marks: Mapping[str, marked.Marks],
    only: Sequence[str] | None,
    *,
    has_cells: bool,
) -> Iterator[tiling.Task]:
    named = named_slides.slides(data)
    shared = _shared_names([slide.source for slide in named]) if has_cells else set()
    listed = named_slides.listed(named, data.holdout)
    wanted = {slide.source for slide in named} if only is None else set(only)
    chosen = [slide for slide in named if slide.source in wanted]
    answers = fingerprints([slide.source for slide in chosen])
    for slide, answer in zip(chosen, answers, strict=True):
        opener, source = slide.opener, slide.source
        if plan.stem_of(source) in shared:
            opener = functools.partial(_refuse_shared_name, source)
            answer = [*answer, "shared name"]
        yield alike(
            source,
            opener,
            [answer, slide.mpp, slide.reading.facts],
            about=dataclasses.replace(
                _about(slide, listed, split, data.holdout),
                annotations=marks[source].regions if source in marks else "",
            ),
            marks=_deciding(marks.get(source)),
        )


def _deciding(marks: marked.Marks | None) -> marked.Marks | None:
    """Polygons that are labels alone change no records."""
    return marks if marks and marks.decides_tissue else None


def _about(
    slide: named_slides.NamedSlide,
    listed: Mapping[str, cases.Listed],
    split: cases.Cases | None,
    holdout: plan.HoldoutConfig,
) -> about_slide.About:
    """What is known of a slide that its file's name alone does not say."""
    name = remote.name_of(slide.source)
    if slide.row is None:
        return about_slide.About(side=split and split.moved(name))
    case = listed[slide.source].case
    return about_slide.About(
        case="" if case == plan.case_of(name, holdout.case_regex) else case,
        label=slide.row.label,
        side=split and split.moved(slide.source),
        where=slide.row.where,
        reading=slide.row.reading_text,
    )


def _other_case(name: str, split: cases.Cases | None) -> str:
    """The case of an image where its folders say it; "" where the file's name does."""
    case = split.of_name(name) if split else ""
    regex = split.holdout.case_regex if split else ""
    return "" if case == plan.case_of(remote.name_of(name), regex) else case


def _open_image(
    spec: str, reading: reading_lib.ReadingConfig, number: int, mpp: float
) -> slide_lib.Slide:
    images = _open_list(spec, reading)
    pixels = images.read(number)
    return slide_lib.slide_of(images.name(number), pixels, mpp=mpp, multiband=reading.multiband)


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
