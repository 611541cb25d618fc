"""A slide in patches side by side: the places of a bag of embeddings."""

import dataclasses

import numpy as np
from jaxtyping import Int

from ssldiff_jax.slides import slide as slide_lib
from ssldiff_jax.slides import tissue


@dataclasses.dataclass(frozen=True, eq=False)
class SlideGrid:
    """Patches of `px` at `mpp`, row by row, without overlap.

    Attributes:
        px: side of a patch, px at `mpp`.
        mpp: microns per pixel of patches.
        native_px: side of a patch in whole px of level 0, and the step between patches.
        corners: (x, y) of each patch, px of level 0.
        places: (top, left) of the same, px at `mpp`.
    """

    px: int
    mpp: float
    native_px: int
    corners: Int[np.ndarray, "N 2"]
    places: Int[np.ndarray, "N 2"]

    @classmethod
    def of(
        cls,
        slide: slide_lib.Slide,
        px: int,
        mpp: float,
        *,
        config: tissue.TissueConfig,
        min_tissue: float,
    ) -> "SlideGrid":
        """All whole patches of a slide of which a part of at least `min_tissue` is tissue; 0 does
        not look for it.

        Raises SlideError where there is none.
        """
        scale = slide.downsample(mpp)
        # Whole pixels of level 0: readers of such files divide places by the side.
        native_px = max(1, round(px * scale))
        rows, cols = (size // native_px for size in slide.shape)
        y, x = np.divmod(np.arange(rows * cols), max(cols, 1))
        corners = np.stack([x, y], axis=1) * native_px
        # Where a reader of embeddings computed elsewhere looks for a corner.
        places = np.round(corners[:, ::-1] / scale).astype(int)
        if min_tissue > 0 and len(places):
            mask = tissue.examine(slide, config).mask
            enough = mask.fractions(places[:, 0], places[:, 1], (px, px), mpp) >= min_tissue
            corners, places = corners[enough], places[enough]
        if not len(places):
            raise slide_lib.SlideError(
                f"{slide.path.name} must hold a patch of {px} px at {mpp:g} µm/px with tissue ≥ "
                f"{min_tissue:g}, got none in {slide.shape[0]} × {slide.shape[1]} px of "
                f"{slide.mpp:g} µm (config.features.min_tissue=0 takes every patch)"
            )
        return cls(px, mpp, native_px, corners, places)

    def __len__(self) -> int:
        return len(self.places)
