"""What `generate` reads, and the ground of what it writes; the models are left out."""

import dataclasses
import types

import numpy as np
import pytest
import rasterio
from rasterio import Affine

from configs import tiny
from ssldiff_jax.core import schema
from ssldiff_jax.generation import finest as finest_lib
from ssldiff_jax.generation import generator, render, two_scales
from ssldiff_jax.runs import stage
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.slides import pyramid
from ssldiff_jax.stages.tools import generate

PX, LATITUDE = 64, 47
MERCATOR = 6_378_137 * np.arcsinh(np.tan(np.radians(LATITUDE)))
# Metres of ground in one of the map, for rasters whose middle lies at the latitude.
SPHERE = float(np.cos(np.radians(LATITUDE))) * 6_371_008.8 / 6_378_137
PLACES = {
    "metres": ("EPSG:32618", Affine(0.5, 0, 4e5, 0, -0.5, 4.4e6), 0.5e6),
    "feet": ("EPSG:2225", Affine(1, 0, 6e6, 0, -1, 2e6), 1200 / 3937 * 1e6),
    "degrees": ("EPSG:4326", Affine(1e-5, 0, 10, 0, -1e-5, 3e-4), 1.11195e6),
    "Web Mercator": (
        "EPSG:3857", Affine(1, 0, 1e6, 0, -1, MERCATOR + 100), 1e6 * SPHERE,
    ),
    "south up, turned": ("EPSG:32618", Affine(0.3, 0.4, 4e5, 0.4, -0.3, 4.4e6), 0.5e6),
}  # fmt: skip


