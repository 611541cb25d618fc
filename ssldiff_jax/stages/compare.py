"""Tool `compare`: two folders of images judged by the same figures, whoever drew them."""

import dataclasses
import logging
import pathlib
from typing import Any

import numpy as np

from ssldiff_jax.core import config as config_lib
from ssldiff_jax.core import files
from ssldiff_jax.data import patch_list
from ssldiff_jax.evaluation import statistics, stored
from ssldiff_jax.stages import protocol, redrawn, rows, stage

_LOG = logging.getLogger(__name__)

_LEAST = 4


@dataclasses.dataclass(frozen=True)
class _Folder:
    """Images of one size, in the order of their names."""

    path: str
    images: patch_list.PatchList

    @classmethod
    def open(cls, key: str, path: str) -> "_Folder":
        """Raises ConfigError where none is named, PatchListError for a folder of less than four
        images."""
        if not path:
            raise config_lib.ConfigError(f"config.compare.{key} must name a folder, got ''")
        found = patch_list.open_list(path if patch_list.is_list(path) else f"folder:{path}")
        if len(found) < _LEAST:
            raise patch_list.PatchListError(
                f"{path}: expected {_LEAST} images or more to compare, got {len(found)}"
            )
        return cls(path, found)

    def read(self, start: int, stop: int) -> stored.Patches:
        """Raises PatchListError for images of several sizes."""
        found = [self.images.read(number) for number in range(start, stop)]
        wanted = self.images.shape(0)
        for number, image in enumerate(found, start):
            if image.shape[:2] != wanted:
                raise patch_list.PatchListError(
                    f"{self.path}: expected images of one size, got {wanted} and, of "
                    f"{self.images.name(number)}, {image.shape[:2]}"
                )
        return np.stack(found)

    @property
    def format(self) -> str:
        """Of the files, as names tell: "PNG", "JPG and PNG"."""
        count = len(self.images)
        suffixes = {pathlib.Path(self.images.name(i)).suffix[1:].upper() for i in range(count)}
        return " and ".join(sorted(suffixes - {""})) or "array"


def run(context: stage.Context) -> dict[str, Any]:
    """Write `results.json`, by extractor, and `statistics/` of the real folder, and add a row to
    `results.csv`. Networks are those of `config.evaluate.extractors`, and the judge and the encoder
    where the work directory has them.

    Raises ConfigError where there is no network.
    """
    section, folder = context.config.compare, context.folder("compare")
    real, drawn = (_Folder.open(key, getattr(section, key)) for key in ("real", "drawn"))
    _require_alike(real, drawn)
    own = [n for n in protocol.OWN if (context.folder(n) / "done.json").exists()]
    by = protocol.networks(context, own)
    if not by:
        raise config_lib.ConfigError(
            "config.evaluate.extractors must name a network where no judge is trained, got none"
        )
    results = {}
    for name, network in by.items():
        at = folder / "features"
        features = [
            redrawn.extract(network, side.read, len(side.images), at / f"{name}_{key}.npy")
            for key, side in (("real", real), ("drawn", drawn))
        ]
        px = real.images.shape(0)[0]
        extraction = statistics.Extraction(name, network.digest, network.dim, real.format, px)
        results[name] = protocol.compare(
            context, extraction, *features, real.path, folder, paired=False
        )
    files.write_json(folder / "results.json", results)
    rows.add(context, {"real": real.path, "drawn": drawn.path}, results)
    return {name: found["frechet"] for name, found in results.items()}


def _require_alike(real: _Folder, drawn: _Folder) -> None:
    """Raises PatchListError for images of another size; a warning for files of another format."""
    sizes = [side.images.shape(0) for side in (real, drawn)]
    if sizes[0] != sizes[1]:
        raise patch_list.PatchListError(
            f"{drawn.path}: expected images of {sizes[0]} px as in {real.path}, got {sizes[1]}"
        )
    if real.format != drawn.format:
        told = f"real images are {real.format}, drawn ones {drawn.format}"
        _LOG.warning("%s: a distance sees what a format loses", told)
