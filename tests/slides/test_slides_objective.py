"""The power of the objective in files of large images, by the libraries of viewers."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import openslide
import pytest
import rasterio
import tifffile

from ssldiff_jax import slides
from ssldiff_jax.slides import objective, pyramid

OME = "{http://www.openmicroscopy.org/Schemas/OME/2016-06}"
# What scanners write beside their microns per pixel: Aperio .2498 and .4994, Hamamatsu .2265 and
# .4415, Leica .2525, 3DHISTECH .2425 and .1214.
SCANNERS = [
    (0.2498, 40), (0.4994, 20), (0.2265, 40), (0.4415, 20), (0.2525, 40), (0.2425, 40),
    (0.1214, 80), (0.25, 40), (0.5, 20), (1.0, 10), (2.0, 5), (4.0, 2.5), (8.0, 1.25),
]  # fmt: skip


@pytest.fixture
def image_uint8():
    y, x = np.mgrid[:300, :400]
    return np.stack([y % 256, x % 256, (x + y) % 256], -1).astype(np.uint8)


@pytest.mark.parametrize(("mpp", "power"), SCANNERS)
def test_powers_are_those_of_scanners(mpp, power):
    assert objective.power(mpp) == power


@pytest.mark.parametrize("mpp", [0.325, 0.02, 30.0, 1e6, 3e7])
def test_between_objectives_and_beyond_there_is_none(mpp):
    assert objective.power(mpp) is None
    assert objective.description(mpp) is None
    assert "Objective" not in objective.ome_xml("image.ome.tif", (3, 4), mpp)


@pytest.mark.parametrize(
    ("mpp", "power"), [(0.25, "40"), (0.5, "20"), (0.4994, "20"), (4.0, "2.5")]
)
def test_openslide_knows_the_power_of_a_pyramid(tmp_path, image_uint8, mpp, power):
    """And the scale as before, of as many levels with the same pixels."""
    path = tmp_path / "image.tif"
    pyramid.write_pyramid(path, image_uint8, pyramid.Scale(mpp))
    with openslide.OpenSlide(str(path)) as slide:
        assert slide.properties["openslide.objective-power"] == power
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(mpp, rel=1e-6)
        assert slide.level_dimensions == ((400, 300), (200, 150))
        assert not slide.associated_images
    own = slides.open_slide(path)
    assert own.mpp == pytest.approx(mpp, rel=1e-6)
    back = own.read_region(0, 0, *own.shape, mpp=own.mpp)
    np.testing.assert_array_equal(back, pyramid.read_image(path))  # by vips
    with tifffile.TiffFile(path) as tiff:
        # Described in a scanner's way, and not taken for one of its files.
        assert not tiff.is_svs
        assert "generated image" in tiff.pages[0].description


def test_openslide_is_told_none_of_a_raster(tmp_path, image_uint8):
    path = tmp_path / "image.tif"
    pyramid.write_pyramid(path, image_uint8, pyramid.Scale(1e6))
    with openslide.OpenSlide(str(path)) as slide:
        assert "openslide.objective-power" not in slide.properties
        assert slide.properties["openslide.vendor"] == "generic-tiff"


@pytest.mark.parametrize(("mpp", "power"), [(0.25, 40.0), (0.5, 20.0), (2.0, 5.0), (1e6, None)])
def test_ome_xml_has_the_objective_that_its_image_names(tmp_path, image_uint8, mpp, power):
    path = tmp_path / "image.ome.tif"
    pyramid.write_ome_tiff(path, image_uint8, pyramid.Scale(mpp))
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_ome
        root = ElementTree.fromstring(tiff.ome_metadata)
    objectives = root.findall(f"{OME}Instrument/{OME}Objective")
    assert [float(one.get("NominalMagnification")) for one in objectives] == (
        [] if power is None else [power]
    )
    image = root.find(f"{OME}Image")
    settings = image.find(f"{OME}ObjectiveSettings")
    assert (settings is None) == (power is None)
    if power is not None:
        assert settings.get("ID") == objectives[0].get("ID")
        instrument = root.find(f"{OME}Instrument").get("ID")
        assert image.find(f"{OME}InstrumentRef").get("ID") == instrument
        # In the order of the schema: readers that check it want the pixels last of these.
        tags = [child.tag.removeprefix(OME) for child in image]
        assert tags == ["InstrumentRef", "ObjectiveSettings", "Pixels"]
    assert float(image.find(f"{OME}Pixels").get("PhysicalSizeX")) == mpp


def test_a_geotiff_is_told_none(tmp_path, image_uint8):
    pyramid.write_cog(tmp_path / "image.cog.tif", image_uint8, pyramid.Scale(0.5))
    with rasterio.open(tmp_path / "image.cog.tif") as raster:
        assert "TIFFTAG_IMAGEDESCRIPTION" not in raster.tags()
