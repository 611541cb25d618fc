"""What counts as a slide in a folder, and what a path or a glob leads to."""

import glob
import os
import pathlib

from ssldiff_jax.slides import ngff

_SCANNER_SUFFIXES = {".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".svslide", ".dcm",
                     ".czi", ".btf", ".tf2", ".tf8", ".qptiff"}  # fmt: skip
_IMAGE_SUFFIXES = {".tif", ".tiff", ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp",
                   ".jp2", ".j2k"}  # fmt: skip
# Nothing here reads them: they are found so that they are named among what could not be used.
_FOREIGN_SUFFIXES = {
    ".vsi", ".isyntax", ".i2syntax", ".lif", ".nd2", ".zvi", ".oib", ".oif", ".kfb", ".sdpc",
    ".tmap", ".mds", ".mdsx", ".ims", ".gif", ".avif", ".heic", ".heif", ".jxl", ".ppm", ".pgm",
    ".pnm", ".tga", ".psd",
}  # fmt: skip
SUFFIXES = frozenset(_SCANNER_SUFFIXES | _IMAGE_SUFFIXES | _FOREIGN_SUFFIXES | {ngff.SUFFIX})
"""What counts as a slide when a directory is searched."""


def find(part: str) -> list[pathlib.Path]:
    """Slides of one path, folder or glob, unsorted."""
    if not part:
        return []
    part = os.path.expanduser(part)
    if ngff.is_folder(part):
        return [pathlib.Path(part)]
    if os.path.isdir(part):
        inside = pathlib.Path(part).iterdir()
        named = (p for p in inside if p.suffix.lower() in SUFFIXES)
        return [p for p in named if _may_be_slide(p)]
    if os.path.isfile(part):  # before the glob: a name may have brackets in it
        return [pathlib.Path(part)]
    matches = map(pathlib.Path, glob.glob(part, recursive=True))
    return [match for match in matches if _may_be_slide(match)]


def _may_be_slide(path: pathlib.Path) -> bool:
    """Whether it is a file, or a store of OME-Zarr or an image in one, and no part of an image."""
    if path.is_dir():
        return ngff.is_folder(path) and not ngff.is_part(path)
    # A link that leads nowhere is a slide that cannot be read, not one that is not there.
    return (path.is_file() or path.is_symlink()) and not ngff.is_named(path.parent)
