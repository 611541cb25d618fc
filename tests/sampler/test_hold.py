"""Canvases held to the colours of a coarse image, where it is known what must come out."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import patience
import pytest
import small_configs
from jax.sharding import Mesh

from ssldiff_jax.diffusion import guidance, process, solvers
from ssldiff_jax.sampler import field, hold, sampler, shrunk, twins, windows

SCHEDULE = small_configs.section("denoiser.schedule")
WINDOW, CHANNELS, STEPS = 8, 4, 4
SIDE = 2 * twins.REACH + 1


def gaussian(params, x_t, t, condition):
    """E[x0 | x_t] of latents that are N(0, params) each, and know nothing of each other."""
    signal = jnp.asarray(SCHEDULE.alpha_bar, jnp.float32)[t][:, None, None, None]
    return jnp.sqrt(signal) * params * x_t / (signal * params + 1 - signal)


def mixing(params, x_t, t, condition):
    """Sees the whole window, the timestep and the condition."""
    mean = x_t.mean(axis=(1, 2), keepdims=True)
    shift = jnp.sin(condition.sum(axis=-1))[:, None, None, None] + 1e-3 * t[:, None, None, None]
    return params * (0.5 * x_t[:, ::-1] + mean) + shift


def sampler_of(denoise, *, solver="dpmpp_2m", chunk=4, **canvas):
    table = solvers.solver_table(
        small_configs.section("sample.solver", name=solver, num_solver_steps=STEPS), SCHEDULE
    )
    guided = lambda denoise: guidance.GuidedX0(denoise, process.Process(SCHEDULE, "x0"))
    config = field.CanvasConfig(CHANNELS, **canvas)
    return sampler.GridSampler(denoise, guided, table, chunk, config)


def plan_of(canvas, mode="offset", border="margin", seed=0):
    config = windows.WindowConfig(mode, 5, 3, "tapered", border, windows.LastSteps(2, 0.25))
    return windows.plan_windows(config, canvas, WINDOW, STEPS, seed)


def by_place(corners):
    at = np.concatenate([corners, corners.sum(axis=1, keepdims=True)], axis=1)
    return np.sin(0.37 * at + np.arange(3)).astype(np.float32)


def middle(matrix):
    """The kernel that sees each latent alone."""
    kernel = np.zeros((SIDE, SIDE, *matrix.shape), np.float32)
    kernel[twins.REACH, twins.REACH] = matrix
    return kernel


COLOURS = np.array([[0.25, 0.02, 0.0], [0.0, 0.2, -0.03], [0.05, 0.0, 0.22], [0.1, -0.1, 0.05]])
OFFSET = np.float32([0.1, -0.05, 0.0])


def exact_twins():
    """Of a linear autoencoder of single latents: to colours, and the least way back."""
    return twins.LinearTwins(middle(COLOURS), OFFSET, middle(np.linalg.pinv(COLOURS)))


def random_twins(num_colours=3, seed=0):
    """That see what lies around, and are no inverses."""
    source = np.random.default_rng(seed)
    normal = lambda *shape: (0.03 * source.normal(size=shape)).astype(np.float32)
    return twins.LinearTwins(
        normal(SIDE, SIDE, CHANNELS, num_colours), normal(num_colours),
        normal(SIDE, SIDE, num_colours, CHANNELS),
    )  # fmt: skip


def coarse_colours(plan, side, num_colours=3, seed=1):
    source = np.random.default_rng(seed)
    shape = (*(size // side for size in plan.canvas), num_colours)
    return source.integers(70, 186, shape).astype(np.uint8)


def held_to(plan, side, twins_=None):
    twins_ = twins_ or exact_twins()
    return hold.Hold(twins_, coarse_colours(plan, side, len(twins_.offset)), side)


def draw(drawn, plan, held=None, init=None, params=0.8, seed=0):
    return np.asarray(drawn(np.float32(params), plan, by_place, jax.random.key(seed), init, held))


def colours_of(canvas, side):
    """Grey levels of the squares of a canvas."""
    return (shrunk.shrink(canvas @ COLOURS + OFFSET, side) + 1) * 127.5


@pytest.mark.parametrize("side", [1, 2, 4])
@pytest.mark.parametrize("mode", ["offset", "overlap"])
@pytest.mark.parametrize("solver", ["dpmpp_2m", "ddpm"])
def test_of_a_linear_autoencoder_the_colours_are_met(side, mode, solver):
    """Whatever the denoiser says: the last step ends at the clean estimate."""
    plan = plan_of((16, 24), mode)
    held = held_to(plan, side)
    canvas = draw(sampler_of(mixing, solver=solver), plan, held)
    np.testing.assert_allclose(colours_of(canvas, side), held.colours, atol=0.05)
    free = draw(sampler_of(mixing, solver=solver), plan)
    assert np.abs(colours_of(free, side) - held.colours).mean() > 10


@pytest.mark.parametrize("side", [1, 2, 4])
def test_latents_that_know_nothing_of_each_other_keep_all_but_the_colours(side):
    """The posterior of a white field in closed form: its part in the null space of decoding and
    shrinking is that of the image that is not held, and the rest is the coarse image's. The way
    back is the spline's, one of those that have these means."""
    plan, drawn = plan_of((16, 24), "offset", "wrap"), sampler_of(gaussian)
    held = held_to(plan, side)
    free, canvas = (draw(drawn, plan, of, params=1.0) for of in (None, held))
    lacks = (held.colours - colours_of(free, side)) / 127.5
    reach = shrunk.REACH
    around = np.pad(lacks, ((reach, reach), (reach, reach), (0, 0)), "wrap").astype(np.float32)
    expected = free + shrunk.spread(around, side) @ np.linalg.pinv(COLOURS)
    np.testing.assert_allclose(canvas, expected, atol=2e-3)


