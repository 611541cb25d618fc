"""Optimisers, and what they do to which parameters, as data."""

import dataclasses
import re
from collections.abc import Iterable
from typing import Any, Literal

import jax
import optax
from optax import contrib


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """An optimiser with warm-up; `cosine` decays to zero over the steps that are planned.

    `groups` multiply the learning rate and the weight decay of some parameters, the first match
    winning: `"unet/conv_in/.* = 0.5, 0"`. Vectors (biases, norms) never decay.
    """

    name: Literal["adamw", "adafactor", "muon"]
    learning_rate: float
    warmup_steps: int
    decay: Literal["constant", "cosine"]
    weight_decay: float
    groups: tuple[str, ...]
    b2: float
    clip_norm: float
    ema_decay: float

    def __post_init__(self):
        for group in self.groups:
            _parse(group)

    def transform(self, num_steps: int) -> optax.GradientTransformation:
        """Clip, direction, decay by group, rate.

        Raises ValueError, once it sees the parameters, for a group that names none of them.
        """
        return optax.chain(
            optax.clip_by_global_norm(self.clip_norm),
            self._direction(),
            optax.stateless(self._decay_and_scale),
            optax.scale_by_learning_rate(self._rate(num_steps)),
        )

    def _rate(self, num_steps: int) -> optax.Schedule:
        if self.decay == "constant":
            return optax.linear_schedule(0.0, self.learning_rate, max(self.warmup_steps, 1))
        end = max(num_steps, self.warmup_steps + 1)
        return optax.warmup_cosine_decay_schedule(0.0, self.learning_rate, self.warmup_steps, end)

    def _direction(self) -> optax.GradientTransformation:
        match self.name:
            case "adamw":
                return optax.scale_by_adam(b2=self.b2)
            case "adafactor":
                return optax.chain(optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0))
            case "muon":
                # At this RMS a step of Muon has the size of one of Adam (Liu et al. 2025), so
                # one learning rate serves both.
                muon = contrib.muon(
                    1.0,
                    adam_b2=self.b2,
                    muon_weight_dimension_numbers=_as_matrices,
                    consistent_rms=0.2,
                )
                # optax's name for a whole optimiser: its updates already go downhill.
                return optax.chain(muon, optax.scale(-1.0))

    def _decay_and_scale(self, updates: Any, params: Any) -> Any:
        def change(update: jax.Array, param: jax.Array, factor: tuple[float, float]) -> jax.Array:
            rate, decay = factor
            if param.ndim > 1:
                update = update + decay * self.weight_decay * param
            return rate * update

        return jax.tree.map(change, updates, params, factors(params, self.groups))


def factors(params: Any, groups: Iterable[str]) -> Any:
    """For every parameter what multiplies its learning rate and its weight decay.

    Raises ValueError for a group that names no parameter.
    """
    parsed = [_parse(group) for group in groups]
    found = set()

    def of_leaf(path: tuple, leaf: Any) -> tuple[float, float]:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        named = [group for group in parsed if re.search(group[0], name)]
        found.update(pattern for pattern, _, _ in named)
        return named[0][1:] if named else (1.0, 1.0)

    tree = jax.tree_util.tree_map_with_path(of_leaf, params)
    for pattern, _, _ in parsed:
        if pattern not in found:
            raise ValueError(f"optimizer.groups must name parameters, got {pattern!r}: no match")
    return tree


def _parse(group: str) -> tuple[str, float, float]:
    found = re.fullmatch(r"(.+?)\s*=\s*([\d.e-]+)\s*,\s*([\d.e-]+)", group)
    if not found:
        raise ValueError(f"groups must read 'regex = rate, decay', got {group!r}")
    try:
        re.compile(found.group(1))
        return found.group(1), float(found.group(2)), float(found.group(3))
    except (re.error, ValueError) as error:
        raise ValueError(
            f"groups must read 'regex = rate, decay', got {group!r}: {error}"
        ) from error


def _as_matrices(params: Any) -> Any:
    """Kernels as matrices from all their inputs to their outputs, the last dimension; vectors are
    none."""

    def numbers(param: jax.Array) -> contrib.MuonDimensionNumbers | None:
        if param.ndim < 2:
            return None
        return contrib.MuonDimensionNumbers(tuple(range(param.ndim - 1)), param.ndim - 1)

    return jax.tree.map(numbers, params)
