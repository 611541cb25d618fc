"""Bags: the embeddings of one slide as an HDF5 file, in the form that TRIDENT and CLAM write and
that their multiple-instance learning reads."""

import dataclasses
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Float

from ssldiff_jax.data.precomputed import slide_grid
from ssldiff_jax.formats import atomic
from ssldiff_jax.slides import objective
from ssldiff_jax.slides import slide as slide_lib

FOLDER = "h5_files"
"""Below the folder of bags, as CLAM has it."""

_MADE_OF, _SLIDE = "made_of", "slide"  # attributes of a file, beside theirs of its arrays
_CHUNK_BYTES = 2**16


class BagError(ValueError):
    """A bag that cannot take its place."""


@dataclasses.dataclass(frozen=True)
class Bag:
    """A file that will hold the embeddings of a slide.

    Attributes:
        path: of it.
        slide: where the slide lies.
        made_of: changes where the slide, the encoder or the patches are others.
    """

    path: pathlib.Path
    slide: str
    made_of: str

    def count(self) -> int | None:
        """How many embeddings it holds; None where it is missing, or of something else.

        Raises BagError where it is of another slide, or none of ours.
        """
        import h5py

        if not self.path.exists():
            return None
        try:
            with h5py.File(self.path, "r") as file:
                attributes = dict(file.attrs)
                count = len(file["coords"]) if "coords" in file else 0
        except OSError as error:
            raise BagError(f"{self.path} must be free or a bag, got no HDF5: {error}") from error
        if attributes.get(_MADE_OF) == self.made_of:
            return count
        slide = attributes.get(_SLIDE)
        if slide != self.slide:
            raise BagError(
                f"{self.path} must be free or a bag of {self.slide}, got one of "
                f"{slide or 'another origin'}: name another config.features.folder"
            )
        return None

    def write(
        self,
        slide: slide_lib.Slide,
        grid: slide_grid.SlideGrid,
        embeddings: Iterable[Float[np.ndarray, "B D"]],
        *,
        dim: int,
        encoder: str,
    ) -> None:
        """Write it from batches of embeddings in the order of the grid; it appears whole or not at
        all. `encoder` is a name for people."""
        # Not at the top: a machine that only computes need not have it.
        import h5py

        facts = {"name": self.path.stem, "savetodir": FOLDER}

        def fill(path: pathlib.Path) -> None:
            with h5py.File(path, "w") as file:
                file.attrs.update({_MADE_OF: self.made_of, _SLIDE: self.slide})
                rows = max(1, min(len(grid), _CHUNK_BYTES // (4 * dim)))
                features = file.create_dataset(
                    "features", (len(grid), dim), np.float32,
                    maxshape=(None, dim), chunks=(rows, dim),
                )  # fmt: skip
                features.attrs.update(facts | {"encoder": encoder})
                coords = file.create_dataset(
                    "coords", data=grid.corners.astype(np.int64), maxshape=(None, 2)
                )
                coords.attrs.update(_of_coords(slide, grid) | facts)
                start = 0
                for batch in embeddings:
                    features[start : start + len(batch)] = batch
                    start += len(batch)
                if start != len(grid):
                    raise BagError(f"{self.path} must have {len(grid)} embeddings, got {start}")

        atomic.write_atomic(self.path, fill)


def _of_coords(slide: slide_lib.Slide, grid: slide_grid.SlideGrid) -> dict[str, Any]:
    """What TRIDENT notes of places; magnifications where an objective has such pixels."""
    height, width = slide.shape
    facts = {
        "patch_size": grid.px,
        "patch_size_level0": grid.native_px,
        "overlap": 0,
        "level0_width": width,
        "level0_height": height,
    }
    for key, mpp in (("level0_magnification", slide.mpp), ("target_magnification", grid.mpp)):
        power = objective.power(mpp)
        if power is not None:
            facts[key] = int(power) if power.is_integer() else power
    return facts
