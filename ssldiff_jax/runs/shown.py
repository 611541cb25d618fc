"""Large images of a stage, shown where trainings are: TensorBoard, and trackers of experiments."""

import pathlib
from collections.abc import Mapping

import numpy as np
from jaxtyping import UInt8

from ssldiff_jax.runs import training_tasks
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import folders as folders_lib
from ssldiff_jax.train import boards

_SIDE_PX = 1024
_MOST_PIXELS = 2**26
"""Larger images take minutes to read, and have viewers of their own."""


def show(
    config: run_config.RunConfig,
    folders: folders_lib.Folders,
    stage: str,
    pictures: Mapping[str, pathlib.Path],
) -> None:
    """Show image files of a stage, no larger than 1024 px, where the config looks at anything."""
    small = {name: _small(path) for name, path in pictures.items() if config.logging.looks}
    small = {name: picture for name, picture in small.items() if picture is not None}
    if not small:
        return
    about = training_tasks.about(config, folders, stage)
    events = boards.Guarded("TensorBoard", lambda: boards.TensorBoard(about.folder / "tensorboard"))
    for board in (events, *boards.opened(config.logging, about)):
        for name, picture in small.items():
            board.show(0, name, picture)
        board.close()


def _small(path: pathlib.Path) -> UInt8[np.ndarray, "H W 3"] | None:
    # Not at the top: a machine that only computes need not have it.
    import PIL.Image

    if not path.exists():
        return None
    with PIL.Image.open(path) as image:
        if image.width * image.height > _MOST_PIXELS:
            return None
        image = image.convert("RGB")
        image.thumbnail((_SIDE_PX, _SIDE_PX))
        return np.asarray(image)
