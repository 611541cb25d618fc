"""The section `sample` of a config: how large images are generated, and the files they become."""

import dataclasses
from typing import Literal

from ssldiff_jax.core import platform, schema
from ssldiff_jax.diffusion import guidance, solvers
from ssldiff_jax.sampler import decode, grid, windows
from ssldiff_jax.slides import pyramid

_ASIDE = {"digest": False}
"""Marks what may change without making other results."""


@dataclasses.dataclass(frozen=True)
class OutputConfig:
    """The files that a large image is written as, the version of OME-Zarr, and the JPEG quality
    inside of others, 1…100."""

    formats: tuple[str, ...]
    ngff: Literal["0.4", "0.5"]
    quality: int

    def __post_init__(self):
        for name in self.formats:
            if name not in pyramid.FORMATS:
                raise schema.ConfigError(
                    f"config.sample.output.formats must be of {', '.join(pyramid.FORMATS)}, "
                    f"got {name!r}"
                )
        if not 1 <= self.quality <= 100:
            raise schema.ConfigError(
                f"config.sample.output.quality must be 1…100, got {self.quality}"
            )


@dataclasses.dataclass(frozen=True)
class SampleSection:
    """How large images are sampled."""

    level: float
    conditioning: Literal["dense", "interpolated", "cells"]
    interpolation: grid.Interpolation
    student: Literal["off", "guidance", "strides"]
    visits: int
    guidance: guidance.GuidanceConfig
    solver: solvers.SolverConfig
    windows: windows.WindowConfig
    compute_dtype: Literal["auto", "float32", "bfloat16"]
    canvas_dtype: Literal["float32", "bfloat16"]
    split: Literal["windows", "rows"] = dataclasses.field(metadata=_ASIDE)
    window_batch: int = dataclasses.field(metadata=_ASIDE)
    decode: decode.DecodeConfig
    output: OutputConfig
    checkpoint_minutes: float = dataclasses.field(metadata=_ASIDE)
    dry_run: bool = dataclasses.field(metadata=_ASIDE)
    num_variations: int

    @property
    def as_called(self) -> "SampleSection":
        """The same as solver and windows are called: strides of a student are steps of DDIM, and
        of few the last alone overlaps."""
        if self.student != "strides":
            return self
        solver = dataclasses.replace(
            self.solver, name="ddim", num_solver_steps=self.visits, eta=0.0
        )
        last = dataclasses.replace(self.windows.last, steps=min(self.windows.last.steps, 1))
        return dataclasses.replace(
            self, solver=solver, windows=dataclasses.replace(self.windows, last=last)
        )

    def at_strength(self, strength: float) -> "SampleSection":
        """From that part of the noise level on, in as many steps of the same length as are left."""
        solver = dataclasses.replace(
            self.solver,
            t_start=max(round(strength * self.solver.t_start), 1),
            # In proportion, so that a step is as long as it was.
            num_solver_steps=max(round(strength * self.solver.num_solver_steps), 1),
        )
        return dataclasses.replace(self, solver=solver)

    @property
    def network_dtype(self) -> str:
        """What the networks compute in, on the devices at hand."""
        return platform.network_dtype(self.compute_dtype)
