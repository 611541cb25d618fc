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
    assert f"{path}: taken for one of 0.5" in caplog.text


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
