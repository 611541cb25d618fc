"""Grids of embeddings computed elsewhere: a slide's rows, laid where their patches lie."""

import logging
import pathlib

import numpy as np
from jaxtyping import Int

from ssldiff_jax.core import arrays
from ssldiff_jax.data.precomputed import files

_LOG = logging.getLogger(__name__)

# Of a patch's side: corners of whole pixels at another scale are rounded by less.
_OFF = 0.02


def of_file(path: pathlib.Path, dataset: str = "") -> arrays.EmbeddingGrid:
    """The grid of a file of embeddings with the corners of their patches (`coords`), which must lie
    side by side. A cell that the file has no patch of, such as glass without tissue, takes the
    embedding of the nearest one.

    Raises WeightsError for a file without corners, or with corners on no lattice.
    """
    # Not at the top: a generator is imported without SciPy.
    import scipy.ndimage

    features = files.open_features(path, dataset)
    if features.corners is None or not len(features):
        raise files.WeightsError(f"{path}: expected embeddings with coords of their patches")
    at = _cells(features)
    rows, cols = (int(n) for n in at.max(axis=0) + 1)
    index = np.full((rows, cols), -1)
    index[at[:, 0], at[:, 1]] = np.arange(len(at))
    missing = index < 0
    if missing.any():
        _LOG.warning(
            "%s has patches of %d of %d cells (%d × %d): the others take the nearest embedding",
            path, rows * cols - int(missing.sum()), rows * cols, rows, cols,
        )  # fmt: skip
        nearest = scipy.ndimage.distance_transform_edt(
            missing, return_distances=False, return_indices=True
        )
        index = index[tuple(nearest)]
    return features.rows(index.ravel()).reshape(rows, cols, -1)


def _cells(features: files.Features) -> Int[np.ndarray, "N 2"]:
    """(row, column) of each patch, from those of the first."""
    # (x, y) in the file.
    corners = np.asarray(features.corners, np.float64)[:, ::-1]
    corners = corners - corners.min(axis=0)
    side = features.patch_px or _smallest_step(corners)
    places = corners / side
    at = np.round(places).astype(np.int64)
    off = np.abs(places - at).max(axis=1)
    row = int(off.argmax())
    if off[row] > _OFF or len(np.unique(at, axis=0)) < len(at):
        raise files.WeightsError(
            f"{features.path}: coords must be those of patches side by side, {side:g} apart, got "
            f"{features.corners[row].tolist()} in row {row}"
        )
    return at


def _smallest_step(corners: np.ndarray) -> float:
    """What patches are apart, where the file does not say their side."""
    steps = np.concatenate([np.diff(np.unique(axis)) for axis in corners.T])
    return float(steps.min()) if len(steps) else 1.0
