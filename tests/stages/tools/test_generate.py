"""Large images as jobs: their cost, their files, and what they begin from."""

import dataclasses
import json
import logging
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import numpy as np
import openslide
import patience
import pytest
import rasterio

from configs import tiny
from ssldiff_jax.core import schema
from ssldiff_jax.generation import render
from ssldiff_jax.runs import launch, stage
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import stored_config
from ssldiff_jax.sampler import conditions
from ssldiff_jax.slides import open_slide, optional, pyramid
from ssldiff_jax.stages import table
from ssldiff_jax.stages.tools import generate

pytestmark = pytest.mark.e2e
PX = 64


@pytest.fixture
def drawn(workdir, tmp_path):
    """(sample={…}, **draw) → the folder that the tool wrote, and what it returned."""
    for name in ("patches", "encoder", "autoencoder", "latents", "denoiser"):
        (tmp_path / name).symlink_to(workdir / name)
    values = stored_config.of_run(workdir)

    def run(sample=(), **settings):
        config = json.loads(json.dumps(values))
        config["generate"] |= settings
        for key, value in dict(sample).items():
            *sections, last = key.split(".")
            part = config["sample"]
            for section in sections:
                part = part[section]
            part[last] = value
        context = stage.Context(schema.build(run_config.RunConfig, config), tmp_path, None)
        folder = context.folder("generate")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        told = generate.run(dataclasses.replace(context, mesh=mesh()))
        return folder, told

    return run


def mesh():
    from ssldiff_jax.train import mesh as mesh_lib

    return mesh_lib.make_mesh(mesh_lib.MeshConfig(-1, 1, 1, ()))


PNG = {"output.formats": ("png",)}


def image_of(found):
    return pyramid.read_image(found[0] / "image.png")


def test_a_slide_is_drawn_into_every_format(drawn, tmp_path, region):
    reference = tmp_path / "mine.tif"
    pyramid.write_pyramid(reference, np.tile(region, (1, 2, 1)), pyramid.Scale(0.5))
    written = tuple(filter(optional.is_there, pyramid.FORMATS))
    formats = {"output.formats": written}
    folder, told = drawn(formats, reference=str(reference))
    assert (told["height"], told["width"]) == (128, 256)
    image = pyramid.read_image(folder / "image.png")
    assert image.shape == (128, 256, 3)
    for name in ("tif", "ome.tif"):
        with openslide.OpenSlide(str(folder / f"image.{name}")) as slide:
            assert slide.dimensions == (256, 128)
            assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.5, rel=0.01)
    with rasterio.open(folder / "image.cog.tif") as raster:
        assert raster.shape == (128, 256)
    assert (folder / "image_files").is_dir()
    for name in set(written) & set(optional.WRITERS):
        inside = {"ome.zarr": "", "dcm": "level_0.dcm"}[name]
        slide = open_slide(folder / f"image.{name}" / inside)
        assert (slide.shape, slide.mpp) == ((128, 256), pytest.approx(0.5))
        read = slide.read_region(0, 0, 128, 256, mpp=0.5)
        # OME-Zarr loses nothing.
        assert np.abs(read.astype(int) - image).mean() <= (8 if name == "dcm" else 0)
    # Nothing of the way there is left.
    assert not (folder / ".image").exists()


def test_a_georeferenced_raster_gives_a_georeferenced_image(drawn, tmp_path, region):
    profile = {
        "driver": "GTiff", "height": 128, "width": 128, "count": 3, "dtype": "uint8",
        "crs": "EPSG:26914", "transform": rasterio.Affine(5e-7, 0, 100, 0, -5e-7, 200),
    }  # fmt: skip
    with rasterio.open(tmp_path / "scene.tif", "w", **profile) as raster:
        raster.write(np.moveaxis(region, -1, 0))
    folder, _ = drawn(
        {"output.formats": ("cog.tif",)}, reference=str(tmp_path / "scene.tif"), outpaint_px=PX
    )
    with rasterio.open(folder / "image.cog.tif") as raster:
        assert raster.crs.to_epsg() == 26914
        assert raster.shape == (256, 256)
        np.testing.assert_allclose(raster.transform.c, 100 - PX * 5e-7)
        np.testing.assert_allclose(raster.transform.f, 200 + PX * 5e-7)


