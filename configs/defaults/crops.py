"""The section `data.crops`: patches that are cut from records, and what each is conditioned on."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    c = ConfigDict()
    # Side of a patch: one embedding, one window.
    c.patch_px = 256
    # Patches to cache embeddings and latents of, as many of each level; 0: one for each record.
    c.num_crops = 0
    # Pixels around a patch that the autoencoder sees and its latents drop; one that is generated
    # alone is decoded with as many, mirrored.
    c.context_px = 0
    # One of eight orientations for each crop.
    c.dihedral = False
    # patch: each is conditioned on its own embedding; cells: on those of the 2×2 cells that it
    # touches of a lattice laid anywhere over its record, so that large images need no embedding in
    # between.
    c.condition_on = "patch"
    return c
