"""DICOM that is written here, read by OpenSlide, by wsidicom and by us; series are slides."""

import io
import json
import shutil

import numpy as np
import openslide
import pytest
import tissue_like
from PIL import Image

from configs import demo
from ssldiff_jax.runs import launch
from ssldiff_jax.slides import find_slides, halving, open_slide, pyramid
from ssldiff_jax.stages import table

pydicom = pytest.importorskip("pydicom", minversion="3.0")

PIXELS = np.tile(tissue_like.pixels(0), (2, 2, 1))[:1300, :1111]
JPEG = 3.0  # mean difference of grey levels that JPEG of quality 90 may make


def levels():
    every = [np.zeros((*s, 3), np.uint8) for s in halving.shapes(*PIXELS.shape[:2], 512)]
    shapes = [level.shape[:2] for level in every]
    for level, top, strip in halving.Strips(shapes, 64).of(lambda t, n: PIXELS[t : t + n]):
        every[level][top : top + len(strip)] = strip
    return every


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    pyramid.write_dicom(folder / "image_0.dcm", PIXELS, pyramid.Scale(0.4321))
    assert [path.name for path in folder.iterdir()] == ["image_0.dcm"]
    names = sorted(path.name for path in (folder / "image_0.dcm").iterdir())
    assert names == ["level_0.dcm", "level_1.dcm", "level_2.dcm"]
    return folder / "image_0.dcm"


def test_openslide_reads_it_back(series):
    slide = openslide.OpenSlide(series / "level_1.dcm")
    assert slide.properties["openslide.vendor"] == "dicom"
    for axis in "xy":
        assert float(slide.properties[f"openslide.mpp-{axis}"]) == pytest.approx(0.4321, rel=1e-9)
    expected = levels()
    assert slide.level_dimensions == tuple(level.shape[1::-1] for level in expected)
    for number, pixels in enumerate(expected):
        read = slide.read_region((0, 0), number, pixels.shape[1::-1]).convert("RGB")
        assert np.abs(np.asarray(read, int) - pixels).mean() < JPEG
    assert slide.color_profile is not None


def test_it_loses_what_jpeg_does(series):
    buffer = io.BytesIO()
    Image.fromarray(PIXELS[:512, :512]).save(buffer, "jpeg", quality=90, subsampling=0)
    expected = np.abs(np.asarray(Image.open(buffer), int) - PIXELS[:512, :512]).mean()
    read = open_slide(series / "level_0.dcm").read_region(0, 0, 512, 512, mpp=0.4321)
    # Decoders round a little differently.
    assert np.abs(read.astype(int) - PIXELS[:512, :512]).mean() == pytest.approx(expected, rel=0.1)


def test_wsidicom_reads_it_back(series):
    wsidicom = pytest.importorskip("wsidicom")
    with wsidicom.WsiDicom.open(series) as slide:
        assert (slide.size.width, slide.size.height) == (1111, 1300)
        assert slide.mpp.width == pytest.approx(0.4321, rel=1e-9)
        assert [level.size.width for level in slide.levels] == [1111, 555, 277]
        read = slide.read_region((500, 700), 0, (400, 500)).convert("RGB")
        expected = PIXELS[700:1200, 500:900]
        assert np.abs(np.asarray(read, int) - expected).mean() < JPEG


def test_pydicom_finds_what_the_standard_asks_for(series):
    instances = [pydicom.dcmread(path) for path in sorted(series.iterdir())]
    assert len({d.SOPInstanceUID for d in instances}) == 3
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "PyramidUID"):
        assert len({d[name].value for d in instances}) == 1
    first, second, _ = instances
    assert first.SOPClassUID == pydicom.uid.VLWholeSlideMicroscopyImageStorage
    assert list(first.ImageType) == ["DERIVED", "PRIMARY", "VOLUME", "NONE"]
    assert list(second.ImageType) == ["DERIVED", "PRIMARY", "VOLUME", "RESAMPLED"]
    assert (first.DimensionOrganizationType, first.NumberOfFrames) == ("TILED_FULL", 9)
    assert "Generated" in first.SeriesDescription
    assert (first.PatientName, first.PatientID, first.PatientBirthDate) == ("", "", "")
    measures = second.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert [float(side) for side in measures.PixelSpacing] == pytest.approx([0.4321e-3 * 2] * 2)
    # The table of offsets leads to the frames.
    frame = pydicom.encaps.get_frame(
        first.PixelData, 8, number_of_frames=9,
        extended_offsets=(first.ExtendedOffsetTable, first.ExtendedOffsetTableLengths),
    )  # fmt: skip
    tile = np.asarray(Image.open(io.BytesIO(frame)), int)[: 1300 - 1024, : 1111 - 1024]
    assert np.abs(tile - PIXELS[1024:, 1024:]).mean() < JPEG


def test_the_same_image_is_the_same_files(series, tmp_path):
    pyramid.write_dicom(tmp_path / "image_0.dcm", PIXELS, pyramid.Scale(0.4321))
    for path in series.iterdir():
        assert (tmp_path / "image_0.dcm" / path.name).read_bytes() == path.read_bytes()
    pyramid.write_dicom(tmp_path / "other.dcm", PIXELS, pyramid.Scale(0.5))
    uids = [pydicom.dcmread(folder / "level_0.dcm").SeriesInstanceUID
            for folder in (series, tmp_path / "other.dcm")]  # fmt: skip
    assert uids[0] != uids[1]


def test_two_series_in_a_folder_are_two_slides(tmp_path):
    """Under names that tell nothing, as archives export them."""
    images = [tissue_like.pixels(n) for n in range(2)]
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for number, pixels in enumerate(images):
        pyramid.write_dicom(tmp_path / f"{number}.dcm", pixels, pyramid.Scale(0.5))
        for level, path in enumerate(sorted((tmp_path / f"{number}.dcm").iterdir())):
            shutil.copy(path, mixed / f"{level}{number}.dcm")
    paths = find_slides(str(mixed))
    assert [path.name for path in paths] == ["00.dcm", "01.dcm"]
    for path, pixels in zip(paths, images, strict=True):
        slide = open_slide(path)
        assert (slide.mpp, slide.shape) == (pytest.approx(0.5), pixels.shape[:2])
        read = slide.read_region(0, 0, *slide.shape, mpp=0.5)
        assert np.abs(read.astype(int) - pixels).mean() < JPEG
        slide.close()
    c = demo.get_config()
    c.stages, c.data.engine.processes, c.data.slides = "patches", 1, str(mixed)
    c.data.regions.rows = c.data.regions.cols = c.data.regions.count = 1
    assert launch.launch(c.to_dict(), tmp_path / "run", table.STAGES) is None
    facts = json.loads((tmp_path / "run/patches/done.json").read_text())["facts"]
    assert sorted(facts["slides"].values()) == ["00.dcm", "01.dcm"]
