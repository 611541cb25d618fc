"""The classes of a study's patches: measured in their pixels, of polygons, recorded, or the judge's
clusters."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Int, UInt

from ssldiff_jax.core import rng
from ssldiff_jax.data import shuffle
from ssldiff_jax.data.annotations import measures
from ssldiff_jax.evaluation.downstream import clusters
from ssldiff_jax.evaluation.features import networks
from ssldiff_jax.runs import artifacts as artifacts_lib
from ssldiff_jax.runs import patch_samples, pixel_labels
from ssldiff_jax.runs.workdir import folders

Pixels = UInt[np.ndarray, "N s s bands"]


@dataclasses.dataclass(frozen=True, eq=False)
class Patches:
    """Real patches of a split.

    Attributes:
        source: its records.
        numbers: which of them.
        read: their patches.
        pixels: the same, stacked.
        cases: a number for the case of each.
    """

    source: patch_samples.RecordPatches
    numbers: list[int]
    read: list[patch_samples.Patch]
    pixels: Pixels
    cases: Int[np.ndarray, "N"]

    @classmethod
    def some(cls, source: patch_samples.RecordPatches, count: int, seed: int) -> "Patches":
        """One of each of `count` records, in a random order of the seed; 0 is all."""
        records = len(source.records)
        numbers = shuffle.first(count or records, records, seed).tolist()
        read = [source.patch(number) for number in numbers]
        cases = patch_samples.numbered(source.metadata(number, "case") for number in numbers)
        return cls(source, numbers, read, np.stack([pixels for _, pixels in read]), cases)


@dataclasses.dataclass(frozen=True)
class Classes:
    """How patches are named.

    Attributes:
        all: every name, in order; empty where only the patches show them.
        of: the names of real patches.
        of_pixels: those of any pixels, generated ones too; None where pixels alone do not show
            them.
    """

    all: tuple[str, ...]
    of: Callable[[Patches], list[str]]
    of_pixels: Callable[[Pixels], list[str]] | None

    @classmethod
    def of_run(cls, artifacts: artifacts_lib.Artifacts, train: Patches) -> "Classes":
        """As the config asks; clusters are those of training patches.

        Raises WorkdirError for clusters without a judge.
        """
        labels = artifacts.config.study.patches.labels
        if labels == "clusters":
            return _clusters(artifacts, train)
        if labels == "recorded":
            return cls(
                (), lambda patches: patch_samples.recorded(patches.source, patches.numbers), None
            )
        slides = lambda: artifacts.slide_names
        measure = pixel_labels.PixelLabels(labels, artifacts.config.level_data, slides)
        names = measure.names

        def of(patches: Patches) -> list[str]:
            return [measure.most(*patch) for patch in patches.read]

        def of_pixels(pixels: Pixels) -> list[str]:
            counts = (np.bincount(measures.stain(patch).ravel()) for patch in pixels)
            return [names[count.argmax()] for count in counts]

        # Land cover is read in a band that generated patches lack, and no polygon lies on them.
        return cls(names, of, of_pixels if labels == "stain" else None)

    def numbered(self, *named: Sequence[str]) -> tuple[tuple[str, ...], list[np.ndarray]]:
        """(classes, the number of each name among them)."""
        class_names = self.all or tuple(sorted(set().union(*named)))
        return class_names, [
            np.array([class_names.index(name) for name in names]) for names in named
        ]


def _clusters(artifacts: artifacts_lib.Artifacts, train: Patches) -> Classes:
    if not artifacts.folders.is_done("judge"):
        raise folders.WorkdirError(
            "config.study.patches.labels=clusters needs the stage judge, got "
            f"{artifacts.folders.of_stage('judge')} without done.json; run "
            "--config.stages=judge first"
        )
    judge = networks.OfEncoder("judge", artifacts.encoder("judge"))
    count, seed = artifacts.config.study.patches.clusters, artifacts.config.seed
    fitted = clusters.Clusters.of(
        judge(train.pixels), count, seed=rng.seed_of(seed, "study/clusters")
    )
    names = tuple(f"cluster {number}" for number in range(count))

    def of_pixels(pixels: Pixels) -> list[str]:
        return [names[number] for number in fitted.nearest(judge(pixels))]

    return Classes(names, lambda patches: of_pixels(patches.pixels), of_pixels)
