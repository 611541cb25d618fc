"""Pictures beside the page: small ones as they are, large ones as an overview and tiles.

Names of files are chosen here and never come from a slide.
"""

import dataclasses
import html
import pathlib
import shutil
import struct
import tempfile
from typing import Any

import pyvips

from ssldiff_jax.formats import atomic

_WHOLE = 4096  # px, an image with a longer side is not loaded whole
_OVERVIEW = 2048  # px
# DeepZoom's usual size: with its overlap on both sides a tile is 256 px.
_TILE, _OVERLAP, _QUALITY = 254, 1, 90


@dataclasses.dataclass(frozen=True)
class Picture:
    """An image file beside the page.

    Attributes:
        name: the file that shows all of it, scaled down where it is large.
        height: pixels of the whole image.
        tiles: folder of its DeepZoom tiles; empty where the file is the image itself.
    """

    name: str
    height: int
    width: int
    tiles: str = ""

    def img(self, alt: str) -> str:
        """The element; `alt` is escaped here."""
        return (
            f'<img src="{self.name}" width="{self.width}" height="{self.height}" '
            f'alt="{html.escape(alt)}" draggable="false">'
        )

    @property
    def source(self) -> dict[str, Any]:
        """What the viewer needs to know to open it, without a request."""
        size = {"width": self.width, "height": self.height}
        if not self.tiles:
            return size | {"url": self.name}
        return size | {"tiles": f"{self.tiles}/", "tile": _TILE, "overlap": _OVERLAP}


def copy(source: pathlib.Path, target: pathlib.Path) -> Picture:
    """The PNG `source` as `target`, or a JPEG overview of it where it is large.

    Raises ValueError that names a missing file, or one that is no PNG.
    """
    height, width = png_size(source)
    # The page once loaded both images of a pair whole, which gigapixels do not allow.
    if max(height, width) <= _WHOLE:
        atomic.write_atomic(target, lambda path: shutil.copyfile(source, path))
        return Picture(target.name, height, width)
    # Strip by strip: a large image is never whole in memory.
    small = pyvips.Image.thumbnail(str(source), _OVERVIEW, height=_OVERVIEW, size="down")
    overview = target.with_suffix(".jpg")
    atomic.write_atomic(overview, lambda path: small.jpegsave(str(path), Q=_QUALITY))
    return Picture(overview.name, height, width)


def zoomable(source: pathlib.Path, target: pathlib.Path) -> Picture:
    """Likewise, with DeepZoom tiles of a large image, read strip by strip, in `target`_files."""
    shown = copy(source, target)
    if shown.name == target.name:
        return shown
    # As DeepZoom names it.
    tiles = target.with_name(f"{target.stem}_files")
    _write_tiles(source, tiles)
    return dataclasses.replace(shown, tiles=tiles.name)


def _write_tiles(source: pathlib.Path, tiles: pathlib.Path) -> None:
    image = pyvips.Image.new_from_file(str(source), access="sequential", revalidate=True)
    # Beside the target, so that the rename stays within one file system.
    with tempfile.TemporaryDirectory(dir=tiles.parent) as temporary:
        base = pathlib.Path(temporary, "image")
        image.dzsave(
            str(base), tile_size=_TILE, overlap=_OVERLAP, suffix=f".jpg[Q={_QUALITY},strip]"
        )
        written = base.with_name("image_files")
        # It has the date: without it equal runs write equal files.
        (written / "vips-properties.xml").unlink(missing_ok=True)
        shutil.rmtree(tiles, ignore_errors=True)
        written.rename(tiles)


def png_size(path: pathlib.Path) -> tuple[int, int]:
    """Height and width, from the file's head."""
    if not path.exists():
        raise ValueError(f"the report expected {path}, got no such file")
    with path.open("rb") as f:
        # The header is the first chunk: its width and height are bytes 16 … 23.
        head = f.read(24)
    if head[:8] != b"\x89PNG\r\n\x1a\n":
        raise ValueError(f"expected a PNG file, got {path}")
    width, height = struct.unpack(">II", head[16:24])
    return height, width