class Model(types.SimpleNamespace):
    """What `generate` needs of a generator of one level, whose planner and renderer it is too."""

    level, finest = 1.0, finest_lib.Finest(1, 1, 4, PX)
    reading_data = property(lambda self: self.config.data)
    mpp = property(lambda self: self.config.data.patch_mpp)
    planner = renderer = property(lambda self: self)
    trained = types.SimpleNamespace(
        denoiser=types.SimpleNamespace(
            config=types.SimpleNamespace(tokens_per_side=1, embedding_dim=4)
        )
    )

    def embed(self, image):
        self.seen.append(image)
        return np.ones((1, 1, 4), np.float32)

    def embed_all(self, read, size):
        self.seen.append(read(0, 0, *size))
        assert self.seen[-1].shape == (*size, 3)
        return np.zeros((*(-(-px // PX) for px in size), 4), np.float32)

    def finer(self, grid, *, seed):
        return grid  # one embedding a cell is all that it takes

    def plan_from_grid(self, grid, *, size, spans, seed):
        return types.SimpleNamespace(size=size, spans=spans)

    def from_reference(self, read, size, *, seed):
        self.seen.append(read(0, 0, *size))
        return types.SimpleNamespace(size=self.finest.size_of(size), spans=None)

    def held_to(self, image_plan, coarse, name):
        assert [2 * n for n in coarse.shape[:2]] == list(image_plan.size)
        return image_plan

    def with_init_image(self, image_plan, init):
        assert init.image.shape[:2] == image_plan.size
        return image_plan


class Render:
    """Black pixels instead of drawn ones."""

    def __init__(self, renderer, plan, folder, name, formats, scale):
        self.name = name
        self.plan, self.scale, self.path = plan, scale, folder / f"{name}.cog.tif"

    def run(self, inspect=None):
        pyramid.write_cog(self.path, np.zeros((*self.plan.size, 3), np.uint8), self.scale)
        return {"path": self.path, "spans": self.plan.spans}


class PngRender(Render):
    def run(self, inspect=None):
        pyramid.write_png(
            self.path.with_suffix("").with_suffix(".png"), np.zeros((*self.plan.size, 3), np.uint8)
        )
        return {}


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """(patch_mpp, shape of a reference, its place, options of draw) → corners of the image and of
    the reference, and what the grid spans."""
    monkeypatch.setattr(render, "LargeImageRender", Render)

    def run(patch_mpp, shape, place, **settings):
        crs, transform, _ = PLACES[place]
        height, width = shape
        profile = {
            "driver": "GTiff", "height": height, "width": width, "count": 3, "dtype": "uint8",
            "crs": crs, "transform": transform,
        }  # fmt: skip
        with rasterio.open(tmp_path / "scene.tif", "w", **profile) as file:
            file.write(np.full((3, height, width), 7, np.uint8))
        values = tiny.get_config().to_dict()
        values["generate"] |= {"reference": str(tmp_path / "scene.tif")} | settings
        values["data"]["patch_mpp"] = patch_mpp
        config = schema.build(run_config.RunConfig, values)
        model = Model(patch_px=PX, config=config, seen=[])
        monkeypatch.setattr(generator.Generator, "of_run", lambda *_: model)
        context = stage.Context(config, tmp_path, None)
        context.folder("generate").mkdir(exist_ok=True)
        told = generate.run(context)
        with rasterio.open(told["path"]) as file:
            return corners(file.transform, file.shape), transform, file.shape, told["spans"]

    return run


def corners(transform, shape, top=0, left=0):
    a, b, c, d, e, f = tuple(transform)[:6]
    rows = np.array([top, top, shape[0], shape[0]])
    columns = np.array([left, shape[1], left, shape[1]])
    return np.stack([a * columns + b * rows + c, d * columns + e * rows + f], -1)


def assert_same_ground(found, expected, transform):
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-3 * abs(transform.a))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("factor", [0.5, 1, 2, 3])
@pytest.mark.parametrize("shape", [(200, 240), (197, 251)])
def test_an_image_covers_what_was_read(drawn, place, factor, shape):
    """Whole pixels of it: what is left over at the right and below is not read."""
    found, transform, size, _ = drawn(PLACES[place][2] * factor, shape, place)
    assert all(0 <= n / factor - px < 1.001 for n, px in zip(shape, size, strict=True))
    covered = [n * factor for n in size]
    assert_same_ground(found, corners(transform, covered), transform)


@pytest.mark.parametrize("size", [(192, 192), (96, 400), (1000, 30)])
def test_an_image_of_another_size_covers_the_same_ground(drawn, size):
    """The size spreads the reference's cells: its pixels are smaller or larger, not its ground."""
    found, transform, shape, spans = drawn(1e6, (256, 256), "metres", size=size)
    assert shape == size
    assert spans == size
    assert_same_ground(found, corners(transform, (256, 256)), transform)


def test_cells_beyond_the_border_span_what_lies_there(drawn):
    """80 px are 2 cells of 64: they span 128 px of the image, and twice as many of one twice as
    large."""
    *_, spans = drawn(1e6, (160, 160), "metres", size=(160, 80))
    assert spans == (256, 128)


@pytest.mark.parametrize("place", PLACES)
def test_a_grown_image_begins_beyond_its_reference(drawn, place):
    found, transform, size, _ = drawn(PLACES[place][2] * 2, (200, 256), place, outpaint_px=PX)
    assert size == (100 + 2 * PX, 128 + 2 * PX)
    beyond = 2 * PX
    expected = corners(transform, (200 + beyond, 256 + beyond), -beyond, -beyond)
    assert_same_ground(found, expected, transform)


@pytest.mark.parametrize("place", PLACES)
def test_a_region_of_a_reference_lies_where_it_lay(drawn, place):
    """In pixels of the patches: twice as large as those of the file."""
    region = (10, 20, 70, 64)
    found, transform, size, _ = drawn(PLACES[place][2] * 2, (200, 256), place, region=region)
    assert size == (70, 64)
    assert_same_ground(found, corners(transform, (160, 168), 20, 40), transform)


def test_a_region_is_of_an_image_and_inside_of_it(drawn):
    with pytest.raises(ValueError, match=r"inside of the reference's 100 × 128 px, got 64 × 64 px"):
        drawn(1e6, (200, 256), "metres", region=(140, 0, 64, 64))
    with pytest.raises(ValueError, match=r"must hold a cell of 64 px at every .* got 63 × 64 px"):
        drawn(1e6, (200, 256), "metres", region=(0, 0, 63, 64))
    for wrong in ((0, 0, 64), (0, 0, 0, 64), (-1, 0, 64, 64)):
        with pytest.raises(schema.ConfigError, match=r"region must be \(top, left, height, width"):
            drawn(1e6, (200, 256), "metres", region=wrong)
    with pytest.raises(schema.ConfigError, match="region must come with an image"):
        drawn(1e6, (200, 256), "metres", region=(0, 0, 64, 64), reference="grid.npy")


def test_every_region_has_a_name_of_its_own():
    """However long the name of its slide."""
    values = tiny.get_config().to_dict()
    name = "TCGA-A2-A0T2-01Z-00-DX1.29A5C4D6-1A3A-4B0C-8D3E-1F2A3B4C5D6E"
    values["generate"] |= {"reference": f"{name}.svs", "region": (1024, 0, 4096, 2048)}
    slug = generate.slug(schema.build(run_config.RunConfig, values))
    assert slug == f"{name[:40]}-1024-0-4096-2048-seed0"


def test_a_scale_of_the_user_s_own_moves_nothing(drawn):
    """A file called one of 1 m: drawn at 2 m by that, half as many pixels on all of its ground."""
    found, transform, size, _ = drawn(2e6, (200, 256), "metres", mpp=1e6)
    assert size == (100, 128)
    assert_same_ground(found, corners(transform, (200, 256)), transform)


def test_all_that_is_drawn_from_is_read_by_the_run_s_reading(tmp_path, monkeypatch):
    """The reference, the other one that it is mixed with, and the image of a cell."""
    monkeypatch.setattr(render, "LargeImageRender", Render)
    values = np.random.default_rng(0).integers(0, 2550, (3, PX, PX), np.uint16) // 10 * 10
    profile = {
        "driver": "GTiff", "height": PX, "width": PX, "count": 3, "dtype": "uint16",
        "crs": "EPSG:32618", "transform": PLACES["metres"][1],
    }  # fmt: skip
    for name in ("reference", "mix", "cell"):
        with rasterio.open(tmp_path / f"{name}.tif", "w", **profile) as file:
            file.write(values)
    named = lambda name: str(tmp_path / f"{name}.tif")
    told = tiny.get_config().to_dict()
    told["generate"] |= {
        "reference": named("reference"),
        "blend_with": named("mix"),
        "edits": (f"0,0={named('cell')}",),
    }
    told["data"]["patch_mpp"] = 0.5e6
    told["data"]["reading"] |= {"bands": (3, 2, 1), "high": 2550.0}
    config = schema.build(run_config.RunConfig, told)
    model = Model(patch_px=PX, config=config, seen=[])
    monkeypatch.setattr(generator.Generator, "of_run", lambda *_: model)
    context = stage.Context(config, tmp_path, None)
    context.folder("generate").mkdir()
    generate.run(context)
    assert len(model.seen) == 3
    for seen in model.seen:
        np.testing.assert_array_equal(seen, np.moveaxis(values[::-1] // 10, 0, -1))


@pytest.mark.parametrize("shape", [(300, 330), (130, 131), (257, 255)])
@pytest.mark.parametrize("ratio", [2, 4])
def test_a_pixel_of_a_level_is_as_many_of_the_first(drawn, monkeypatch, shape, ratio):
    """The last one too, of which the reference may have a part only."""
    monkeypatch.setattr(Model, "finest", finest_lib.Finest(ratio, 1, 4, PX))
    found, transform, size, _ = drawn(PLACES["metres"][2], shape, "metres")
    assert size == tuple(-(-n // ratio) for n in shape)
    assert_same_ground(found, corners(transform, [n * ratio for n in size]), transform)


@pytest.mark.parametrize("coarse_mpp", [0.0, 1.0])
@pytest.mark.parametrize("region", [(), (64, 128, 192, 192)])
def test_both_scales_see_the_same_ground_of_a_file_without_a_scale(
    tmp_path, monkeypatch, region, coarse_mpp
):
    """The file has the scale that the fine models take it to have, whatever theirs says of it."""
    image = np.random.default_rng(0).integers(0, 256, (300, 332, 3), np.uint8)
    pyramid.write_png(tmp_path / "mine.png", image)
    values = tiny.get_config().to_dict()
    values["generate"] |= {"reference": str(tmp_path / "mine.png"), "region": region}
    values["generate"]["coarse"]["sample"] = "level=2"
    values["data"] |= {"levels": (1.0, 2.0)}
    values["data"]["records"]["scales"] = (2.0,)
    fine = schema.build(run_config.RunConfig, values)
    data = dataclasses.replace(fine.data, patch_mpp=2 * fine.data.patch_mpp, mpp=coarse_mpp)
    models = [
        Model(patch_px=PX, config=c, seen=[]) for c in (fine, dataclasses.replace(fine, data=data))
    ]
    scale = two_scales.CoarseScale(models[1], 2, 2)
    monkeypatch.setattr(two_scales.CoarseScale, "of", lambda *_: scale)
    monkeypatch.setattr(generator.Generator, "of_run", lambda *_: models[0])
    monkeypatch.setattr(render, "LargeImageRender", PngRender)
    context = stage.Context(fine, tmp_path, None)
    context.folder("generate").mkdir()
    generate.run(context)
    near, far = (model.seen[0].astype(float) for model in models)
    height, width = far.shape[:2]
    means = near.reshape(height, 2, width, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(far, means, atol=0.51)


def test_two_scales_of_levels_cut_what_no_coarse_pixel_covers(tmp_path, monkeypatch):
    """The fine level is the second, the coarse one the third: four pixels of the first."""
    monkeypatch.setattr(render, "LargeImageRender", PngRender)
    pyramid.write_png(tmp_path / "mine.png", np.zeros((300, 330, 3), np.uint8))
    values = tiny.get_config().to_dict()
    values["generate"] |= {"reference": str(tmp_path / "mine.png"), "mpp": 0.5}
    values["generate"]["coarse"]["sample"] = "level=4"
    values["data"]["levels"] = (1.0, 2.0, 4.0)
    values["data"]["records"]["scales"] = (2.0, 4.0)
    config = schema.build(run_config.RunConfig, values)
    models = [
        Model(patch_px=PX, config=config, seen=[], finest=finest_lib.Finest(n, 1, 4, PX))
        for n in (2, 4)
    ]
    scale = two_scales.CoarseScale(models[1], factor=2, reads=1)
    monkeypatch.setattr(two_scales.CoarseScale, "of", lambda *_: scale)
    monkeypatch.setattr(generator.Generator, "of_run", lambda *_: models[0])
    context = stage.Context(config, tmp_path, None)
    context.folder("generate").mkdir()
    generate.run(context)
    assert [model.seen[0].shape for model in models] == [(300, 328, 3)] * 2
