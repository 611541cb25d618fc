"""Folders of patches: which of their files are patches, and which are images of another kind."""

import os
import pathlib
from collections.abc import Collection

from ssldiff_jax.data.npy_list import PatchListError
from ssldiff_jax.slides import remote
from ssldiff_jax.slides import slide as slide_lib

_IMAGE_SUFFIXES = (
    ".jpeg",
    ".jpg",
    ".jpe",
    ".jfif",
    ".png",
    ".tif",
    ".tiff",
    ".webp",
    ".bmp",
    ".jp2",
)
_NAMES_IN_ERROR = 3
_TRIED = 1000  # names that are looked for in every folder: some files may be gone


def names_in(folder: pathlib.Path) -> list[str]:
    """Patches of a folder and those in it, sorted. Raises PatchListError where there are none."""
    if not folder.is_dir():
        raise PatchListError(f"expected a folder of images, got {folder}: no such folder")
    paths = _of_suffixes(folder, _IMAGE_SUFFIXES)
    if not paths:
        raise PatchListError(f"{folder}: expected images ({', '.join(_IMAGE_SUFFIXES)}), got none")
    return [str(p.relative_to(folder)) for p in paths]


def left_out(folder: pathlib.Path) -> list[str]:
    """Images of a folder that end as slides do, and not as patches."""
    paths = _of_suffixes(folder, slide_lib.SUFFIXES - set(_IMAGE_SUFFIXES))
    return [remote.printable(str(p.relative_to(folder))) for p in paths if p.is_file()]


def _of_suffixes(folder: pathlib.Path, suffixes: Collection[str]) -> list[pathlib.Path]:
    """Paths below a folder with one of these suffixes, sorted; hidden files are left out."""
    # Hidden ones too are called .jpg: macOS leaves ._name.jpg beside name.jpg on foreign disks.
    inside = folder.rglob("*")
    return sorted(
        path for path in inside if path.suffix.lower() in suffixes and not path.name.startswith(".")
    )


def folder_of(path: pathlib.Path, names: list[str]) -> pathlib.Path:
    """The folder that names of a list are relative to: the one that has the first of them that is
    anywhere. Raises PatchListError where none of the first thousand is."""
    if path.is_dir():
        return path
    beside = [p for p in sorted(path.parent.iterdir()) if p.is_dir()]
    folders = (path.parent, *beside)
    holders = (f for name in names[:_TRIED] for f in folders if os.path.isfile(f / name))
    folder = next(holders, None)
    if folder is None:
        first = remote.printable(names[0])
        looked = ", ".join(p.name for p in beside[:_NAMES_IN_ERROR])
        raise PatchListError(
            f"{path} names {first}, which is neither beside it nor in a folder there, and no later "
            "one is" + (f" ({looked})" if looked else "")
        )
    return folder
