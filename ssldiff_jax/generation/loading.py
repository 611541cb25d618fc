"""From a work directory, an export or a published checkpoint to what a generator is made of."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from jax.sharding import Mesh

from ssldiff_jax.core import addresses, machine, schema
from ssldiff_jax.formats import atomic, hub, hub_files
from ssldiff_jax.generation import exported, models
from ssldiff_jax.runs import artifacts as artifacts_lib
from ssldiff_jax.runs.command import command_line
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import folders, stored_config
from ssldiff_jax.train import mesh as mesh_lib
from ssldiff_jax.weights import diffusers_folder


class Loaded(NamedTuple):
    """The config of a generator, its trained models, the devices, and what it was loaded from: a
    path, or an address on the Hub with its commit."""

    config: run_config.RunConfig
    trained: models.Models
    mesh: Mesh
    source: str


def load(source: str | pathlib.Path, config: Mapping[str, Any] | str | None = None) -> Loaded:
    """The models of a run, of an export, or, with a config or its name, of a published checkpoint;
    the last two by a path or by an address on the Hub.

    Raises ConfigError for the address of a bucket, CommandError for the name of no config,
    WorkdirError where there is no run, WeightsError for weights that do not fit or cannot be had.
    """
    if not hub.is_address(source):
        addresses.require_folders({"source": source})
    # Before jax is first asked for devices, below.
    machine.look_for_no_tpu()
    pinned = hub.pinned(source)
    if isinstance(config, str):
        config = command_line.of_config(config)
    if config is not None:
        return Loaded(*_published(pinned, config), pinned)
    path = hub.local(source)
    if path.is_dir():
        hub_files.warn_of_code(path, os.listdir(path))
    file = exported.find(path)
    if file is None and not _is_run(path):
        raise folders.WorkdirError(
            f"no run or export in {pinned}: expected a config.json of a run, or the "
            f"{exported.DENOISER} of an export; published weights need a config"
        )
    return Loaded(*(_run(path) if file is None else _export(file)), pinned)


def _is_run(path: pathlib.Path) -> bool:
    """Whether a folder has the config.json of a run: other programs write files of this name."""
    file = path / stored_config.NAME
    if not file.exists():
        return False
    values = atomic.read_json(file)
    return isinstance(values, Mapping) and "stages" in values


_Models = tuple[run_config.RunConfig, models.Models, Mesh]


def _published(path: str, config: Mapping[str, Any]) -> _Models:
    values = config.to_dict() if hasattr(config, "to_dict") else config
    run = schema.build(run_config.RunConfig, _with_weights(values, path))
    machine.keep_compiled(run.runtime.compilation_cache)
    return run, models.Models.of_weights(path, run), mesh_lib.make_mesh(run.mesh)


def _with_weights(values: Mapping[str, Any], path: str) -> dict[str, Any]:
    """A config that names `path` as the denoiser's weights, and, of a pipeline with an autoencoder,
    as that one's where it names none."""
    denoiser, stage = dict(values["denoiser"]), dict(values["autoencoder"])
    denoiser["weights"] = path
    if not stage["weights"] and diffusers_folder.is_pipeline(hub.local(path)):
        stage["weights"] = path
    return dict(values) | {"denoiser": denoiser, "autoencoder": stage}


def _run(path: pathlib.Path) -> _Models:
    run = schema.build(run_config.RunConfig, stored_config.of_run(path))
    machine.keep_compiled(run.runtime.compilation_cache)
    artifacts = artifacts_lib.Artifacts(run, folders.Folders.of(run, path))
    return run, models.Models.of_run(artifacts), mesh_lib.make_mesh(run.mesh)


def _export(file: pathlib.Path) -> _Models:
    run, trained = exported.load(file)
    machine.keep_compiled(run.runtime.compilation_cache)
    # All devices of this machine: the config's mesh is of those it was trained on.
    return run, trained, mesh_lib.make_mesh(mesh_lib.MeshConfig(-1, 1, 1, ()))
