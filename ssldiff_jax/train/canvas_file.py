"""A canvas on its way, saved by one process of several alone: of these Orbax takes no arrays that
lie on the devices of one."""

import dataclasses
import json
import pathlib
from typing import Any

import jax
import numpy as np

from ssldiff_jax.core import data_parallel
from ssldiff_jax.formats import atomic

_PLACE = "place"


@dataclasses.dataclass(frozen=True)
class CanvasFile:
    """The last save in `folder`, one file."""

    folder: pathlib.Path

    @property
    def latest(self) -> int | None:
        """The step of the save; None where there is none."""
        return max((int(path.stem) for path in self._paths()), default=None)

    def save(self, step: int, arrays: Any, place: dict[str, int]) -> None:
        """Save in place of what was saved before."""
        # Copied from the devices one after the other, as each is written.
        named = {_PLACE: json.dumps(place), **_by_name(arrays)}
        path = self.folder / f"{step}.npz"
        atomic.write_atomic(path, lambda at: np.savez(at, **named))
        for before in self._paths():
            if before != path:
                before.unlink()

    def restore(self, arrays: Any) -> tuple[Any, dict[str, int]]:
        """The saved arrays at the shardings of `arrays`, and their place."""
        with np.load(self.folder / f"{self.latest}.npz", allow_pickle=False) as saved:

            def stored(path: Any, like: jax.Array) -> jax.Array:
                # NumPy reads bfloat16 as bytes.
                array = saved[_name(path)].view(like.dtype)
                return data_parallel.put(array, like.sharding)

            place = json.loads(str(saved[_PLACE]))
            return jax.tree_util.tree_map_with_path(stored, arrays), place

    def _paths(self) -> list[pathlib.Path]:
        return list(self.folder.glob("[0-9]*.npz"))


def _by_name(tree: Any) -> dict[str, Any]:
    return {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _name(path: Any) -> str:
    return f"arrays{jax.tree_util.keystr(path)}"
