"""Embeddings computed elsewhere, by any encoder: HDF5, NumPy and torch files, read and checked."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ssldiff_jax.data import npy_list
from ssldiff_jax.formats import tensors as reader
from ssldiff_jax.formats.torch_zip import WeightsError

SUFFIXES = (".h5", ".hdf5", ".npy", ".pt", ".pth", ".safetensors")
_USUAL = ("features", "feats", "embeddings", "embedding")
_COORDS = "coords"
# Deflate shrinks at most 1032 times: a file that declares more than this is damaged or hostile.
_DEFLATE_RATIO = 1100
_MICRONS = ("um", "µm", "μm", "micron", "microns", "micrometer", "micrometers")
_PIXELS = ("px", "pixel", "pixels", "")


@dataclasses.dataclass(frozen=True)
class Features:
    """One embedding for each patch of a slide, or of a list.

    Attributes:
        path: the file.
        name: of the array in it.
        values: (N, D), read by rows.
        corners: (x, y) of each patch's top left corner, in `unit`, where the file has them.
        patch_px: the side of a patch in `unit`, where the file has it; else 0.
        unit: "px" of level 0, or "um".
    """

    path: pathlib.Path
    name: str
    values: Any
    corners: Float[np.ndarray, "N 2"] | Int[np.ndarray, "N 2"] | None = None
    patch_px: float = 0
    unit: Literal["px", "um"] = "px"

    def __post_init__(self):
        shape, kind = self.values.shape, np.dtype(self.values.dtype)
        # bfloat16 is of no kind that NumPy knows.
        if len(shape) != 2 or not shape[1] or (kind.kind != "f" and kind.name != "bfloat16"):
            raise WeightsError(f"{self} must be floats (N, D), got {kind} {shape}")
        if self.corners is not None and len(self.corners) != len(self):
            raise WeightsError(
                f"{self.path}: {_COORDS} must be as many as {self.name}, got "
                f"{len(self.corners)} and {len(self)}"
            )

    def __len__(self) -> int:
        return self.values.shape[0]

    def __str__(self) -> str:
        return f"{self.path}: {self.name}" if self.name else str(self.path)

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self.values.shape[1]

    def at_level_0(self, mpp: float) -> "Features":
        """The same with corners in whole px of a slide of that mpp."""
        if self.unit == "px" or self.corners is None:
            return self
        corners = np.round(self.corners / mpp).astype(np.int64)
        patch_px = self.patch_px / mpp
        return dataclasses.replace(self, corners=corners, patch_px=patch_px, unit="px")

    def rows(self, index: Int[np.ndarray, "M"]) -> Float[np.ndarray, "M D"]:
        """Some of them in any order, float32. Raises WeightsError for a value not finite."""
        # HDF5 wants its rows in order and each once.
        unique, inverse = np.unique(index, return_inverse=True)
        with _reading(self.path):
            vectors = np.asarray(self.values[unique]).astype(np.float32)
        bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if len(bad):
            raise WeightsError(
                f"{self} must be finite, got NaN or infinity in row {unique[bad[0]]}"
            )
        return vectors[inverse]


def find(folder: pathlib.Path, stem: str) -> pathlib.Path | None:
    """The file of embeddings of a slide: its name without suffix, then one of SUFFIXES."""
    paths = [folder / f"{stem}{suffix}" for suffix in SUFFIXES]
    return next((path for path in paths if path.is_file()), None)


def open_features(path: pathlib.Path, dataset: str = "") -> Features:
    """Open a file of embeddings; `dataset` names the array where there are several.

    Raises WeightsError for what is no file of embeddings, or has none of that name.
    """
    with _reading(path):
        if path.suffix == ".npy":
            return Features(path, "", _npy(path))
        if path.suffix in (".h5", ".hdf5"):
            return _hdf5(path, dataset)
        tensors = {name: t for name, t in reader.read(path).items() if t.ndim > 1}
        name = _choose(path, list(tensors), dataset)
        return Features(path, name, tensors[name])


def open_corners(path: pathlib.Path) -> Features:
    """The coordinates alone of an .h5 file, as CLAM writes them before any embedding: `values`
    are the corners themselves."""
    with _reading(path):
        file = _Hdf5(path)
        places = file.places()
        if places.corners is None:
            raise WeightsError(f"{path}: expected {_COORDS} (N, 2), got {', '.join(file.names())}")
        return Features(path, _COORDS, places.corners.astype(np.float32), *places)


def with_corners(features: Features, located: Features) -> Features:
    """Features with the corners of another file.

    Raises WeightsError where they are not as many, or differ from those of their own.
    """
    if len(features) != len(located):
        raise WeightsError(
            f"{features} must have a row for each patch of {located.path}, got {len(features)} "
            f"rows and {len(located)} patches"
        )
    own = features.corners
    if (
        own is not None
        and features.unit == located.unit
        and not np.array_equal(own, located.corners)
    ):
        row = int(np.flatnonzero((own != located.corners).any(axis=1))[0])
        raise WeightsError(
            f"{features.path}: {_COORDS} must be those of {located.path} in the same order, got "
            f"{own[row].tolist()} and {located.corners[row].tolist()} in row {row}"
        )
    patch_px = located.patch_px or (features.patch_px if features.unit == located.unit else 0)
    return dataclasses.replace(
        features, corners=located.corners, patch_px=patch_px, unit=located.unit
    )


def _npy(path: pathlib.Path) -> np.ndarray:
    try:
        array = npy_list.read_array(path)
    except npy_list.PatchListError as error:
        raise WeightsError(str(error)) from error
    if isinstance(array, list):
        raise WeightsError(f"{path}: expected embeddings, got names")
    return array


def _hdf5(path: pathlib.Path, dataset: str) -> Features:
    # Left open: rows are read as they are needed.
    file = _Hdf5(path)
    places = file.places()
    name = _choose(path, [n for n in file.names() if n != _COORDS], dataset)
    return Features(path, name, file[name], *places)


def _choose(path: pathlib.Path, names: list[str], name_or_empty: str) -> str:
    """The array that the config names; else the first of a usual name, else the only one."""
    candidates = [name_or_empty] if name_or_empty in names else []
    if not name_or_empty:
        candidates = [name for name in _USUAL if name in names][:1] or names
    if len(candidates) != 1:
        criterion = (
            f"named {name_or_empty!r}" if name_or_empty else "(config.embeddings.dataset names one)"
        )
        there = ", ".join(names[:8]) or "none"
        raise WeightsError(f"{path}: expected an array of embeddings {criterion}, got {there}")
    return candidates[0]


class _Places(NamedTuple):
    """Corners of patches, the side of one, and the unit of both."""

    corners: np.ndarray | None = None
    side: float = 0
    unit: Literal["px", "um"] = "px"


class _Hdf5:
    """An HDF5 file of plain arrays. A link to another file, or data kept in one, is refused."""

    def __init__(self, path: pathlib.Path):
        # Not at the top: a machine that only computes need not have it.
        import h5py

        self._path, self._file = path, h5py.File(path, "r")

    def names(self) -> list[str]:
        """Its arrays of more than one dimension, at the top of the file."""
        return [name for name in self._file if len(getattr(self[name], "shape", ())) > 1]

    def __getitem__(self, name: str) -> Any:
        import h5py

        link = self._file.get(name, getlink=True)
        item = self._file[name] if isinstance(link, h5py.HardLink) else None
        elsewhere = isinstance(item, h5py.Dataset) and (item.external or item.is_virtual)
        if item is None or elsewhere:
            raise WeightsError(f"{self._path}: {name} must be data of this file, got a link")
        # A damaged shape could ask for all memory; deflate cannot hold more than this.
        most = self._path.stat().st_size * (_DEFLATE_RATIO if getattr(item, "chunks", 0) else 1)
        if getattr(item, "nbytes", 0) > most:
            raise WeightsError(f"{self._path}: {name} declares more data than the file can hold")
        return item

    def places(self) -> _Places:
        """Where patches lie, where the file has that. Raises WeightsError for an unknown unit."""
        if _COORDS not in self._file:
            return _Places()
        coords = self[_COORDS]
        if getattr(coords, "ndim", 0) != 2 or coords.shape[1] != 2:
            raise WeightsError(f"{self._path}: {_COORDS} must be (N, 2), got {coords}")
        # STAMP's are those of the file, others' those of the array.
        attributes = dict(self._file.attrs) | dict(coords.attrs)
        unit = _text(attributes.get("unit", attributes.get("units", "px"))).lower()
        if unit in _MICRONS:  # as STAMP has them
            side = attributes.get("tile_size_um", attributes.get("tile_size", 0))
            return _Places(np.asarray(coords, np.float64), float(np.ravel(side)[0]), "um")
        if unit not in _PIXELS:
            raise WeightsError(f"{self._path}: {_COORDS} must be in px or um, got unit={unit!r}")
        attributes = dict(coords.attrs)
        # TRIDENT's; CLAM has the side on the level that it read, and how much smaller that is.
        patch_px = attributes.get("patch_size_level0")
        if patch_px is None:
            scale = np.ravel(attributes.get("downsample", 1))[0]
            patch_px = attributes.get("patch_size", 0) * scale
        return _Places(np.round(coords).astype(np.int64), round(float(patch_px)))


def _text(value: Any) -> str:
    """An attribute as text: h5py gives bytes, strings, or arrays of one."""
    value = np.ravel(value)[0] if np.size(value) else ""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


@contextlib.contextmanager
def _reading(path: pathlib.Path) -> Iterator[None]:
    """Whatever a damaged file trips over, the file is what is wrong."""
    if not path.is_file():
        raise WeightsError(f"no such file of embeddings: {path}")
    try:
        yield
    except WeightsError:
        raise
    except Exception as error:
        detail = " ".join(str(error).split()) or type(error).__name__
        raise WeightsError(f"{path}: expected embeddings, got {detail:.200}") from error
