"""Microns per pixel: what several records of one file say, by whichever reader opens it."""

import logging

import numpy as np
import pytest
import tifffile

from ssldiff_jax import slides
from ssldiff_jax.slides import backends, raster, scale

READERS = {
    "strips": backends.PillowBackend,
    "tiles": backends.OpenSlideBackend,
    "deep": raster.RasterBackend,
}


@pytest.fixture(params=READERS)
def tiff(request, tmp_path):
    """A function from options of tifffile to a small TIFF that one of the readers opens."""
    layout = {"tile": (64, 64)} if request.param == "tiles" else {}

    def write(**options):
        dtype = np.uint16 if request.param == "deep" else np.uint8
        pixels = np.full((128, 192, 3), np.iinfo(dtype).max, dtype)
        told = {"metadata": None} | options
        tifffile.imwrite(tmp_path / "it.tif", pixels, photometric="rgb", **layout, **told)
        slide = slides.open_slide(tmp_path / "it.tif", mpp=1.0)
        assert isinstance(slide._backend, READERS[request.param])
        return tmp_path / "it.tif"

    return write


def per_cm(x, y):
    """Resolution tags of pixels of x × y µm."""
    return {"resolution": (1e4 / x, 1e4 / y), "resolutionunit": "CENTIMETER"}


def ome(x, y, unit="µm"):
    sides = {"PhysicalSizeX": x, "PhysicalSizeY": y}
    units = {"PhysicalSizeXUnit": unit, "PhysicalSizeYUnit": unit}
    # A name in .ome.tif is not needed: what is described is what counts.
    return {"metadata": {"axes": "YXS"} | sides | units, "ome": True}


APERIO = "Aperio Image Library v1\r\n192x128 (64x64) JPEG/RGB Q=90|AppMag = 20|MPP = {}|Left = 1"


@pytest.mark.parametrize(
    ("options", "mpp"),
    [
        (per_cm(0.5, 0.5), 0.5),
        (per_cm(0.5, 0.504), 0.502),
        (ome(0.5, 0.5), 0.5),
        (ome(500, 500, "nm"), 0.5),
        (ome(0.0005, 0.0005, "mm"), 0.5),
        (ome(0.5, 0.5) | per_cm(0.5, 0.5), 0.5),
        (ome(0.5, 0.5) | per_cm(0.504, 0.504), 0.5),
        (ome(0.5, 0.5) | per_cm(85, 85), 0.5),  # 300 dots an inch are a printer's
    ],
)
def test_records_that_agree_are_believed(tiff, options, mpp):
    assert slides.open_slide(tiff(**options)).mpp == pytest.approx(mpp, rel=0.009)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (per_cm(0.25, 0.5), "square pixels, got 0.5 × 0.25 µm by the resolution tags"),
        (per_cm(0.5, 0.51), "square pixels, got 0.51 × 0.5 µm"),
        (ome(0.25, 0.5), "square pixels, got 0.5 × 0.25 µm by OME-XML"),
        (ome(0.5, 0.5) | per_cm(1, 1), "one number of microns per pixel, got 0.5 by OME-XML and 1 "
         "by the resolution tags"),
    ],
)  # fmt: skip
def test_records_without_one_size_are_refused_unless_the_user_tells(tiff, options, message):
    path = tiff(**options)
    for assumed in ({}, {"otherwise_mpp": 0.5}):
        with pytest.raises(slides.SlideError, match=rf"{message}.* in .*it\.tif: pass --config"):
            slides.open_slide(path, **assumed)
    assert slides.open_slide(path, mpp=2.0).mpp == 2.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "expected microns per pixel, got none"),
        (per_cm(85, 85), "expected microns per pixel, got none"),
        (
            {"resolution": (50_800, 50_800), "resolutionunit": "INCH"},
            "got none but 50800 dots per inch",
        ),
        (ome(0.5, 0.5, "pixel"), "got none"),
        (ome(1e6, 1e6), r"expected 0\.05…10 microns per pixel, got 1e\+06"),
    ],
)
def test_what_is_told_of_no_scale_is_assumed_with_a_warning(tiff, options, message, caplog):
    path = tiff(**options)
    with pytest.raises(slides.SlideError, match=message):
        slides.open_slide(path)
    with caplog.at_level(logging.WARNING, "ssldiff_jax"):
        assert slides.open_slide(path, otherwise_mpp=0.5).mpp == 0.5
    assert f"{path}: using 0.5 µm/px" in caplog.text


def test_a_scanner_s_description_counts_in_every_layout(tiff):
    described = {"description": APERIO.format("0,4990")}
    assert slides.open_slide(tiff(**described)).mpp == pytest.approx(0.499)
    with pytest.raises(slides.SlideError, match=r"got 0\.499\S* by the scanner and 1 by the res"):
        slides.open_slide(tiff(**described, **per_cm(1, 1)))


