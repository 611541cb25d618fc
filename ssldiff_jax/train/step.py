"""The training step: a pure function of state and batch, the same for every model."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal

import flax.struct
import jax
import jax.numpy as jnp
import optax

from ssldiff_jax.core import arrays, blocks, changes, collectives, layers, tasks
from ssldiff_jax.train import flat


@dataclasses.dataclass(frozen=True)
class ComputeConfig:
    """How an update is computed.

    Attributes:
        dtype: of parameters and activations inside the model; the state stays float32.
        remat: what is kept for the gradient: everything, the outputs of blocks and what matrix
            products give inside them, or the outputs of blocks alone.
        accumulate: parts of a batch that are computed one after the other. A contrastive loss
            sees only the negatives of its part, and a dead code starts again between latents.
    """

    dtype: Literal["float32", "bfloat16"] = dataclasses.field(
        metadata=changes.onward("the state is float32 in both")
    )
    remat: Literal["none", "products", "blocks"] = dataclasses.field(
        metadata=changes.free("the same numbers, kept or computed twice")
    )
    accumulate: int = dataclasses.field(
        metadata=changes.onward("no state, but other negatives and starts of codes")
    )

    def __post_init__(self):
        if self.accumulate < 1:
            raise ValueError(f"compute.accumulate must be at least 1, got {self.accumulate}")


class TrainState(flax.struct.PyTreeNode):
    """Everything a step reads and writes; `skipped` counts updates refused as non-finite.

    Parameters, their average and the optimiser's moments are trees of arrays, or all of them
    `flat.Flat`.
    """

    step: jax.Array
    params: Any
    ema_params: Any
    opt_state: Any
    extra: Any
    skipped: jax.Array


@dataclasses.dataclass(frozen=True)
class Placement:
    """How devices share a step: on each, the same function runs on its part of the batch.

    Attributes:
        map_devices: makes of that function (params, ema_params, extra, batch, key) → (gradients,
            metrics, extra) one of the whole state and batch; what it gives is the same on all.
        gather: parts of the parameters that a device holds → the whole, both as they are stored.
        scatter: gradients of a device's share → the mean over all, the parts that it holds.
        axes: names of what the batch is split over.
        unroll: whether parts of an accumulated gradient are written out. A convolution's weight
            gradient is 16 times slower inside a loop on CPU.
    """

    map_devices: Callable[[Callable], Callable] = lambda function: function
    gather: Callable[[Any], Any] = lambda params: params
    scatter: Callable[[Any], Any] = lambda grads: grads
    axes: tuple[str, ...] = ()
    unroll: bool = True


ALONE = Placement()


@dataclasses.dataclass(frozen=True)
class Update:
    """What one step does: the task, the optimiser, and how both are computed."""

    task: tasks.Task
    tx: optax.GradientTransformation
    ema_decay: float
    compute: ComputeConfig = ComputeConfig("float32", "none", 1)


def init_state(
    task: tasks.Task, tx: optax.GradientTransformation, key: arrays.Key, batch: Mapping[str, Any]
) -> TrainState:
    """The state before the first step."""
    return first_state(*task.init(key, batch), tx)


def first_state(params: Any, extra: Any, tx: optax.GradientTransformation) -> TrainState:
    """The state before the first step, with these parameters."""
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
    update: Update,
    placement: Placement = ALONE,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One update: the new state, and metrics of the batch under the state as it was."""
    # By step: a training that resumes samples what it would have sampled without the break.
    key = jax.random.fold_in(key, state.step)

    # gradient
    gradient = placement.map_devices(functools.partial(_gradient, update, placement))
    grads, metrics, extra = gradient(state.params, state.ema_params, state.extra, batch, key)
    return apply_gradient(state, grads, metrics, extra, update=update)


def apply_gradient(
    state: TrainState, grads: Any, metrics: dict[str, jax.Array], extra: Any, *, update: Update
) -> tuple[TrainState, dict[str, jax.Array]]:
    """What of a step comes after the gradient: the new state, and the metrics with its norm."""
    norm = optax.global_norm(grads)
    updates, opt_state = update.tx.update(grads, state.opt_state, state.params)
    params = flat.map_arrays(
        optax.apply_updates(state.params, updates),
        lambda params: update.task.post_update(params, extra),
    )
    # The first steps average over what there is, not over the random start.
    decay = jnp.minimum(update.ema_decay, (1 + state.step) / (10 + state.step))
    ema_params = optax.incremental_update(params, state.ema_params, 1 - decay)

    # Where the gradient is not finite nothing changes but the counters. A conditional would copy
    # the whole state; a choice is made where the values are.
    finite = jnp.isfinite(norm) & jnp.isfinite(metrics["loss"])
    after = (params, ema_params, opt_state, extra)
    before = (state.params, state.ema_params, state.opt_state, state.extra)
    chosen = jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, before)
    skipped = state.skipped + (1 - finite.astype(jnp.int32))
    return TrainState(state.step + 1, *chosen, skipped), metrics | {"grad_norm": norm}


