"""Trainings with shapes in place of arrays: their tasks, batches, states and compiled steps."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from ssldiff_jax.autoencoder import autoencoder, lpips
from ssldiff_jax.autoencoder import loss as autoencoder_loss
from ssldiff_jax.data.annotations import measures
from ssldiff_jax.diffusion import conditioning
from ssldiff_jax.diffusion import loss as diffusion_loss
from ssldiff_jax.encoders import vit
from ssldiff_jax.prior import conditions
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.train import loop, parallel
from ssldiff_jax.train import mesh as mesh_lib
from ssldiff_jax.train import step as step_lib

_TEXT_DIM = _IMPORTED_DIM = 384
COUNTED = 8
"""Examples whose FLOPs are counted."""


@dataclasses.dataclass(frozen=True)
class AbstractCall:
    """A jitted function and the shapes of its arguments.

    Attributes:
        num_params: of the model, 0 for what trains nothing.
        batch_size: examples or windows of one call, over all devices.
        flops: those of the model for one of them, counted on a function and its shapes.
    """

    function: Any
    args: tuple[Any, ...]
    num_params: int
    batch_size: int
    flops: tuple[Callable[..., Any], tuple[Any, ...]]


def of_training(
    name: str, config: run_config.RunConfig, mesh: Mesh, batch_size: int
) -> AbstractCall:
    """The step of a stage that trains; `batch_size` 0 is the config's.

    Raises ValueError for a batch that the mesh does not divide.
    """
    train = getattr(config, name).train
    if batch_size:
        train = dataclasses.replace(train, batch_size=batch_size)
    return _training(*task(name, config), train, config, mesh)


def _training(
    task: step_lib.Task,
    example: dict[str, tuple[tuple[int, ...], Any]],
    train: loop.TrainConfig,
    config: run_config.RunConfig,
    mesh: Mesh,
) -> AbstractCall:
    batch = lambda count: batch(example, count)
    mesh_lib.require_divides(train.batch_size, mesh, train.compute.accumulate)
    tx = train.optimizer.transform(train.num_steps or 1)
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = state_of(task, example, train)
    shardings = mesh_lib.tree_shardings(state, mesh, config.mesh.rules)
    update = step_lib.Update(task, tx, train.optimizer.ema_decay, train.compute)

    def gradient(params, extra, batch, key):
        return jax.grad(task.loss, has_aux=True)(params, params, extra, batch, key)

    return AbstractCall(
        parallel.jit_step(update, shardings, mesh),
        (state, batch(train.batch_size), key),
        sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        train.batch_size,
        (gradient, (state.params, state.extra, batch(COUNTED), key)),
    )


def flops_of_one(counted: AbstractCall) -> float | None:
    """FLOPs of the model for one example or window, without what is computed twice."""
    function, args = counted.flops
    cost = jax.jit(function).lower(*args).cost_analysis() or {}
    return cost["flops"] / COUNTED if "flops" in cost else None


def task(
    name: str, config: run_config.RunConfig
) -> tuple[step_lib.Task, dict[str, tuple[tuple[int, ...], Any]]]:
    """The task of a stage that trains, and shape and dtype of an example's arrays."""
    return _TASKS[name](config)


def state(name: str, config: run_config.RunConfig) -> step_lib.TrainState:
    """The shapes of what the training of a stage reads and writes at every step; where embeddings
    are computed elsewhere as if their dimension were 384."""
    if name == "judge":
        config, name = dataclasses.replace(config, encoder=config.judge), "encoder"
    return state_of(*_TASKS[name](config), getattr(config, name).train)


def state_of(
    task: step_lib.Task, example: dict[str, tuple[tuple[int, ...], Any]], train: loop.TrainConfig
) -> step_lib.TrainState:
    tx = train.optimizer.transform(train.num_steps or 1)
    key = jax.eval_shape(lambda: jax.random.key(0))
    init = lambda k, b: step_lib.init_state(task, tx, k, b)
    return jax.eval_shape(init, key, batch(example, 1))


