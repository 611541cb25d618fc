"""Where a training shows itself beside `metrics.jsonl`: TensorBoard files always, and trackers of
experiments where the config names them (`config.logging`)."""

import dataclasses
import importlib.util
import logging
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, Protocol

import numpy as np
from jaxtyping import UInt8

from ssldiff_jax.formats import atomic

_LOG = logging.getLogger(__name__)

PACKAGES = {"wandb": "pip install wandb", "mlflow": "pip install mlflow"}
"""Trackers, and how each is installed."""

_IDS = "logging.json"
_MOST_QUEUED = 1000


@dataclasses.dataclass(frozen=True)
class LoggingConfig:
    """What of a run is shown, and where. No result depends on it."""

    looks: int
    to: str
    project: str
    wandb_mode: Literal["offline", "online"]
    mlflow_uri: str

    def __post_init__(self):
        if self.looks < 0:
            raise ValueError(f"logging.looks must be 0 or more, got {self.looks}")
        for name in self.trackers:
            if name not in PACKAGES:
                known = ", ".join(PACKAGES)
                raise ValueError(f"logging.to must name some of {known}, got {name!r}")

    @property
    def trackers(self) -> tuple[str, ...]:
        """The trackers that are named."""
        return tuple(name for name in map(str.strip, self.to.split(",")) if name)

    def missing(self) -> Iterator[str]:
        """A line for each tracker that is not installed."""
        for name in self.trackers:
            if importlib.util.find_spec(name) is None:
                yield (
                    f"config.logging.to={name} expects the package {name}, got none: "
                    f"{PACKAGES[name]}"
                )


@dataclasses.dataclass(frozen=True)
class About:
    """What is shown: the stage `name` of the run in `workdir`, in `folder`, with these settings
    (dotted key → value)."""

    name: str
    workdir: pathlib.Path
    folder: pathlib.Path
    values: Mapping[str, Any]

    @property
    def title(self) -> str:
        """The run and the stage."""
        return f"{self.workdir.resolve().name}/{self.name}"

    def identity(self, tracker: str, begin: Callable[[], str]) -> str:
        """What a tracker knows this stage by: noted in its folder, so that a training that is
        resumed goes on in the same place."""
        path = self.folder / _IDS
        noted = atomic.read_json(path) if path.exists() else {}
        if tracker not in noted:
            noted[tracker] = begin()
            atomic.write_json(path, noted)
        return noted[tracker]


class Board(Protocol):
    """Shows figures and pictures of steps."""

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Figures of a step."""

    def show(self, step: int, name: str, picture: UInt8[np.ndarray, "H W 3"]) -> None:
        """A picture of a step."""

    def close(self) -> None:
        """Write what is left."""


class TensorBoard:
    """Event files in a folder."""

    def __init__(self, folder: pathlib.Path):
        # Not at the top: a machine that only computes need not have it.
        import tensorboardX

        # A thread writes them, and what fills its queue once a full disk has ended it, waits.
        self._writer = tensorboardX.SummaryWriter(str(folder), max_queue=_MOST_QUEUED)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """A point a figure."""
        self._writer.flush()
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)

    def show(self, step: int, name: str, picture: UInt8[np.ndarray, "H W 3"]) -> None:
        """A picture, lossless."""
        self._writer.add_image(name, picture, step, dataformats="HWC")

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


class Guarded:
    """A board that others run. What goes wrong with it is told once, and it is left alone: no
    training ends for it."""

    def __init__(self, name: str, make: Callable[[], Board]):
        self._name, self._board = name, None
        self._board = self._try(make)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Figures of a step."""
        if self._board is not None:
            self._try(lambda: self._board.write(step, scalars))

    def show(self, step: int, name: str, picture: UInt8[np.ndarray, "H W 3"]) -> None:
        """A picture of a step."""
        if self._board is not None:
            self._try(lambda: self._board.show(step, name, picture))

    def close(self) -> None:
        """Write what is left."""
        if self._board is not None:
            self._try(self._board.close)

    def _try(self, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except Exception as error:
            self._board = None
            _LOG.warning("%s gets nothing more of this training, which goes on: %s: %s",
                         self._name, type(error).__name__,
                         " ".join(str(error).split())[:300])  # fmt: skip
            return None


def opened(config: LoggingConfig, about: About) -> list[Guarded]:
    """The trackers that a config names, each with a run of its own for the stage."""

    def make(tracker: str) -> Board:
        # Their packages are large, and optional.
        from ssldiff_jax.train import trackers

        boards = {"wandb": trackers.Wandb, "mlflow": trackers.Mlflow}
        return boards[tracker](config, about)

    return [Guarded(name, lambda name=name: make(name)) for name in config.trackers]
