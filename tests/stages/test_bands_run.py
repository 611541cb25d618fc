"""A run of five bands of 16 bits: from a raster to images of all bands, their files and figures."""

import json

import numpy as np
import pytest
import rasterio
import zarr

import ssldiff_jax
from ssldiff_jax.core import layers, schema
from ssldiff_jax.data import records as records_lib
from ssldiff_jax.runs import artifacts
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import folders, stored_config
from ssldiff_jax.slides import open_slide, pyramid

pytestmark = pytest.mark.e2e
NAMES = ("red", "green", "blue", "nir", "swir")
IN_FILE = ("swir", "blue", "green", "red", "nir")
LOW, HIGH = (0.0, 0.0, 100.0, 0.0, 50.0), (4000.0, 4000.0, 4100.0, 8000.0, 6050.0)
BANDS = (
    f"--config.data.reading.multiband.names={NAMES}",
    f"--config.data.reading.multiband.low={LOW}",
    f"--config.data.reading.multiband.high={HIGH}",
    "--config.data.reading.multiband.bits=16",
    "--config.data.reading.multiband.encoded=('nir','red','green')",
    "--config.autoencoder.model.bands=5",
    "--config.prior.conditions.measure=landcover",
    "--config.evaluate.classes=landcover",
)
GROUND = (
    "--config.data.metres=1", "--config.data.patch_metres=1", "--config.data.tissue.mpp=16e6",
    "--config.data.tissue.min_saturation=0", "--config.data.tissue.min_luminance=0",
    "--config.data.tissue.smooth_radius_um=0", "--config.data.records.min_tissue=0",
)  # fmt: skip
STEPS = ("patches,judge,encoder,embeddings,autoencoder,latents,denoiser,grids,prior,sample,imagine,"
         "evaluate,report,export")  # fmt: skip


