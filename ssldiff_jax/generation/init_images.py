"""What an image starts from, where pixels of its reference stay or noise is added to them."""

import numpy as np

from ssldiff_jax.data import config as data_config
from ssldiff_jax.generation import areas, plan, sources, user_images
from ssldiff_jax.runs.config import tools as tools_config
from ssldiff_jax.slides import geojson


def of(
    section: tools_config.GenerateSection,
    source: sources.Source,
    size: tuple[int, int],
    data: data_config.DataConfig,
) -> plan.InitImage:
    """The pixels that generation starts from, and what of them stays.

    Raises ValueError where reference, mask and size do not fit each other.
    """
    why = "mask" if section.mask else "outpaint_px" if section.outpaint_px else "strength"
    image, grow = source.pixels(why), section.outpaint_px
    keep = None
    if section.mask:
        if geojson.split_name(section.mask):
            keep = areas.keep_mask(section, data)
        else:
            keep = user_images.read_mask(section.mask)[..., 0] / np.float32(255)
        if keep.shape != tuple(source.size):
            raise ValueError(
                f"generate.mask must be {source.size} px like the reference, got {keep.shape}"
            )
    if grow:
        keep = np.ones(source.size, np.float32) if keep is None else keep
        # 0 beyond: nothing of the mirrored pixels stays.
        keep = np.pad(keep, grow)
        # Mirrored: at its edge the encoder of latents sees what goes on, not a border of one
        # colour.
        image = np.pad(image, ((grow, grow), (grow, grow), (0, 0)), "reflect")
    if image.shape[:2] != tuple(size):
        asked = tuple(length - 2 * grow for length in size)
        raise ValueError(f"generate.size must be that of the reference, {source.size}, got {asked}")
    return plan.InitImage(image, keep, blank=section.strength == 1)
