"""Networks that see bags: many embeddings, one label (multiple instance learning).

abmil: Ilse et al. 2018, gated. clam: CLAM-SB, Lu et al. 2021. dsmil: Li et al. 2021. mean: the mean
embedding, which the others have to beat.
"""

import dataclasses
from typing import Literal

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Bool, Float, Int

from ssldiff_jax.core import arrays
from ssldiff_jax.evaluation.downstream import fitting

Instances = Float[arrays.AnyArray, "B L D"]
Known = Bool[arrays.AnyArray, "B L"]
Attention = Float[arrays.AnyArray, "B L"]
Labels = Int[arrays.AnyArray, "B"]
Name = Literal["mean", "abmil", "clam", "dsmil"]


@flax.struct.dataclass
class MILOutput:
    """What a model makes of bags.

    Attributes:
        probability: of every class, `(B, K)`.
        attention: to every instance, sums to 1, 0 for padding, `(B, L)`; of dsmil to that class
            which is most probable.
    """

    probability: arrays.AnyArray
    attention: arrays.AnyArray


@dataclasses.dataclass(frozen=True)
class MilConfig:
    """Sizes of the models and how they are fitted; published are 512, 256, 0.25, 8 and 0.7.

    Attributes:
        width: what instances are brought to before they are weighed.
        hidden: of the attention.
        dropout: of instances' features, in fitting.
        clam_instances: how many of most and of least attention clam clusters.
        clam_bag_weight: of the bag's loss; the rest is that of the clusters.
        fit: the optimiser.
    """

    width: int
    hidden: int
    dropout: float
    clam_instances: int
    clam_bag_weight: float
    fit: fitting.FitConfig

    def __post_init__(self):
        if min(self.width, self.hidden, self.clam_instances) < 1:
            raise ValueError(
                "models of bags must have width, hidden and clam_instances ≥ 1, got "
                f"{self.width}, {self.hidden} and {self.clam_instances}"
            )
        if not 0 <= self.dropout < 1 or not 0 <= self.clam_bag_weight <= 1:
            raise ValueError(
                "models of bags must have 0 ≤ dropout < 1 and 0 ≤ clam_bag_weight ≤ 1, got "
                f"{self.dropout} and {self.clam_bag_weight}"
            )

    def module(self, name: Name, num_classes: int) -> nn.Module:
        """A model by its name."""
        return MODELS[name](self, num_classes)


def _masked_softmax(score: arrays.AnyArray, known: arrays.AnyArray) -> jax.Array:
    """Over the last axis, 0 where nothing is known."""
    # −inf, so that padding has no weight at all. A bag has an instance, so no row is all −inf,
    # which would be NaN.
    return nn.softmax(jnp.where(known, score, -jnp.inf), axis=-1)


class _Model(nn.Module):
    """(instances, known) → MILOutput, and the loss of a batch."""

    config: MilConfig
    num_classes: int

    def _dropped(self, h: arrays.AnyArray) -> jax.Array:
        """Dropout, where a stream for it is given: in fitting only."""
        return self.drop(h, deterministic=not self.has_rng("dropout"))


class MeanPool(_Model):
    """The mean embedding, a linear layer."""

    def setup(self):
        self.head = nn.Dense(self.num_classes)

    def __call__(self, x: Instances, known: Known) -> MILOutput:
        logits, attention = self._logits(x, known)
        return MILOutput(nn.softmax(logits), attention)

    def loss(self, x: Instances, known: Known, label: Labels) -> jax.Array:
        logits, _ = self._logits(x, known)
        return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()

    def _logits(self, x: Instances, known: Known) -> tuple[jax.Array, jax.Array]:
        known = jnp.asarray(known, x.dtype)
        attention = known / known.sum(axis=1, keepdims=True)
        return self.head(jnp.einsum("bl,bld->bd", attention, x)), attention


class GatedAttention(nn.Module):
    """a = softmax(w·(tanh(V h) ⊙ σ(U h))) over instances (Ilse et al. 2018, equation 9)."""

    hidden: int

    @nn.compact
    def __call__(self, h: Instances, known: Known) -> Attention:
        value = jnp.tanh(nn.Dense(self.hidden, name="value")(h))
        gate = nn.sigmoid(nn.Dense(self.hidden, name="gate")(h))
        return _masked_softmax(nn.Dense(1, name="score")(value * gate)[..., 0], known)