def test_a_grid_may_have_any_size_and_less_than_a_window(
    drawn, tmp_path, generator, region, caplog
):
    np.save(tmp_path / "grid.npy", generator.embed(region))
    with caplog.at_level(logging.INFO, "ssldiff_jax"):
        found = drawn(PNG, reference=str(tmp_path / "grid.npy"), size=(37, 150))
    assert image_of(found).shape == (37, 150, 3)
    assert "37 × 150 px are generated as 64 × 152 and cropped" in caplog.text


def test_cells_stay_in_place_where_a_reference_ends_within_one(generator, region):
    """A window over a whole cell is told that cell, though the last ones are cut off."""
    reference = region[:96, :112]
    sample = dataclasses.replace(generator.config.sample, conditioning="interpolated")
    model = generator.with_sample(sample)
    read = conditions.array_reader(reference)
    found = model.planner.from_reference(read, (96, 112)).condition.lattice
    corners = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]) * generator.config.window
    cells = model.planner.embed_all(read, (96, 112)).reshape(4, -1)
    np.testing.assert_allclose(found.interpolated(corners), cells, atol=1e-5)


def test_a_dry_run_tells_and_writes_nothing(drawn, caplog):
    with caplog.at_level(logging.INFO, "ssldiff_jax"):
        folder, told = drawn({"dry_run": True})
    assert told is None
    assert list(folder.iterdir()) == []
    for word in ("windows", "network calls", "FLOP", "canvas", "disk", "about 00:"):
        assert word in caplog.text


def reconstructed(generator, image):
    """What the autoencoder makes of an image, tile by tile."""
    canvas = tuple(px // generator.config.downsample_factor for px in image.shape[:2])
    networks = generator.networks
    latents = networks.encode_image(image, canvas)
    return networks.decoder(networks.autoencoder.params, latents)[0].astype(int)


def test_the_less_noise_the_nearer_to_the_reference(drawn, generator, region):
    wanted, steps = reconstructed(generator, region), PNG | {"solver.num_solver_steps": 10}
    distances = [
        np.abs(image_of(drawn(steps, strength=strength)) - wanted).mean()
        for strength in (0.1, 0.5, 1.0)
    ]
    assert distances[0] < distances[1] < distances[2]
    assert distances[0] < 0.5 * distances[2]


def test_white_of_a_mask_stays(drawn, tmp_path, generator, region):
    """The image there is what the autoencoder makes of the reference."""
    keep = np.zeros_like(region)
    keep[:, :64] = 255
    pyramid.write_png(tmp_path / "keep.png", keep)
    image = image_of(drawn(PNG, mask=str(tmp_path / "keep.png"))).astype(int)
    difference = np.abs(image - reconstructed(generator, region))
    assert difference[:, 16:40].mean() < 2
    assert difference[:, 72:].mean() > 10


def test_a_reference_grows_beyond_its_border(drawn, generator, region):
    image = image_of(drawn(PNG, outpaint_px=PX)).astype(int)
    assert image.shape == (256, 256, 3)
    difference = np.abs(image[PX:-PX, PX:-PX] - reconstructed(generator, region))
    assert difference[24:-24, 24:-24].mean() < 2
    assert image[:40].std() > 1


def test_mixing_and_editing_change_the_conditions(drawn, tmp_path, generator, region):
    grid = generator.embed(region)
    np.save(tmp_path / "grid.npy", grid)
    other = region[::-1, ::-1].copy()
    pyramid.write_png(tmp_path / "other.png", other)
    pyramid.write_png(tmp_path / "cell.png", region[:64, :64])
    at = {"reference": str(tmp_path / "grid.npy")}
    sample = PNG | {"conditioning": "interpolated"}
    plain = image_of(drawn(sample, **at))
    mixed = [
        image_of(drawn(sample, blend_with=str(tmp_path / "other.png"), blend_amount=x, **at))
        for x in (0.0, 0.5, 1.0)
    ]
    np.testing.assert_array_equal(mixed[0], plain)
    expected = generator.with_sample(
        dataclasses.replace(generator.config.sample, conditioning="interpolated")
    )
    wanted = expected.generate(generator.embed(other)).image.astype(int)
    assert np.abs(mixed[2] - wanted).max() <= 2
    assert (mixed[1] != mixed[0]).any()
    assert (mixed[1] != mixed[2]).any()
    edited = [
        image_of(drawn(sample, edits=(edit,), **at))
        for edit in ("1,1=0,0", f"1,1={tmp_path / 'cell.png'}")
    ]
    # Embedded among three others and alone: rounding of one and the other differs.
    assert np.abs(edited[0].astype(int) - edited[1]).max() <= 2
    assert (edited[0] != plain).any()


def test_an_image_that_wraps_meets_itself(drawn, region):
    image = image_of(drawn(PNG | {"windows.border": "wrap"})).astype(float)
    for axis in (0, 1):
        seam = np.abs(np.take(image, 0, axis) - np.take(image, -1, axis)).mean()
        inside = np.abs(np.diff(image, axis=axis)).mean()
        assert seam < 3 * inside


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reference": "small.png"}, "must hold a cell of 64 px at 0.5 µm/px, got 40 × 90"),
        ({"reference": "flat.npy"}, r"must hold \(rows, columns, D\) floats, got \(4, 32\)"),
        (
            {"reference": "grid.npy", "strength": 0.5},
            "generate.strength needs the pixels of a reference",
        ),
        ({"edits": ("9,0=0,0",)}, "must name cells of 2 × 2, got '9,0=0,0'"),
        ({"edits": ("1;1=0,0",)}, "must read 'row,col=row,col'"),
        ({"blend_with": "small.png"}, "must hold a cell of 64 px"),
        ({"outpaint_px": 10}, "must be whole cells of 64 px, got 10"),
        ({"mask": "small.png"}, r"must be \(128, 128\) px like the reference, got \(40, 90\)"),
    ],
)
def test_what_does_not_fit_is_refused(drawn, tmp_path, generator, region, settings, message):
    pyramid.write_png(tmp_path / "small.png", np.zeros((40, 90, 3), np.uint8))
    np.save(tmp_path / "flat.npy", np.zeros((4, 32), np.float32))
    np.save(tmp_path / "grid.npy", generator.embed(region))
    named = lambda v: str(tmp_path / v) if isinstance(v, str) else v
    with pytest.raises(ValueError, match=message):
        drawn(PNG, **{key: named(value) for key, value in settings.items()})


