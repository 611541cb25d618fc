"""What models cost, of their shapes alone: parameters, state, FLOPs and memory of a step or a call.
Nothing is compiled or trained."""

import dataclasses
import functools
import math
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh

from ssldiff_jax.autoencoder import autoencoder
from ssldiff_jax.core import layers, platform, program_cost, tasks
from ssldiff_jax.diffusion import conditioning
from ssldiff_jax.encoders import encoder as encoder_lib
from ssldiff_jax.generation import generator, models
from ssldiff_jax.runs import training_tasks
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.stages.tools.plan import devices as devices_lib
from ssldiff_jax.train import loop
from ssldiff_jax.train import mesh as mesh_lib
from ssldiff_jax.train import step as step_lib
from ssldiff_jax.weights import published


@dataclasses.dataclass(frozen=True)
class Training:
    """A training by its shapes.

    Attributes:
        num_params: of the model that is trained.
        leaves: arrays of its state.
        state_bytes: parameters, their average, the optimiser's moments and counters.
        device_state_bytes: of these on one device.
        step_flops: products and convolutions of a step, on all devices, with what is computed twice
            to save memory.
        live_bytes: what a device holds beside the state while it computes a part of a batch.
    """

    num_params: int
    leaves: int
    state_bytes: int
    device_state_bytes: int
    step_flops: float
    live_bytes: int

    @classmethod
    def of(
        cls,
        task: tasks.Task,
        train: loop.TrainConfig,
        state: step_lib.TrainState,
        devices: devices_lib.Devices,
        rules: tuple[str, ...],
    ) -> "Training":
        """Of a task as a config trains it on devices, by the shapes of its state."""
        mesh = devices.mesh
        parts = mesh.shape["data"] * mesh.shape["fsdp"] * train.compute.accumulate
        count = max(train.batch_size // parts, 1)
        compute = dataclasses.replace(train.compute, accumulate=1)
        gradient = step_lib.gradient_alone(step_lib.Update(task, None, 0.0, compute))
        batch = tasks.batch_of(task.batch_spec(), count)
        key = jax.eval_shape(lambda: jax.random.key(0))
        with platform.compile_for(devices.platform):
            cost = program_cost.of(
                gradient, state.params, state.ema_params, state.extra, batch, key
            )
        leaves = jax.tree.leaves(state)
        num_params = sum(leaf.size for leaf in jax.tree.leaves(state.params))
        # Gradients of parts are summed in float32.
        summed = 4 * num_params if train.compute.accumulate > 1 else 0
        return cls(
            num_params,
            len(leaves),
            sum(leaf.size * leaf.dtype.itemsize for leaf in leaves),
            _bytes_each(state, mesh, rules),
            cost.flops * train.batch_size / count,
            cost.live_bytes + summed,
        )


def _bytes_each(state: Any, mesh: Mesh | AbstractMesh, rules: tuple[str, ...]) -> int:
    """Of a state on one device."""
    shardings = mesh_lib.tree_shardings(state, mesh, rules)
    each = lambda leaf, place: math.prod(place.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    return sum(jax.tree.leaves(jax.tree.map(each, state, shardings)))


def _blank(shapes: Any) -> Any:
    """Arrays of the shapes in a tree, all of one zero each."""
    return jax.tree.map(lambda s: np.broadcast_to(np.zeros((), s.dtype), s.shape), shapes)


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a network on one patch, window or tile."""

    flops: float
    params_bytes: int


@dataclasses.dataclass(frozen=True)
class Networks:
    """The networks of a run as they are used, by their shapes."""

    config: run_config.RunConfig
    devices: devices_lib.Devices

    @functools.cached_property
    def embedding_dim(self) -> int:
        """Length of an embedding."""
        return training_tasks.embedding_dim(self.config)

    @functools.cached_property
    def condition_bytes(self) -> int:
        """Of what conditions a window, as it is stored: one embedding, its tokens, or those of its
        cells."""
        return self.config.denoiser_sizes(self.embedding_dim).stored_bytes

    def embed(self, name: str) -> Call:
        """The encoder, or the judge, on one patch."""
        architecture = getattr(self.config, name).architecture
        return self._embed(architecture)

    @functools.cache  # noqa: B019 — lives as long as one command
    def _embed(self, architecture: encoder_lib.Architecture) -> Call:
        side = self.config.data.crops.patch_px
        params = published.abstract_encoder(architecture)
        image = jax.ShapeDtypeStruct((1, side, side, 3), np.float32)
        return self._call(architecture.embed, params, image)

    @functools.cached_property
    def autoencoder_params(self) -> Any:
        """Shapes of the autoencoder's parameters."""
        return published.abstract_autoencoder(self.config.autoencoder.model)

    @functools.cached_property
    def encode(self) -> Call:
        """The autoencoder's encoder on one patch with its context."""
        model = autoencoder.Autoencoder(self.config.autoencoder.model)
        side = self.config.data.crops.context_patch_px
        image = jax.ShapeDtypeStruct((1, side, side, 3), np.float32)
        apply = lambda params, x: model.apply({"params": params}, x, method=model.encode)
        return self._call(apply, self.autoencoder_params, image)

    @functools.cached_property
    def decode_patch(self) -> Call:
        """The decoder on the latents of one patch and what is mirrored around them."""
        return self._decode(self.config.window + 2 * self.config.context)

    @functools.cached_property
    def decode_tile(self) -> Call:
        """The decoder on one tile of a large image."""
        return self._decode(self.config.sample.decode.tile)

    def _decode(self, side: int) -> Call:
        trained = self.generator.trained.autoencoder
        channels = trained.config.chosen.latent_channels
        latents = jax.ShapeDtypeStruct((1, side, side, channels), np.float32)
        return self._call(trained.decode, trained.params, latents)

    @functools.cached_property
    def _guided_window(self) -> program_cost.Cost:
        """One window with guidance, where the config has any."""
        call = self.generator.networks.window_call(self.generator.trained.params, 1)
        with platform.compile_for(self.devices.platform):
            return program_cost.of(call.run, *call.shapes)

    @functools.cached_property
    def window(self) -> Call:
        """The denoiser on one window, without guidance."""
        leaves = jax.tree.leaves(self.generator.trained.params)
        sample = self.config.sample
        calls = 1 if sample.guidance.scale == 1.0 or sample.student != "off" else 2
        params_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
        return Call(self._guided_window.flops / calls, params_bytes)

    def chunk_bytes(self, at_once: int) -> int:
        """What a device holds beside weights and canvas while it denoises a chunk of windows."""
        return -(-at_once // self.devices.count) * self._guided_window.live_bytes

    def _call(self, function: Any, params: Any, *args: Any) -> Call:
        with platform.compile_for(self.devices.platform):
            flops = program_cost.flops(jax.make_jaxpr(function)(params, *args).jaxpr)
        leaves = jax.tree.leaves(params)
        return Call(flops, sum(leaf.size * leaf.dtype.itemsize for leaf in leaves))

    @functools.cached_property
    def dtype(self) -> str:
        """What images are sampled in on the devices."""
        with platform.compile_for(self.devices.platform):
            return self.config.sample.network_dtype

    @functools.cached_property
    def generator(self) -> generator.Generator:
        """Of the run's sizes, with zeros that take no memory for weights: it plans and renders
        nothing. Where the devices are elsewhere it is that of one."""
        sample = dataclasses.replace(self.config.sample, compute_dtype=self.dtype)
        config = dataclasses.replace(self.config, sample=sample)
        denoiser = config.denoiser_sizes(self.embedding_dim)
        cast = functools.partial(layers.cast, dtype=self.dtype)
        params, student = (
            _blank(jax.eval_shape(cast, published.abstract_denoiser(sizes)))
            for sizes in (denoiser, denoiser.of_student)
        )
        decoder = _blank(jax.eval_shape(cast, self.autoencoder_params))
        channels = denoiser.network.latent_channels
        scaling = autoencoder.LatentScaling((1.0,) * channels, (0.0,) * channels)
        trained = models.Models(
            None,
            autoencoder.TrainedAutoencoder(config.autoencoder.model, decoder, scaling),
            conditioning.Denoiser(denoiser),
            params,
            student=models.Network(conditioning.Denoiser(denoiser.of_student), student),
        )
        return generator.Generator(config, trained, self.devices.working_mesh)

    @functools.cached_property
    def window_calls(self) -> int:
        """Network evaluations of one window over all steps of the solver, guidance counted."""
        networks = self.generator.networks
        guided = networks.guided(networks.denoise)
        return int(np.sum(guided.calls_per_example(networks.table.t)))
