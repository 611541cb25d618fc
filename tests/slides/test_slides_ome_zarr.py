"""OME-Zarr that is written here, read by ome-zarr, by zarr with dask, by tensorstore, and by us."""

import itertools

import numpy as np
import pytest

from ssldiff_jax.slides import halving, open_slide, pyramid, whole_file

zarr = pytest.importorskip("zarr", minversion="3.1")

PIXELS = np.random.default_rng(0).integers(0, 255, (1300, 1111, 3), np.uint8)
VERSIONS = ("0.4", "0.5")


def halved(pixels):
    """By the definition: means of four, rounded half up, whole pixels only."""
    height, width = (side // 2 for side in pixels.shape[:2])
    cut = pixels[: 2 * height, : 2 * width].astype(int).reshape(height, 2, width, 2, 3)
    return ((cut.sum((1, 3)) + 2) // 4).astype(np.uint8)


LEVELS = [PIXELS, halved(PIXELS), halved(halved(PIXELS))]


@pytest.fixture(scope="module", params=VERSIONS)
def store(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    scale = pyramid.Scale(0.25, ngff=request.param)
    pyramid.write_ome_zarr(folder / "out.ome.zarr", PIXELS, scale)
    assert [path.name for path in folder.iterdir()] == ["out.ome.zarr"]
    return request.param, folder / "out.ome.zarr"


def test_it_is_a_slide_again(store):
    _, path = store
    slide = open_slide(path)
    assert (slide.mpp, slide.shape) == (0.25, (1300, 1111))
    for level, pixels in enumerate(LEVELS):
        read = slide.read_region(0, 0, *pixels.shape[:2], mpp=0.25 * 2**level)
        np.testing.assert_array_equal(read, pixels)


def test_ome_zarr_reads_it_back(store):
    pytest.importorskip("ome_zarr")
    from ome_zarr import io, reader

    version, path = store
    (node,) = reader.Reader(io.parse_url(path))()
    for dask_array, pixels in zip(node.data, LEVELS, strict=True):
        np.testing.assert_array_equal(np.asarray(dask_array).transpose(1, 2, 0), pixels)
    assert [axis["name"] for axis in node.metadata["axes"]] == ["c", "y", "x"]
    assert {a["unit"] for a in node.metadata["axes"][1:]} == {"micrometer"}
    scales = [t[0]["scale"] for t in node.metadata["coordinateTransformations"]]
    assert scales == [[1, 0.25, 0.25], [1, 0.5, 0.5], [1, 1, 1]]
    assert node.metadata["channel_names"] == ["red", "green", "blue"]
    assert node.zarr.version == version


def test_ngff_zarr_takes_its_metadata(store):
    ngff_zarr = pytest.importorskip("ngff_zarr")
    version, path = store
    multiscales = ngff_zarr.from_ngff_zarr(str(path), validate=False, version=version)
    first = multiscales.images[1]
    assert (first.scale["y"], first.scale["x"]) == (0.5, 0.5)
    assert (first.translation["y"], first.axes_units["x"]) == (0.125, "micrometer")
    np.testing.assert_array_equal(np.asarray(first.data).transpose(1, 2, 0), LEVELS[1])


def test_tensorstore_reads_it_back(store):
    tensorstore = pytest.importorskip("tensorstore")
    version, path = store
    driver = {"0.4": "zarr", "0.5": "zarr3"}[version]
    for level, pixels in enumerate(LEVELS):
        kvstore = {"driver": "file", "path": f"{path}/{level}/"}
        array = tensorstore.open({"driver": driver, "kvstore": kvstore}).result()
        np.testing.assert_array_equal(array.read().result().transpose(1, 2, 0), pixels)


def test_there_are_few_files(tmp_path):
    """Of 2048 × 6000 px: 4 rows of 2 shards, then 2, 1, 1 and 1 of one, or chunks of 512 px."""
    raw = pyramid.RawImage(tmp_path / "pixels.raw", 2048, 6000)
    with open(raw.path, "wb") as file:
        file.write(bytes(range(1, 251)) * (3 * 2048 * 6000 // 250 + 1))
    for version, shards in (("0.5", 8 + 2 + 1 + 1 + 1), ("0.4", 48 + 12 + 3 + 2 + 1)):
        path = tmp_path / f"{version}.ome.zarr"
        pyramid.write_ome_zarr(path, raw, pyramid.Scale(0.25, ngff=version))
        files = [p for p in path.rglob("*") if p.is_file() and p.name not in ("zarr.json",)]
        assert len([p for p in files if not p.name.startswith(".")]) == shards


@pytest.mark.parametrize("shape", [(1, 1), (1, 2000), (512, 512), (513, 512), (1025, 1023), (3, 5)])
def test_strips_of_all_levels_are_halves(shape):
    pixels = np.random.default_rng(1).integers(0, 255, (*shape, 3), np.uint8)
    levels = halving.shapes(*shape, 512)
    every = [np.zeros((*level, 3), np.uint8) for level in levels]
    for level, top, strip in halving.Strips(levels, 64).of(lambda t, n: pixels[t : t + n]):
        every[level][top : top + len(strip)] = strip
    np.testing.assert_array_equal(every[0], pixels)
    for fine, coarse in itertools.pairwise(every):
        twice = fine.repeat(2 if len(fine) == 1 else 1, 0)
        np.testing.assert_array_equal(coarse, halved(twice))
    assert max(levels[-1]) <= 512


def test_an_old_store_stays_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "out.ome.zarr"
    pyramid.write_ome_zarr(path, PIXELS, pyramid.Scale(0.5))
    before = sorted(p for p in tmp_path.rglob("*"))

    class FullDiskError(OSError):
        pass

    def rows(top, count):
        assert path.exists()
        if top:
            raise FullDiskError("no space left")
        return PIXELS[:count]

    from ssldiff_jax.slides import zarr_writer

    with pytest.raises(OSError, match=r"expected to write .*out\.ome\.zarr, got: no space left"):
        zarr_writer.write(path, rows, PIXELS.shape[:2], mpp=0.5, version="0.5")
    assert sorted(p for p in tmp_path.rglob("*")) == before
    pyramid.write_ome_zarr(path, PIXELS[:600], pyramid.Scale(0.5))
    assert open_slide(path).shape == (600, 1111)
    assert [p.name for p in tmp_path.iterdir()] == ["out.ome.zarr"]


def test_a_missing_folder_is_an_os_error(tmp_path):
    with pytest.raises(OSError, match="absent"), whole_file.replacing_folder(tmp_path / "absent/a"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_models_of_the_specification_take_it(store):
    models = pytest.importorskip("ome_zarr_models")
    version, path = store
    image = models.open_ome_zarr(zarr.open_group(path, mode="r"))
    assert image.ome_zarr_version == version
    assert type(image).__name__ == "Image"