def batch(
    example: dict[str, tuple[tuple[int, ...], Any]], count: int
) -> dict[str, jax.ShapeDtypeStruct]:
    return {n: jax.ShapeDtypeStruct((count, *s), d) for n, (s, d) in example.items()}


def embedding_dim(config: run_config.RunConfig) -> int:
    """Of the run's encoder; of embeddings computed elsewhere only their files know."""
    own = config.encoder.architecture.vit.width
    return _IMPORTED_DIM if config.embeddings.source else own


def _denoiser(config: run_config.RunConfig) -> tuple[step_lib.Task, dict]:
    section, side = config.denoiser, config.window
    model = section.model(embedding_dim(config), config.num_cells)
    channels = section.unet.latent_channels
    scaling = autoencoder.LatentScaling((1.0,) * channels, (0.0,) * channels)
    task = diffusion_loss.DenoisingTask(
        conditioning.Denoiser(model),
        scaling,
        section.process,
        section.loss.cond_drop_rate,
        section.loss.min_snr_gamma,
    )
    return task, {
        "moments": ((side, side, config.autoencoder.model.num_stored), jnp.bfloat16),
        "embedding": ((model.condition_dim,), jnp.float32),
        "index": ((), jnp.int32),
    }


def _autoencoder(config: run_config.RunConfig) -> tuple[step_lib.Task, dict]:
    section = config.autoencoder
    distance, params = (lambda params, x, y: jnp.zeros(())), {}
    if section.loss.perceptual_weight and section.loss.perceptual == "lpips":
        model, image = lpips.LPIPS(), jnp.zeros((1, 64, 64, 3))
        params = jax.eval_shape(model.init, jax.random.key(0), image, image)["params"]
        distance = lambda params, x, y: model.apply({"params": params}, x, y).mean()
    elif section.loss.perceptual_weight:
        features = config.encoder.architecture
        image = jnp.zeros((1, features.vit.image_px, features.vit.image_px, 3))
        params = jax.eval_shape(vit.ViT(features.vit).init, jax.random.key(0), image)["params"]
        distance = lambda params, x, y: autoencoder_loss.feature_distance(
            lambda image: features.tokens(params, image)
        )(x, y)
    task = autoencoder_loss.AutoencoderTask(section.model, section.loss, distance, params)
    return _FrozenShapes(task), _images(config.data.crops.patch_px)


@dataclasses.dataclass(frozen=True)
class _FrozenShapes:
    """An autoencoder's task whose frozen features are shapes: zeros stand for them."""

    task: autoencoder_loss.AutoencoderTask

    def init(self, key, batch):
        zeros = jax.tree.map(lambda p: jnp.zeros(p.shape, p.dtype), self.task.perceptual_params)
        return dataclasses.replace(self.task, perceptual_params=zeros).init(key, batch)

    def loss(self, *args):
        return self.task.loss(*args)

    def post_update(self, params, extra):
        return self.task.post_update(params, extra)


def _encoder(config: run_config.RunConfig) -> tuple[step_lib.Task, dict]:
    model = config.encoder.model
    return model.task(), _images(config.data.crops.patch_px + model.shift_px)


def _prior(config: run_config.RunConfig) -> tuple[step_lib.Task, dict]:
    """With texts, the largest part of a condition."""
    sources, side = config.prior.conditions, config.prior.grids.side
    labels = () if sources.measure == "none" else measures.label_names(sources.measure)
    spec = conditions.ConditionSpec(labels, (), sources.text_phrases, _TEXT_DIM)
    return config.prior.task(spec), {
        "grid": ((side, side, embedding_dim(config)), jnp.float16),
        "condition": ((spec.dim,), jnp.float16),
        "index": ((), jnp.int32),
    }


_TASKS = {
    "denoiser": _denoiser,
    "autoencoder": _autoencoder,
    "encoder": _encoder,
    "prior": _prior,
}


def _images(px: int) -> dict:
    return {"image_uint8": ((px, px, 3), jnp.uint8), "index": ((), jnp.int32)}
