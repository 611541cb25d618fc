"""Which page of a TIFF is the image, and what its tags say of the pixels."""

import dataclasses
import logging
import pathlib
from collections.abc import Mapping
from typing import Any

import tifffile

from ssldiff_jax.slides import warn
from ssldiff_jax.slides.protocol import SlideError

logging.getLogger("tifffile").setLevel(
    logging.CRITICAL
)  # what it finds is reported by our own errors

# Classic TIFF and BigTIFF, each in both byte orders.
_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Values of PhotometricInterpretation, and samples of a pixel of each.
_GRAY, _RGB, _PALETTE, _CMYK, _YCBCR = 1, 2, 3, 5, 6
_SAMPLES = {_GRAY: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4, _YCBCR: 3}
# Lab has a white of its own, a camera's mosaic one colour a pixel.
_NO_COLOURS = {8: "CIELab", 9: "ICCLab", 10: "ITULab", 32803: "a mosaic of a camera's filter",
               32844: "LogL", 32845: "LogLuv"}  # fmt: skip
_REDUCED, _MASK = 1, 4  # bits of NewSubfileType
_OLD_REDUCED = 2  # of SubfileType
_OLD_SUBFILE, _ORIENTATION, _DEPTH = 255, 274, 32997  # tags
_DESCRIPTION = 270  # tag
_SCALE = (256, 257, _DESCRIPTION, 282, 283, 296)  # size, description, resolutions, their unit
_ALPHA = {1: "premultiplied", 2: "straight"}  # values of ExtraSamples
# None, CCITT, LZW, JPEG, deflate, packbits, JPEG 2000: what OpenSlide and Pillow both decode.
_COMPRESSIONS = frozenset((1, 2, 3, 4, 5, 7, 8, 32946, 32773, 33003, 33005, 34712))
_LARGER = 2  # times the area: the image, of several that are no levels of each other


@dataclasses.dataclass(frozen=True)
class Page:
    """A directory of a TIFF.

    Attributes:
        number: its place in the file, from 0.
        shape: height and width.
        is_reduced: whether it calls itself a smaller version of another.
        is_mask: whether it calls itself a mask.
        kind: what its numbers are: photometric interpretation, samples, bits.
    """

    number: int
    shape: tuple[int, int]
    is_reduced: bool
    is_mask: bool
    kind: tuple[Any, ...]

    @property
    def area(self) -> int:
        """Pixels."""
        return self.shape[0] * self.shape[1]

    def is_level_of(self, full: "Page") -> bool:
        """Whether it has the shape that `full` has when it is made smaller."""
        return is_level(full.shape, self.shape)


@dataclasses.dataclass(frozen=True)
class Layout:
    """The image of a TIFF.

    Attributes:
        page: its directory, from 0.
        levels: directories of smaller versions, where the image is not the first page; readers
            find those of a first page themselves.
        orientation: 1…8, as in EXIF.
        is_plain: whether OpenSlide and Pillow take its pixels for what they are.
        names_colours: whether the format says which samples are red, green and blue, if any are.
        alpha: what the sample after the colours is, where it is transparency.
        tags: those that give its scale, by number.
    """

    page: int
    levels: tuple[int, ...]
    orientation: int
    is_plain: bool
    names_colours: bool
    alpha: str | None
    tags: Mapping[int, Any]


def is_tiff(path: pathlib.Path) -> bool:
    """Whether a file begins as a TIFF does."""
    with path.open("rb") as file:
        return file.read(4) in _MAGIC


def is_level(full: tuple[int, int], shape: tuple[int, int]) -> bool:
    """Whether a shape is that of an image made smaller, up to rounding."""
    ratio = max(full) / max(shape)
    return ratio > 1 and all(abs(f / ratio - n) < 1 for f, n in zip(full, shape, strict=True))


def layout(path: pathlib.Path) -> Layout:
    """Find the image of a TIFF: the largest page.

    Raises SlideError for a file that cannot be read, and for one of several images of which none
    is much larger than the others: stacks, channels in pages of their own, series of photographs.
    """
    try:
        with tifffile.TiffFile(path) as file:
            pages = [_page(number, page) for number, page in enumerate(_readable(path, file))]
            image = _image(path, pages)
            _check_single(path, file)
            page = file.pages[image.number]
            _check_within(path, file, image)
            _check_colours(path, page)
            smaller = [p for p in pages if p.is_reduced or p.is_mask]
            is_pyramid = all(p.is_level_of(image) and p.kind == image.kind for p in smaller)
            levels = [p.number for p in pages if p.is_level_of(image) and not p.is_mask]
            return Layout(
                page=image.number,
                levels=tuple(sorted(levels, key=lambda n: -pages[n].area)) if image.number else (),
                orientation=int(_tag(page, _ORIENTATION, 1)),
                is_plain=image.number == 0 and is_pyramid and _is_plain(file, page),
                names_colours=True,
                alpha=_alpha(page),
                tags=_scale_tags(file, page),
            )
    except SlideError:
        raise
    except Exception as error:  # a damaged file makes tifffile raise whatever it trips over
        raise SlideError.because(path, "a readable TIFF", error) from error


