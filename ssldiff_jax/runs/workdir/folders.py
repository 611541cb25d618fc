"""Where the stages of a run write: into its work directory, or, of models that another run made,
into that one's."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ssldiff_jax.core import schema
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import stored_config

if TYPE_CHECKING:
    from etils import epath

SAVED = "checkpoints"
"""Folder of a stage's checkpoints, where they lie in no bucket."""
SAVED_AS = "checkpoints.txt"
"""In a stage's folder, the name that its checkpoints have in a bucket."""

MODELS = ("encoder", "embeddings", "autoencoder", "latents", "denoiser", "distill", "grids",
          "prior", "tokens", "imagine", "judge")  # fmt: skip
"""Stages that make models or facts about them: `config.models` takes them from another run."""


class WorkdirError(ValueError):
    """A work directory that does not fit the config, or lacks what a stage reads."""


@dataclasses.dataclass(frozen=True)
class Folders:
    """The folders of a run's stages.

    Attributes:
        workdir: of the run.
        bucket: where checkpoints lie; "" for the folders of their stages.
        models: the work directory of the run that made the models; None where they are its own.
        places: folders of stages that write elsewhere than under their name.
        published: whether the config names a published denoiser that is used as it is.
    """

    workdir: pathlib.Path
    bucket: str = ""
    models: pathlib.Path | None = None
    places: Mapping[str, pathlib.Path] = dataclasses.field(default_factory=dict)
    published: bool = False

    @classmethod
    def of(
        cls,
        config: run_config.RunConfig,
        workdir: pathlib.Path,
        places: Mapping[str, pathlib.Path] | None = None,
    ) -> "Folders":
        """Those of a run of a config."""
        models = pathlib.Path(config.models).expanduser() if config.models else None
        published = config.denoiser.is_published
        return cls(workdir, config.runtime.checkpoints, models, places or {}, published)

    def of_stage(self, name: str) -> pathlib.Path:
        """Where a stage writes, or wrote."""
        if name in self.places:
            return self.places[name]
        return (self.models if self.borrows(name) else self.workdir) / name

    def at(self, name: str, folder: pathlib.Path) -> "Folders":
        """The same, where the stage `name` writes into `folder`."""
        return dataclasses.replace(self, places={**self.places, name: folder})

    def is_done(self, name: str) -> bool:
        """Whether a stage has ended."""
        return (self.of_stage(name) / "done.json").exists()

    @property
    def reads_weights(self) -> bool:
        """Whether models are read from the files that the config names: no step has taken them
        over."""
        return self.published and self.models is None and not self.is_done("denoiser")

    def borrows(self, name: str) -> bool:
        """Whether a stage's outputs are another run's."""
        return self.models is not None and name in MODELS

    def checkpoints(self, name: str) -> "epath.Path":
        """Where a stage's checkpoints lie: in its folder, or in a bucket under the name noted
        there."""
        # Not at the top: a machine that only computes need not have it.
        from etils import epath

        if self.borrows(name):
            return self.of_models.checkpoints(name)
        folder = self.of_stage(name)
        if not self.bucket:
            return epath.Path(folder) / SAVED
        noted = folder / SAVED_AS
        return epath.Path(self.bucket) / (noted.read_text() if noted.exists() else name)

    @property
    def of_models(self) -> "Folders":
        """Those of the run that made the models. Raises WorkdirError where there is none."""
        if self.models is None:
            return self
        return Folders.of(self.config_of_models(), self.models)

    def config_of_models(self) -> run_config.RunConfig:
        """The config of the run that made the models.

        Raises WorkdirError where there is none, where it is this run or takes its own models from
        another.
        """
        path = self.models / "config.json"
        # Resolved, because a link to itself is the same run.
        if not path.exists() or self.models.resolve() == self.workdir.resolve():
            raise WorkdirError(
                f"config.models must name another work directory that has a config.json, got "
                f"{self.models}"
            )
        # Checked whole: its models are built by these values.
        config = schema.build(run_config.RunConfig, stored_config.of_run(self.models))
        if config.models:
            raise WorkdirError(
                f"config.models must name the run that made the models, {config.models}, got "
                f"{self.models}, which itself takes them from there"
            )
        return config
