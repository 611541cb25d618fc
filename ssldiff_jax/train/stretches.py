"""A training whose config changed on the way: stretches of steps, each under a config of its own.

The learning rate of the steps that were done stays what it was. Where only `num_steps` changed, a
warm-up continues as it was, a constant rate stays, and what was left of a cosine is spread over the
steps that are left. Where `learning_rate`, `warmup_steps` or `decay` changed, the schedule begins
again: from the rate that was reached in a line to `learning_rate`, over `warmup_steps` unless it is
there already; then, with `cosine`, to zero at `num_steps`. So a constant rate can be turned into a
decay at once, and a decay that is over can be warmed up again.

Examples come from one stream whatever the batch: a stretch begins where the one before ended in it.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax


@dataclasses.dataclass(frozen=True)
class Plan:
    """What decides the learning rate."""

    learning_rate: float
    warmup_steps: int
    decay: Literal["constant", "cosine"]
    num_steps: int

    @property
    def shape(self) -> tuple[float, int, str]:
        """All of it but the end."""
        return self.learning_rate, self.warmup_steps, self.decay


@dataclasses.dataclass(frozen=True)
class Stretch:
    """What a training was configured as until `until` steps were done."""

    until: int
    batch_size: int
    plan: Plan

    @classmethod
    def of(cls, until: int, values: Mapping[str, Any]) -> "Stretch":
        """From a training's config as dotted key → value."""
        keys = ("optimizer.learning_rate", "optimizer.warmup_steps", "optimizer.decay")
        plan = Plan(*(values[key] for key in keys), values["num_steps"])
        return cls(until, values["batch_size"], plan)


def shift(past: tuple[Stretch, ...], batch_size: int) -> int:
    """By how many examples batches of this size lie behind where they would be, had all been of
    it."""
    begin, num_examples = 0, 0
    for stretch in past:
        num_examples += (stretch.until - begin) * stretch.batch_size
        begin = stretch.until
    return num_examples - begin * batch_size


def rate(past: tuple[Stretch, ...], plan: Plan) -> optax.Schedule:
    """The learning rate after the last change: of the update after so many.

    Raises ValueError for more steps after a decay that is over.
    """
    plans = [*(stretch.plan for stretch in past), plan]
    piece = _Piece(0, 0.0, plans[0])
    for stretch, after in zip(past, plans[1:], strict=True):
        piece = piece.after(stretch.until, after)
    return piece.schedule()


@dataclasses.dataclass(frozen=True)
class _Piece:
    """A schedule from the step `start` on, from the rate `initial` and after a part `over` of its
    cosine."""

    start: int
    initial: float
    plan: Plan
    over: float = 0.0

    @property
    def warmup(self) -> int:
        """Steps from `start` in which the rate is linear; none where a cosine continues."""
        is_there = math.isclose(self.initial, self.plan.learning_rate, rel_tol=1e-5)
        return 0 if self.over or is_there else self.plan.warmup_steps

    def after(self, step: int, plan: Plan) -> "_Piece":
        """What follows it from a step on."""
        if plan == self.plan:
            return self
        if plan.shape != self.plan.shape:
            return _Piece(step, float(self.schedule()(step)), plan)
        over = self._over(step)
        if over >= 1 and plan.num_steps > step:
            raise ValueError(
                f"optimizer.decay=cosine must not be over where more steps are trained, got a "
                f"rate of 0 at step {step} of num_steps={plan.num_steps}; another "
                "optimizer.learning_rate or warmup_steps warms up to it again"
            )
        if over <= 0:
            return dataclasses.replace(self, plan=plan)
        return _Piece(step, 0.0, plan, min(over, 1.0))

    def _over(self, step: int) -> float:
        """The part of its cosine that is over after so many steps."""
        if self.plan.decay == "constant":
            return 0.0
        left = max(self.plan.num_steps - self.start - self.warmup, 1)
        return self.over + (1 - self.over) * (step - self.start - self.warmup) / left

    def schedule(self) -> optax.Schedule:
        """As a function of the number of updates."""
        shape = self._from_start()
        return lambda count: shape(jnp.maximum(count - self.start, 0))

    def _from_start(self) -> optax.Schedule:
        peak, warmup = self.plan.learning_rate, self.warmup
        steps = self.plan.num_steps - self.start
        if self.over >= 1:
            return optax.constant_schedule(0.0)
        if self.over:
            return _rest_of_cosine(peak, steps, self.over)
        if self.plan.decay == "cosine":
            end = max(steps, warmup + 1)
            return optax.warmup_cosine_decay_schedule(self.initial, peak, warmup, end)
        if not warmup:
            return optax.constant_schedule(peak)
        return optax.linear_schedule(self.initial, peak, max(warmup, 1))


def _rest_of_cosine(peak: float, steps: int, over: float) -> optax.Schedule:
    def rest(count: jax.Array) -> jax.Array:
        part = jnp.minimum(over + (1 - over) * count / max(steps, 1), 1.0)
        return peak * 0.5 * (1 + jnp.cos(math.pi * part))

    return rest
