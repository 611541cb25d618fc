"""Orbax checkpoints: the state, the position in the data, and what made them."""

import pathlib
from typing import Any

import grain
import jax
import orbax.checkpoint as ocp
from grain import checkpoint as grain_checkpoint

from ssldiff_jax.train import step as step_lib

_CHUNK_BYTES = 4 << 20  # of a canvas: what is compressed at once


class Checkpoints:
    """Saves asynchronously, keeps the last `keep`; a save cut off by a kill is never restored."""

    def __init__(self, folder: pathlib.Path, *, keep: int = 2):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True)
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    @property
    def latest(self) -> int | None:
        """The last step that was saved whole."""
        return self._manager.latest_step()

    def save(self, step: int, state: step_lib.TrainState, data: grain.DatasetIterator) -> None:
        """Save in the background; the caller may go on to change `state`."""
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            data=grain_checkpoint.CheckpointSave(data),
        )
        self._manager.save(step, args=args)

    def restore(self, state: step_lib.TrainState, data: grain.DatasetIterator):
        """The state of the latest step at the shardings of `state`; moves `data` there too."""
        args = ocp.args.Composite(
            state=ocp.args.StandardRestore(jax.tree.map(ocp.utils.to_shape_dtype_struct, state)),
            data=grain_checkpoint.CheckpointRestore(data),
        )
        return self._manager.restore(self.latest, args=args)["state"]

    def close(self) -> None:
        """Wait for the last save."""
        self._manager.wait_until_finished()
        self._manager.close()


class CanvasCheckpoints:
    """Arrays of a canvas on its way, the last save only; `step` counts what was done for it.

    They are copied one after the other while they are saved: `most_bytes` is what this process
    holds of the largest.
    """

    def __init__(self, folder: pathlib.Path, most_bytes: int):
        at_once = most_bytes / 1e9 + 0.1
        state = ocp.StandardCheckpointHandler(
            save_concurrent_gb=at_once, restore_concurrent_gb=at_once
        )
        self._manager = ocp.CheckpointManager(
            folder.absolute(),
            options=ocp.CheckpointManagerOptions(max_to_keep=1),
            item_handlers={"state": state, "place": ocp.JsonCheckpointHandler()},
        )

    @property
    def latest(self) -> int | None:
        """The last step that was saved whole."""
        return self._manager.latest_step()

    def save(self, step: int, arrays: Any, place: dict[str, int]) -> None:
        """Save before the caller goes on: the arrays are given away with the next step."""
        in_chunks = jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=_CHUNK_BYTES), arrays)
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(arrays, in_chunks), place=ocp.args.JsonSave(place)
        )
        self._manager.save(step, args=args)
        self._manager.wait_until_finished()

    def restore(self, arrays: Any) -> tuple[Any, dict[str, int]]:
        """The latest arrays at the shardings of `arrays`, and their place."""
        args = ocp.args.Composite(
            state=ocp.args.StandardRestore(jax.tree.map(ocp.utils.to_shape_dtype_struct, arrays)),
            place=ocp.args.JsonRestore(),
        )
        found = self._manager.restore(self.latest, args=args)
        return found["state"], found["place"]

    def close(self) -> None:
        """Let go of the folder."""
        self._manager.close()


def save_params(folder: pathlib.Path, params: Any) -> None:
    """Write parameters that were not trained here as the checkpoint of step 0."""
    path = pathlib.Path(folder).absolute()
    with ocp.CheckpointManager(path) as manager:
        args = ocp.args.Composite(state=ocp.args.StandardSave({"ema_params": params}))
        manager.save(0, args=args)
        manager.wait_until_finished()


def load_params(folder: pathlib.Path, *, ema: bool = True) -> Any:
    """The parameters of the latest checkpoint in `folder`, on this process's first device,
    wherever they were trained.

    Raises FileNotFoundError when there is none.
    """
    path = pathlib.Path(folder).absolute()
    with ocp.CheckpointManager(path) as manager:
        step = manager.latest_step()
    if step is None:
        raise FileNotFoundError(f"no checkpoint in {folder}")
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    place = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here)
    with ocp.StandardCheckpointer() as checkpointer:
        saved = path / str(step) / "state"
        target = jax.tree.map(place, checkpointer.metadata(saved).item_metadata.tree)
        state = checkpointer.restore(saved, target)
    return state["ema_params" if ema else "params"]
