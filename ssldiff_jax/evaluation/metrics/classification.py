"""How well predicted classes agree with known ones, with bootstrap intervals.

A score is a function (probability `(N, K)`, label `(N,)`, weights `(R, N)`) → `(R,)`: of R ways to
weigh the N test examples at once, which is what a bootstrap asks for.
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Bool, Float, Int, Num

Probability = Float[np.ndarray, "N K"]
Label = Int[np.ndarray, "N"]
Weights = Num[np.ndarray, "R N"]
Score = Callable[[Probability, Label, Weights], Float[np.ndarray, "R"]]


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean over seeds, and the percentiles of its bootstrap."""

    mean: float
    low: float
    high: float


def rank_auc(
    score: Num[np.ndarray, "N"], positive: Bool[np.ndarray, "N"], weights: Weights
) -> Float[np.ndarray, "R"]:
    """How often a positive scores higher than a negative, ties counting half (Mann and Whitney).

    NaN where one of them has no weight.
    """
    order = np.argsort(score, kind="stable")
    values, weights = score[order], weights[:, order].astype(np.float64)
    starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]])
    is_positive = positive[order]
    # Weights of each run of equal scores.
    above = np.add.reduceat(weights * is_positive, starts, axis=1)
    below = np.add.reduceat(weights * ~is_positive, starts, axis=1)
    # Pairs that are ordered right; of equal scores half count (Mann and Whitney 1947).
    won = np.sum(above * (np.cumsum(below, axis=1) - below / 2), axis=1)
    pairs = above.sum(axis=1) * below.sum(axis=1)
    # `where` evaluates both branches: the floor keeps the one that is dropped from 0/0.
    return np.where(pairs > 0, won / np.maximum(pairs, 1e-300), np.nan)


def auc(probability: Probability, label: Label, weights: Weights) -> Float[np.ndarray, "R"]:
    """Area under the ROC curve; of more than two classes the mean of each against the rest."""
    # Of two classes both areas are the same.
    classes = [1] if probability.shape[1] == 2 else range(probability.shape[1])
    per_class = np.stack([rank_auc(probability[:, k], label == k, weights) for k in classes])
    return _mean_of_known(per_class)


def accuracy(probability: Probability, label: Label, weights: Weights) -> Float[np.ndarray, "R"]:
    """The part whose most probable class is right."""
    return weights @ _is_right(probability, label) / weights.sum(axis=1)


def balanced_accuracy(
    probability: Probability, label: Label, weights: Weights
) -> Float[np.ndarray, "R"]:
    """The mean over classes of the part of each that is found."""
    right, per_class = _is_right(probability, label), []
    for k in range(probability.shape[1]):
        of_class = weights * (label == k)
        total = of_class.sum(axis=1)
        per_class.append(np.where(total > 0, of_class @ right / np.maximum(total, 1e-300), np.nan))
    return _mean_of_known(np.stack(per_class))


SCORES: Mapping[str, Score] = {
    "auc": auc,
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
}
"""By the name they have in results."""


@dataclasses.dataclass(frozen=True, eq=False)
class Bootstrap:
    """Resampled test cases and resampled seeds, the same for all that is compared.

    Attributes:
        label: of the N test examples.
        weights: how often each counts in each of R samples.
        seed_weights: how often each of S seeds counts, `(R, S)`.
        level: the part of samples that an interval holds.
    """

    label: Label
    weights: Weights
    seed_weights: Num[np.ndarray, "R S"]
    level: float

    @classmethod
    def resample(
        cls,
        label: Label,
        case: Int[np.ndarray, "N"],
        num_seeds: int,
        *,
        num_samples: int,
        level: float,
        seed: int,
    ) -> "Bootstrap":
        """Whole cases are resampled: examples of one are not independent.

        Raises ValueError where all labels are one class.
        """
        # Of one class there is no AUC in any sample.
        require_classes(label, "the test split")
        generator = np.random.default_rng(seed)
        _, member = np.unique(case, return_inverse=True)
        count = member.max() + 1
        # n of n with replacement, as counts: a resample is a row of weights, and no example is
        # copied.
        cases = generator.multinomial(count, np.full(count, 1 / count), num_samples)
        # Seeds too: an interval knows that another fit would differ.
        seeds = generator.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), num_samples)
        return cls(label, cases[:, member], seeds, level)

    def interval(self, score: Score, probability: Float[np.ndarray, "S N K"]) -> Interval:
        """A score of the predictions of S seeds."""
        whole, samples = self._both(score, probability)
        return self._interval(whole, samples)

    def gain(
        self,
        score: Score,
        probability: Float[np.ndarray, "S N K"],
        baseline: Float[np.ndarray, "S N K"],
    ) -> Interval:
        """How much better than a baseline, both on the same cases and seeds."""
        ours, theirs = self._both(score, probability), self._both(score, baseline)
        return self._interval(ours[0] - theirs[0], ours[1] - theirs[1])

    def _both(self, score: Score, probability: np.ndarray):
        """(score, score in each sample), means over seeds."""
        # The test set itself is a sample in which each example counts once.
        ones = np.ones((1, len(self.label)))
        whole = np.mean([score(p, self.label, ones)[0] for p in probability])
        of_seeds = np.stack([score(p, self.label, self.weights) for p in probability], axis=1)
        return whole, (self.seed_weights * of_seeds).sum(axis=1) / self.seed_weights.sum(axis=1)

    def _interval(self, whole: float, samples: Float[np.ndarray, "R"]) -> Interval:
        # Percent beyond either end.
        tail = 50 * (1 - self.level)
        # A sample without one of two classes has no AUC.
        low, high = np.nanpercentile(samples, [tail, 100 - tail])
        return Interval(float(whole), float(low), float(high))


def require_classes(label: Label, where: str) -> None:
    """Raises ValueError unless there are two classes or more."""
    classes = np.unique(label)
    if len(classes) < 2:
        shown = f"only class {classes[0]}" if len(classes) else "none"
        raise ValueError(
            f"{where} must show two classes or more, got {shown} in {len(label)} examples"
        )


def _is_right(probability: Probability, label: Label) -> Float[np.ndarray, "N"]:
    return (probability.argmax(axis=1) == label).astype(np.float64)


def _mean_of_known(values: Float[np.ndarray, "K R"]) -> Float[np.ndarray, "R"]:
    """The mean over classes that are there; NaN where none is."""
    is_known = np.isfinite(values)
    # np.nanmean, without its warning where no class is known.
    total = np.where(is_known, values, 0).sum(axis=0)
    return np.where(is_known.any(axis=0), total / np.maximum(is_known.sum(axis=0), 1), np.nan)
