"""A large image in files, of random models."""

import dataclasses
import functools

import numpy as np
import pytest

from ssldiff_jax.generation import cost, render
from ssldiff_jax.slides import pyramid


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
    """Calls of the network, counted from the kinds of steps, are those that the sampler makes; and
    a step's call has the result of its kind."""
    sample = random_generator.config.sample
    guidance = dataclasses.replace(sample.guidance, scale=2.0, interval=interval)
    model = random_generator.with_sample(dataclasses.replace(sample, guidance=guidance))
    networks, sampler = model.networks, model.networks.sampler
    guided = networks.guided(networks.denoise)
    kinds = cost.kinds_of_steps(networks)
    is_guided = {t: bool(guided.is_guided(np.array([t]))[0]) for t, _ in kinds}
    steps = planned.windows.num_steps
    assert sum(count for _, count in kinds) == steps
    calls = sum((1 + is_guided[t]) * count for t, count in kinds)
    chunks, at_once = sampler.num_chunks(planned.windows), sampler.windows_at_once(planned.windows)
    assert calls * chunks // steps * at_once == sampler.unet_forwards(planned.windows)
    params = model.weights.denoiser
    call = networks.window_call(params, 1)
    x_t, condition = (
        np.random.default_rng(5).standard_normal(call.shapes[i].shape, np.float32) for i in (1, 3)
    )
    for t, _ in kinds:
        _, _, at_t, _ = cost.at_step(call, t).shapes
        plain = networks.guided(functools.partial(networks.denoise, params))._plain
        apart = call.run(params, x_t, at_t, condition) - plain(x_t, at_t, condition)
        # One is compiled and one is not: without guidance they differ by rounding.
        assert bool(np.abs(apart).max() > 1e-3) == is_guided[t]
