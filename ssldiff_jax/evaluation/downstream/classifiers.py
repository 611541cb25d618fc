"""Classifiers of patches: a linear probe of embeddings, and small networks of pixels.

All have one signature: (train, label, held_out, seed) → probabilities of the held-out ones.
"""

import dataclasses
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Int, UInt8

from ssldiff_jax.core import arrays, layers
from ssldiff_jax.encoders import vit
from ssldiff_jax.evaluation.downstream import fitting
from ssldiff_jax.evaluation.metrics import classification

Patches = UInt8[np.ndarray, "N s s 3"]
Label = Int[np.ndarray, "N"]
Probability = Float[np.ndarray, "M K"]


@dataclasses.dataclass(frozen=True, eq=False)
class Scaling:
    """Features less a mean, over a deviation."""

    mean: Float[np.ndarray, "D"]
    std: Float[np.ndarray, "D"]

    @classmethod
    def of(cls, features: Float[np.ndarray, "N D"]) -> "Scaling":
        """Those of examples that need no label."""
        # A feature that never varies is left as 0, not divided by 0.
        return cls(features.mean(axis=0), np.maximum(features.std(axis=0), 1e-6))

    def __call__(self, features: Float[np.ndarray, "M D"]) -> Float[np.ndarray, "M D"]:
        """Standardised."""
        return (features - self.mean) / self.std


@dataclasses.dataclass(frozen=True)
class LinearProbe:
    """Logistic regression of standardised features: convex, so that no seed changes it.

    It takes them as they are: few examples know their deviation badly, `Scaling` of many does not.

    Attributes:
        num_classes: K.
        l2: half of it times the squared weights is added to the mean cross entropy, so that
            examples repeated are no other problem.
    """

    num_classes: int
    l2: float

    def __call__(
        self,
        train: Float[np.ndarray, "N D"],
        label: Label,
        held_out: Float[np.ndarray, "M D"],
        *,
        seed: int = 0,
    ) -> Probability:
        """Probabilities, by L-BFGS to convergence.

        Raises ValueError for features that are not finite, and for labels of one class.
        """
        # Not at the top: a machine that only computes need not have them.
        import scipy.optimize
        import scipy.special

        for name, features in (("training", train), ("held-out", held_out)):
            require_finite(features, f"{name} embeddings")
        classification.require_classes(label, "the training examples")
        x, one_hot = _with_bias(train), np.eye(self.num_classes)[label]
        shape = (x.shape[1], self.num_classes)

        def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
            w = flat.reshape(shape)
            log_p = scipy.special.log_softmax(x @ w, axis=1)
            free = np.concatenate([w[:-1], np.zeros((1, shape[1]))])  # the bias
            value = -np.sum(one_hot * log_p) / len(x) + self.l2 / 2 * np.sum(free**2)
            gradient = x.T @ (np.exp(log_p) - one_hot) / len(x) + self.l2 * free
            return value, gradient.ravel()

        start = np.zeros(shape).ravel()
        solution = scipy.optimize.minimize(loss, start, jac=True, method="L-BFGS-B")
        return scipy.special.softmax(_with_bias(held_out) @ solution.x.reshape(shape), axis=1)


