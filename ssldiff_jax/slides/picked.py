"""Colours of a slide or picture as the bands that a config names, where it names nothing else."""

import pathlib
from typing import Any

import numpy as np

from ssldiff_jax.core import arrays
from ssldiff_jax.slides import multiband as multiband_lib
from ssldiff_jax.slides.protocol import Backend, SlideError

_COLOURS = ("red", "green", "blue")


def places(path: pathlib.Path, multiband: multiband_lib.MultibandConfig) -> list[int]:
    """Of the named bands among red, green and blue, from 0; none where no bands are named.

    Raises SlideError for names that are no colours.
    """
    names = [name.lower() for name in multiband.names]
    if not set(names) <= set(_COLOURS):
        raise SlideError(
            f"expected a raster or OME-Zarr with bands {', '.join(multiband.names)}, got a slide "
            f"or picture of red, green and blue, {path}"
        )
    return [_COLOURS.index(name) for name in names]


class PickedBackend:
    """Some colours of a backend of RGB, as records hold bands."""

    def __init__(
        self, backend: Backend, multiband: multiband_lib.MultibandConfig, colours: list[int]
    ):
        self._backend, self.multiband, self._colours = backend, multiband, colours

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def read(self, level: int, top: int, left: int, height: int, width: int) -> arrays.Pixels:
        """Return (height, width, bands) level pixels. Raises SlideError for a damaged file."""
        rgb = self._backend.read(level, top, left, height, width)
        return self.multiband.to_records(np.moveaxis(rgb[..., self._colours], -1, 0))

    def close(self) -> None:
        self._backend.close()