def shrunk_by(image, factor):
    """Means of squares, by strides."""
    parts = [
        image[i::factor, j::factor].astype(float) for i in range(factor) for j in range(factor)
    ]
    return np.mean(parts, axis=0)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_an_image_that_is_held_to_a_coarse_one_is_that_one_shrunk(drawn, tmp_path, region, factor):
    """To the colours of another image, which its embeddings know nothing of. Models of a minute
    leave texture that no 8 bits can carry beside white: not quite all of it fits."""
    coarse = np.flip(region[::factor, ::factor], axis=1)
    pyramid.write_png(tmp_path / "coarse.png", coarse)
    held, facts = drawn(PNG, held_to=str(tmp_path / "coarse.png"))
    small = shrunk_by(image_of((held, facts)), factor)
    assert np.corrcoef(small.ravel(), coarse.astype(float).ravel())[0, 1] > 0.96
    assert facts["coarse_correlation"] > 0.96
    assert facts["held_factor"] == factor
    free, own = drawn(PNG)
    assert "coarse_correlation" not in own
    assert own["unet_forwards"] == facts["unet_forwards"]
    other = shrunk_by(image_of((free, own)), factor)
    assert np.corrcoef(other.ravel(), coarse.astype(float).ravel())[0, 1] < 0.9


def test_a_coarse_image_of_another_shape_is_refused(drawn, tmp_path, region):
    pyramid.write_png(tmp_path / "coarse.png", region[:60:4, ::4])
    with pytest.raises(ValueError, match="over one whole number, got 15 × 32 px"):
        drawn(PNG, held_to=str(tmp_path / "coarse.png"))


def job_of(generator, region, folder):
    image_plan, scale = generator.plan_from_grid(generator.embed(region)), pyramid.Scale(0.5)
    return render.LargeImageRender(generator.renderer, image_plan, folder, "large", ("tif",), scale)


