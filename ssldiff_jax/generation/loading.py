"""From a work directory, an export or a published checkpoint to what a generator is made of."""

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from jax.sharding import Mesh

from ssldiff_jax.core import addresses, machine, schema
from ssldiff_jax.generation import exported, models
from ssldiff_jax.runs import artifacts as artifacts_lib
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import folders, stored_config
from ssldiff_jax.train import mesh as mesh_lib
from ssldiff_jax.weights import diffusers_folder


class Loaded(NamedTuple):
    """The config of a generator, its trained models, and the devices."""

    config: run_config.RunConfig
    trained: models.Models
    mesh: Mesh


def load(source: str | pathlib.Path, config: Mapping[str, Any] | None = None) -> Loaded:
    """The models of a run, of an export, or, with a config, of a published checkpoint.

    Raises ConfigError for the address of a bucket, WorkdirError where there is no run, WeightsError
    for weights that do not fit.
    """
    addresses.require_folders({"source": source})
    path = pathlib.Path(source).expanduser()
    # Before jax is first asked for devices, below.
    machine.look_for_no_tpu()
    if config is not None:
        return _published(path, config)
    return _run(path) if (path / "config.json").exists() else _export(path)


def _published(path: pathlib.Path, config: Mapping[str, Any]) -> Loaded:
    values = config.to_dict() if hasattr(config, "to_dict") else config
    run = schema.build(run_config.RunConfig, _with_weights(values, path))
    machine.keep_compiled(run.runtime.compilation_cache)
    return Loaded(run, models.Models.of_weights(path, run), mesh_lib.make_mesh(run.mesh))


def _with_weights(values: Mapping[str, Any], path: pathlib.Path) -> dict[str, Any]:
    """A config that names `path` as the denoiser's weights, and, of a pipeline with an autoencoder,
    as that one's where it names none."""
    denoiser, stage = dict(values["denoiser"]), dict(values["autoencoder"])
    denoiser["weights"] = str(path)
    if diffusers_folder.is_pipeline(path):
        stage["weights"] = stage["weights"] or str(path)
    return dict(values) | {"denoiser": denoiser, "autoencoder": stage}


def _run(path: pathlib.Path) -> Loaded:
    run = schema.build(run_config.RunConfig, stored_config.of_run(path))
    machine.keep_compiled(run.runtime.compilation_cache)
    artifacts = artifacts_lib.Artifacts(run, folders.Folders.of(run, path))
    return Loaded(run, models.Models.of_run(artifacts), mesh_lib.make_mesh(run.mesh))


def _export(path: pathlib.Path) -> Loaded:
    file = exported.find(path)
    if file is None:
        raise folders.WorkdirError(
            f"no run in {path}: expected a config.json; published weights need a config"
        )
    run, trained = exported.load(file)
    machine.keep_compiled(run.runtime.compilation_cache)
    # All devices of this machine: the config's mesh is of those it was trained on.
    return Loaded(run, trained, mesh_lib.make_mesh(mesh_lib.MeshConfig(-1, 1, 1, ())))
