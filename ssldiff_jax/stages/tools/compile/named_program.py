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
    """The network on one chunk of windows, guided where any timestep is: one program for all sizes
    of image."""
    denoiser = config.denoiser_sizes(training_tasks.embedding_dim(config))
    in_dtype = lambda tree: layers.cast(tree, config.sample.network_dtype)
    params, student = (
        jax.eval_shape(in_dtype, published.abstract_denoiser(sizes))
        for sizes in (denoiser, denoiser.of_student)
    )
    channels = denoiser.network.latent_channels
    scaling = autoencoder.LatentScaling((1.0,) * channels, (0.0,) * channels)
    decoder = jax.eval_shape(in_dtype, published.abstract_autoencoder(config.autoencoder.model))
    trained = models.Models(
        None,
        autoencoder.TrainedAutoencoder(config.autoencoder.model, decoder, scaling),
        conditioning.Denoiser(denoiser),
        params,
        student=models.Network(conditioning.Denoiser(denoiser.of_student), student),
    )
    # 0 would ask the memory of this machine.
    sample = dataclasses.replace(config.sample, window_batch=config.sample.window_batch or 32)
    sample = dataclasses.replace(sample, window_batch=sample.window_batch * mesh.size)
    model = generator.Generator(dataclasses.replace(config, sample=sample), trained, mesh)
    count, window = model.networks.sampler.chunk, model.config.window

    def shape(dims, dtype=np.float32, split=False):
        spec = PartitionSpec("data") if split else PartitionSpec()
        return jax.ShapeDtypeStruct(dims, dtype, sharding=NamedSharding(model.mesh, spec))

    args = (
        jax.tree.map(lambda p: shape(p.shape, p.dtype), trained.called(sample.student).params),
        shape((count, window, window, channels), split=True),
        shape((), np.int32),
        shape((count, denoiser.condition_dim), split=True),
    )
    windows = (
        model.networks.window_call(args[0], of) for of in (programs.COUNTED, count // mesh.size)
    )
    counted, of_device = ((call.run, call.shapes) for call in windows)
    network = model.networks.sampler.network.of_kind
    is_plain = sample.guidance.scale == 1 or sample.student != "off"
    kind = "plain" if is_plain else "guided"
    return programs.AbstractCall(network[kind], args, 0, count, counted, of_device)