@pytest.mark.parametrize(
    "text",
    [
        "<OME><Image><Pixels PhysicalSizeX='half' PhysicalSizeY='0.5'/></Image></OME>",
        "<OME><Image><Pixels PhysicalSizeX='0.5'/></Image></OME>",
        "<OME><Image>",
        "<!DOCTYPE a [<!ENTITY b 'c'>]><OME><Pixels PhysicalSizeX='1' PhysicalSizeY='1'/></OME>",
        "plain words about OME",
    ],
)
def test_a_description_that_tells_no_scale_is_none(text):
    assert scale.of_tiff({270: text}).mpp is None


def test_of_several_images_the_first_counts():
    image = "<o:Image><o:Pixels PhysicalSizeX='{0}' PhysicalSizeY='{0}'/></o:Image>"
    text = "<o:OME xmlns:o='http://x'>" + image.format(0.25) + image.format(4) + "</o:OME>"
    assert scale.of_tiff({270: text}).mpp == 0.25


def ome_of(*images, declared=""):
    """OME-XML of images of (width, height, mpp)."""
    image = (
        '<Image><Pixels SizeX="{}" SizeY="{}" PhysicalSizeX="{}" PhysicalSizeXUnit="µm" '
        'PhysicalSizeY="{}" PhysicalSizeYUnit="µm"/></Image>'
    )
    return f"{declared}<OME>{''.join(image.format(*told, told[-1]) for told in images)}</OME>"


def test_of_several_images_that_of_the_pixels_counts(tiff):
    """Converters of scanners' files write the picture of the glass first, or last."""
    images = [(100, 40, 4.0), (192, 128, 0.25), (64, 64, 9.0)]
    for told in (images, images[::-1]):
        assert slides.open_slide(tiff(description=ome_of(*told).encode())).mpp == 0.25


def test_a_picture_of_the_glass_before_the_slide_gives_it_no_scale(tmp_path):
    """OME-XML stands in the first page, whichever page is the image."""
    with tifffile.TiffWriter(tmp_path / "it.tif") as file:
        described = ome_of((50, 30, 4.0), (192, 128, 0.25)).encode()
        for shape, text in (((30, 50, 3), described), ((128, 192, 3), None)):
            pixels = np.full(shape, 200, np.uint8)
            file.write(pixels, photometric="rgb", metadata=None, description=text)
    slide = slides.open_slide(tmp_path / "it.tif")
    assert slide.shape == (128, 192)
    assert slide.mpp == 0.25


@pytest.mark.parametrize("encoding", ["utf-16", "gb2312", "shift_jis", "UTF-7", "bogus", "ascii"])
def test_the_encoding_that_ome_xml_declares_is_not_that_of_its_text(tiff, encoding):
    """.NET writes utf-16 in front of text that is UTF-8 in the file."""
    declared = f'<?xml version="1.0" encoding="{encoding}"?>\n'
    path = tiff(description=ome_of((192, 128, 0.5), declared=declared).encode())
    assert slides.open_slide(path).mpp == 0.5


@pytest.mark.parametrize("stored", ["µm", "μm", "?m", "Âµm", "Î¼m", b"\xb5m", "\ufffdm"])
def test_a_micron_is_one_in_any_encoding(tiff, stored):
    stored = stored if isinstance(stored, bytes) else stored.encode()
    described = ome_of((192, 128, 0.5)).encode().replace("µm".encode(), stored)
    assert slides.open_slide(tiff(description=described)).mpp == 0.5


def test_broken_characters_in_a_description_cost_nothing():
    assert scale.of_tiff({270: ome_of((1, 1, 0.5)) + "<!-- \udc80 -->"}).mpp == 0.5


@pytest.mark.parametrize("unit", ["micron", "um", r"\u00B5m", "nm"])
def test_imagej_counts_pixels_in_its_own_unit(tmp_path, unit):
    """Fiji tells pixels per unit in the resolution tags, whose own unit is none."""
    side = 500.0 if unit == "nm" else 0.5
    told = {"description": f"ImageJ=1.54f\nunit={unit}\nloop=false\n", "resolutionunit": "NONE"}
    pixels = np.full((128, 192, 3), 200, np.uint8)
    save = lambda x, **more: tifffile.imwrite(
        tmp_path / "it.tif", pixels, metadata=None, resolution=(1 / x, 1 / side), **told | more
    )
    save(side)
    assert slides.open_slide(tmp_path / "it.tif").mpp == pytest.approx(0.5)
    save(2 * side)
    with pytest.raises(slides.SlideError, match=r"square pixels, got 0\.5 × 1 µm by ImageJ"):
        slides.open_slide(tmp_path / "it.tif")
    save(side, description="ImageJ=1.54f\nunit=pixel\n")
    with pytest.raises(slides.SlideError, match="got none"):
        slides.open_slide(tmp_path / "it.tif")
