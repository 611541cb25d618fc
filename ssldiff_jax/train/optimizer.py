"""Optimisers, and what they do to which parameters, as data."""

import dataclasses
import functools
import re
from collections.abc import Iterable
from typing import Any, Literal

import jax
import optax
from optax import contrib

from ssldiff_jax.core import blocks, changes
from ssldiff_jax.train import flat, stretches


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """An optimiser with warm-up; `cosine` decays to zero over the steps that are planned.

    `groups` multiply the learning rate and the weight decay of some parameters, the first match
    winning: `"unet/conv_in/.* = 0.5, 0"`. Vectors (biases, norms) never decay. What may change
    once a training has begun is in each field's metadata (`core.changes`); what then becomes of
    the rate, in `train.stretches`.
    """

    name: Literal["adamw", "adafactor", "muon"] = dataclasses.field(
        metadata=changes.fixed("each has moments of its own")
    )
    learning_rate: float = dataclasses.field(metadata=changes.onward("no state depends on it"))
    warmup_steps: int = dataclasses.field(metadata=changes.onward("no state depends on it"))
    decay: Literal["constant", "cosine"] = dataclasses.field(
        metadata=changes.onward("no state depends on it")
    )
    weight_decay: float = dataclasses.field(metadata=changes.onward("no state depends on it"))
    groups: tuple[str, ...] = dataclasses.field(metadata=changes.onward("no state depends on them"))
    b2: float = dataclasses.field(
        metadata=changes.fixed("second moments are corrected as if it had always been the same")
    )
    clip_norm: float = dataclasses.field(metadata=changes.onward("no state depends on it"))
    ema_decay: float = dataclasses.field(
        metadata=changes.onward("the average so far is kept, and weighted by the new decay")
    )

    def __post_init__(self):
        for group in self.groups:
            _parse(group)

    def transform(
        self, num_steps: int, past: tuple[stretches.Stretch, ...] = ()
    ) -> optax.GradientTransformation:
        """Clip, direction, decay by group, rate.

        Raises ValueError for more steps after a decay that is over, and, once it sees the
        parameters, for a group that names none of them.
        """
        # Clipped first, so that no single gradient dominates the moments; decayed after the
        # direction, so that decay is not scaled by them (Loshchilov and Hutter 2019).
        return optax.chain(
            optax.clip_by_global_norm(self.clip_norm),
            self._direction(),
            optax.stateless(self._decay_and_scale),
            optax.scale_by_learning_rate(self.rate(num_steps, past)),
        )

    def rate(self, num_steps: int, past: tuple[stretches.Stretch, ...] = ()) -> optax.Schedule:
        """The learning rate of the update after so many."""
        plan = stretches.Plan(self.learning_rate, self.warmup_steps, self.decay, num_steps)
        return stretches.rate(past, plan)

    def _direction(self) -> optax.GradientTransformation:
        match self.name:
            case "adamw":
                return optax.scale_by_adam(b2=self.b2)
            case "adafactor":
                # Updates are clipped at an RMS of 1, as published (Shazeer and Stern 2018).
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
        shapes = flat.shapes(params)
        scales = factors(shapes, self.groups)
        rates = jax.tree.map(lambda _, scale: scale[0], shapes, scales)
        decays = jax.tree_util.tree_map_with_path(
            lambda path, x, scale: self.weight_decay * scale[1] if _rank(path, x) > 1 else 0.0,
            shapes,
            scales,
        )

        def change(update: jax.Array, param: jax.Array, rate: Any, decay: Any) -> jax.Array:
            # Of what never decays nothing is read.
            decays = not isinstance(decay, float) or decay
            return rate * (update + decay * param if decays else update)

        spread = functools.partial(flat.spread, params)
        return jax.tree.map(change, updates, params, spread(rates), spread(decays))

    def storage(self, platform: str) -> Literal["flat", "arrays"]:
        """How devices of a platform (cpu, gpu or tpu) best hold parameters.

        AdamW does the same to every element, the others look at the rows and columns of arrays. In
        vectors, a GPU starts half as many kernels and its compiler takes half of the time. A TPU
        computes on tiles, into which what it cuts out of a vector has to be laid anew: by its
        compiler's estimates for 256 chips of v5e the published step takes 40 % more memory in
        vectors, and half as long again (the tool `compile`; nothing was measured on a TPU).
        """
        return "flat" if self.name == "adamw" and platform != "tpu" else "arrays"


def factors(params: Any, groups: Iterable[str]) -> Any:
    """For every parameter what multiplies its learning rate and its weight decay.

    Raises ValueError for a group that names no parameter.
    """
    parsed = [_parse(group) for group in groups]
    matched = set()

    def of_leaf(path: tuple, leaf: Any) -> tuple[float, float]:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        named = [group for group in parsed if re.search(group[0], name)]
        matched.update(pattern for pattern, _, _ in named)
        return named[0][1:] if named else (1.0, 1.0)

    tree = jax.tree_util.tree_map_with_path(of_leaf, params)
    for pattern, _, _ in parsed:
        if pattern not in matched:
            raise ValueError(f"optimizer.groups must name parameters, got {pattern!r}: no match")
    return tree


def _parse(group: str) -> tuple[str, float, float]:
    match = re.fullmatch(r"(.+?)\s*=\s*([\d.e-]+)\s*,\s*([\d.e-]+)", group)
    if not match:
        raise ValueError(f"groups must read 'regex = rate, decay', got {group!r}")
    try:
        re.compile(match.group(1))
        return match.group(1), float(match.group(2)), float(match.group(3))
    except (re.error, ValueError) as error:
        raise ValueError(
            f"groups must read 'regex = rate, decay', got {group!r}: {error}"
        ) from error


def _rank(path: tuple, x: Any) -> int:
    return blocks.rank(path, x.ndim)


def _as_matrices(params: Any) -> Any:
    """Kernels as matrices from all their inputs to their outputs, the last dimension, those of each
    block alone; vectors are none."""

    def numbers(path: tuple, param: jax.Array) -> contrib.MuonDimensionNumbers | None:
        if _rank(path, param) < 2:
            return None
        first = param.ndim - _rank(path, param)
        return contrib.MuonDimensionNumbers(tuple(range(first, param.ndim - 1)), param.ndim - 1)

    return jax.tree_util.tree_map_with_path(numbers, params)