def _with_bias(features: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N E"]:
    """One column of ones more; float64, in which SciPy's L-BFGS-B computes."""
    return np.column_stack([features, np.ones(len(features))]).astype(np.float64)


def require_finite(features: Float[np.ndarray, "N *D"], what: str) -> None:
    """Raises ValueError that names the first row with a value that is not finite."""
    bad = ~np.isfinite(features).reshape(len(features), -1).all(axis=1)
    if bad.any():
        raise ValueError(
            f"{what} must be finite, got {int(bad.sum())} of {len(bad)} that are not, first "
            f"{int(np.flatnonzero(bad)[0])}"
        )


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """Sizes of the networks, and how they are fitted.

    Attributes:
        resnet_width: channels of the first of three stages, doubled in each.
        vit_width: of its tokens, 32 to a head.
        vit_depth: blocks.
        vit_patch_px: side of what becomes a token.
        fit: the optimiser.
    """

    resnet_width: int
    vit_width: int
    vit_depth: int
    vit_patch_px: int
    fit: fitting.FitConfig

    def __post_init__(self):
        if min(self.resnet_width, self.vit_depth, self.vit_patch_px) < 1 or self.vit_width % 32:
            raise ValueError(
                "networks must have sizes ≥ 1 and vit_width a multiple of 32, got resnet_width="
                f"{self.resnet_width}, vit_width={self.vit_width}, vit_depth={self.vit_depth}, "
                f"vit_patch_px={self.vit_patch_px}"
            )

    def module(self, name: Literal["resnet", "vit"], image_px: int, num_classes: int) -> nn.Module:
        """The network for patches of `image_px`."""
        if name == "resnet":
            return ResNet(num_classes, self.resnet_width)
        width, heads = self.vit_width, self.vit_width // 32
        return ViTClassifier(
            num_classes,
            vit.ViTConfig(
                image_px, self.vit_patch_px, width, self.vit_depth, heads, "mean", vit.PLAIN
            ),
        )


class _Block(nn.Module):
    """Two convolutions behind norms, and a residual (He et al. 2016, pre-activation)."""

    channels: int
    stride: int

    @nn.compact
    def __call__(self, x: layers.FeatureMap) -> jax.Array:
        def norm(x: layers.FeatureMap, name: str) -> layers.FeatureMap:
            return nn.relu(layers.group_norm(x.shape[-1], epsilon=1e-5, name=name, groups=8)(x))

        h = norm(x, "norm1")
        if x.shape[-1] != self.channels or self.stride > 1:
            # From the activated input, as the projections of pre-activated networks are.
            x = layers.conv(self.channels, name="skip", kernel=1, stride=self.stride)(h)
        h = layers.conv(self.channels, name="conv1", stride=self.stride)(h)
        h = layers.conv(self.channels, name="conv2")(norm(h, "norm2"))
        return x + h


class ResNet(nn.Module):
    """Images in [−1, 1] → logits; group norm, so that a batch of few patches is no worse."""

    num_classes: int
    width: int

    @nn.compact
    def __call__(self, image: arrays.Image) -> jax.Array:
        # One stride of 4 for ResNet's stem of stride 2 and its pooling.
        x = layers.conv(self.width, name="stem", kernel=7, stride=4)(image)
        for stage in range(3):
            # The stem has lowered the resolution already: not the first stage again.
            x = _Block(self.width << stage, 1 + (stage > 0), name=f"stage{stage}")(x)
        x = nn.relu(layers.group_norm(x.shape[-1], epsilon=1e-5, name="norm", groups=8)(x))
        return nn.Dense(self.num_classes, name="head")(x.mean(axis=(1, 2)))


class ViTClassifier(nn.Module):
    """Images in [−1, 1] → logits."""

    num_classes: int
    config: vit.ViTConfig

    @nn.compact
    def __call__(self, image: arrays.Image) -> jax.Array:
        return nn.Dense(self.num_classes, name="head")(vit.ViT(self.config, name="vit")(image))


class PatchNetwork:
    """A network of pixels that is fitted from random weights, patches in all orientations."""

    def __init__(
        self,
        name: Literal["resnet", "vit"],
        config: NetworkConfig,
        *,
        image_px: int,
        num_classes: int,
    ):
        self._module = config.module(name, image_px, num_classes)
        blank = np.zeros((1, image_px, image_px, 3), np.float32)
        self._fitter = fitting.Fitter(
            lambda key: self._module.init(key, blank)["params"], self._loss, config.fit
        )
        # uint8 goes to the device, a quarter of float32.
        self._predict = jax.jit(
            lambda params, batch: nn.softmax(self._logits(params, layers.to_image(batch["image"])))
        )

    @property
    def num_traces(self) -> int:
        """Programs that its fits have made."""
        return self._fitter.num_traces

    def __call__(
        self, train: Patches, label: Label, held_out: UInt8[np.ndarray, "M s s 3"], *, seed: int
    ) -> Probability:
        """Probabilities of held-out patches.

        Raises ValueError for labels of one class.
        """
        classification.require_classes(label, "the training examples")
        params = self._fitter.fit({"image": train, "label": label}, seed=seed)
        size = self._fitter.config.batch_size
        return fitting.in_batches(self._predict, params, {"image": held_out}, size)

    def _logits(self, params: Any, image: arrays.Image) -> jax.Array:
        return self._module.apply({"params": params}, image)

    def _loss(self, params: Any, batch: Any, key: arrays.Key) -> jax.Array:
        logits = self._logits(params, turned(key, layers.to_image(batch["image"])))
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()


def turned(key: arrays.Key, image: arrays.Image) -> jax.Array:
    """Every image in one of its eight orientations."""
    # Two flips and a transposition make all eight.
    flip = jax.random.bernoulli(key, 0.5, (3, len(image), 1, 1, 1))
    image = jnp.where(flip[0], image[:, ::-1], image)
    image = jnp.where(flip[1], image[:, :, ::-1], image)
    return jnp.where(flip[2], image.swapaxes(1, 2), image)