def test_what_holds_a_canvas_is_twins_and_splines():
    """One step of it by hand: no twin is exact, and the field goes round."""
    plan = plan_of((16, 16), "offset", "wrap")
    for side, num_colours in ((1, 3), (2, 3), (1, 12)):
        drawn, twins_ = sampler_of(mixing), random_twins(num_colours)
        held = held_to(plan, side, twins_)
        # The clean estimate of the last step is what comes out.
        seen = {}
        programs = drawn.programs(plan)
        last = programs.advance

        def keeping(state, row, key, step, last=last, seen=seen, drawn=drawn, plan=plan):
            total = drawn.layout(plan).reduce_halo(state.x0_sum)
            seen[int(step)] = np.asarray(total)[: plan.field[0], : plan.field[1]]
            return last(state, row, key, step)

        programs.advance = keeping
        canvas, x0_hat = draw(drawn, plan, held), seen[STEPS - 1]

        def convolved(image, kernel):
            pads = ((twins.REACH,) * 2, (twins.REACH,) * 2, (0, 0))
            around, found = np.pad(image, pads, "wrap"), 0
            for i in range(SIDE):
                for j in range(SIDE):
                    here = around[i : i + image.shape[0], j : j + image.shape[1]]
                    found = found + here @ kernel[i, j]
            return found

        colours = convolved(x0_hat, twins_.decode) + twins_.offset
        lack = held.colours / 127.5 - 1 - shrunk.shrink(colours, side)
        reach = shrunk.REACH
        around = np.pad(lack, ((reach, reach), (reach, reach), (0, 0)), "wrap")
        wide = shrunk.spread(around.astype(np.float32), side)
        np.testing.assert_allclose(
            canvas, x0_hat + convolved(wide, twins_.encode), rtol=1e-4, atol=2e-5
        )


def test_a_canvas_that_is_held_to_nothing_is_as_it_was():
    """Its programs have nothing of it."""
    plan, drawn = plan_of((16, 24)), sampler_of(mixing)
    state = drawn.start(plan, jax.random.key(0))
    assert state.target is None
    assert drawn.held_bytes(plan, None) == 0
    np.testing.assert_array_equal(draw(drawn, plan, None), draw(sampler_of(mixing), plan))


@pytest.mark.parametrize("side", [1, 2])
def test_what_is_known_stays(side):
    """Latents that are kept are not changed; what lies around them is held."""
    plan = plan_of((16, 24))
    known = np.random.default_rng(3).normal(size=(16, 24, CHANNELS)).astype(np.float32)
    keep = np.zeros((16, 24), np.float32)
    keep[:, :8] = 1
    held = held_to(plan, side)
    canvas = draw(sampler_of(mixing), plan, held, sampler.InitLatents(known, keep))
    np.testing.assert_allclose(canvas[:, :8], known[:, :8], atol=1e-5)
    found = colours_of(canvas, side)[:, 8 // side :]
    # Splines of the squares that nothing may change reach a little beyond them.
    free = 3 if side > 1 else 0
    np.testing.assert_allclose(
        found[:, free:-1], held.colours[:, 8 // side :][:, free:-1], atol=0.05 if side == 1 else 4
    )


def test_a_half_done_canvas_goes_on_to_the_same_one():
    plan, drawn = plan_of((16, 24)), sampler_of(mixing)
    held, key = held_to(plan, 2, random_twins()), jax.random.key(0)
    whole = draw(drawn, plan, held)
    walk = drawn.iterate(
        np.float32(0.8), plan, by_place, key, drawn.start(plan, key, None, held), held=held
    )
    for state, place in walk:
        if place.step == 2 and place.chunk == 1:
            kept = jax.tree.map(lambda a: np.array(a), state)
            break
    walk.close()
    fresh = drawn.start(plan, key, None, held)
    kept = fresh._replace(x=kept.x, x0_sum=kept.x0_sum, history=kept.history)
    walk = drawn.iterate(np.float32(0.8), plan, by_place, key, kept, place, held=held)
    *_, (last, end) = ((state, reached) for state, reached in walk)
    assert end == (STEPS, 0)
    found = drawn.rows(plan, last, 0, 16)
    np.testing.assert_array_equal(found, whole)


@pytest.mark.parametrize(("side", "num_colours"), [(1, 3), (2, 3), (4, 3), (1, 12)])
def test_a_step_holds_little_more_than_the_colours(side, num_colours):
    """Beyond a few rows of blocks the compiler sets aside what all squares lack."""
    plan, drawn = plan_of((40 * WINDOW, 5 * WINDOW)), sampler_of(mixing)
    layout, programs = drawn.layout(plan), drawn.programs(plan)
    held = held_to(plan, side, random_twins(num_colours))
    state = drawn.start(plan, jax.random.key(0), None, held)
    state = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), state)
    row = drawn._rows(plan, held)[0]
    memory = (
        programs.advance.lower(state, row, np.asarray(jax.random.key_data(jax.random.key(0))), 0)
        .compile()
        .memory_analysis()
    )
    lacks = drawn.held_bytes(plan, held) * 4 / 5  # a byte each is the target's
    of_rows = 24 * layout.num_bytes / (layout.rows + 1)
    # Twice: it is written, and its ghosts brought up to date.
    assert memory.temp_size_in_bytes < 2 * lacks + of_rows


