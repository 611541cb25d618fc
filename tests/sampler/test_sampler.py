import functools
import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from ssldiff_jax.diffusion import guidance, schedule, solvers
from ssldiff_jax.sampler import grid, sampler, windows

SCHEDULE = schedule.Schedule()
WINDOW = 8
CHANNELS = 2


def paint(params, x_t, t, embedding):
    """The embedding's first channels, everywhere."""
    return jnp.zeros_like(x_t) + params * embedding[:, None, None, :CHANNELS]


def pixelwise(params, x_t, t, embedding):
    """Knows its own pixel only, so that no window can matter."""
    return params * jnp.tanh(x_t + 0.5) + 1e-4 * t[:, None, None, None]


def mixing(params, x_t, t, embedding):
    """Sees the whole window, the timestep and the embedding."""
    mean = x_t.mean(axis=(1, 2), keepdims=True)
    shift = jnp.sin(embedding.sum(axis=-1))[:, None, None, None] + 1e-3 * t[:, None, None, None]
    return params * (0.5 * x_t[:, ::-1] + mean) + shift


def sampler_of(denoise, *, solver="dpmpp_2m", steps=4, chunk=4, scale=1.0, mesh=None):
    table = solvers.solver_table(solvers.SolverConfig(solver, steps), SCHEDULE)
    guided = lambda denoise: guidance.GuidedX0(denoise, SCHEDULE, "x0", scale)
    return sampler.GridSampler(denoise, guided, table, CHANNELS, chunk, mesh)


def plan_of(canvas, mode="overlap", *, stride=5, weights="tapered", steps=4, seed=0):
    config = windows.WindowConfig(mode, stride, 3, weights)
    return windows.plan_windows(config, canvas, WINDOW, steps, seed)


def embeddings_of(plan, seed=0):
    shape = (*plan.positions.shape[:2], 3)
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def draw(drawn, plan, embeddings, seed=0, params=1.0):
    return np.asarray(drawn(np.float32(params), plan, embeddings, jax.random.key(seed)))


CASES = [
    ((8, 8), "overlap", "uniform"),
    ((11, 23), "overlap", "tapered"),
    ((17, 9), "offset", "uniform"),
    ((8, 20), "offset", "tapered"),
]


@pytest.mark.parametrize(("canvas", "mode", "weights"), CASES)
def test_constants_blend_to_constants(canvas, mode, weights):
    """Blend weights sum to 1 at every pixel."""
    plan = plan_of(canvas, mode, weights=weights)
    embeddings = np.broadcast_to(np.float32([0.7, -1.3, 9.0]), embeddings_of(plan).shape)
    found = draw(sampler_of(paint), plan, embeddings)
    assert found.shape == (*canvas, CHANNELS)
    np.testing.assert_allclose(found, np.broadcast_to(np.float32([0.7, -1.3]), found.shape), 1e-5)


@pytest.mark.parametrize(
    ("canvas", "mode", "weights", "solver"), [(*CASES[1], "dpmpp_2m"), (*CASES[2], "ddpm")]
)
def test_windows_do_not_matter_to_a_denoiser_of_single_pixels(canvas, mode, weights, solver):
    """The whole field at once, solved by the patch sampler, is the same picture."""
    plan, drawn = plan_of(canvas, mode, weights=weights), sampler_of(pixelwise, solver=solver)
    x0_hat = lambda x, t, e: pixelwise(0.9, x, t, e)
    shape, key = (1, *plan.field, CHANNELS), jax.random.key(0)
    sample = jax.jit(lambda e, k: solvers.sample(x0_hat, drawn.table, shape, e, k))
    whole = np.asarray(sample(np.zeros((1, 3), np.float32), key))[0]
    top = plan.margin
    expected = whole[top : top + canvas[0], top : top + canvas[1]]
    found = draw(drawn, plan, embeddings_of(plan), params=0.9)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_canvas_of_one_window_is_the_patch_sampler():
    """Same key, same noise, guidance and all: no code of the grid is in the way."""
    drawn = sampler_of(mixing, solver="ddpm", scale=2.0, chunk=3)
    plan = plan_of((WINDOW, WINDOW))
    embeddings = np.broadcast_to(embeddings_of(plan)[:1], (4, 1, 3))
    x0_hat = drawn.guided(functools.partial(mixing, np.float32(0.8)))
    shape = (1, WINDOW, WINDOW, CHANNELS)
    sample = jax.jit(lambda e, k: solvers.sample(x0_hat, drawn.table, shape, e, k))
    expected = sample(embeddings[0], jax.random.key(5))[0]
    found = draw(drawn, plan, embeddings, seed=5, params=0.8)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@functools.cache
def mixed_canvas(chunk, mesh=None):
    plan = plan_of((13, 21))
    return draw(sampler_of(mixing, chunk=chunk, mesh=mesh), plan, embeddings_of(plan), params=0.8)


def test_chunks_do_not_change_the_picture():
    """8 windows: one by one, and in chunks that do not divide them."""
    one = mixed_canvas(1)
    assert plan_of((13, 21)).num_windows == 8
    assert one.std() > 0.05
    np.testing.assert_allclose(mixed_canvas(3), one, atol=1e-5)


