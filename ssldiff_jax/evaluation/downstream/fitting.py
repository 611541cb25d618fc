"""Small networks fitted to small sets of examples, as often as a study asks, traced once."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import optax
from jaxtyping import Int

from ssldiff_jax.core import arrays, data_parallel, rng

Examples = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class FitConfig:
    """AdamW, warmed up over a tenth of the steps, then down to zero by a cosine.

    The steps are the same whatever the number of examples, so that what is compared has seen as
    many batches.
    """

    num_steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float

    def __post_init__(self):
        if self.num_steps < 1 or self.batch_size < 1 or self.learning_rate <= 0:
            raise ValueError(
                "a fit must have num_steps and batch_size ≥ 1 and learning_rate > 0, got "
                f"{self.num_steps}, {self.batch_size} and {self.learning_rate}"
            )

    def transform(self) -> optax.GradientTransformation:
        """The optimiser, gradients clipped to norm 1."""
        # optax wants the decay to end behind the warm-up, of one step too.
        warmup = max(self.num_steps // 10, 1)
        rate = optax.warmup_cosine_decay_schedule(
            0.0, self.learning_rate, warmup, max(self.num_steps, warmup + 1)
        )
        return optax.chain(
            optax.clip_by_global_norm(1.0), optax.adamw(rate, weight_decay=self.weight_decay)
        )


_EXACT = functools.partial(jax.default_matmul_precision, "highest")
"""Products exact to float32 on all kinds of devices: a figure must not depend on which it was."""


class Fitter:
    """Fits parameters to examples.

    `init` makes them from a key; `loss` is a function (params, batch, key) → scalar. All fits of
    examples of one shape share one program.
    """

    def __init__(
        self,
        init: Callable[[arrays.Key], Any],
        loss: Callable[[Any, Any, arrays.Key], jax.Array],
        config: FitConfig,
    ):
        tx = config.transform()
        self.config = config

        def begin(key):
            params = init(key)
            return params, tx.init(params)

        def step(params, opt_state, batch, key):
            gradient = jax.grad(loss)(params, batch, key)
            updates, opt_state = tx.update(gradient, opt_state, params)
            return optax.apply_updates(params, updates), opt_state

        self._begin, self._step = jax.jit(begin), jax.jit(step)

    def fit(self, examples: Examples, *, seed: int) -> Any:
        """Parameters; the same for the same examples and seed."""
        c, count = self.config, len(next(iter(examples.values())))
        params, opt_state = self._begin(rng.stream(seed, "fit/init"))
        key = rng.stream(seed, "fit/step")
        # A loop in Python: inside lax.scan a convolution's weight gradient is 16 times slower on
        # CPUs.
        for step, rows in enumerate(_order(count, c.num_steps, c.batch_size, seed)):
            batch = {name: values[rows] for name, values in examples.items()}
            # By number, so that no key depends on the steps before.
            step_key = jax.random.fold_in(key, step)
            with _EXACT():
                params, opt_state = self._step(params, opt_state, batch, step_key)
        return params

    @property
    def num_traces(self) -> int:
        """Programs of the step that were made."""
        return self._step._cache_size()


def _order(count: int, steps: int, size: int, seed: int) -> Int[np.ndarray, "steps size"]:
    """Which examples each batch holds: all of them once, then all of them again."""
    generator = np.random.default_rng(seed)
    epochs = -(-steps * size // count)
    order = np.concatenate([generator.permutation(count) for _ in range(epochs)])
    return order[: steps * size].reshape(steps, size)


def in_batches(
    program: Callable[[Any, Any], Any], params: Any, examples: Examples, size: int
) -> Any:
    """What a program (params, batch) → arrays gives of all examples, in batches of one size."""

    def run(*batch: np.ndarray) -> Any:
        with _EXACT():
            return program(params, dict(zip(examples, batch, strict=True)))

    batches = data_parallel.map_batches(run, tuple(examples.values()), size)
    return jax.tree.map(lambda *parts: np.concatenate(parts), *batches)
