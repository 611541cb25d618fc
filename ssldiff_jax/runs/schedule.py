"""Which stages of a command can start, by what they read."""

import dataclasses
from collections.abc import Collection, Mapping

from ssldiff_jax.runs import stage as stage_lib
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import folders as folders_lib


@dataclasses.dataclass(frozen=True)
class Schedule:
    """For each stage of a command, in the order of the table, those of the command that end before
    it starts: what it reads, and what that was made from."""

    before: Mapping[str, frozenset[str]]

    @classmethod
    def of(
        cls,
        table: stage_lib.Table,
        folders: folders_lib.Folders,
        chosen: Collection[str],
        config: run_config.RunConfig,
    ) -> "Schedule":
        """Of the chosen stages. A tool reads what any stage wrote, measures the machine or refuses
        what comes after it: it runs alone, at its place in the table."""
        ancestors: dict[str, frozenset[str]] = {}
        for name, stage in table.items():
            followed = stage.followed(config)
            direct = {*stage.reads(folders), *followed, *stage.watches, *stage.after}
            if stage.tool:
                direct |= ancestors.keys()
            direct |= {one for one in ancestors if table[one].tool and one in chosen}
            earlier = direct & ancestors.keys()
            # Also through stages that are not chosen: what these were made from may be made again.
            ancestors[name] = frozenset(earlier).union(*(ancestors[one] for one in earlier))
        waits = {name: before.intersection(chosen) for name, before in ancestors.items()}
        return cls({name: waits[name] for name in table if name in chosen})

    def ready(self, ended: Collection[str], running: Collection[str]) -> list[str]:
        """Those that can start, in the order of the table, which is one that can be run in."""
        begun, over = {*ended, *running}, set(ended)
        return [name for name in self.before if name not in begun and self.before[name] <= over]

    def branches(self, work: Collection[str]) -> bool:
        """Whether any two of `work` can run at the same time."""
        names = [name for name in self.before if name in work]
        return any(a not in self.before[b] for i, b in enumerate(names) for a in names[:i])
