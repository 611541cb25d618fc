"""Orbax checkpoints of a training's state and of a canvas on its way."""

import contextlib
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from ssldiff_jax.core import exhausted
from ssldiff_jax.train import canvas_file, hosts, named, save_noise
from ssldiff_jax.train import step as step_lib

_SLOW_S = 7 * 24 * 3600
"""Seconds that a save may take: storage may be slow, and jax watches whether hosts are alive. Orbax
would fail a save after 20 minutes."""
_CHUNK_BYTES = 4 << 20  # of a canvas: what is compressed at once


class Checkpoints:
    """Saves asynchronously, keeps the last two; a save cut off by a kill or a full disk is never
    restored, and makes room when the next process begins.

    Each method raises DiskFullError for a save that did not fit.
    """

    def __init__(self, folder: epath.Path):
        _require_writable(folder)
        save_noise.silence()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=2, enable_async_checkpointing=True, cleanup_tmp_directories=True,
            async_options=ocp.AsyncOptions(timeout_secs=_SLOW_S),
        )  # fmt: skip
        self._folder, self._bytes = folder, 0
        self._manager = ocp.CheckpointManager(_absolute(folder), options=options)

    @property
    def latest(self) -> int | None:
        """The last step that was saved whole."""
        return self._manager.latest_step()

    def save(self, step: int, state: step_lib.TrainState) -> None:
        """Save in the background; the caller may then change `state`."""
        if step == self.latest:
            return
        self._bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        with self._counted():
            args = ocp.args.StandardSave(named.state(state))
            self._manager.save(step, args=ocp.args.Composite(state=args))

    def check(self) -> None:
        """Whether the save in the background goes well."""
        with self._counted():
            self._manager.check_for_errors()

    def restore(self, state: step_lib.TrainState) -> step_lib.TrainState:
        """The state of the latest step at the shardings of `state`, whatever mesh it was saved
        from; `state` itself where none was saved.

        Raises ValueError for the state of another model or optimiser.
        """
        if self.latest is None:
            return state
        target = named.target(state)
        self._refuse_other(target)
        args = ocp.args.Composite(state=ocp.args.StandardRestore(target))
        restored = self._manager.restore(self.latest, args=args)["state"]
        return named.stored_like(state, restored)

    def _refuse_other(self, target: step_lib.TrainState) -> None:
        folder = self._manager.directory / str(self.latest) / "state"
        with ocp.StandardCheckpointer() as checkpointer:
            saved = checkpointer.metadata(folder).item_metadata.tree
        there, here = _shapes(saved), _shapes(target)
        differ = sorted(
            name for name in there.keys() | here.keys() if there.get(name) != here.get(name)
        )
        if differ:
            name = differ[0]
            raise ValueError(
                f"{self._manager.directory} must hold the state of this model and optimiser, got "
                f"{name} of shape {there.get(name, 'none')} for {here.get(name, 'none')}, and "
                f"{len(differ) - 1} other differences"
            )

    def close(self) -> None:
        """Wait for the last save."""
        with self._counted():
            self._manager.wait_until_finished()
        self._manager.close()

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        """Tell how large the checkpoint is that did not fit."""
        try:
            yield
        except Exception as error:
            shortage = exhausted.shortage(error)
            if shortage is None or shortage.of != "disk":
                raise
            what = f"a checkpoint in {self._folder}"
            raise exhausted.DiskFullError(what, self._bytes) from error


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    name = lambda path: jax.tree_util.keystr(path, simple=True, separator="/")
    return {name(path): tuple(leaf.shape) for path, leaf in leaves}


