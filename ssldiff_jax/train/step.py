"""The training step: a pure function of state and batch, the same for every model."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

import flax.struct
import jax
import jax.flatten_util
import jax.numpy as jnp
import optax

from ssldiff_jax.core import arrays


class Task(Protocol):
    """What a model has to say to be trained."""

    def init(self, key: arrays.Key, batch: Mapping[str, Any]) -> tuple[Any, Any]:
        """(params, extra); `extra` is state that no gradient reaches."""

    def loss(
        self, params: Any, ema_params: Any, extra: Any, batch: Mapping[str, Any], key
    ) -> tuple:
        """(loss, (metrics, extra)), a mean over the examples of `batch`.

        A task may also have `settle(params, extra)`: what no gradient can do to parameters, done
        after each update.
        """


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with warm-up; `cosine` decays to zero over the steps that are planned."""

    learning_rate: float
    warmup_steps: int
    decay: Literal["constant", "cosine"]
    weight_decay: float
    b2: float
    clip_norm: float
    ema_decay: float

    def transform(self, num_steps: int) -> optax.GradientTransformation:
        """The optax chain. Weight decay leaves biases, norms and other vectors alone."""
        if self.decay == "cosine":
            rate = optax.warmup_cosine_decay_schedule(
                0.0, self.learning_rate, self.warmup_steps, max(num_steps, self.warmup_steps + 1)
            )
        else:
            rate = optax.linear_schedule(0.0, self.learning_rate, max(self.warmup_steps, 1))
        matrices = lambda params: jax.tree.map(lambda p: p.ndim > 1, params)
        return optax.chain(
            optax.clip_by_global_norm(self.clip_norm),
            optax.adamw(rate, b2=self.b2, weight_decay=self.weight_decay, mask=matrices),
        )


class TrainState(flax.struct.PyTreeNode):
    """Everything a step reads and writes; `skipped` counts updates refused as non-finite."""

    step: jax.Array
    params: Any
    ema_params: Any
    opt_state: Any
    extra: Any
    skipped: jax.Array


def init_state(
    task: Task, tx: optax.GradientTransformation, key: arrays.Key, batch: Mapping[str, Any]
) -> TrainState:
    """The state before the first step."""
    params, extra = task.init(key, batch)
    zero = jnp.zeros((), jnp.int32)
    return TrainState(
        step=zero,
        params=params,
        ema_params=params,
        opt_state=tx.init(params),
        extra=extra,
        skipped=zero,
    )


def train_step(
    state: TrainState,
    batch: Mapping[str, jax.Array],
    key: arrays.Key,
    *,
    task: Task,
    tx: optax.GradientTransformation,
    ema_decay: float,
    axis_name: str | None = None,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One update. With `axis_name` the batch is one device's share, under `pmap`."""
    key = jax.random.fold_in(key, state.step)

    # gradient
    grad_fn = jax.value_and_grad(task.loss, has_aux=True)
    (loss, (metrics, extra)), grads = grad_fn(
        state.params, state.ema_params, state.extra, batch, key
    )
    metrics = metrics | {"loss": loss}
    if axis_name is not None:
        grads, metrics, extra = _mean_over(axis_name, (grads, metrics, extra))

    # update, unless the gradient is not finite: then nothing changes but the counter
    norm = optax.global_norm(grads)
    finite = jnp.isfinite(norm) & jnp.isfinite(metrics["loss"])
    # The first steps average over what there is, not over the random start.
    decay = jnp.minimum(ema_decay, (1 + state.step) / (10 + state.step))

    def update():
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        if hasattr(task, "settle"):
            params = task.settle(params, extra)
        ema_params = optax.incremental_update(params, state.ema_params, 1 - decay)
        return params, ema_params, opt_state, extra

    def skip():
        return state.params, state.ema_params, state.opt_state, state.extra

    params, ema_params, opt_state, extra = jax.lax.cond(finite, update, skip)
    state = TrainState(
        step=state.step + 1,
        params=params,
        ema_params=ema_params,
        opt_state=opt_state,
        extra=extra,
        skipped=state.skipped + (1 - finite.astype(jnp.int32)),
    )
    return state, metrics | {"grad_norm": norm}


def _mean_over(axis_name: str, tree: Any) -> Any:
    """The mean of a tree over devices, in one collective.

    XLA's CPU runtime holds a thread for each collective that waits: many at once can starve it.
    """
    flat, restore = jax.flatten_util.ravel_pytree(tree)
    return restore(jax.lax.pmean(flat, axis_name))


StepFn = Callable[[TrainState, Mapping[str, Any], arrays.Key], tuple[TrainState, dict[str, Any]]]
