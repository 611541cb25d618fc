"""The section `study` of a config: what classifiers are taught, from how much that is real."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

from ssldiff_jax.core import schema
from ssldiff_jax.data.annotations import measures
from ssldiff_jax.evaluation.downstream import classifiers, mil_models

TASKS = ("patches", "bags")
PATCH_MODELS = ("linear", "resnet", "vit")


@dataclasses.dataclass(frozen=True)
class PatchStudy:
    """Patches and their classes: what most of their pixels show, or the polygons (annotations) over
    most of them, the class recorded with them, or the cluster of the judge's embeddings.

    Attributes:
        labels: of what.
        clusters: how many.
        count: real patches of the training split, 0: one of each record.
        count_test: of the held-out split.
        num_generated: how often each real one is regenerated.
        models: which classifiers.
        l2: of the linear one.
        network: of the others.
    """

    labels: Literal["stain", "landcover", "earth", "annotations", "recorded", "clusters"]
    clusters: int
    count: int
    count_test: int
    num_generated: int
    models: tuple[str, ...]
    l2: float
    network: classifiers.NetworkConfig

    def __post_init__(self):
        _require_models("patches", self.models, PATCH_MODELS)
        _require_counts("patches", self.count, self.count_test, self.num_generated)
        # One cluster is no classification.
        if self.clusters < 2:
            raise schema.ConfigError(
                f"config.study.patches.clusters must be ≥ 2, got {self.clusters}"
            )
        if self.l2 < 0:
            raise schema.ConfigError(f"config.study.patches.l2 must be ≥ 0, got {self.l2}")


@dataclasses.dataclass(frozen=True)
class BagStudy:
    """Bags of embeddings and their classes: regions that show more of a class of pixels, or of
    polygons (annotations), than the median region does, or slides with the labels of their cases.

    Attributes:
        of: regions or slides.
        measure: what regions are measured by.
        shows: which class of it.
        labels: of slides, a CSV file with columns case and label.
        side: cells on the side of a region.
        cells: most patches of a slide.
        count: bags of the training split; of slides 0 is all.
        count_test: of the held-out split.
        num_generated: how often each real one is regenerated.
        models: which classifiers.
        network: their sizes and fits.
    """

    of: Literal["regions", "slides"]
    measure: Literal["stain", "landcover", "earth", "annotations"]
    shows: str
    labels: str
    side: int
    cells: int
    count: int
    count_test: int
    num_generated: int
    models: tuple[str, ...]
    network: mil_models.MilConfig

    def __post_init__(self):
        _require_models("bags", self.models, tuple(mil_models.MODELS))
        _require_counts("bags", self.count, self.count_test, self.num_generated)
        if min(self.side, self.cells) < 1:
            raise schema.ConfigError(
                f"config.study.bags must have side and cells ≥ 1, got {self.side} and {self.cells}"
            )
        if self.of == "regions" and self.measure != measures.ANNOTATIONS:
            self.require_shown(measures.CLASSES[self.measure])
        # Split at their median, two are needed for two classes.
        if self.of == "regions" and min(self.count, self.count_test) < 2:
            raise schema.ConfigError(
                "config.study.bags must have count and count_test ≥ 2 of regions, got "
                f"{self.count} and {self.count_test}"
            )

    def require_shown(self, names: Sequence[str]) -> None:
        """Raise ConfigError where regions are not parted by one of these classes; those of polygons
        stand in another section."""
        if self.shows not in names:
            raise schema.ConfigError(
                f"config.study.bags.shows must be of {', '.join(names)}, got {self.shows!r}"
            )


@dataclasses.dataclass(frozen=True)
class StudySection:
    """What the tool `study` compares.

    Attributes:
        tasks: patches, bags.
        fractions: of the real training examples that have labels.
        seeds: repetitions, each of another subset and other random weights.
        resamples: of the bootstrap.
        level: the part of them that an interval holds.
        patches: the classification of patches.
        bags: that of bags.
    """

    tasks: tuple[str, ...]
    fractions: tuple[float, ...]
    seeds: int
    resamples: int
    level: float
    patches: PatchStudy
    bags: BagStudy

    def __post_init__(self):
        for name in self.tasks:
            if name not in TASKS:
                raise schema.ConfigError(
                    f"config.study.tasks must be of {', '.join(TASKS)}, got {name!r}"
                )
        if not self.tasks or not self.fractions or not all(0 < f <= 1 for f in self.fractions):
            raise schema.ConfigError(
                "config.study must have tasks, and fractions in (0, 1], got "
                f"{self.tasks} and {self.fractions}"
            )
        if self.seeds < 1 or self.resamples < 1 or not 0 < self.level < 1:
            raise schema.ConfigError(
                "config.study must have seeds and resamples ≥ 1 and 0 < level < 1, got "
                f"{self.seeds}, {self.resamples} and {self.level}"
            )


def _require_models(task: str, models: tuple[str, ...], known: tuple[str, ...]) -> None:
    if not models or not set(models) <= set(known):
        raise schema.ConfigError(
            f"config.study.{task}.models must be of {', '.join(known)}, got {models}"
        )


def _require_counts(task: str, count: int, count_test: int, num_generated: int) -> None:
    if min(count, count_test) < 0 or num_generated < 1:
        raise schema.ConfigError(
            f"config.study.{task} must have counts ≥ 0 and num_generated ≥ 1, got count={count}, "
            f"count_test={count_test}, num_generated={num_generated}"
        )
