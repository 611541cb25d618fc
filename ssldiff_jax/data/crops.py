"""Patches cut from records at any pixel and orientation, each a function of its index."""

import dataclasses

import numpy as np

from ssldiff_jax.core import arrays


@dataclasses.dataclass(frozen=True)
class CropConfig:
    """`num_crops` patches are embedded and encoded (0: one for each record); `context_px` more
    pixels on each side are seen by the autoencoder and cut off its latents, so that latents know
    no patch border; `dihedral` draws one of eight orientations."""

    patch_px: int
    num_crops: int
    context_px: int
    dihedral: bool

    @property
    def context_patch_px(self) -> int:
        """Side of a patch with its context."""
        return self.patch_px + 2 * self.context_px


@dataclasses.dataclass(frozen=True)
class Crop:
    """A square of a record, and the orientation it is turned to."""

    record: int
    top: int
    left: int
    orientation: int

    def cut(self, record: arrays.ImageUint8, side: int) -> arrays.ImageUint8:
        """The pixels."""
        square = record[self.top : self.top + side, self.left : self.left + side]
        return orient(square, self.orientation)


def orient(image: np.ndarray, orientation: int) -> np.ndarray:
    """One of the eight orientations of a square: quarter turns, from 4 on mirrored after."""
    turned = np.rot90(image, orientation % 4)
    return np.ascontiguousarray(turned[:, ::-1] if orientation >= 4 else turned)


def draw_crop(
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
    """Crop i of a split: every stage that asks for crop i gets the same pixels."""

    num_records: int
    record_px: int
    config: CropConfig
    seed: int

    def __len__(self) -> int:
        return self.config.num_crops or self.num_records

    def __getitem__(self, number: int) -> Crop:
        generator = np.random.Generator(np.random.Philox(key=[self.seed, number]))
        return draw_crop(
            generator,
            number % self.num_records,
            self.record_px,
            self.config.context_patch_px,
            self.config.dihedral,
        )
