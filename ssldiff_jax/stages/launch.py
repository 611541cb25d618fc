"""From a config tree to a run: check it whole, write it down, run the stages."""

import logging
import pathlib
from typing import Any

from jax.sharding import Mesh

from ssldiff_jax.core import config as config_lib
from ssldiff_jax.core import files
from ssldiff_jax.stages import config as run_config
from ssldiff_jax.stages import runner, table
from ssldiff_jax.train import hosts, loop
from ssldiff_jax.train import mesh as mesh_lib

_LOG = logging.getLogger(__name__)

StoppedError = hosts.StoppedError
USER_ERRORS = (ValueError, OSError, loop.NonFiniteError)
"""What a user can cause, and every error of ours is: printed as one line."""


def _mesh(config: run_config.RunConfig, chosen: list[str]) -> Mesh:
    if all(table.STAGES[name].elsewhere for name in chosen):
        # The config's mesh is one of devices that are not here.
        return mesh_lib.make_mesh(mesh_lib.MeshConfig(-1, 1, 1, ()))
    return mesh_lib.make_mesh(config.mesh)


def launch(values: dict[str, Any], workdir: pathlib.Path) -> None:
    """Run the stages that `values` ask for in `workdir`."""
    config = config_lib.build(run_config.RunConfig, values)
    chosen = runner.parse_names(config.stages, table.STAGES, "stages")
    force = set(runner.parse_names(config.force, table.STAGES, "force"))
    hosts.require_same("config and code", {"config": values, "versions": runner.versions()})
    context = runner.Context(config, workdir, _mesh(config, chosen))
    runner.check(table.STAGES, context, chosen, force)
    _LOG.info("devices: %s", context.mesh.devices.ravel().tolist())
    if hosts.is_first():
        files.write_json(workdir / "config.json", values)
        files.write_json(
            workdir / "environment.json",
            {"versions": runner.versions(), "machine": runner.describe_machine()},
        )
    runner.run_stages(table.STAGES, context, chosen, force)