CASES = [("offset", 1, 3), ("offset", 2, 3), ("offset", 1, 12), ("overlap", 4, 3)]


def canvas_of_case(case, **canvas):
    mode, side, num_colours = CASES[case]
    plan = plan_of((32, 24), mode)
    return draw(
        sampler_of(mixing, chunk=16, **canvas), plan, held_to(plan, side, random_twins(num_colours))
    )


def save_canvases(folder):
    """Run by the test below, in a process of four devices."""
    mesh = Mesh(np.array(jax.devices()), ("data",))
    for case in range(len(CASES)):
        for split in ("rows", "windows"):
            found = canvas_of_case(case, mesh=mesh, split=split)
            np.save(pathlib.Path(folder) / f"{case}-{split}.npy", found)
    print(json.dumps(jax.device_count()), flush=True)


def test_devices_change_nothing(tmp_path):
    """Whether they share the windows of a chunk or the rows of the canvas."""
    here = pathlib.Path(__file__)
    flags = os.environ.get("XLA_FLAGS", "")
    environment = os.environ | {
        "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count=4",
        "NPROC": "16",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": f"{here.parent}:{here.parents[1]}:{here.parents[2]}",
    }
    code = f"import test_hold; test_hold.save_canvases({str(tmp_path)!r})"
    started = subprocess.Popen(
        [sys.executable, "-c", code], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    said, errors = patience.communicate(started)
    assert started.returncode == 0, errors[-2000:]
    assert json.loads(said.splitlines()[-1]) == 4
    for case in range(len(CASES)):
        expected = canvas_of_case(case)
        assert expected.std() > 0.05
        for split in ("rows", "windows"):
            found = np.load(tmp_path / f"{case}-{split}.npy")
            np.testing.assert_allclose(found, expected, atol=1e-5)


def test_beyond_the_canvas_lies_its_mirror_image():
    """Half of it after its end, half before its beginning."""
    plan = plan_of((16, 16))
    held = held_to(plan, 4)
    target = held.target(plan)
    assert target.shape == (6, 6, 3)
    np.testing.assert_array_equal(target[:4, :4], held.colours)
    np.testing.assert_array_equal(target[4, :4], held.colours[3])
    np.testing.assert_array_equal(target[5, :4], held.colours[0])


@pytest.mark.parametrize(
    ("factor", "px", "side", "parts"), [(2, 4, 1, 2), (4, 4, 1, 1), (8, 4, 2, 1), (32, 8, 4, 1)]
)
def test_an_image_becomes_colours_of_squares(factor, px, side, parts):
    """One of k pixels a latent or less is packed; a canvas that is larger shows its mirror."""
    coarse = np.random.default_rng(0).integers(0, 256, (8, 12, 3)).astype(np.uint8)
    canvas = (8 * factor // px, 12 * factor // px)
    found = hold.Hold.of(coarse, exact_twins(), canvas, factor=factor, px=px)
    assert found.side == side
    assert found.colours.shape == (canvas[0] // side, canvas[1] // side, 3 * parts**2)
    np.testing.assert_array_equal(found.colours, twins.packed(coarse, parts))
    larger = hold.Hold.of(
        coarse, exact_twins(), (canvas[0] + 2 * side, canvas[1]), factor=factor, px=px
    )
    beyond = larger.colours[len(found.colours) :]
    mirrored = twins.packed(coarse[::-1], parts)[: len(beyond)]
    np.testing.assert_array_equal(beyond, mirrored)


def test_bfloat16_holds_as_well():
    plan = plan_of((16, 24))
    held = held_to(plan, 2)
    half = dataclasses.replace(sampler_of(mixing), canvas=field.CanvasConfig(CHANNELS, "bfloat16"))
    canvas = draw(half, plan, held)
    assert np.abs(colours_of(canvas, 2) - held.colours).mean() < 1
