"""Which class an image is of, by the class's vector that is nearest in angle to its features.

Vectors come from prompts, where images and texts share a space (Radford et al. 2021), or are means
of real images.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from ssldiff_jax.core import vectors
from ssldiff_jax.evaluation.features import networks
from ssldiff_jax.weights.tables import clip

TextFn = Callable[[Sequence[str]], Float[np.ndarray, "N D"]]
_SLOT = "{}"


@dataclasses.dataclass(frozen=True)
class Pair:
    """Images and texts to vectors of one space."""

    images: networks.Extractor
    texts: TextFn


@dataclasses.dataclass(frozen=True)
class Classes:
    """A unit vector for each class, rows in the order of `names`."""

    names: tuple[str, ...]
    vectors: Float[np.ndarray, "K D"]

    def __post_init__(self):
        # One class is always right.
        if len(self.names) < 2 or len(set(self.names)) != len(self.names):
            raise ValueError(
                f"two classes or more of different names are needed, got {list(self.names)}"
            )
        if len(self.vectors) != len(self.names):
            raise ValueError(
                f"one vector for each class is needed, got {len(self.vectors)} for "
                f"{len(self.names)}"
            )

    def predict(self, features: Float[np.ndarray, "N D"]) -> Int[np.ndarray, "N"]:
        """The class of greatest cosine for each row, an index into `names`.

        Raises ValueError for features of another length or not finite.
        """
        dim = self.vectors.shape[1]
        if features.shape[1] != dim:
            raise ValueError(f"features must be of length {dim}, got {features.shape[1]}")
        # argmax would take NaN for the greatest.
        if not np.isfinite(features).all():
            raise ValueError(f"features must be finite, got NaN or infinity in {features.shape}")
        return np.argmax(vectors.unit(features) @ self.vectors.T, axis=1)


@dataclasses.dataclass(frozen=True)
class Confusion:
    """How often images of a class (rows) were classified as each class (columns)."""

    names: tuple[str, ...]
    counts: Int[np.ndarray, "K K"]

    @property
    def accuracy(self) -> float:
        """The part of all images that was classified correctly."""
        return float(np.trace(self.counts) / self.counts.sum())

    @property
    def recall(self) -> Float[np.ndarray, "K"]:
        """The same for each class; NaN for one without images."""
        totals = self.counts.sum(axis=1)
        return np.where(totals, np.diagonal(self.counts) / np.maximum(totals, 1), np.nan)

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall of the classes that have images: 1 / their number is chance."""
        return float(np.nanmean(self.recall))


def open_pair(folder: str | pathlib.Path) -> Pair:
    """Both towers of a CLIP as transformers saves it.

    Raises WeightsError for a file that is missing or of another model.
    """
    return Pair(networks.clip_images(folder), clip.load_texts(folder))


def fill(templates: Sequence[str], words: Mapping[str, str]) -> dict[str, list[str]]:
    """Prompts by class: each template with its {} replaced by the words for the class.

    Raises ValueError where there is no template, or one without {}.
    """
    bad = [template for template in templates if _SLOT not in template]
    if bad or not templates:
        raise ValueError(f"templates must contain {_SLOT}, got {bad or list(templates)}")
    return {
        name: [template.replace(_SLOT, word) for template in templates]
        for name, word in words.items()
    }


def from_prompts(texts: TextFn, prompts: Mapping[str, Sequence[str]]) -> Classes:
    """For each class the mean direction of its prompts.

    Raises ValueError for fewer than two classes, and a class without prompts.
    """
    without = [
        name
        for name, texts_of_class in prompts.items()
        if not texts_of_class or isinstance(texts_of_class, str)
    ]
    if without:
        raise ValueError(f"each class must have a list of prompts, got none for {without}")
    every = [(name, text) for name, texts_of_class in prompts.items() for text in texts_of_class]
    features = texts([text for _, text in every]) if every else np.zeros((0, 1), np.float32)
    return from_images(features, [name for name, _ in every], tuple(prompts))


def from_images(
    features: Float[np.ndarray, "N D"], labels: Sequence[str], names: Sequence[str] = ()
) -> Classes:
    """For each class the mean direction of its examples; `names` gives the order, by default that
    of the alphabet.

    Raises ValueError for fewer than two classes, one without an example, another label.
    """
    names = tuple(names or sorted(set(labels)))
    index = _indices(names, labels, len(features))
    missing = sorted(set(names) - set(labels))
    if missing:
        raise ValueError(f"each class must have an example, got none of {', '.join(missing)}")
    # Directions first, so that a long vector has no more say than others.
    unit = vectors.unit(features.astype(np.float64))
    means = np.stack([unit[index == i].mean(axis=0) for i in range(len(names))]) if names else unit
    return Classes(names, vectors.unit(means).astype(np.float32))


def classify(
    classes: Classes, features: Float[np.ndarray, "N D"], labels: Sequence[str]
) -> Confusion:
    """Features of images whose classes are known, against the predicted ones.

    Raises ValueError for no images, or a label that is no class.
    """
    index = _indices(classes.names, labels, len(features))
    if not len(index):
        raise ValueError("one image or more is needed, got none")
    counts = np.zeros((len(classes.names),) * 2, np.int64)
    # Counts an index as often as it occurs, where counts[...] += 1 would once.
    np.add.at(counts, (index, classes.predict(features)), 1)
    return Confusion(classes.names, counts)


def _indices(names: Sequence[str], labels: Sequence[str], count: int) -> Int[np.ndarray, "N"]:
    if len(labels) != count:
        raise ValueError(f"each image must have a label, got {count} and {len(labels)}")
    other = sorted(set(labels) - set(names))
    if other:
        raise ValueError(f"labels must be among {', '.join(names)}, got {', '.join(other[:8])}")
    index_of = {name: i for i, name in enumerate(names)}
    return np.array([index_of[label] for label in labels], np.int64)
