"""The programs of a run with shapes in place of arrays, to be compiled for devices elsewhere."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ssldiff_jax.autoencoder import autoencoder, lpips
from ssldiff_jax.autoencoder import loss as autoencoder_loss
from ssldiff_jax.core import layers
from ssldiff_jax.data.annotations import measures
from ssldiff_jax.diffusion import conditioning
from ssldiff_jax.diffusion import loss as diffusion_loss
from ssldiff_jax.encoders import vit
from ssldiff_jax.generation import generator, models
from ssldiff_jax.prior import conditions
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.stages import prior
from ssldiff_jax.train import loop, parallel
from ssldiff_jax.train import mesh as mesh_lib
from ssldiff_jax.train import step as step_lib
from ssldiff_jax.weights import published

_TEXT_DIM = _IMPORTED_DIM = 384
_COUNTED = 8  # examples whose FLOPs are counted


@dataclasses.dataclass(frozen=True)
class Program:
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


def program(name: str, config: run_config.RunConfig, mesh: Mesh, batch_size: int) -> Program:
    """A program by its name; `batch_size` 0 is the config's.

    Raises ValueError for a batch that the mesh does not divide.
    """
    if name == "sampler":
        return _sampler(config, mesh)
    train = getattr(config, name).train
    if batch_size:
        train = dataclasses.replace(train, batch_size=batch_size)
    task, example = _TASKS[name](config)
    return _training(task, example, train, config, mesh)


def _training(
    task: step_lib.Task,
    example: dict[str, tuple[tuple[int, ...], Any]],
    train: loop.TrainConfig,
    config: run_config.RunConfig,
    mesh: Mesh,
) -> Program:
    batch = lambda count: _batch(example, count)
    mesh_lib.require_divides(train.batch_size, mesh, train.compute.accumulate)
    tx = train.optimizer.transform(train.num_steps or 1)
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = _state(task, example, train)
    shardings = mesh_lib.tree_shardings(state, mesh, config.mesh.rules)
    update = step_lib.Update(task, tx, train.optimizer.ema_decay, train.compute)

    def gradient(params, extra, batch, key):
        return jax.grad(task.loss, has_aux=True)(params, params, extra, batch, key)

    return Program(
        parallel.jit_step(update, shardings, mesh),
        (state, batch(train.batch_size), key),
        sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        train.batch_size,
        (gradient, (state.params, state.extra, batch(_COUNTED), key)),
    )


def state(name: str, config: run_config.RunConfig) -> step_lib.TrainState:
    """The shapes of what the training of a stage reads and writes at every step; where embeddings
    are computed elsewhere as if their dimension were 384."""
    if name == "judge":
        config, name = dataclasses.replace(config, encoder=config.judge), "encoder"
    return _state(*_TASKS[name](config), getattr(config, name).train)


def _state(
    task: step_lib.Task, example: dict[str, tuple[tuple[int, ...], Any]], train: loop.TrainConfig
) -> step_lib.TrainState:
    tx = train.optimizer.transform(train.num_steps or 1)
    key = jax.eval_shape(lambda: jax.random.key(0))
    init = lambda k, b: step_lib.init_state(task, tx, k, b)
    return jax.eval_shape(init, key, _batch(example, 1))


def _batch(
    example: dict[str, tuple[tuple[int, ...], Any]], count: int
) -> dict[str, jax.ShapeDtypeStruct]:
    return {n: jax.ShapeDtypeStruct((count, *s), d) for n, (s, d) in example.items()}


def _embedding_dim(config: run_config.RunConfig) -> int:
    """Of the run's encoder; of embeddings computed elsewhere only their files tell."""
    own = config.encoder.architecture.vit.width
    return _IMPORTED_DIM if config.embeddings.source else own


def _denoiser(config: run_config.RunConfig) -> tuple[step_lib.Task, dict]:
    section, side = config.denoiser, config.window
    model = section.model(_embedding_dim(config), config.num_cells)
    channels = section.unet.latent_channels
    scaling = autoencoder.LatentScaling((1.0,) * channels, (0.0,) * channels)
    task = diffusion_loss.DenoisingTask(
        conditioning.Denoiser(model), scaling, section.schedule, section.loss
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

    def settle(self, params, extra):
        return self.task.settle(params, extra)


def _encoder(config: run_config.RunConfig) -> tuple[step_lib.Task, dict]:
    model = config.encoder.model
    return model.task(), _images(config.data.crops.patch_px + model.shift_px)


def _prior(config: run_config.RunConfig) -> tuple[step_lib.Task, dict]:
    """With texts, which are most of what it can be told."""
    asked, side = config.prior.conditions, config.prior.grids.side
    labels = () if asked.measure == "none" else measures.label_names(asked.measure)
    spec = conditions.ConditionSpec(labels, (), asked.text_phrases, _TEXT_DIM)
    return prior.task(config.prior, spec), {
        "grid": ((side, side, _embedding_dim(config)), jnp.float16),
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


def _sampler(config: run_config.RunConfig, mesh: Mesh) -> Program:
    """One chunk of windows of the largest image that `bench` draws."""
    denoiser = config.denoiser.model(_embedding_dim(config), config.num_cells)
    params = published.abstract_denoiser(denoiser)
    params = jax.eval_shape(lambda p: layers.cast(p, config.sample.compute), params)
    channels = denoiser.unet.latent_channels
    scaling = autoencoder.LatentScaling((1.0,) * channels, (0.0,) * channels)
    decoder = published.abstract_autoencoder(config.autoencoder.model)
    trained = models.Models(
        None,
        autoencoder.TrainedAutoencoder(config.autoencoder.model, decoder, scaling),
        conditioning.Denoiser(denoiser),
        params,
    )
    sample = dataclasses.replace(config.sample, chunk=config.sample.chunk or 32)
    sample = dataclasses.replace(sample, chunk=sample.chunk * mesh.size)
    drawing = generator.Generator(dataclasses.replace(config, sample=sample), trained, mesh)
    side = max(config.bench.sizes, default=1024)
    sampler, plan = drawing.sampler, drawing.plan((side, side))
    layout, count = sampler.layout(plan), sampler.windows_at_once(plan)

    def shape(dims, dtype=np.float32, split=False):
        over = NamedSharding(drawing.mesh, PartitionSpec("data" if split else None))
        if not dims:
            over = NamedSharding(drawing.mesh, PartitionSpec())
        return jax.ShapeDtypeStruct(dims, dtype, sharding=over)

    window = layout.window
    split = sampler.canvas.shards > 1
    field = shape((sampler.canvas.shards * (layout.shard_rows + layout.halo), *layout.shape[1:]),
                  layout.config.dtype, split)  # fmt: skip
    args = (
        jax.tree.map(lambda p: shape(p.shape, p.dtype), params),
        field,
        field,
        shape((count, 2), np.int32, split),
        shape((count, 2, window), np.float32, split),
        shape((count, denoiser.condition_dim), np.float32, True),
        shape((), np.int32),
    )
    windows = drawing.window_program(_COUNTED)
    counted = (windows.run, windows.shapes)
    return Program(sampler.programs(plan).denoise, args, 0, count, counted)


def flops_of_one(counted: Program) -> float | None:
    """FLOPs of the model for one example or window, without what is computed twice."""
    function, args = counted.flops
    cost = jax.jit(function).lower(*args).cost_analysis() or {}
    return cost["flops"] / _COUNTED if "flops" in cost else None
