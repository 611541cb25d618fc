"""Tool `compare`: two folders of images compared by the metrics of `evaluate`, whatever generated
them."""

import dataclasses
import logging
import os
import pathlib
from typing import Any

import numpy as np

from ssldiff_jax.core import digests, schema
from ssldiff_jax.data import patch_list, plan
from ssldiff_jax.evaluation.features import image_files
from ssldiff_jax.evaluation.metrics import statistics, summary
from ssldiff_jax.formats import atomic
from ssldiff_jax.runs import results_csv, stage
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.slides import reading as reading_lib
from ssldiff_jax.stages.evaluate import protocol, regenerated

_LOG = logging.getLogger(__name__)


def fingerprint(config: run_config.RunConfig) -> dict[str, Any]:
    """How many files both folders hold, their bytes, and a hash of the name, size and time of each:
    features that were kept on the way are of these images, in this order. Raises ConfigError for a
    folder that is not there."""
    by_key = {}
    for key in ("real", "generated"):
        path = getattr(config.compare, key)
        folder = pathlib.Path(path.removeprefix(patch_list.FOLDER) or os.devnull).expanduser()
        if not patch_list.is_list(path) and not folder.is_dir():
            why = ": no such folder" if path else ""
            raise schema.ConfigError(
                f"config.compare.{key} must name a folder, got {path or repr(path)}{why}"
            )
        inside = sorted(path for path in (folder, *folder.rglob("*")) if path.is_file())
        facts = [
            (str(path.relative_to(folder)), stat.st_size, stat.st_mtime_ns)
            for path, stat in ((path, path.stat()) for path in inside)
        ]
        size = sum(size for _, size, _ in facts)
        by_key[key] = [len(facts), size, digests.of_values(facts)]
    return by_key


@dataclasses.dataclass(frozen=True)
class _Folder:
    """Images of one size, in the order of their names."""

    path: str
    images: patch_list.PatchList
    jpeg: str

    @classmethod
    def open(cls, path: str, reading: reading_lib.ReadingConfig, quality: int) -> "_Folder":
        """Raises PatchListError for a folder of too few images."""
        named = path if patch_list.is_list(path) else f"folder:{path}"
        # In a run on rasters, generated images are still plain pictures.
        images = patch_list.open_list(named, reading, pictures="as stored")
        left_out = getattr(images, "left_out", [])
        if left_out:
            _LOG.warning("%s: %d images of other kinds are left out: %s",
                         path, len(left_out), ", ".join(left_out[:4]))  # fmt: skip
        if len(images) < summary.LEAST:
            raise patch_list.PatchListError(
                f"{path}: expected {summary.LEAST} images or more to compare, got {len(images)}"
            )
        return cls(path, images, str(image_files.Format(quality)) if quality else "JPEG")

    def read(self, start: int, stop: int) -> image_files.Patches:
        """Raises PatchListError for images of several sizes."""
        images = [self.images.read(number) for number in range(start, stop)]
        size = self.images.shape(0)
        for number, image in enumerate(images, start):
            if image.shape[:2] != size:
                raise patch_list.PatchListError(
                    f"{self.path}: expected images of one size, got {size} and, of "
                    f"{self.images.name(number)}, {image.shape[:2]}"
                )
        return np.stack(images)

    def cases(self, case_regex: str) -> list[str]:
        """Of the images, by their names; an image whose name has none is its own."""
        names = (self.images.name(number) for number in range(len(self.images)))
        return [plan.case_of(name, case_regex) for name in names]

    @property
    def format(self) -> str:
        """Of the files, by their names: "PNG", which arrays are too, "JPEG 90 and PNG"."""
        names = (self.images.name(number) for number in range(len(self.images)))
        suffixes = {pathlib.Path(name).suffix[1:].upper() for name in names}
        lossy = {"JPG", "JPEG"}
        kinds = suffixes - lossy - {""} | ({self.jpeg} if suffixes & lossy else set())
        return " and ".join(sorted(kinds)) or str(image_files.Format())


def run(context: stage.Context) -> dict[str, Any]:
    """Write `results.json`, by extractor, and `statistics/` of the real folder, and add a row to
    `results.csv`. Networks are those of `config.evaluate.extractors`, and the judge and the encoder
    where the work directory has them.

    Raises ConfigError where there is no network.
    """
    config, folder = context.config, context.folder("compare")
    real, generated = (
        _Folder.open(path, config.data.reading, config.evaluate.jpeg_quality)
        for path in (config.compare.real, config.compare.generated)
    )
    paired = config.compare.paired
    _require_alike(real, generated, paired=paired)
    # The tool needs no run: a new work directory has neither.
    own = [n for n in protocol.OWN if context.folders.is_done(n)]
    by = protocol.networks(context.artifacts, own)
    if not by:
        raise schema.ConfigError(
            "config.evaluate.extractors must name a network where no judge is trained, got none"
        )
    results, cases = {}, real.cases(config.data.holdout.case_regex)
    for name, network in by.items():
        features = [
            regenerated.extract(network, side.read, len(side.images), folder / "features" / key)
            for key, side in (("real", real), ("generated", generated))
        ]
        px = real.images.shape(0)[0]
        extraction = statistics.Extraction(name, network.digest, network.dim, real.format, px)
        results[name] = protocol.compare(
            extraction,
            config.evaluate.reference,
            *features,
            real.path,
            folder,
            cases=cases,
            paired=paired,
        )
    atomic.write_json(folder / "results.json", results)
    source = {"tool": "compare", "real": real.path, "generated": generated.path}
    results_csv.add(context.workdir, source, {"patches": results})
    return {name: figures["frechet"] for name, figures in results.items()}


def _require_alike(real: _Folder, generated: _Folder, *, paired: bool) -> None:
    """Raises PatchListError for images of another size, pairs that are none, and folders of which
    one holds the other; a warning for files of another format."""
    counts = [len(side.images) for side in (real, generated)]
    if paired and counts[0] != counts[1]:
        raise patch_list.PatchListError(
            f"{generated.path}: expected {counts[0]} images as in {real.path}, since "
            f"config.compare.paired=True, got {counts[1]}"
        )
    places = [
        pathlib.Path(s.path.removeprefix(patch_list.FOLDER)).resolve() for s in (real, generated)
    ]
    # One inside the other would be compared with itself.
    if any(a == b or a in b.parents for a, b in (places, places[::-1])):
        raise patch_list.PatchListError(
            f"{generated.path}: expected images apart from those of {real.path}, got folders of "
            "which one holds the other"
        )
    sizes = [side.images.shape(0) for side in (real, generated)]
    if sizes[0] != sizes[1]:
        raise patch_list.PatchListError(
            f"{generated.path}: expected images of {sizes[0]} px as in {real.path}, got {sizes[1]}"
        )
    if real.format != generated.format:
        kinds = f"real images are {real.format}, generated ones {generated.format}"
        _LOG.warning("%s: distances include what the compression changes", kinds)
