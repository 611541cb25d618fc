"""What is looked at of a model some times of its training: its loss on held-out examples, and
pictures of what it makes of them."""

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import jax
import numpy as np
from jaxtyping import UInt8

from ssldiff_jax.core import layers, tasks
from ssldiff_jax.train import hosts, named

_LOG = logging.getLogger(__name__)

MOST_EXAMPLES = 16
"""Held-out examples of a loss: they fit on one device, beside the state, where training splits its
batch over many."""


@dataclasses.dataclass(frozen=True)
class Seen:
    """Figures and pictures, by their names."""

    scalars: Mapping[str, float]
    pictures: Mapping[str, UInt8[np.ndarray, "H W 3"]] = dataclasses.field(default_factory=dict)


Look: TypeAlias = Callable[[Any, Any], Seen]
"""(averaged parameters as named arrays, extra) → what is seen; by one host, on its own devices."""


def held_out_loss(
    task: tasks.Task, batch: Mapping[str, Any], dtype: str
) -> Callable[[Any, Any], float]:
    """(averaged parameters, extra) → the loss of a batch by them, every time with the same noise,
    computed in `dtype` as training does."""

    @jax.jit
    def loss(params: Any, extra: Any, batch: Mapping[str, Any]) -> jax.Array:
        params = layers.cast(params, dtype)
        output = task.loss(params, batch, jax.random.key(0), ema_params=params, extra=extra)
        return output.loss

    return lambda params, extra: float(loss(params, extra, batch))


class Looks:
    """Looks at a training `count` times, evenly over its steps, at steps that are logged.

    What goes wrong is told once, and nothing is looked at any more: no training ends for it.
    """

    def __init__(self, look: Look | None, count: int, *, num_steps: int, log_every: int):
        self._look, self._count = look, count
        self._num_steps, self._log_every = num_steps, log_every

    def are_due(self, step: int) -> bool:
        """Whether a logged step is the first of a next part of the training, or its last."""
        if self._look is None or not self._count:
            return False
        before = (step - 1) // self._log_every * self._log_every
        part = lambda steps: steps * self._count // self._num_steps
        return part(step) > part(before)

    def at(self, params: Any, extra: Any) -> Seen | None:
        """What is seen of averaged parameters and the extra state, with the seconds that it took;
        by all hosts, of which the first looks."""
        params, extra = named.on_this_host(params), hosts.to_host(extra)
        if not hosts.is_first() or self._look is _blind:
            return None
        began = time.monotonic()
        try:
            seen = self._look(params, extra)
        except Exception as error:
            _LOG.warning("held-out examples are looked at no more: %s: %s",
                         type(error).__name__, " ".join(str(error).split())[:300])  # fmt: skip
            # Others go on to gather: what is due stays due.
            self._look = _blind
            return None
        seconds = {"look_seconds": time.monotonic() - began}
        return dataclasses.replace(seen, scalars={**seen.scalars, **seconds})


def _blind(params: Any, extra: Any) -> Seen:
    """Stands for a look that failed."""
    return Seen({})
