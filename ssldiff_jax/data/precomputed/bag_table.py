"""A bag of embeddings as AnnData."""

import pathlib

import numpy as np

from ssldiff_jax.data import embedding_table
from ssldiff_jax.data.precomputed import bags

FOLDER = "h5ad_files"
"""Below the folder of bags."""


def write(bag: bags.Bag, mpp: float) -> pathlib.Path:
    """Write what a bag that is there holds as `h5ad_files/NAME.h5ad`, all of it in memory; one that
    was made of the same stays. `mpp` are microns per pixel of patches.

    Raises BagError for a file there that is no table of this slide, ValueError where anndata is
    not installed.
    """
    # Not at the top: a machine that only computes need not have it.
    import h5py

    path = bag.path.parents[1] / FOLDER / f"{bag.path.stem}.{embedding_table.FORMAT}"
    if _is_there(path, bag):
        return path
    with h5py.File(bag.path, "r") as file:
        embeddings, corners = file["features"][:], file["coords"][:]
        facts, encoder = dict(file["coords"].attrs), file["features"].attrs["encoder"]
    side = facts["patch_size_level0"]
    about = {"slide": bag.slide, "made_of": bag.made_of, "encoder": encoder, "mpp": mpp}
    about |= {key: facts[key] for key in _SIZES}
    embedding_table.EmbeddingTable(
        embeddings,
        [f"{x}_{y}" for x, y in corners.tolist()],
        {"spatial": corners.astype(np.float64) + side / 2},
        {},
        about,
    ).write(path)
    return path


_SIZES = ("patch_size", "patch_size_level0", "level0_width", "level0_height")


def _is_there(path: pathlib.Path, bag: bags.Bag) -> bool:
    import h5py

    if not path.exists():
        return False
    try:
        with h5py.File(path, "r") as file:
            about = file["uns"]
            slide, made_of = (about[key][()].decode() for key in ("slide", "made_of"))
    except (OSError, KeyError, AttributeError) as error:
        raise bags.BagError(
            f"{path} must be free or a table of {bag.slide}, got another file: {error}"
        ) from error
    if slide != bag.slide:
        raise bags.BagError(f"{path} must be free or a table of {bag.slide}, got one of {slide}")
    return made_of == bag.made_of
