"""Predicted classes of generated patches, against the classes of the real ones that condition
them."""

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from ssldiff_jax.data import config as data_config
from ssldiff_jax.evaluation.features import networks, zero_shot
from ssldiff_jax.runs import patch_samples, pixel_labels
from ssldiff_jax.runs.config import evaluate as evaluate_config

_LOG = logging.getLogger(__name__)

Features = Float[np.ndarray, "N D"]


@dataclasses.dataclass(frozen=True, eq=False)
class ClassConfusion:
    """Classes of held-out patches, and how they are predicted.

    Attributes:
        truth: of each held-out patch.
        labels: of each training patch; () with prompts.
        names: of the classes, in order.
        by_prompts: vectors of a CLIP's prompts; None takes means of training patches.
    """

    truth: tuple[str, ...]
    labels: tuple[str, ...]
    names: tuple[str, ...]
    by_prompts: zero_shot.Classes | None

    @classmethod
    def of_run(
        cls,
        section: evaluate_config.EvaluateSection,
        data: data_config.DataConfig,
        held_out: patch_samples.Sample,
        training: patch_samples.Sample,
        slide_names: Callable[[], Mapping[int, str]] | None = None,
    ) -> "ClassConfusion | None":
        """As the section says, on the slides of `data`; None where it names no classes, and (with a
        warning) where training patches are of fewer than two classes.

        Raises ValueError for classes that were not recorded, and prompts of other classes.
        """
        if not section.classes:
            return None
        measure = None
        if section.classes != "recorded":
            measure = pixel_labels.PixelLabels(section.classes, data, slide_names)
        truth = tuple(held_out.classes(measure))
        class_names = measure.names if measure else tuple(sorted(set(truth)))
        if networks.CLIP in section.networks and section.prompts:
            prompts = zero_shot.fill(section.templates, section.words)
            if set(prompts) != set(class_names):
                raise ValueError(
                    f"config.evaluate.prompts must be of the classes {', '.join(class_names)}, got "
                    f"{', '.join(prompts)}"
                )
            pair = zero_shot.open_pair(section.networks[networks.CLIP])
            vectors = zero_shot.from_prompts(
                pair.texts, {name: prompts[name] for name in class_names}
            )
            return cls(truth, (), class_names, vectors)
        labels = tuple(training.classes(measure))
        # A class without a training patch has no mean, and cannot be predicted.
        there = tuple(name for name in class_names if name in labels)
        if len(there) < 2 or not set(there) & set(truth):
            shown = f"training patches of {', '.join(there) or 'none'}"
            _LOG.warning("class agreement needs two classes of %s, got %s", section.classes, shown)
            return None
        return cls(truth, labels, there, None)

    def confusion(
        self,
        by_network: Mapping[str, tuple[Features, Features]],
        of_training: Float[np.ndarray, "M D"],
    ) -> dict[str, Any]:
        """Counts, accuracy, and `real`, the accuracy on the real patches themselves: generated
        ones cannot do better. `by_network` are features of real and generated patches, by network;
        those of training patches are the judge's."""
        classes, features = self.by_prompts, by_network.get(networks.CLIP)
        if classes is None:
            training_rows = [i for i, name in enumerate(self.labels) if name in self.names]
            labels = [self.labels[i] for i in training_rows]
            classes = zero_shot.from_images(of_training[training_rows], labels, self.names)
            # Not the encoder's, whose embeddings condition what is classified.
            features = by_network["judge"]
        rows = [i for i, name in enumerate(self.truth) if name in self.names]
        return _as_facts(classes, features, [self.truth[i] for i in rows], rows)


def _as_facts(
    classes: zero_shot.Classes,
    features: tuple[Features, Features],
    labels: Sequence[str],
    rows: list[int],
) -> dict[str, Any]:
    of_real, generated = (zero_shot.classify(classes, side[rows], labels) for side in features)
    result = {"labels": list(generated.names), "counts": generated.counts.tolist()}
    return result | _scores(generated) | {"real": _scores(of_real)}


def _scores(confusion: zero_shot.Confusion) -> dict[str, float]:
    return {"accuracy": confusion.accuracy, "balanced_accuracy": confusion.balanced_accuracy}
