"""A command with `config.force` that was interrupted: stages that it has already rebuilt are not
rebuilt once more."""

import dataclasses
import logging
import os
import pathlib
import secrets
from collections.abc import Collection

from ssldiff_jax.core import digests
from ssldiff_jax.formats import atomic
from ssldiff_jax.runs import stage as stage_lib
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import provenance
from ssldiff_jax.train import hosts

_LOG = logging.getLogger(__name__)

_RESTARTS = ("SLURM_RESTART_COUNT", "JOBSET_RESTART_ATTEMPT")
"""Where SLURM and GKE count how often they started a job again."""


@dataclasses.dataclass(frozen=True)
class Command:
    """One command from its first start to its end, known by a token that the stages it
    rebuilt note in their done.json; without `config.force` there is none."""

    path: pathlib.Path | None
    token: str = ""

    @classmethod
    def open(
        cls,
        table: stage_lib.Table,
        config: run_config.RunConfig,
        workdir: pathlib.Path,
        chosen: Collection[str],
        force: Collection[str],
    ) -> "Command":
        """The same command that was cut off, or a new one; a job that the cluster started again
        is the same even where it had ended."""
        if not force:
            return cls(None)
        # Known by what is forced and chosen: another request under way is another command.
        request = {
            name: provenance.values(table[name], config, table[name].inputs(config))
            for name in sorted(force)
        }
        digest = digests.of_values(request, sorted(chosen))
        path = workdir / ".force" / f"{digest}.json"
        # A cluster runs the same words again, whose first run may have ended.
        is_restart = any(os.environ.get(name, "0") != "0" for name in _RESTARTS)

        def work() -> None:
            if not path.exists() or (atomic.read_json(path)["ended"] and not is_restart):
                atomic.write_json(path, {"token": secrets.token_hex(8), "ended": False})

        hosts.on_first_host("noting which stages are rebuilt", work)
        return cls(path, atomic.read_json(path)["token"])

    def has_made(self, name: str, folder: pathlib.Path) -> bool:
        """Whether it rebuilt the stage of a folder before it was interrupted."""
        path = folder / "done.json"
        is_made = (
            bool(self.token)
            and path.exists()
            and (atomic.read_json(path).get("command") == self.token)
        )
        # Hosts that read a shared folder at different moments must not differ here.
        if is_made := hosts.broadcast_first(is_made):
            _LOG.info("stage %s was already rebuilt before this command was interrupted", name)
        return is_made

    def end(self) -> None:
        """All of it is done: the same flags are another command from here on."""
        if self.path is not None and hosts.is_first():
            atomic.write_json(self.path, {"token": self.token, "ended": True})
