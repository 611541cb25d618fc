"""Files in which a user marked regions of slides, and which of them is of which slide."""

import collections
import dataclasses
import functools
import glob
import logging
import os
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ssldiff_jax.core import schema, spelling
from ssldiff_jax.slides import far_files, remote
from ssldiff_jax.slides.protocol import SlideError

if TYPE_CHECKING:
    from ssldiff_jax.slides import marked

_LOG = logging.getLogger(__name__)

_REGIONS = (".geojson.gz", ".json.gz", ".geojson", ".json")
_MASKS = (".png", ".tif", ".tiff")
_SHOWN = 3  # names in a message
_NAMED = 8  # classes in a message


@dataclasses.dataclass(frozen=True)
class AnnotationsConfig:
    """Regions that a user marked in slides, and what they stand for."""

    # Where the files lie is no part of what they say: their content is recorded beside the slides'.
    files: str = dataclasses.field(metadata={"digest": False})
    masks: str = dataclasses.field(metadata={"digest": False})
    use: tuple[str, ...]
    leave_out: tuple[str, ...]
    classes: tuple[str, ...]
    class_property: str

    def __post_init__(self):
        if len(set(self.classes)) < len(self.classes) or "unmarked" in self.classes:
            raise schema.ConfigError(
                "config.data.annotations.classes must be names that differ, and none of them "
                f"'unmarked', got {self.classes}"
            )
        both = sorted(set(self.use) & set(self.leave_out))
        if both:
            raise schema.ConfigError(
                "config.data.annotations.use and leave_out must have no class in common, got "
                f"{both[0]!r} in both"
            )

    @property
    def is_given(self) -> bool:
        """Whether there are any files."""
        return bool(self.files or self.masks)

    def require_none(self, source: str) -> None:
        """Raise ConfigError where there are files, of patches already cut."""
        if self.is_given:
            raise schema.ConfigError(
                "config.data.annotations must come with slides, of which regions are used, got "
                f"{self.files or self.masks!r} with patches already cut, {source}"
            )

    def require_files(self, *, in_table: bool) -> None:
        """Raise ConfigError for classes of polygons without files, which may stand `in_table`, that
        of the slides."""
        if (self.use or self.leave_out) and not (self.files or in_table):
            raise schema.ConfigError(
                "config.data.annotations.use and leave_out are classes of polygons and must come "
                "with config.data.annotations.files, or with a table of slides that names some, "
                f"got use={self.use} and leave_out={self.leave_out} without"
            )

    def require_classes(self, asker: str, *, in_table: bool) -> None:
        """Raise ConfigError where `asker` takes classes of polygons as labels, and no classes or no
        files are named; these may stand `in_table`, that of the slides."""
        if not (self.classes and (self.files or in_table)):
            raise schema.ConfigError(
                f"{asker} must come with config.data.annotations.files and classes, got "
                f"files={self.files!r}, classes={self.classes}"
            )

    def require_purpose(self, marks: "Sequence[marked.Marks]") -> None:
        """Raise ConfigError where slides have polygons, and no key says what for."""
        paths = [one.regions for one in marks if one.regions]
        if self.use or self.leave_out or self.classes or not paths:
            return
        # Not at the top: a machine that only computes can open no slides.
        from ssldiff_jax.slides import geojson

        try:
            counts = geojson.read(paths[0], class_property=self.class_property).counts
            named = [name for name in counts if name][:_NAMED]
            found = ", ".join(f"{name!r} ({counts[name]})" for name in named)
            classes = f"of classes {found}" if named else "without a class"
            first = f"{paths[0]} with {sum(counts.values())} polygons {classes}"
        except SlideError as error:
            named, first = [], str(error)
        raise schema.ConfigError(
            "config.data.annotations must say what the polygons of slides are for: use (tissue), "
            "leave_out (never used) or classes (labels alone), such as "
            f'"--config.data.annotations.use={(named[0] if named else "*",)}"; got none of these '
            f"with files for {len(paths)} slides, first {first}"
        )

    def of_slides(
        self, names: Sequence[str], own: Sequence[tuple[str, str]] = ()
    ) -> "list[marked.Marks | None]":
        """The files of slides, by the slides' names; None for a slide that has none.

        `own` are (GeoJSON, mask) of each as a table says, "" for what it leaves open: only there
        files are found by names. Raises ConfigError where no slide has one, or what is meant is not
        clear.
        """
        own = own or [("", "")] * len(names)
        regions, masks = (
            _matched(key, getattr(self, key), suffixes, names, [bool(said) for said in column])
            for key, suffixes, column in zip(
                ("files", "masks"), (_REGIONS, _MASKS), zip(*own, strict=True), strict=True
            )
        )
        is_shared = len(names) > 1 and len(set(regions)) == 1
        found = list(zip(own, regions, masks, strict=True))
        missing = sum(not any((*said, region, mask)) for said, region, mask in found)
        if missing:
            _LOG.info("%d of %d slides have no annotations of their own", missing, len(names))
        return [
            self.marks(said[0] or region, said[1] or mask, is_shared=is_shared and not said[0])
            for said, region, mask in found
        ]

    def marks(self, regions: str, mask: str, *, is_shared: bool = False) -> "marked.Marks | None":
        """What a GeoJSON file and a mask image, either of them "", say of a slide.

        A file that `is_shared` is of the ground under several slides.
        """
        # Not at the top: a machine that only computes can open no slides.
        from ssldiff_jax.slides import marked

        # A slide without its file has nothing that is left out, and nothing that is tissue.
        if not (regions or mask or self.use):
            return None
        return marked.Marks(regions, is_shared, mask, self.use, self.leave_out, self.class_property)


