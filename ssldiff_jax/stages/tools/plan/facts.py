"""What is known of a run before it begins: its data, its models, the devices."""

import dataclasses
import functools
import math
from typing import Any

import jax
import numpy as np

from ssldiff_jax.core import estimates, program_cost, tasks
from ssldiff_jax.data import named_slides, plan
from ssldiff_jax.data.census import counts as counts_lib
from ssldiff_jax.diffusion import guidance, solvers
from ssldiff_jax.prior import conditions
from ssldiff_jax.runs import (
    artifacts,
    patch_samples,
    programs,
    region_labels,
    training_tasks,
)
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import folders as folders_lib
from ssldiff_jax.stages.tools.plan import devices as devices_lib
from ssldiff_jax.stages.tools.plan import models
from ssldiff_jax.train import step as step_lib

LEAF_BYTES = 590
"""Of names and places of an array in a checkpoint (Orbax 0.12, measured on small models)."""

PACKED = 0.925
"""What Zstandard leaves of random float32 numbers (measured: 0.925 to 0.926 of 32 to 80 MB)."""


class UnknownError(ValueError):
    """What cannot be said before it is there."""


@dataclasses.dataclass(frozen=True, eq=False)
class Facts:
    """Of one run.

    Attributes:
        census: of its slides or patches; None where they cannot be counted, `uncounted` says why.
    """

    config: run_config.RunConfig
    folders: folders_lib.Folders
    devices: devices_lib.Devices
    census: counts_lib.Census | None
    uncounted: str

    @functools.cached_property
    def networks(self) -> models.Networks:
        """The networks as they are used."""
        return models.Networks(self.config, self.devices)

    @property
    def known(self) -> counts_lib.Census:
        """The census. Raises UnknownError where there is none."""
        if self.census is None:
            raise UnknownError(self.uncounted)
        return self.census

    def records(self, split: str) -> estimates.Estimate:
        """Of a split."""
        return self.known.records.get(split, estimates.Estimate(0))

    @property
    def crops(self) -> estimates.Estimate:
        """Crops that are embedded and encoded, of all levels."""
        data = self.config.data
        if data.crops.num_crops:
            return estimates.Estimate(data.crops.num_crops)
        return estimates.total(self.records(plan.split_at("train", one)) for one in data.levels)

    @property
    def patch_places(self) -> int:
        """Patches that an evaluation can take of one record."""
        data = self.config.data
        return len(patch_samples.shifts_in(data.records.record_px, data.crops.patch_px))

    def at_most(self, wanted: int, split: str) -> estimates.Estimate:
        """`wanted` patches of a split, or all there are, at the level of what is generated; all
        for 0."""
        return self.at_level(wanted, split, self.config.level)

    def at_level(self, wanted: int, split: str, level: float) -> estimates.Estimate:
        """The same at a level."""
        there = self.records(plan.split_at(split, level)) * self.patch_places
        enough = there.value if there.is_exact or math.isnan(there.low) else there.low
        if wanted and enough >= wanted:
            return estimates.Estimate(wanted)
        if wanted and there.value >= wanted:
            return estimates.Estimate(wanted, there.source, there.low, wanted)
        return there

    @property
    def region_px(self) -> tuple[int, int]:
        """Of a reference, at the level of what is generated."""
        px = self.config.data.crops.patch_px
        return tuple(count * px for count in self.region_cells)

    @property
    def region_cells(self) -> tuple[int, int]:
        """Rows and columns of its cells: at any level it is the same ground."""
        regions, level = self.config.data.regions, self.config.level
        return int(regions.rows / level), int(regions.cols / level)

    @functools.cached_property
    def condition_spec(self) -> conditions.ConditionSpec:
        """What the prior is conditioned on.

        Raises ValueError for tables that do not fit the slides.
        """
        config, known = self.config, self.known
        done = self.folders.of_stage("grids") / "spec.json"
        if self.folders.is_done("grids") and done.exists():
            made = artifacts.Artifacts(config, self.folders)
            return artifacts.condition_spec(made.grid_facts["spec"])
        cases = named_slides.cases_by_number(config.data, known.names) or {0: "?"}
        labels = region_labels.RegionLabels.read(
            config.prior.conditions, config.data, cases, list(cases)
        )
        return labels.spec

    @property
    def grid_side(self) -> int:
        """Cells on the side of a prior's grid."""
        return 1 if self.known.are_pages else self.config.prior.grids.side

    @functools.cached_property
    def _trainings(self) -> dict[Any, models.Training]:
        return {}

    def task(self, name: str) -> tasks.Task:
        """What a stage trains, with shapes in place of what it reads."""
        if name != "prior":
            return training_tasks.training_task(name, self.config)
        side, dim = self.grid_side, self.networks.embedding_dim
        return self.config.prior.task(self.condition_spec, (side, side, dim))

    @functools.cached_property
    def grid_flops(self) -> float:
        """Of one grid of the prior."""
        return self._sampling_flops("prior")

    @functools.cached_property
    def cell_flops(self) -> float:
        """Of the tokens of one cell, or window; 0 where there is no second level."""
        if self.config.embeddings.tokens_per_side == 1:
            return 0
        return self._sampling_flops("tokens")

    def _sampling_flops(self, name: str) -> float:
        """Over all steps of the solver: the loss of one example costs hardly more than the
        network."""
        section, task = getattr(self.config, name), self.task(name)
        table = solvers.solver_table(section.solver, section.schedule)
        # Asked how often it calls a network, not to call it.
        guided = guidance.GuidedX0(lambda *args: args[0], section.process, section.guidance)
        batch = tasks.batch_of(task.batch_spec(), 1)
        key = jax.eval_shape(lambda: jax.random.key(0))
        params, extra = jax.eval_shape(task.init, key, batch)
        loss = step_lib.loss_with_rest(task)
        once = program_cost.of(loss, params, params, extra, batch, key)
        return int(np.sum(guided.calls_per_example(table.t))) * once.flops

    def training(self, name: str) -> models.Training:
        """Of a stage that trains; encoders of the same config cost the same."""
        section = getattr(self.config, name)
        key = name
        if name in ("encoder", "judge"):
            key = section.model, section.train
        if key not in self._trainings:
            rules = self.config.mesh.rules
            task = self.task(name)
            if name == "prior":
                state = programs.state_of(task, section.train)
            else:
                state = programs.state(name, self.config)
            self._trainings[key] = models.Training.of(
                task, section.train, state, self.devices, rules
            )
        return self._trainings[key]


def checkpoint_bytes(leaves: int, state_bytes: int) -> estimates.Estimate:
    """One checkpoint: the state, compressed, and what it says of each array."""
    names = leaves * LEAF_BYTES
    return estimates.Estimate(
        PACKED * state_bytes + names,
        f"the state, of which Zstandard leaves {PACKED:g} once no moment is zero any more",
        0.0,
        state_bytes + 2 * names,
    )
