"""The programs of a run with shapes in place of arrays, to be compiled for devices elsewhere."""

import dataclasses

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ssldiff_jax.autoencoder import autoencoder
from ssldiff_jax.core import layers
from ssldiff_jax.diffusion import conditioning
from ssldiff_jax.generation import generator, models
from ssldiff_jax.runs import programs, training_tasks
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.sampler import programs as sampler_programs
from ssldiff_jax.weights import published


def program(
    name: str, config: run_config.RunConfig, mesh: Mesh, batch_size: int
) -> programs.AbstractCall:
    """A program by its name; `batch_size` 0 is the config's.

    Raises ValueError for a batch that the mesh does not divide.
    """
    if name == "sampler":
        return _sampler(config, mesh)
    return programs.of_training(name, config, mesh, batch_size)


def _sampler(config: run_config.RunConfig, mesh: Mesh) -> programs.AbstractCall:
    """One chunk of windows of the largest image that `bench` generates."""
    denoiser = config.denoiser.model(training_tasks.embedding_dim(config), config.num_cells)
    params = published.abstract_denoiser(denoiser)
    params = jax.eval_shape(lambda p: layers.cast(p, config.sample.compute_dtype), params)
    channels = denoiser.unet.latent_channels
    scaling = autoencoder.LatentScaling((1.0,) * channels, (0.0,) * channels)
    decoder = published.abstract_autoencoder(config.autoencoder.model)
    trained = models.Models(
        None,
        autoencoder.TrainedAutoencoder(config.autoencoder.model, decoder, scaling),
        conditioning.Denoiser(denoiser),
        params,
    )
    # 0 would ask the memory of this machine.
    sample = dataclasses.replace(config.sample, window_batch=config.sample.window_batch or 32)
    sample = dataclasses.replace(sample, window_batch=sample.window_batch * mesh.size)
    model = generator.Generator(dataclasses.replace(config, sample=sample), trained, mesh)
    side = max(config.bench.sizes, default=1024)
    sampler, plan = model.networks.sampler, model.planner.plan_windows((side, side))
    layout, count = sampler.layout(plan), sampler.windows_at_once(plan)

    def shape(dims, dtype=np.float32, split=False):
        over = NamedSharding(model.mesh, PartitionSpec("data" if split else None))
        if not dims:
            over = NamedSharding(model.mesh, PartitionSpec())
        return jax.ShapeDtypeStruct(dims, dtype, sharding=over)

    window = layout.window
    split = sampler.canvas.shards > 1
    # Rows that each device holds, those of its neighbours' halo among them.
    field = shape((sampler.canvas.shards * (layout.shard_rows + layout.halo), *layout.shape[1:]),
                  layout.config.dtype, split)  # fmt: skip
    args = (
        jax.tree.map(lambda p: shape(p.shape, p.dtype), params),
        field,
        field,
        sampler_programs.ChunkInputs(
            shape((count, 2), np.int32, split),
            shape((count, 2, window), np.float32, split),
            shape((count, denoiser.condition_dim), np.float32, True),
        ),
        shape((), np.int32),
    )
    windows = model.networks.window_call(params, programs.COUNTED)
    counted = (windows.run, windows.shapes)
    return programs.AbstractCall(sampler.programs(plan).denoise, args, 0, count, counted)