def test_a_full_disk_is_told_before_the_start(generator, region, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ValueError, match=r"GB for large, got 0\.00 GB free"):
        job_of(generator, region, tmp_path).run()
    assert not list(tmp_path.glob("*.tif"))


def test_memory_that_cannot_hold_the_canvas_is_told(generator, region, tmp_path, monkeypatch):
    monkeypatch.setattr(render.memory_estimate, "free_bytes", lambda: 1000)
    with pytest.raises(ValueError, match=r"sample\.split=rows shares it"):
        job_of(generator, region, tmp_path).run()


def test_cost_is_what_is_drawn(generator, region, tmp_path):
    large = job_of(generator, region, tmp_path)
    cost, told = large.cost(), large.run()
    assert (cost.unet_forwards, cost.decoder_calls) == (
        told["unet_forwards"], told["decoder_calls"],
    )  # fmt: skip
    # 128² px are 32² latents: with the margin 3 × 3 windows of 16 in a step, and 4 × 4 of them,
    # 14 apart, in the last three, which is all that configs/tiny.py takes.
    assert cost.windows == 3 * 16
    assert cost.flops > 1e6
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert size < cost.disk_bytes


@pytest.fixture
def asked(workdir, tmp_path, caplog):
    """(**draw) → the lines told by the tool in a work directory that has only the models' name."""

    def run(*, force="", dry_run=False, **settings):
        values = tiny.get_config()
        values.stages, values.force, values.models = "generate", force, str(workdir)
        values.sample.dry_run = dry_run
        values.sample.output.formats = ("png",)
        values.generate.update(settings)
        caplog.clear()
        with caplog.at_level(logging.INFO, "ssldiff_jax"):
            launch.launch(values.to_dict(), tmp_path / "pictures", table.STAGES)
        return caplog.messages

    return run


def test_no_request_harms_the_image_of_another(asked, tmp_path, generator, region):
    """Not a second one, nor force that only tells, or whose reference cannot be read."""
    np.save(tmp_path / "grid.npy", generator.embed(region))
    folder = tmp_path / "pictures"
    asked(dry_run=True)
    assert not list(folder.rglob("*.json"))
    first = folder / "generate" / "held-out-seed0"
    assert asked()[-1] == f"generate: 128 × 128 px in {first / 'image.png'}"
    before = {path: path.read_bytes() for path in first.iterdir()}
    second = folder / "generate" / "grid-96x150-seed0" / "image.png"
    told = asked(reference=str(tmp_path / "grid.npy"), size=(96, 150))
    assert told[-1] == f"generate: 96 × 150 px in {second}"
    assert pyramid.read_image(second).shape == (96, 150, 3)
    assert "stage generate is done" in asked()
    asked(force="generate", dry_run=True)
    (tmp_path / "broken.svs").write_bytes(b"no slide")
    for name in ("broken.svs", "missing.svs"):
        with pytest.raises(ValueError, match=name):
            asked(name=first.name, force="generate", reference=str(tmp_path / name))
    assert {path: path.read_bytes() for path in first.iterdir()} == before


def start(workdir):
    flags = (
        "--config.stages=generate",
        "--config.generate.name=mine",
        "--config.sample.checkpoint_minutes=0.0",
        "--config.sample.window_batch=1",
    )
    return subprocess.Popen(
        [sys.executable, "-m", "ssldiff_jax.main", "--config=configs/tiny.py",
         f"--workdir={workdir}", *flags],
        cwd=pathlib.Path(__file__).parents[3], env=os.environ | {"JAX_PLATFORMS": "cpu"},
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_killed_run_goes_on_to_the_identical_file(workdir, tmp_path):
    found = []
    for name in ("whole", "killed"):
        folder = tmp_path / name
        shutil.copytree(workdir, folder)
        process = start(folder)
        if name == "killed":
            saved = (folder / "generate" / "mine" / ".image" / "canvas").glob
            patience.until(lambda glob=saved: any(p.name.isdigit() for p in glob("*")), process)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            assert not (folder / "generate" / "mine" / "image.tif").exists()
            process = start(folder)
        _, told = patience.communicate(process)
        assert process.returncode == 0, told
        assert ("resumes at step" in told) == (name == "killed")
        found.append((folder / "generate" / "mine" / "image.tif").read_bytes())
    assert found[0] == found[1]
