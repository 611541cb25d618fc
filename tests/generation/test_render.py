"""A large image in files, of random models."""

import dataclasses

import compilations
import numpy as np
import pytest

from ssldiff_jax.generation import cost, render
from ssldiff_jax.slides import open_slide, optional, pyramid


@pytest.fixture(scope="module")
def planned(random_generator):
    shape = (2, 3, random_generator.embedding_dim)
    grid = np.random.default_rng(3).standard_normal(shape, np.float32)
    return random_generator.plan_from_grid(grid, size=(100, 150), seed=7)


def render_of(generator, planned, folder):
    scale = pyramid.Scale(generator.mpp)
    return render.LargeImageRender(generator.renderer, planned, folder, "image", ("png",), scale)


def test_files_hold_what_is_rendered_in_memory(random_generator, planned, tmp_path):
    image = random_generator.render(planned)
    assert image.image.shape == (100, 150, 3)
    assert image.image.std() > 0
    large = render_of(random_generator, planned, tmp_path)
    facts = large.run()
    np.testing.assert_array_equal(pyramid.read_image(tmp_path / "image.png"), image)
    assert (facts["height"], facts["width"]) == (100, 150)
    assert facts["unet_forwards"] == image.unet_forwards
    assert facts["decoder_calls"] == image.decoder_calls
    # What is done is read, not done again; nothing that was saved on the way is left.
    assert large.run() == facts
    assert sorted(p.name for p in tmp_path.iterdir()) == ["image.json", "image.png"]


@pytest.mark.parametrize(("name", "inside"), [("ome.zarr", ""), ("dcm", "level_0.dcm")])
def test_a_folder_holds_what_is_rendered(random_generator, planned, tmp_path, name, inside):
    pytest.importorskip(optional.WRITERS[name][0])
    large = render_of(random_generator, planned, tmp_path)
    dataclasses.replace(large, formats=("png", name)).run()
    image = pyramid.read_image(tmp_path / "image.png").astype(int)
    slide = open_slide(tmp_path / f"image.{name}" / inside)
    assert slide.mpp == pytest.approx(random_generator.mpp)
    read = slide.read_region(0, 0, 100, 150, mpp=slide.mpp)
    # OME-Zarr loses nothing; JPEG of noise a little.
    assert np.abs(read - image).mean() <= (0 if name == "ome.zarr" else 8)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        [f"image.{name}", "image.json", "image.png"]
    )


def test_the_cost_is_known_before(random_generator, planned, tmp_path):
    cost = render_of(random_generator, planned, tmp_path).cost()
    image = random_generator.render(planned)
    assert (cost.unet_forwards, cost.decoder_calls) == (image.unet_forwards, image.decoder_calls)
    assert cost.flops > 0
    assert cost.seconds is None
    assert cost.canvas_bytes == random_generator.networks.sampler.state_bytes(planned.windows)
    assert "100 × 150 px" in str(cost)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [(9, 64), (15, 20), (1, 1), (33, 100), (64, 5)])
def test_an_image_smaller_than_a_window_is_cut_from_one(random_generator, size):
    """A whole window is generated and decoded, here in tiles as large; what is too much of it, in
    any row of tiles, is cut off."""
    sample, window = random_generator.config.sample, random_generator.config.window
    tiles = dataclasses.replace(sample.decode, tile=window, overlap=window // 4)
    model = random_generator.with_sample(dataclasses.replace(sample, decode=tiles))
    shape = (2, 2, model.embedding_dim)
    grid = np.random.default_rng(3).standard_normal(shape, np.float32)
    plan = lambda size: model.plan_from_grid(grid, size=size, spans=(64.0, 128.0), seed=7)
    image = model.render(plan(size)).image
    assert image.shape == (*size, 3)
    window_px = window * model.config.downsample_factor
    canvas = tuple(max(px, window_px) for px in size)
    if plan(canvas).windows.canvas == plan(size).windows.canvas:
        np.testing.assert_array_equal(image, model.render(plan(canvas)).image[: size[0], : size[1]])


@pytest.mark.parametrize("interval", [(0.4, 1.0), (0.0, 0.3), (0.0, 1.0)])
def test_time_is_estimated_of_steps_with_guidance_and_without(random_generator, planned, interval):
    """By the programs that the image is then sampled with, each for as many chunks as it will
    run."""
    sample = random_generator.config.sample
    guidance = dataclasses.replace(sample.guidance, scale=2.0, interval=interval)
    model = random_generator.with_sample(dataclasses.replace(sample, guidance=guidance))
    networks, sampler, plan = model.networks, model.networks.sampler, planned.windows
    is_guided = np.array(networks.guided(networks.denoise).is_guided(sampler.table.t))
    chunks, counts = sampler.num_chunks(plan) // plan.num_steps, sampler.chunks_of_kinds(plan)
    assert counts.get("guided", 0) == chunks * is_guided.sum()
    assert counts.get("plain", 0) == chunks * (~is_guided).sum()
    with compilations.counted() as trial:
        seconds = cost.Cost.of(model.renderer, planned, ("png",), timed=True).seconds
    assert seconds > 0
    assert len(trial.of("network")) == len(counts)
    with compilations.counted() as run:
        model.render(planned)
    assert run.of("network") == []
