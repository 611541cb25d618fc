"""The sections `evaluate` and `report`: how generated patches are compared with held-out ones."""

import dataclasses
from typing import Literal

from ssldiff_jax.data.annotations import measures
from ssldiff_jax.evaluation.features import networks as extractors
from ssldiff_jax.evaluation.metrics import summary


@dataclasses.dataclass(frozen=True)
class EvaluateSection:
    """`num_patches` held-out patches are regenerated, one each, and compared with as many real
    ones.

    Attributes:
        num_patches: 0 compares large images alone.
        num_training: training patches among which copies are looked for, at most; 0 takes those of
            every record.
        jpeg_quality: of the files that features are taken of; 0 is PNG, without loss.
        extractors: further networks, "fid-inception=/weights/file", "clip=/folder", a published
            ViT's name with its file, or "efficientnet-lite0" alone, of an installed package; the
            run's encoder and judge always are.
        reference: folder of statistics that were written by another run or published, one file for
            each extractor; "" compares with the held-out patches of this run.
        classes: what a confusion matrix is of: classes measured in pixels, of polygons
            (annotations), or recorded with patches of a list; "" makes none.
        prompts: "class=words" for a CLIP among the extractors; () classifies by the mean of real
            patches of each measured class.
        templates: sentences with a place {} for the words.
        cells: files of the cells of large images.
        patience: minutes that the tool `watch` waits for a checkpoint.
    """

    num_patches: int
    num_training: int
    jpeg_quality: int
    extractors: tuple[str, ...]
    reference: str
    classes: Literal["", "stain", "landcover", "earth", "annotations", "recorded"]
    prompts: tuple[str, ...]
    templates: tuple[str, ...]
    cells: tuple[Literal["geojson", "h5ad"], ...]
    patience: float = dataclasses.field(metadata={"digest": False})

    def __post_init__(self):
        least = summary.LEAST
        # 0 is for large images alone.
        if self.num_patches < 0 or 0 < self.num_patches < least or self.num_training < 0:
            raise ValueError(
                f"num_patches must be 0 or at least {least} and num_training 0 or more, got "
                f"num_patches={self.num_patches}, num_training={self.num_training}"
            )
        if not 0 <= self.jpeg_quality <= 100:
            raise ValueError(f"jpeg_quality must lie in 0…100, got {self.jpeg_quality}")
        names = measures.CLASSES.get(self.classes)
        if self.prompts and names and set(self.words) != set(names):
            raise ValueError(
                f"prompts must be of the classes {', '.join(names)}, got {', '.join(self.words)}"
            )
        for name in self.networks:
            if name not in extractors.names():
                raise ValueError(
                    f"extractors must be NAME=PATH with one of {', '.join(extractors.names())}, "
                    f"got {name!r}"
                )

    @property
    def networks(self) -> dict[str, str]:
        """Paths of weights by the name of the network."""
        # A name alone is a package's: where its file lies is no part of a config.
        alone = [name for name in self.extractors if name in extractors.PACKAGED]
        pairs = tuple(text for text in self.extractors if text not in alone)
        return _pairs(pairs, "extractors") | {name: extractors.installed(name) for name in alone}

    @property
    def words(self) -> dict[str, str]:
        """Words for each class."""
        return _pairs(self.prompts, "prompts")


@dataclasses.dataclass(frozen=True)
class ReportSection:
    """Work directories of other runs to show beside this one."""

    compare: tuple[str, ...] = dataclasses.field(metadata={"digest": False})


def _pairs(texts: tuple[str, ...], what: str) -> dict[str, str]:
    # At the first =: a path may have another.
    pairs = dict(text.split("=", 1) for text in texts if "=" in text)
    if len(pairs) < len(texts) or not all(pairs.values()):
        raise ValueError(f"{what} must read NAME=VALUE, each name once, got {texts}")
    return pairs