def scene(seed, side=640):
    """Smooth fields as large as a sensor's numbers are; plants where infrared is strong."""
    source = np.random.default_rng(seed)
    coarse = source.uniform(300, 3500, (len(NAMES), side // 40, side // 40))
    fields = np.kron(coarse, np.ones((40, 40))) + source.normal(0, 60, (len(NAMES), side, side))
    return fields.clip(1, 4095).astype(np.uint16)


def write(path, values):
    count, height, width = values.shape
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=count, dtype="uint16",
        crs="EPSG:32614", transform=rasterio.Affine(1, 0, 500_000, 0, -1, 5_200_000), nodata=0,
    ) as file:  # fmt: skip
        file.write(values[[NAMES.index(name) for name in IN_FILE]])
        file.descriptions = IN_FILE
    return path


@pytest.fixture(scope="module")
def run(command, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bands")
    path = write(folder / "scene.tif", scene(0))
    asked = (f"--config.data.slides={path}", *BANDS, *GROUND)
    done = command(folder / "run", *asked, f"--config.stages={STEPS}")
    assert done.returncode == 0, done.stderr[-3000:]
    done = command(
        folder / "run", *asked, "--config.stages=generate", "--config.generate.name=all",
        f"--config.generate.reference={path}", "--config.generate.region=(64,0,128,192)",
        "--config.sample.output.formats=('cog.tif','tif','ome.zarr','png')",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "run"


def config_of(folder):
    return schema.build(run_config.RunConfig, stored_config.of_run(folder))


def expected(values, top, left, height, width):
    """Records of a window, by the formula alone."""
    window = values[:, top : top + height, left : left + width].astype(np.float64)
    low, high = (np.array(ends)[:, None, None] for ends in (LOW, HIGH))
    scaled = np.floor((window - low) / (high - low) * 65535 + 0.5).clip(0, 65535)
    return np.moveaxis(scaled, 0, -1).astype(np.uint16)


def test_records_are_the_scene_s_values(run):
    values = scene(0)
    source = records_lib.RecordSource(run / "patches" / "records", "train")
    assert (source.num_bands, source.dtype) == (5, np.uint16)
    for number in (0, len(source) - 1):
        _, top, left, _ = source.places[number].tolist()
        own = source[number]
        np.testing.assert_array_equal(own, expected(values, top, left, *own.shape[:2]))


def test_a_held_out_region_has_all_bands_and_a_picture_has_three(run):
    made = artifacts.Artifacts(config_of(run), folders.Folders(run))
    region = made.references()[0].image
    assert (region.shape, region.dtype) == ((128, 128, 5), np.uint16)
    picture = pyramid.read_image(run / "patches" / "region_0.png")
    np.testing.assert_array_equal(picture, np.round(region[..., :3] / 257))


def test_large_images_are_files_of_all_bands(run):
    folder = run / "generate" / "all"
    with rasterio.open(folder / "image.cog.tif") as file:
        assert (file.shape, file.count, set(file.dtypes)) == ((128, 192), 5, {"uint16"})
        assert file.descriptions == NAMES
        assert set(file.nodatavals) == {0}
        assert file.crs.to_epsg() == 32614
        assert file.transform[:6] == (1, 0, 500_000, 0, -1, 5_200_000 - 64)
        values = np.moveaxis(file.read(), 0, -1)
        # Physical values by what the file says of itself.
        scaled = values * np.array(file.scales) + np.array(file.offsets)
    assert values.min() >= 1
    span = np.array(HIGH) - np.array(LOW)
    np.testing.assert_allclose(scaled, values / 65535 * span + np.array(LOW), rtol=1e-9)
    with rasterio.open(folder / "image.tif") as file:
        np.testing.assert_array_equal(np.moveaxis(file.read(), 0, -1), values)
    stored = zarr.open_group(folder / "image.ome.zarr", mode="r")["0"][:]
    np.testing.assert_array_equal(np.moveaxis(stored.reshape(5, 128, 192), 0, -1), values)
    picture = pyramid.read_image(folder / "image.png")
    np.testing.assert_array_equal(picture, np.round(values[..., :3] / 257))


def test_what_is_generated_is_read_again_as_what_it_is(run):
    """Without the range: the numbers are those of records."""
    config = config_of(run)
    bands = config.data.reading.multiband
    reading = type(config.data.reading)(
        (), 0.0, 0.0, "stored", type(bands)(NAMES, (), (), 16, (), ())
    )
    slide = open_slide(run / "generate" / "all" / "image.cog.tif", reading=reading)
    with rasterio.open(run / "generate" / "all" / "image.cog.tif") as file:
        values = np.moveaxis(file.read(), 0, -1)
    np.testing.assert_array_equal(slide.read_region(0, 0, 128, 192, mpp=slide.mpp), values)


def test_the_encoder_sees_the_bands_that_were_chosen_for_it(run):
    model = ssldiff_jax.Generator.load(run)
    patch = expected(scene(0), 100, 100, 64, 64)
    chosen = (patch[..., [3, 0, 1]].astype(int) + 128) // 257
    prepared = layers.to_image(chosen.astype(np.uint8)[None])
    encoder = model.encoder
    whole = encoder.architecture.embed(encoder.params, prepared) - encoder.origin
    if encoder.whitening is not None:
        whole = whole @ encoder.whitening
    np.testing.assert_allclose(model.embed(patch)[0, 0], np.asarray(whole)[0], atol=1e-4)
    with pytest.raises(ValueError, match=r"image must be uint16 of shape \(H, W, 5\), got uint8"):
        model.embed(patch[..., :3].astype(np.uint8))


def test_figures_of_all_bands(run):
    results = json.loads((run / "evaluate" / "results.json").read_text())
    assert list(results["structure"]["bands"]) == list(NAMES)
    assert set(results["structure"]["vegetation"]) == {"cells", "squares"}
    for figures in (results["structure"]["bands"], results["structure"]["vegetation"]):
        assert all(-1 <= of["generated"]["value"] <= 1 for of in figures.values())
    page = (run / "report" / "index.html").read_text()
    assert "vegetation index, correlation: cells" in page
    assert "band, correlation in squares of 8 px: swir" in page


def test_land_cover_is_measured_in_records(run):
    """The prior's labels come of infrared that records hold: no file is opened again."""
    spec = json.loads((run / "grids" / "spec.json").read_text())
    assert "vegetation" in spec["spec"]["labels"]


def test_an_export_generates_the_same_bands(run):
    (folder,) = (path.parent for path in run.rglob("denoiser.safetensors"))
    exported, own = ssldiff_jax.Generator.load(folder), ssldiff_jax.Generator.load(run)
    patch = expected(scene(0), 100, 100, 128, 128)
    grid = exported.embed(patch)
    np.testing.assert_allclose(grid, own.embed(patch), atol=1e-5)
    image = exported.generate(grid, size=(128, 128), seed=1)
    assert (image.image.shape, image.image.dtype) == ((128, 128, 5), np.uint16)
    assert image.image.min() >= 1
    path = image.save(folder / "mine.cog.tif")
    with rasterio.open(path) as file:
        assert file.descriptions == NAMES
        np.testing.assert_array_equal(np.moveaxis(file.read(), 0, -1), image.image)


def test_other_bands_than_a_run_has_are_refused(run, refusal):
    path = run.parent / "scene.tif"
    asked = (f"--config.data.slides={path}", *BANDS, *GROUND)
    line = refusal(run, *asked, "--config.autoencoder.model.bands=3", "--config.stages=sample")
    assert "config.autoencoder.model.bands must be 5, as records have" in line
