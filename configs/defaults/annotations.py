"""The section `data.annotations`: regions that a user marked in slides, and what they stand for."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    c = ConfigDict()
    # GeoJSON of QuPath, QGIS or TRIDENT: a folder or a glob of files named as the slides are, or
    # one file, here or behind an address; in px of level 0 or, of rasters, coordinates on the
    # ground. "" is none.
    c.files = ""
    # Mask images (PNG, TIFF) named likewise, over the whole slide at any size: tissue is what is
    # not zero. "" is none.
    c.masks = ""
    # Classes of polygons that are tissue, instead of what is found; ("*",) is all of them, () takes
    # what is found, or masks.
    c.use = ()
    # Classes of polygons that are never used.
    c.leave_out = ()
    # Classes of polygons that are labels, where prior.conditions.measure, evaluate.classes,
    # study.patches.labels or study.bags.measure is annotations; of those that overlap the last one
    # counts.
    c.classes = ()
    # Property of the features that holds their class; "" is QuPath's classification.
    c.class_property = ""
    return c