class ABMIL(_Model):
    """Instances by gated attention, a linear layer of their weighted mean."""

    def setup(self):
        self.features = nn.Dense(self.config.width)
        self.attention = GatedAttention(self.config.hidden)
        self.head = nn.Dense(self.num_classes)
        self.drop = nn.Dropout(self.config.dropout)

    def __call__(self, x: Instances, known: Known) -> MILOutput:
        logits, attention, _ = self._read(x, known)
        return MILOutput(nn.softmax(logits), attention)

    def loss(self, x: Instances, known: Known, label: Labels) -> jax.Array:
        logits, _, _ = self._read(x, known)
        return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()

    def _read(self, x: Instances, known: Known) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Logits, attention, features of instances."""
        h = self._dropped(nn.relu(self.features(x)))
        attention = self.attention(h, known)
        return self.head(jnp.einsum("bl,bld->bd", attention, h)), attention, h


class CLAM(ABMIL):
    """CLAM-SB: beside the bag, instances of most attention are evidence for its class and those
    of least against it; for the other classes, those of most are against."""

    def setup(self):
        super().setup()
        self.instance = nn.Dense(2 * self.num_classes)

    def __call__(self, x: Instances, known: Known) -> MILOutput:
        # Flax makes parameters where they are called, and only the loss calls these.
        if self.is_initializing():
            self.instance(self.features(x))
        return super().__call__(x, known)

    def loss(self, x: Instances, known: Known, label: Labels) -> jax.Array:
        logits, attention, h = self._read(x, known)
        bag = optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()
        weight = self.config.clam_bag_weight
        return weight * bag + (1 - weight) * self._clusters(attention, h, known, label).mean()

    def _clusters(
        self, attention: Attention, h: Instances, known: Known, label: Labels
    ) -> arrays.PerExample:
        """Loss of instances, per bag; of a bag too small for k on either side, of its halves."""
        # top_k wants as many as it takes; bags may be padded to fewer.
        k = min(self.config.clam_instances, attention.shape[1])
        counts = jnp.arange(k) < known.sum(axis=1, keepdims=True) // 2
        most = jax.lax.top_k(jnp.where(known, attention, -jnp.inf), k)[1]
        least = jax.lax.top_k(jnp.where(known, -attention, -jnp.inf), k)[1]
        own = jax.nn.one_hot(label, self.num_classes, dtype=jnp.int32)[:, None]
        of_most = smooth_svm(self._instance_scores(h, most), own)
        of_least = smooth_svm(self._instance_scores(h, least), jnp.zeros_like(own))
        # CLAM's inst_eval for the own class; for the others its inst_eval_out, which takes the
        # instances of most attention alone.
        each = jnp.where(own == 1, (of_most + of_least) / 2, of_most).mean(axis=-1)
        return (each * counts).sum(axis=1) / jnp.maximum(counts.sum(axis=1), 1)

    def _instance_scores(self, h: Instances, rows: arrays.AnyArray) -> jax.Array:
        """`(B, k, K, 2)`: against and for every class."""
        chosen = jnp.take_along_axis(h, rows[..., None], axis=1)
        return self.instance(chosen).reshape(*rows.shape, self.num_classes, 2)


def smooth_svm(score: arrays.AnyArray, target: arrays.AnyArray) -> jax.Array:
    """Smooth top-1 SVM loss (Berrada et al. 2018) over the last axis, margin and temperature 1."""
    # log Σ exp(s_j − s_y + [j ≠ y]), shifted by logsumexp itself against overflow.
    right = jax.nn.one_hot(target, score.shape[-1])
    reached = jnp.sum(score * right, axis=-1, keepdims=True)
    return jax.nn.logsumexp(score - reached + 1 - right, axis=-1)


class DSMIL(_Model):
    """Two streams: the highest score of an instance, and attention to the instance that has it;
    their probabilities are averaged. One binary classifier a class, as published."""

    def setup(self):
        hidden = self.config.hidden
        self.instance = nn.Dense(self.num_classes)
        self.query = nn.Sequential([nn.Dense(hidden), nn.relu, nn.Dense(hidden), nn.tanh])
        self.value = nn.Dense(self.config.width)
        self.head = nn.Dense(self.num_classes)
        self.drop = nn.Dropout(self.config.dropout)

    def __call__(self, x: Instances, known: Known) -> MILOutput:
        highest, bag, attention = self._streams(x, known)
        # Binary classifiers sum to anything; classes of a bag sum to 1.
        each = (nn.sigmoid(highest) + nn.sigmoid(bag)) / 2
        probability = each / jnp.maximum(each.sum(axis=1, keepdims=True), 1e-12)
        most = probability.argmax(axis=1)[:, None, None]
        return MILOutput(probability, jnp.take_along_axis(attention, most, axis=1)[:, 0])

    def loss(self, x: Instances, known: Known, label: Labels) -> jax.Array:
        target = jax.nn.one_hot(label, self.num_classes)
        highest, bag, _ = self._streams(x, known)
        losses = (optax.sigmoid_binary_cross_entropy(logits, target) for logits in (highest, bag))
        return sum(loss.mean() for loss in losses) / 2

    def _streams(self, x: Instances, known: Known) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Logits by the critical instance and by the bag, `(B, K)`; attention `(B, K, L)`."""
        score = jnp.where(known[..., None], self.instance(x), -jnp.inf)
        critical = score.argmax(axis=1)
        q = self.query(x)
        # For each class the instance that scores highest asks all others how alike they are.
        q_critical = jnp.take_along_axis(q, critical[..., None], axis=1)
        likeness = jnp.einsum("bkh,blh->bkl", q_critical, q) / np.sqrt(self.config.hidden)
        attention = _masked_softmax(likeness, known[:, None])
        value = self._dropped(nn.relu(self.value(x)))
        of_classes = jnp.einsum("bkl,blw->bkw", attention, value)
        return score.max(axis=1), self.head(of_classes.reshape(len(x), -1)), attention


MODELS: dict[str, type[_Model]] = {"mean": MeanPool, "abmil": ABMIL, "clam": CLAM, "dsmil": DSMIL}
"""By their names in a config."""
