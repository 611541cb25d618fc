"""A trained transformer over the cells of grids, as both levels of the prior sample from it: grids
of the size it was trained with by the batch, and larger ones by windows."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float

from ssldiff_jax.core import arrays, data_parallel
from ssldiff_jax.diffusion import guidance, process, solvers
from ssldiff_jax.prior import conditions, network
from ssldiff_jax.sampler import field, sampler, windows

# Grids, or windows of a larger one, together: batches of one size are traced once.
_CHUNK = 32


@dataclasses.dataclass(frozen=True)
class Steps:
    """How a network is sampled from."""

    process: process.Process
    solver: solvers.SolverConfig
    guidance: guidance.GuidanceConfig

    def table(self, temperature: float) -> solvers.SolverTable:
        """The solver, its noise scaled. Raises ValueError for no positive temperature."""
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got temperature={temperature}")
        table = solvers.solver_table(self.solver, self.process.schedule)
        return dataclasses.replace(
            table,
            # Both sources of noise: that of the steps, and that it begins with.
            noise=table.noise * np.float32(temperature),
            sigma_start=table.sigma_start * temperature,
        )

    def guided(self, denoise: guidance.DenoiseFn) -> guidance.GuidedX0:
        """x_t → x0_hat by a network."""
        return guidance.GuidedX0(denoise, self.process, self.guidance, self.solver.time_offset)


@dataclasses.dataclass(frozen=True, eq=False)
class GridNetwork:
    """Samples white grids.

    Attributes:
        config: of the network.
        params: averaged weights.
        dim: numbers of a cell.
    """

    config: network.NetworkConfig
    steps: Steps
    params: Any
    dim: int

    def grids(
        self,
        spec: conditions.ConditionSpec,
        side: int,
        condition: Float[np.ndarray, "n E"],
        key: arrays.Key,
    ) -> Float[np.ndarray, "n k k D"]:
        """A grid of `side` × `side` cells for each condition of a batch, at most a chunk."""
        filled = data_parallel.filled(condition.astype(np.float32), _CHUNK)
        return np.asarray(self._program(spec, side)(filled, key))[: len(condition)]

    def canvas_sampler(
        self, spec: conditions.ConditionSpec, temperature: float = 1.0
    ) -> sampler.GridSampler:
        """What samples canvases; one for each temperature and kind of condition, so that a size is
        traced once."""
        if (spec, temperature) not in self._samplers:
            self._samplers[spec, temperature] = sampler.GridSampler(
                self._denoiser(spec),
                self.steps.guided,
                self.steps.table(temperature),
                _CHUNK,
                field.CanvasConfig(self.dim),
            )
        return self._samplers[spec, temperature]

    @functools.cached_property
    def _samplers(self) -> dict[tuple[conditions.ConditionSpec, float], sampler.GridSampler]:
        return {}

    def _denoiser(self, spec: conditions.ConditionSpec) -> Callable[..., jax.Array]:
        model = network.GridDenoiser(self.config, spec)

        def denoise(params: Any, x_t, t, condition) -> jax.Array:
            return model.apply({"params": params}, x_t, t, condition).astype(np.float32)

        return denoise

    @functools.cached_property
    def _programs(self) -> dict[tuple[conditions.ConditionSpec, int], Callable[..., jax.Array]]:
        return {}

    def _program(self, spec: conditions.ConditionSpec, side: int) -> Callable[..., jax.Array]:
        """The compiled program for a batch of conditions of that kind."""
        if (spec, side) not in self._programs:
            table, denoise = self.steps.table(1.0), self._denoiser(spec)
            shape = (_CHUNK, side, side, self.dim)

            def run(params, condition, key):
                guided = self.steps.guided(functools.partial(denoise, params))
                return solvers.sample(guided, table, shape, condition, key)

            self._programs[spec, side] = self._on_devices(run)
        return self._programs[spec, side]

    def _on_devices(self, program: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
        """The program with the weights, its batch split over as many of this process's devices as
        share it evenly."""
        devices = jax.local_devices()
        mesh = Mesh(np.array(devices[: math.gcd(len(devices), _CHUNK)]), ("data",))
        split, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("data",), ()))
        jitted = jax.jit(program, out_shardings=split)

        def call(condition: np.ndarray, key: arrays.Key) -> jax.Array:
            # Put there by name: jit takes arrays of the host for those of all processes.
            put_key = jax.device_put(key, whole)
            return jitted(
                self._placed(self.params, whole), data_parallel.put(condition, split), put_key
            )

        return call

    @functools.cached_property
    def _placed(self) -> data_parallel.Placed:
        return data_parallel.Placed()


def num_batches(count: int) -> int:
    """In how many batches grids are sampled."""
    return -(-count // _CHUNK)


def batch_of(
    condition: Float[np.ndarray, "N E"], number: int
) -> tuple[int, Float[np.ndarray, "n E"]]:
    """The first index of a batch, and its conditions."""
    first = number * _CHUNK
    return first, condition[first : first + _CHUNK]


def plan(
    canvas: tuple[int, int],
    side: int,
    steps: int,
    seed: int,
    *,
    max_offset: int,
    border: Literal["margin", "wrap"] = "margin",
) -> windows.WindowPlan:
    """Windows of `side` cells over a canvas of cells, moved at every step by up to `max_offset`."""
    # A grid of one window is sampled as it was trained.
    moves = 0 if canvas == (side, side) and border == "margin" else max_offset
    config = windows.WindowConfig("offset", side, moves, "uniform", border, windows.SIDE_BY_SIDE)
    return windows.plan_windows(config, canvas, side, steps, seed)