class CanvasCheckpoints:
    """Arrays of a canvas on its way, the last save only; `step` counts what was done for it.

    They are copied one after the other while they are saved: `most_bytes` is what this process
    holds of the largest.
    """

    def __init__(self, folder: pathlib.Path, most_bytes: int):
        at_once = most_bytes / 1e9 + 0.1
        who = ocp.options.MultiprocessingOptions() if hosts.together() else _this_process()
        state = ocp.StandardCheckpointHandler(
            save_concurrent_gb=at_once,
            restore_concurrent_gb=at_once,
            multiprocessing_options=who,
        )
        position = ocp.JsonCheckpointHandler(multiprocessing_options=who)
        save_noise.silence()
        folder.mkdir(parents=True, exist_ok=True)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=1, create=False, multiprocessing_options=who,
            async_options=ocp.AsyncOptions(timeout_secs=_SLOW_S),
        )  # fmt: skip
        handlers = {"state": state, "place": position}
        self._manager = ocp.CheckpointManager(
            folder.absolute(), options=options, item_handlers=handlers
        )
        # What Orbax would write alone is refused, or on hosts that are not first not written.
        self._file = canvas_file.CanvasFile(folder / "alone")
        self._is_one_of_several = jax.process_count() > 1 and not hosts.together()

    @property
    def latest(self) -> int | None:
        """The last step that was saved whole, by however many processes."""
        steps = self._manager.latest_step(), self._file.latest
        return max((step for step in steps if step is not None), default=None)

    def save(self, step: int, arrays: Any, place: dict[str, int]) -> None:
        """Save before returning: the arrays are given away with the next step."""
        if self._is_one_of_several:
            self._file.save(step, arrays, place)
            return
        in_chunks = jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=_CHUNK_BYTES), arrays)
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(arrays, in_chunks), place=ocp.args.JsonSave(place)
        )
        self._manager.save(step, args=args)
        self._manager.wait_until_finished()

    def restore(self, arrays: Any) -> tuple[Any, dict[str, int]]:
        """The latest arrays at the shardings of `arrays`, and their place."""
        if self.latest == self._file.latest:
            return self._file.restore(arrays)
        args = ocp.args.Composite(
            state=ocp.args.StandardRestore(jax.tree.map(ocp.utils.to_shape_dtype_struct, arrays)),
            place=ocp.args.JsonRestore(),
        )
        restored = self._manager.restore(self.latest, args=args)
        return restored["state"], restored["place"]

    def close(self) -> None:
        """Let go of the folder."""
        self._manager.close()


def _this_process() -> ocp.options.MultiprocessingOptions:
    """One process reads or writes while others do not."""
    this = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=this, active_processes={this}, barrier_sync_key_prefix=f"alone_{this}"
    )


def _absolute(folder: epath.PathLike) -> epath.Path:
    """Buckets are."""
    folder = epath.Path(folder)
    return folder if "://" in str(folder) else epath.Path(pathlib.Path(folder).absolute())


def _require_writable(folder: epath.Path) -> None:
    """Refuse, before the first step, a folder or bucket that takes no files.

    Raises OSError that names it.
    """
    probe = folder / f".writable-{jax.process_index()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_text("")
        probe.unlink()
    except Exception as error:  # every kind of bucket has errors of its own
        detail = " ".join(str(error).split()) or type(error).__name__
        raise OSError(f"expected to write checkpoints to {folder}, got: {detail}") from error


def save_params(folder: epath.PathLike, params: Any) -> None:
    """Write parameters that were not trained here as the checkpoint of step 0."""
    path = _absolute(folder)
    with ocp.CheckpointManager(path) as manager:
        args = ocp.args.Composite(state=ocp.args.StandardSave({"ema_params": params}))
        manager.save(0, args=args)
        manager.wait_until_finished()


def steps(folder: epath.PathLike) -> list[int]:
    """Steps of the checkpoints in `folder` that were saved whole, ascending."""
    path = _absolute(folder)
    return sorted(ocp.utils.checkpoint_steps(path)) if path.exists() else []


def load_params(folder: epath.PathLike, *, ema: bool = True, step: int | None = None) -> Any:
    """The parameters of a checkpoint in `folder`, by default the latest, on this process's first
    device, wherever they were trained.

    Raises FileNotFoundError when there is none.
    """
    path, there = _absolute(folder), steps(folder)
    if not there or (step is not None and step not in there):
        what = "checkpoint" if step is None else f"checkpoint of step {step}"
        raise FileNotFoundError(f"no {what} in {folder}")
    step = there[-1] if step is None else step
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    placed = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here)
    saved, who = path / str(step), _this_process()
    # A checkpoint as a whole: one of its items alone has no metadata of its own to be found.
    handler = ocp.CompositeCheckpointHandler(
        state=ocp.StandardCheckpointHandler(multiprocessing_options=who)
    )
    with ocp.Checkpointer(handler, multiprocessing_options=who) as checkpointer:
        stored = checkpointer.metadata(saved).item_metadata["state"]
        if stored is None:
            raise FileNotFoundError(f"no whole checkpoint in {saved}")
        target = ocp.args.StandardRestore(jax.tree.map(placed, stored.tree))
        state = checkpointer.restore(saved, ocp.args.Composite(state=target))["state"]
    return state["ema_params" if ema else "params"]
