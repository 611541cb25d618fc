"""Patches cut from records at any pixel and orientation, each a function of its index."""

import dataclasses
from collections.abc import Callable
from typing import Literal

import numpy as np
from jaxtyping import Float, Shaped, UInt

from ssldiff_jax.core import arrays
from ssldiff_jax.data import shuffle


@dataclasses.dataclass(frozen=True)
class CropConfig:
    """`num_crops` patches are embedded and encoded (0: one for each record); `context_px` more
    pixels on each side are seen by the autoencoder and cut off its latents, so that latents know
    no patch border; `dihedral` samples one of eight orientations.

    A patch is conditioned on its own embedding, or on those of the 2×2 cells that it touches of a
    lattice laid anywhere over its record.
    """

    patch_px: int
    num_crops: int
    context_px: int
    dihedral: bool
    condition_on: Literal["patch", "cells"]

    @property
    def context_patch_px(self) -> int:
        """Side of a patch with its context."""
        return self.patch_px + 2 * self.context_px

    def of_level(self, number: int, num_levels: int) -> "CropConfig":
        """What falls to one of several levels, from 0: as many crops as to the others, the first
        ones take what is left over."""
        share, left = divmod(self.num_crops, num_levels)
        return dataclasses.replace(self, num_crops=share + (number < left))


@dataclasses.dataclass(frozen=True)
class Crop:
    """A square of a record, and the orientation it is turned to."""

    record: int
    top: int
    left: int
    orientation: int
    lattice: tuple[int, int] = (0, 0)
    """Top left px of the 2×2 cells in the record, before they are turned."""

    def cut(
        self,
        record: arrays.Pixels,
        side: int,
        out: UInt[np.ndarray, "s s *C"] | None = None,
        see: Callable[[arrays.Pixels], arrays.Pixels] | None = None,
    ) -> UInt[np.ndarray, "s s *C"]:
        """The pixels, seen through `see` where that is given, in `out` where there is one."""
        square = record[self.top : self.top + side, self.left : self.left + side]
        return orient(see(square) if see else square, self.orientation, out)

    def cells(
        self, record: arrays.Pixels, config: CropConfig
    ) -> tuple[UInt[np.ndarray, "4 s s bands"], Float[np.ndarray, "2"]]:
        """The 2×2 cells in reading order, turned as the patch is, and the top left corner of the
        first from that of the patch, in sides of a patch."""
        side, (top, left) = config.patch_px, self.lattice
        block = orient(record[top : top + 2 * side, left : left + 2 * side], self.orientation)
        patches = block.reshape(2, side, 2, side, -1).swapaxes(1, 2).reshape(4, side, side, -1)
        # The patch's centre from that of the cells, about which both are turned. From corner to
        # corner it is −middle − side / 2.
        middle = np.array([self.top - top, self.left - left]) + config.context_px - side / 2
        row, col = turn(*middle, self.orientation)
        return patches, np.array([-row, -col]) / side - 0.5


def orient(
    image: Shaped[np.ndarray, "s s *C"],
    orientation: int,
    out: Shaped[np.ndarray, "s s *C"] | None = None,
) -> Shaped[np.ndarray, "s s *C"]:
    """One of the eight orientations of a square: quarter turns, from 4 on mirrored after; written
    into `out` where there is one."""
    out = np.empty(image.shape, image.dtype) if out is None else out
    source, target = image, out
    if image.ndim == 3 and image.strides[2] == image.itemsize:
        # Pixels are moved whole: channel by channel takes four times as long.
        whole = np.dtype((np.void, image.itemsize * image.shape[2]))
        source, target = (pixels.view(whole)[..., 0] for pixels in (image, out))
    quarter = orientation % 4
    turned = source.swapaxes(0, 1) if quarter % 2 else source
    turned = turned[:: -1 if quarter in (1, 2) else 1, :: -1 if quarter in (2, 3) else 1]
    target[...] = turned[:, ::-1] if orientation >= 4 else turned
    return out


def turn(row: float, col: float, orientation: int) -> tuple[float, float]:
    """Where `orient` takes a point, measured from the centre of the square."""
    for _ in range(orientation % 4):
        row, col = -col, row
    return (row, -col) if orientation >= 4 else (row, col)


def sample_crop(
    generator: np.random.Generator, record: int, record_px: int, side: int, dihedral: bool
) -> Crop:
    """A uniform place and orientation.

    Raises ValueError when the record is smaller than the crop.
    """
    if record_px < side:
        raise ValueError(f"a record must hold a crop, got record_px={record_px}, crop={side}")
    top, left = generator.integers(0, record_px - side + 1, 2)
    orientation = generator.integers(8) if dihedral else 0
    return Crop(record, int(top), int(left), int(orientation))


@dataclasses.dataclass(frozen=True)
class CropTable:
    """Crop i of a split: every stage that asks for crop i gets the same pixels. One crop for each
    record follows their order on disk; any other number of crops is spread over all records."""

    num_records: int
    record_px: int
    config: CropConfig
    seed: int

    def __len__(self) -> int:
        return self.config.num_crops or self.num_records

    def __getitem__(self, number: int) -> Crop:
        # Counter-based (Salmon et al. 2011): crop i is made without those before it.
        generator = np.random.Generator(np.random.Philox(key=[self.seed, number]))
        crop = sample_crop(
            generator,
            self._record(number),
            self.record_px,
            self.config.context_patch_px,
            self.config.dihedral,
        )
        if self.config.condition_on == "patch":
            return crop
        side, margin = self.config.patch_px, self.config.context_px
        # The patch lies inside the 2×2 cells, and they inside the record.
        lattice = [
            int(generator.integers(max(0, at - side), min(self.record_px - 2 * side, at) + 1))
            for at in (crop.top + margin, crop.left + margin)
        ]
        return dataclasses.replace(crop, lattice=tuple(lattice))

    def _record(self, number: int) -> int:
        if not self.config.num_crops:
            return number
        return int(shuffle.examples_at(np.array([number]), self.num_records, self.seed)[0])
