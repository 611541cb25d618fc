"""A stage of a run, and what it is given."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import jax
from jax.sharding import Mesh

from ssldiff_jax.core import schema
from ssldiff_jax.runs import artifacts as artifacts_lib
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import folders as folders_lib
from ssldiff_jax.train import mesh as mesh_lib

WorkdirError = folders_lib.WorkdirError
MODELS = folders_lib.MODELS


@dataclasses.dataclass(frozen=True)
class Context:
    """What a stage is given: the config, the work directory and the devices.

    With `config.models` the models are those of another work directory, and data they never saw
    are this one's. `places` are the folders of stages that write elsewhere than under their name.
    """

    config: run_config.RunConfig
    workdir: pathlib.Path
    mesh: Mesh
    places: Mapping[str, pathlib.Path] = dataclasses.field(default_factory=dict)

    @property
    def folders(self) -> folders_lib.Folders:
        """Where stages write."""
        return folders_lib.Folders.of(self.config, self.workdir, self.places)

    @property
    def artifacts(self) -> artifacts_lib.Artifacts:
        """What stages made."""
        return artifacts_lib.Artifacts(self.config, self.folders)

    @property
    def here(self) -> "Context":
        """The same on the devices of this host alone: the run's mesh has those of hosts that do
        other work, or none."""
        if jax.process_count() == 1:
            return self
        mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig(-1, 1, 1, ()), jax.local_devices())
        return dataclasses.replace(self, mesh=mesh)

    def folder(self, stage: str) -> pathlib.Path:
        """Where `stage` writes, or wrote."""
        return self.folders.of_stage(stage)

    def at(self, stage: str, folder: pathlib.Path) -> "Context":
        """The same, where `stage` writes into `folder`."""
        return dataclasses.replace(self, places={**self.places, stage: folder})


@dataclasses.dataclass(frozen=True)
class Stage:
    """A row of the stage table.

    Attributes:
        run: does the work; returns facts for done.json, or None where it was a dry run and only
            said what it would do.
        sections: the config sections it reads (dotted).
        needs: the stages whose folders it reads.
        spares: of these, what it can do without where the models are another run's, or files of
            published weights.
        made_up_by_weights: of these, what such files stand for.
        follows: stages whose outputs it reads where there are any.
        leaves: of these, what a config has no use for, whatever lies there.
        watches: stages whose outputs it reads while they are made.
        after: stages that a command makes before it, if it makes both: it reads what they wrote
            where there is any, whatever made that.
        inputs: facts about files outside the workdir that its outputs depend on.
        tool: not a step of the run: it is not among "all".
        always: runs whenever it is named; what it made before stays until the new is whole.
        slug: a short name of the request. What each request made is kept in a folder of that
            name, or of `config.<stage>.name`; None where a stage has one folder.
        is_dry_run: whether the config asks what it would do, and for nothing to be written.
        ending: of its folder and its facts: lines that say, when the command ends, what it made.
        leads: of the tools, what runs before the steps where all of these are asked for.
        elsewhere: is about other devices than those of this process.
        on: the hosts of a run that do its work: all of them, or the first alone.
    """

    run: Callable[[Context], dict[str, Any] | None]
    sections: tuple[str, ...]
    needs: tuple[str, ...] = ()
    spares: tuple[str, ...] = ()
    made_up_by_weights: tuple[str, ...] = ()
    follows: tuple[str, ...] = ()
    leaves: Callable[[run_config.RunConfig], tuple[str, ...]] = lambda config: ()
    watches: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    inputs: Callable[[run_config.RunConfig], Any] = lambda config: None
    tool: bool = False
    always: bool = False
    slug: Callable[[run_config.RunConfig], str] | None = None
    is_dry_run: Callable[[run_config.RunConfig], bool] = lambda config: False
    ending: Callable[[pathlib.Path, Mapping[str, Any]], Sequence[str]] | None = None
    leads: bool = False
    elsewhere: bool = False
    on: Literal["all", "first"] = "first"

    def reads(self, folders: folders_lib.Folders) -> tuple[str, ...]:
        """The stages that it reads: `needs`, less what it spares and the work directory lacks."""
        spares = self.spares if folders.models is not None else ()
        if folders.reads_weights and self.made_up_by_weights:
            spares = (*self.spares, *self.made_up_by_weights)
        # A new work directory on other models may be without patches.
        return tuple(n for n in self.needs if n not in spares or folders.is_done(n))

    def followed(self, config: run_config.RunConfig) -> tuple[str, ...]:
        """The stages that it follows and a config has use for."""
        left = self.leaves(config)
        return tuple(name for name in self.follows if name not in left)


Table: TypeAlias = Mapping[str, Stage]
"""The stages of a run by name, in order."""


def parse_names(text: str, table: Table, what: str, without: tuple[str, ...] = ()) -> list[str]:
    """Stage names from a comma-separated list; "all" is every stage that is no tool, and not of
    `without`, after the tool that leads them.

    Raises ConfigError for a name that is no stage.
    """
    names = [n.strip() for n in text.split(",") if n.strip()]
    if names == ["all"]:
        return [
            name
            for name, stage in table.items()
            if (stage.leads or not stage.tool) and name not in without
        ]
    for name in names:
        if name not in table:
            hint = schema.nearest_path(name, dict.fromkeys(table))
            raise schema.ConfigError(f"config.{what}: {name!r} is no stage{hint}")
    return names


class FoundError(ValueError):
    """A stage did its work and what it found is an error: `facts` are kept as those of a stage that
    is done, and then it is raised."""

    def __init__(self, message: str, facts: Mapping[str, Any]):
        super().__init__(message)
        self.facts = dict(facts)