def save_on_all_devices(path):
    """Run by the test below in a process that has eight devices."""
    mesh = Mesh(np.array(jax.devices()), ("data",))
    np.save(path, mixed_canvas(8, mesh))
    try:
        sampler_of(mixing, chunk=12, mesh=mesh)
        message = ""
    except ValueError as error:
        message = str(error)
    print(json.dumps({"devices": jax.device_count(), "message": message}))


def test_devices_do_not_change_the_picture(tmp_path):
    here = pathlib.Path(__file__)
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": f"{here.parent}:{here.parents[2]}",
    }
    code = f"import test_sampler as t; t.save_on_all_devices({str(tmp_path / 'canvas.npy')!r})"
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["devices"] == 8
    assert "got chunk=12, devices=8" in said["message"]
    np.testing.assert_allclose(np.load(tmp_path / "canvas.npy"), mixed_canvas(3), atol=1e-5)


def test_one_trace_serves_seeds_embeddings_and_plans():
    traces = []

    def counted(params, x_t, t, embedding):
        traces.append(x_t.shape)
        return mixing(params, x_t, t, embedding)

    drawn = sampler_of(counted, steps=3)
    plan = plan_of((12, 20), "offset", steps=3)
    first = draw(drawn, plan, embeddings_of(plan))
    traced = len(traces)
    assert traced > 0
    others = [
        draw(drawn, plan, embeddings_of(plan), seed=1),
        draw(drawn, plan, embeddings_of(plan, seed=1)),
        draw(drawn, plan_of((12, 20), "offset", steps=3, seed=9), embeddings_of(plan)),
        draw(drawn, plan, embeddings_of(plan), params=0.3),
        draw(drawn, plan_of((12, 20), "offset", steps=3, weights="uniform"), embeddings_of(plan)),
    ]
    assert len(traces) == traced
    for other in others[:4]:
        assert np.abs(other - first).max() > 1e-3
    # Windows of an offset plan never meet, so that their weights do not matter.
    np.testing.assert_allclose(others[4], first, atol=1e-5)
    again = draw(drawn, plan, embeddings_of(plan))
    np.testing.assert_array_equal(again, first)


def test_embeddings_paint_their_own_place():
    """Three rows and two columns of cells; nothing is turned or mirrored."""
    cells = np.zeros((3, 2, 3), np.float32)
    cells[..., 0], cells[..., 1] = np.arange(3)[:, None], 10 + np.arange(2)
    plan = plan_of((3 * WINDOW, 2 * WINDOW), stride=WINDOW)
    points = plan.centres() / WINDOW
    embeddings = np.stack([grid.interpolate(cells, p.astype(np.float32), "lerp") for p in points])
    found = draw(sampler_of(paint), plan, embeddings)
    expected = cells[..., :2].repeat(WINDOW, axis=0).repeat(WINDOW, axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_embeddings_follow_the_moving_windows():
    """A plane of embeddings, painted by windows that move, stays near the plane."""
    cells = np.zeros((4, 6, 3), np.float32)
    cells[..., 0], cells[..., 1] = np.arange(4)[:, None], np.arange(6)
    plan = plan_of((4 * WINDOW, 6 * WINDOW), "offset", weights="uniform")
    embeddings = np.stack(
        [grid.interpolate(cells, (p / WINDOW).astype(np.float32), "lerp") for p in plan.centres()]
    )
    found = draw(sampler_of(paint), plan, embeddings)
    place = np.indices(plan.canvas).transpose(1, 2, 0) + 0.5
    ideal = np.clip(place / WINDOW - 0.5, 0, [3, 5])
    # A window is flat where the plane rises by one over its side.
    assert np.abs(found - ideal).max() < 0.6
    assert np.abs((found - ideal).mean(axis=(0, 1))).max() < 0.2


@pytest.mark.parametrize(("scale", "calls"), [(1.0, 1), (3.0, 2)])
def test_forwards_are_counted(scale, calls):
    asked = []

    def counted(params, x_t, t, embedding):
        jax.debug.callback(lambda x: asked.append(len(x)), x_t)
        return pixelwise(params, x_t, t, embedding)

    drawn, plan = sampler_of(counted, scale=scale, chunk=3), plan_of((13, 21))
    draw(drawn, plan, embeddings_of(plan))
    jax.effects_barrier()
    # 4 steps of 8 windows, filled to 9.
    assert drawn.unet_forwards(plan) == sum(asked) == 4 * 9 * calls


@pytest.mark.parametrize(("steps", "shape"), [(3, (4, 8, 3)), (4, (3, 8, 3)), (4, (4, 7, 3))])
def test_plans_tables_and_embeddings_must_agree(steps, shape):
    plan = plan_of((13, 21))
    with pytest.raises(ValueError, match=rf"got \({shape[0]}, {shape[1]}, 3\) for {steps} solver"):
        draw(sampler_of(paint, steps=steps), plan, np.zeros(shape, np.float32))


@pytest.mark.parametrize("chunk", [0, -4])
def test_a_chunk_holds_windows(chunk):
    with pytest.raises(ValueError, match=f"chunk={chunk}"):
        sampler_of(paint, chunk=chunk)