def loss_with_rest(task: tasks.Task) -> Callable[..., tuple[jax.Array, tasks.LossOutput]]:
    """(params, ema_params, extra, batch, key) → the loss, and beside it all that it gives: what
    `jax.grad` takes with `has_aux`."""

    def loss(params: Any, ema_params: Any, extra: Any, batch: Mapping[str, jax.Array], key):
        output = task.loss(params, batch, key, ema_params=ema_params, extra=extra)
        return output.loss, output

    return loss


def gradient_alone(update: Update) -> Callable[..., tuple[Any, dict[str, jax.Array], Any]]:
    """(params, ema_params, extra, batch, key) → (gradients, metrics, extra), as one device computes
    them of its part of a batch."""
    return functools.partial(_gradient, update, ALONE)


def _gradient(
    update: Update, placement: Placement, params: Any, ema_params: Any, extra: Any, batch, key
) -> tuple[Any, dict[str, jax.Array], Any]:
    """(gradients, metrics, extra), means over the batch, on one device. Parameters are gathered
    once, in the dtype they are computed with; gradients are summed in float32, and given as the
    parameters are stored."""
    compute, stored = update.compute, params
    gather = lambda tree: flat.leaves(placement.gather(layers.cast(tree, compute.dtype)))
    params, ema_params = gather(params), gather(ema_params)
    loss_fn = _remat(
        loss_with_rest(update.task), compute.remat, in_a_loop=blocks.are_looped(params)
    )
    grad_fn = jax.grad(loss_fn, has_aux=True)

    def of_part(extra: Any, part: Mapping[str, jax.Array]):
        grads, output = grad_fn(params, ema_params, extra, part, key)
        metrics = output.metrics | {"loss": output.loss}
        return output.extra, (flat.like(stored, layers.cast(grads, "float32")), metrics)

    with collectives.batch_axes(placement.axes):
        if compute.accumulate == 1:
            extra, (grads, metrics) = of_part(extra, batch)
        else:
            grads, metrics, extra = _accumulate(
                of_part, extra, batch, compute.accumulate, placement.unroll
            )
        metrics = collectives.pmean(metrics)
    return placement.scatter(grads), metrics, extra


def _accumulate(of_part: Callable, extra: Any, batch: Mapping, count: int, unroll: bool) -> tuple:
    """Means over `count` parts of a batch, of every device's share alike."""
    # Example i goes to part i mod count: no device gives examples away.
    split = lambda x: x.reshape(-1, count, *x.shape[1:]).swapaxes(0, 1)
    parts = jax.tree.map(split, dict(batch))
    first = jax.tree.map(lambda x: x[0], parts)
    zeros = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(of_part, extra, first)
    )

    def add(sums, part):
        # Every part changes what was before the update: a batch counts once, and what is frozen
        # stays so to the last digit.
        after, of_this = of_part(extra, part)
        changes = jax.tree.map(jnp.subtract, after, extra)
        return jax.tree.map(jnp.add, sums, (changes, of_this)), None

    sums, _ = jax.lax.scan(add, zeros, parts, unroll=count if unroll else 1)
    changes, (grads, metrics) = jax.tree.map(lambda x: x / count, sums)
    return grads, metrics, jax.tree.map(jnp.add, extra, changes)


def _remat(loss_fn: Callable, name: str, *, in_a_loop: bool) -> Callable:
    """The loss, keeping for its gradient only what `name` says; where blocks are gone through in a
    loop, of these alone."""
    policies = jax.checkpoint_policies
    outputs = policies.save_only_these_names(layers.BLOCK)
    products = policies.dots_with_no_batch_dims_saveable
    match name:
        case "none":
            return loss_fn
        case "products":
            policy = policies.save_from_both_policies(outputs, products)
        case "blocks":
            policy = outputs
    if not in_a_loop:
        return jax.checkpoint(loss_fn, policy=policy)

    def looped(*args: Any) -> Any:
        with blocks.keeping(policy):
            return loss_fn(*args)

    return looped


StepFn = Callable[[TrainState, Mapping[str, Any], arrays.Key], tuple[TrainState, dict[str, Any]]]