def _readable(path: pathlib.Path, file: tifffile.TiffFile) -> list[tifffile.TiffPage]:
    """Pages up to the first that is damaged, or was seen before: a chain of pages may be a ring."""
    pages, offsets = [], set()
    try:
        for page in file.pages:
            if page.offset in offsets:
                break
            offsets.add(page.offset)
            pages.append(page)
        else:
            return pages
    except Exception:
        if not pages:
            raise
    warn.once(f"{path}: the data after page {len(pages) - 1} is not a page and is left out")
    return pages


def _scale_tags(file: tifffile.TiffFile, page: tifffile.TiffPage) -> dict[int, Any]:
    """Those of a page; OME-XML stands in the first page for all of them."""
    tags = {code: _number(page.tags[code].value) for code in _SCALE if code in page.tags}
    return tags | ({_DESCRIPTION: file.ome_metadata} if file.is_ome else {})


def _page(number: int, page: tifffile.TiffPage) -> Page:
    kind = int(page.subfiletype)
    is_reduced = bool(kind & _REDUCED) or _tag(page, _OLD_SUBFILE, 0) == _OLD_REDUCED
    numbers = (page.photometric, page.samplesperpixel, page.bitspersample)
    return Page(
        number, (page.imagelength, page.imagewidth), is_reduced, bool(kind & _MASK), numbers
    )


def _tag(page: tifffile.TiffPage, code: int, default: Any) -> Any:
    return page.tags[code].value if code in page.tags else default


def _number(value: Any) -> Any:
    """A fraction as one number; others as they are."""
    return value[0] / value[1] if isinstance(value, tuple) and value[1] else value


def _image(path: pathlib.Path, pages: list[Page]) -> Page:
    """The page that is the image; pages that are neither it nor its levels are reported."""
    whole = [p for p in pages if not p.is_reduced and not p.is_mask] or pages[:1]
    if not whole:
        raise SlideError(f"expected an image in {path}, got a TIFF without pages")
    image = max(whole, key=lambda p: p.area)
    others = [p for p in whole if p is not image and not p.is_level_of(image)]
    rivals = [p for p in others if p.area * _LARGER > image.area]
    if rivals:
        shapes = ", ".join(f"{h} × {w}" for h, w in (p.shape for p in (image, *rivals)[:4]))
        raise SlideError(
            f"expected one image in {path}, got {len(rivals) + 1} pages that are no levels of each "
            f"other ({shapes} px): write the one that is meant, or all channels of it in one page"
        )
    strange = [p for p in pages if p.is_reduced and p is not image and not p.is_level_of(image)]
    _report_others(path, image, tuple(sorted((*others, *strange), key=lambda p: p.number)))
    return image


def _report_others(path: pathlib.Path, image: Page, left_out: tuple[Page, ...]) -> None:
    if left_out:
        shape = "{0[0]} × {0[1]} px".format
        others = ", ".join(f"{p.number} ({shape(p.shape)})" for p in left_out)
        warn.once(
            f"{path}: page {image.number} of {shape(image.shape)} is the image; left out, as no "
            f"level of it: page {others}"
        )


def _check_single(path: pathlib.Path, file: tifffile.TiffFile) -> None:
    """Raise SlideError where one directory stands for several images."""
    first = file.pages[0]
    count = int(_tag(first, _DEPTH, 1))
    if len(file.pages) == 1 and (file.is_imagej or file.is_shaped):
        count = max(count, *(len(series.pages) for series in file.series))
    if count > 1:
        raise SlideError(f"expected one image in {path}, got a stack of {count}")


def _check_within(path: pathlib.Path, file: tifffile.TiffFile, image: Page) -> None:
    """Raise SlideError where a larger image lies within a page: cameras keep a preview first."""
    for number, page in enumerate(_readable(path, file)):
        for inner in page.pages or ():
            if inner.imagelength * inner.imagewidth > image.area:
                raise SlideError(
                    f"expected the image of {path} in a page of its own, got {inner.imagelength} × "
                    f"{inner.imagewidth} px within page {number} (a SubIFD), and at most "
                    f"{image.shape[0]} × {image.shape[1]} px in pages: write the one that is meant"
                )


def _check_colours(path: pathlib.Path, page: tifffile.TiffPage) -> None:
    """Raise SlideError for numbers that are no colours yet, and that readers take for some."""
    kind = int(page.photometric)
    if kind in _NO_COLOURS:
        raise SlideError(
            f"expected gray, a table of colours, RGB, CMYK or YCbCr in {path}, got "
            f"{_NO_COLOURS[kind]} (photometric {kind}): convert it to RGB"
        )


def _is_plain(file: tifffile.TiffFile, page: tifffile.TiffPage) -> bool:
    kind, samples = int(page.photometric), page.samplesperpixel
    has_alpha = kind == _RGB and samples == 4 and _alpha(page) is not None
    bits = page.bitspersample
    return (
        int(_tag(page, _ORIENTATION, 1)) == 1
        and not (file.is_bigtiff and file.byteorder == ">")  # Pillow does not know it
        and (bits if isinstance(bits, int) else max(bits)) == 8
        and int(page.sampleformat or 1) == 1
        and int(page.compression) in _COMPRESSIONS
        and (samples == _SAMPLES.get(kind) or has_alpha)
    )


def _alpha(page: tifffile.TiffPage) -> str | None:
    """What the first sample after the colours is, if it is transparency."""
    extra = [int(kind) for kind in page.extrasamples or ()]
    return _ALPHA.get(extra[0]) if extra else None
