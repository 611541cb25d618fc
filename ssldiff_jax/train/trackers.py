"""Trackers of experiments, each an optional package: Weights & Biases, and MLflow.

A stage that trains is one run there, of the group or experiment that the config names. By default
both write into the work directory and reach no network.
"""

import fcntl
import os
import pathlib
import secrets
import time
from collections.abc import Mapping

import numpy as np
from jaxtyping import UInt8

from ssldiff_jax.train import boards

_SQLITE = "sqlite:///"
_LONGEST = 500  # characters of a setting, as MLflow's servers of all versions take them


class Wandb:
    """A run of Weights & Biases, in `wandb/` of the work directory."""

    def __init__(self, config: boards.LoggingConfig, about: boards.About):
        if config.wandb_mode == "offline":
            # Reports of its own errors would go out.
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        self._image = wandb.Image
        self._run = wandb.init(
            project=config.project,
            id=about.identity("wandb", lambda: secrets.token_hex(4)),
            resume="allow",
            name=about.title,
            group=about.workdir.resolve().name,
            job_type=about.name,
            dir=str(about.workdir),
            config=dict(about.values),
            mode=config.wandb_mode,
            settings=wandb.Settings(console="off", silent=True, save_code=False),
        )
        # A training that resumes does some steps again: its own count of calls would differ.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """A point a figure."""
        self._run.log({"step": step, **scalars})

    def show(self, step: int, name: str, picture: UInt8[np.ndarray, "H W 3"]) -> None:
        """A picture, as a PNG beside the run."""
        self._run.log({"step": step, name: self._image(picture)})

    def close(self) -> None:
        """End the run; one that is resumed opens it again."""
        self._run.finish()


class Mlflow:
    """A run of MLflow: in `mlflow.db` of the work directory with files in `mlartifacts/` beside it,
    or where `config.logging.mlflow_uri` says."""

    def __init__(self, config: boards.LoggingConfig, about: boards.About):
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        import mlflow

        self._entities = mlflow.entities
        place = about.workdir.resolve()
        # Stages that run beside each other must not each make the tables.
        with (place / ".mlflow.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            uri = config.mlflow_uri or f"{_SQLITE}{place / 'mlflow.db'}"
            self._client = mlflow.MlflowClient(tracking_uri=uri)
            # Beside the database, or MLflow takes the folder of the command; a server has its own.
            database = pathlib.Path(uri.removeprefix(_SQLITE)).absolute()
            is_file = uri.startswith(_SQLITE)
            files = database.with_name("mlartifacts").as_uri() if is_file else None
            found = self._client.get_experiment_by_name(config.project)
            make = lambda: self._client.create_experiment(config.project, artifact_location=files)
            experiment = found.experiment_id if found else make()
        self._id = about.identity("mlflow", lambda: self._begin(experiment, about))
        self._client.update_run(self._id, status="RUNNING")

    def _begin(self, experiment: str, about: boards.About) -> str:
        tags = {"workdir": about.workdir.resolve().name, "stage": about.name}
        run = self._client.create_run(experiment, run_name=about.title, tags=tags)
        # Settings of a run stay what they were: those of a training that changed on the way are in
        # its folder.
        param = lambda key, value: self._entities.Param(key, str(value)[:_LONGEST])
        params = [param(key, value) for key, value in about.values.items()]
        for first in range(0, len(params), 100):
            self._client.log_batch(run.info.run_id, params=params[first : first + 100])
        return run.info.run_id

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """A point a figure."""
        now = int(time.time() * 1000)
        metric = lambda name, value: self._entities.Metric(name, float(value), now, step)
        metrics = [metric(name, value) for name, value in scalars.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def show(self, step: int, name: str, picture: UInt8[np.ndarray, "H W 3"]) -> None:
        """A picture, as a PNG among the run's files."""
        self._client.log_image(self._id, picture, artifact_file=f"{name}/{step:08d}.png")

    def close(self) -> None:
        """End the run; one that is resumed opens it again."""
        self._client.set_terminated(self._id, "FINISHED")