def _matched(
    key: str,
    spec: str,
    suffixes: tuple[str, ...],
    names: Sequence[str],
    has_own: Sequence[bool],
) -> list[str]:
    """A file for each slide, "" for none; for those that have their own it is of no matter."""
    if not spec:
        return [""] * len(names)
    key = f"config.data.annotations.{key}"
    paths = _paths(key, spec, suffixes)
    by_slide = collections.defaultdict(list)
    for path in paths:
        by_slide[spelling.same(_stem(remote.name_of(path), suffixes))].append(path)
    stems = [next((s for s in _stems(name) if s in by_slide), "") for name in names]
    if not any(stems):
        # Polygons on the ground may be of many scenes, a mask is of one.
        may_share = suffixes == _REGIONS or len(names) == 1
        if may_share and _is_one(spec, suffixes):
            return [paths[0]] * len(names)
        raise schema.ConfigError(
            f"{key} must have files named as the slides are, got none for {len(names)} slides, "
            f"such as {_listed(names)}; it has {_listed(list(map(remote.name_of, paths)))}"
        )
    asking = [stem for stem, is_told in zip(stems, has_own, strict=True) if stem and not is_told]
    for stem, count in collections.Counter(asking).items():
        if count > 1 or len(by_slide[stem]) > 1:
            raise schema.ConfigError(
                f"{key} must have one file for each slide, got {_listed(by_slide[stem])} for "
                f"{count} slides called {stem!r}: a table of slides names that of each in its "
                f"column {'annotations' if suffixes == _REGIONS else 'mask'}, which wins"
            )
    return [by_slide[stem][0] if stem else "" for stem in stems]


def query_again() -> None:
    """Ask for what lies behind addresses again: a command begins."""
    _far_files.cache_clear()


def _is_one(spec: str, suffixes: tuple[str, ...]) -> bool:
    """Whether it is one file, and no folder or glob."""
    if remote.is_remote(spec):
        return far_files.is_one(spec, suffixes)
    return os.path.isfile(os.path.expanduser(spec))


def _paths(key: str, spec: str, suffixes: tuple[str, ...]) -> list[str]:
    """Paths or addresses of files."""
    path = os.path.expanduser(spec)
    if remote.is_remote(spec):
        found = _far_files(key, spec, suffixes)
    elif os.path.isdir(path):
        inside = sorted(pathlib.Path(path).iterdir())
        found = [str(p) for p in inside if p.is_file() and p.name.lower().endswith(suffixes)]
    elif os.path.isfile(path):
        found = [str(pathlib.Path(path))]
    else:
        paths = map(pathlib.Path, sorted(glob.glob(path, recursive=True)))
        found = [str(p) for p in paths if p.is_file()]
    if not found:
        raise schema.ConfigError(
            f"{key} must name a file, a glob or a folder with files that end in "
            f"{', '.join(suffixes)}, got {spec!r}, where there are none"
        )
    return found


@functools.cache  # several checks of a command ask
def _far_files(key: str, spec: str, suffixes: tuple[str, ...]) -> list[str]:
    try:
        return far_files.listed(spec, suffixes)
    except SlideError as error:
        raise schema.ConfigError(f"{key}: {error}") from error


def _stem(name: str, suffixes: tuple[str, ...]) -> str:
    end = next((s for s in suffixes if name.lower().endswith(s)), "")
    return name[: len(name) - len(end)] if end else pathlib.PurePath(name).stem


def _stems(name: str) -> list[str]:
    """What the file of a slide may be called: slide.svs, slide; of slide.ome.tif slide too."""
    name = spelling.same(name)
    stem = pathlib.PurePath(name).stem
    shorter = [stem[: -len(".ome")]] if stem.lower().endswith(".ome") else []
    return [name, stem, *shorter]


def _listed(names: Sequence[str]) -> str:
    more = ", …" if len(names) > _SHOWN else ""
    return ", ".join(repr(str(name)) for name in names[:_SHOWN]) + more
