"""The section `data.tissue`: what of a slide is tissue, or ground, and fit to be learnt from."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    c = ConfigDict()
    # Microns per pixel of the thumbnail the mask is made on.
    c.mpp = 8.0
    # Otsu's threshold on saturation is kept between these (0…1).
    c.min_saturation = 0.05
    c.max_saturation = 0.10
    # Darker than this (0…1) is black ink or scanner border; 0 keeps them.
    c.min_luminance = 0.10
    # Brighter than this (0…1) is cloud, or no data, which is white; 1 keeps it.
    c.max_luminance = 1.0
    # Pen: absorbs red this much more, over the mean, than H&E can; 0 keeps it, as other stains and
    # rasters must.
    c.pen_chroma = 0.3
    # Folds: this many times as dense as is typical of tissue of their colour; 0 keeps them.
    c.fold_density = 2.0
    # Out of focus: detail as wide as after a Gaussian of this sigma, µm (2 is safe); 0 keeps it and
    # saves reading all tissue at blur_mpp.
    c.blur_um = 0.0
    # Microns per pixel at which sharpness is measured.
    c.blur_mpp = 1.0
    # Specks and holes below this radius vanish, µm.
    c.smooth_radius_um = 16.0
    return c
