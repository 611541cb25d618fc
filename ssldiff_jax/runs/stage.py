"""A stage of a run, and what it is given."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from etils import epath
from jax.sharding import Mesh

from ssldiff_jax.core import schema
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import stored_config

SAVED = "checkpoints"
"""Folder of a stage's checkpoints, where they lie in no bucket."""
SAVED_AS = "checkpoints.txt"
"""In a stage's folder, the name that its checkpoints have in a bucket."""

MODELS = ("encoder", "embeddings", "autoencoder", "latents", "denoiser", "grids", "prior",
          "imagine", "judge")  # fmt: skip
"""Stages that make models or facts about them: `config.models` takes them from another run."""


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

    def folder(self, stage: str) -> pathlib.Path:
        """Where `stage` writes, or wrote."""
        if stage in self.places:
            return self.places[stage]
        return (self.models if self.borrows(stage) else self.workdir) / stage

    def at(self, stage: str, folder: pathlib.Path) -> "Context":
        """The same, where `stage` writes into `folder`."""
        return dataclasses.replace(self, places={**self.places, stage: folder})

    @property
    def models(self) -> pathlib.Path:
        """The work directory of the models."""
        other = self.config.models
        return pathlib.Path(other).expanduser() if other else self.workdir

    def borrows(self, stage: str) -> bool:
        """Whether a stage's outputs are another run's."""
        return bool(self.config.models) and stage in MODELS

    @property
    def of_models(self) -> "Context":
        """That of the run which made the models: its training data are theirs.

        Raises WorkdirError where there is none, where it is this one or borrows itself, and where
        its patches are of another scale.
        """
        if not self.config.models:
            return self
        path = self.models / "config.json"
        if not path.exists() or self.models.resolve() == self.workdir.resolve():
            raise WorkdirError(
                f"config.models must name another work directory that has a config.json, got "
                f"{self.models}"
            )
        config = schema.build(run_config.RunConfig, stored_config.of_run(self.models))
        if config.models:
            raise WorkdirError(
                f"config.models must name the run that made the models, {config.models}, got "
                f"{self.models}, which itself takes them from there"
            )
        models_mpp, own = config.data.patch_mpp, self.config.data.patch_mpp
        if own != models_mpp:
            raise WorkdirError(
                f"config.data.patch_mpp must be that of the models in {self.models}, "
                f"{models_mpp:g}, got {own:g}"
            )
        return Context(config, self.models, self.mesh)

    def checkpoints(self, stage: str) -> epath.Path:
        """Where its checkpoints lie: in its folder, or in a bucket under the name noted there."""
        if self.borrows(stage):
            return self.of_models.checkpoints(stage)
        bucket, folder = self.config.runtime.checkpoints, self.folder(stage)
        if not bucket:
            return epath.Path(folder) / SAVED
        noted = folder / SAVED_AS
        return epath.Path(bucket) / (noted.read_text() if noted.exists() else stage)


@dataclasses.dataclass(frozen=True)
class Stage:
    """A row of the stage table.

    Attributes:
        run: does the work; returns facts for done.json, or None where it was a dry run and only
            said what it would do.
        sections: the config sections it reads (dotted).
        needs: the stages whose folders it reads.
        spares: of these, what it can do without where the models are another run's.
        follows: stages whose outputs it reads where there are any.
        watches: stages whose outputs it reads while they are made.
        inputs: facts about files outside the workdir that its outputs depend on.
        tool: not a step of the run: it is not among "all".
        always: runs whenever it is named; what it made before stays until the new is whole.
        slug: a short name of the request. What each request made is kept in a folder of that
            name, or of `config.<stage>.name`; None where a stage has one folder.
        is_dry_run: whether the config asks what it would do, and for nothing to be written.
        ending: lines that say, when the command ends, what it made and where.
        elsewhere: is about other devices than those at hand.
        on: the hosts of a run that do its work: all of them together, or the first alone.
    """

    run: Callable[[Context], dict[str, Any] | None]
    sections: tuple[str, ...]
    needs: tuple[str, ...] = ()
    spares: tuple[str, ...] = ()
    follows: tuple[str, ...] = ()
    watches: tuple[str, ...] = ()
    inputs: Callable[[run_config.RunConfig], Any] = lambda config: None
    tool: bool = False
    always: bool = False
    slug: Callable[[run_config.RunConfig], str] | None = None
    is_dry_run: Callable[[run_config.RunConfig], bool] = lambda config: False
    ending: Callable[[Context, Mapping[str, Any]], Sequence[str]] | None = None
    elsewhere: bool = False
    on: Literal["all", "first"] = "first"

    def reads(self, context: Context) -> tuple[str, ...]:
        """The stages that it reads: `needs`, less what it spares and the work directory lacks."""
        if not context.config.models:
            return self.needs
        done = lambda name: (context.folder(name) / "done.json").exists()
        return tuple(name for name in self.needs if name not in self.spares or done(name))


Table: TypeAlias = Mapping[str, Stage]
"""The stages of a run by name, in order."""


class WorkdirError(ValueError):
    """A work directory that does not fit the config, or lacks what a stage reads."""


class FoundError(ValueError):
    """A stage did its work and what it found is an error: `facts` are kept as those of a stage that
    is done, and then it is raised."""

    def __init__(self, message: str, facts: Mapping[str, Any]):
        super().__init__(message)
        self.facts = dict(facts)
