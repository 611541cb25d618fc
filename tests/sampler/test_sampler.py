import dataclasses
import functools
import json
import os
import pathlib
import socket
import subprocess
import sys
import threading
import types

import compilations
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import patience
import pytest
import small_configs
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh

from ssldiff_jax.diffusion import guidance, process, solvers
from ssldiff_jax.sampler import conditions, field, sampler, windows
from ssldiff_jax.train import hlo_stats

SCHEDULE = small_configs.section("denoiser.schedule")
WINDOW = 8
CHANNELS = 2


def paint(params, x_t, t, condition):
    """The condition's first channels, everywhere."""
    return jnp.zeros_like(x_t) + params * condition[:, None, None, :CHANNELS]


def pixelwise(params, x_t, t, condition):
    """Knows its own pixel only, so that no window can matter."""
    return params * jnp.tanh(x_t + 0.5) + 1e-4 * t[:, None, None, None]


def mixing(params, x_t, t, condition):
    """Sees the whole window, the timestep and the condition."""
    mean = x_t.mean(axis=(1, 2), keepdims=True)
    shift = jnp.sin(condition.sum(axis=-1))[:, None, None, None] + 1e-3 * t[:, None, None, None]
    return params * (0.5 * x_t[:, ::-1] + mean) + shift


def canvas_of(**kwargs):
    return field.CanvasConfig(CHANNELS, **kwargs)


def sampler_of(
    denoise, *, solver="dpmpp_2m", steps=4, chunk=4, scale=1.0, interval=(0.0, 1.0), **canvas
):
    table = solvers.solver_table(
        small_configs.section("sample.solver", name=solver, num_solver_steps=steps), SCHEDULE
    )
    config = dataclasses.replace(guidance.UNGUIDED, scale=scale, interval=interval)
    guided = lambda denoise: guidance.GuidedX0(denoise, process.Process(SCHEDULE, "x0"), config)
    return sampler.GridSampler(denoise, guided, table, chunk, canvas_of(**canvas))


def plan_of(
    canvas, mode="overlap", *, stride=5, weights="tapered", steps=4, seed=0, border="margin"
):
    config = windows.WindowConfig(mode, stride, 3, weights, border, windows.LastSteps(2, 0.25))
    return windows.plan_windows(config, canvas, WINDOW, steps, seed)


def by_place(corners):
    """Three numbers that tell one place from another."""
    at = np.concatenate([corners, corners.sum(axis=1, keepdims=True)], axis=1)
    return np.sin(0.37 * at + np.arange(3)).astype(np.float32)


def constant(*values):
    return lambda corners: np.tile(np.float32(values), (len(corners), 1))


def draw(drawn, plan, condition=by_place, seed=0, params=1.0, start=None):
    return drawn(np.float32(params), plan, condition, jax.random.key(seed), start)


CASES = [
    ((8, 8), "overlap", "uniform"),
    ((11, 23), "overlap", "tapered"),
    ((19, 8), "paper", "uniform"),
    ((17, 9), "offset", "uniform"),
    ((8, 20), "offset", "tapered"),
]


@pytest.mark.parametrize(("canvas", "mode", "weights"), CASES)
def test_constants_blend_to_constants(canvas, mode, weights):
    """Blend weights sum to 1 at every pixel."""
    plan = plan_of(canvas, mode, weights=weights)
    found = draw(sampler_of(paint), plan, constant(0.7, -1.3, 9.0))
    assert found.shape == (*canvas, CHANNELS)
    np.testing.assert_allclose(found, np.broadcast_to(np.float32([0.7, -1.3]), found.shape), 1e-5)


def field_noise(plan, key, step):
    """Noise of the whole field, block by block, as the layout is documented to draw it."""
    layout = field.Layout(*(size // WINDOW for size in plan.field), WINDOW, canvas_of())
    rows = [layout.noise(key, step, row) for row in range(layout.rows)]
    return np.concatenate(rows)[:, : plan.field[1]]


@pytest.mark.parametrize(
    ("canvas", "mode", "weights", "solver"), [(*CASES[1], "dpmpp_2m"), (*CASES[3], "ddpm")]
)
def test_windows_do_not_matter_to_a_denoiser_of_single_pixels(canvas, mode, weights, solver):
    """The whole field at once, solved step by step, is the same picture."""
    plan, drawn = plan_of(canvas, mode, weights=weights), sampler_of(pixelwise, solver=solver)
    key, table = jax.random.key(0), drawn.table
    x = field_noise(plan, key, 0)
    history = table.blank_history(x.shape)
    for i in range(plan.num_steps):
        row = {name: column[i] for name, column in table.columns().items()}
        x0 = pixelwise(0.9, x[None], np.float32([row["t"]]), None)[0]
        x, history = solvers.advance(row, x, x0, history, field_noise(plan, key, i + 1))
    expected = x[: canvas[0], : canvas[1]]
    found = draw(drawn, plan, params=0.9)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def blended(drawn, plan, key, params):
    """The canvas window by window, each evaluated alone; only noise and solver are not NumPy."""
    table, guided = drawn.table, drawn.guided(functools.partial(mixing, np.float32(params)))
    x, history = field_noise(plan, key, 0), table.blank_history((*plan.field, CHANNELS))
    for step, row in enumerate(table.rows()):
        seen, total = np.asarray(x), np.zeros(x.shape, np.float32)
        shares = zip(plan.steps[step].corners(), plan.steps[step].shares(), strict=True)
        for corner, (of_rows, of_cols) in shares:
            lines = (corner[:, None] + np.arange(WINDOW)) % np.array(plan.field)[:, None]
            condition = by_place(plan.places(corner[None]))
            x0_hat = guided(seen[np.ix_(*lines)][None], np.array([int(row["t"])]), condition)[0]
            total[np.ix_(*lines)] += of_rows[:, None, None] * of_cols[:, None] * x0_hat
        noise = field_noise(plan, key, step + 1)
        x, history = solvers.advance(row, x, jnp.asarray(total), history, noise)
    return x[: plan.canvas[0], : plan.canvas[1]]


@pytest.mark.parametrize(
    ("scale", "interval"), [(1.0, (0.0, 1.0)), (2.0, (0.0, 1.0)), (2.0, (0.4, 1.0))]
)
@pytest.mark.parametrize(("canvas", "mode"), [((11, 23), "overlap"), ((17, 9), "offset")])
def test_a_canvas_is_what_its_windows_give_one_by_one(canvas, mode, scale, interval):
    """Whatever is evaluated together, and wherever guidance begins and ends."""
    plan, key = plan_of(canvas, mode), jax.random.key(0)
    drawn = sampler_of(mixing, solver="ddpm", chunk=4, scale=scale, interval=interval)
    expected = blended(drawn, plan, key, 0.8)
    np.testing.assert_allclose(draw(drawn, plan, params=0.8), expected, atol=2e-5)


def test_the_network_is_compiled_once_for_all_sizes():
    """Guided and plain steps, weights that are committed to their device or not: two programs; and
    of each size no program is compiled twice."""
    drawn = sampler_of(mixing, chunk=4, scale=2.0, interval=(0.4, 1.0))
    committed = jax.device_put(np.float32(0.8), jax.devices()[0])
    for i, (canvas, params) in enumerate(
        [((13, 21), committed), ((8, 40), committed), ((24, 9), np.float32(0.8))]
    ):
        with compilations.counted() as counts:
            drawn(params, plan_of(canvas), by_place, jax.random.key(0))
        assert len(counts.of("network")) == (2 if i == 0 else 0)
        assert len(set(counts.names)) == len(counts.names) > 3


def test_a_canvas_of_one_window_is_the_patch_sampler():
    """Same key, same noise, guidance and all: no code of the grid is in the way."""
    drawn = sampler_of(mixing, solver="ddpm", scale=2.0, chunk=3)
    plan, condition = plan_of((WINDOW, WINDOW)), constant(0.3, -0.2, 0.9)
    x0_hat = drawn.guided(functools.partial(mixing, np.float32(0.8)))
    shape = (1, WINDOW, WINDOW, CHANNELS)
    sample = jax.jit(lambda e, k: solvers.sample(x0_hat, drawn.table, shape, e, k))
    expected = sample(condition(np.zeros((1, 2))), jax.random.key(5))[0]
    found = draw(drawn, plan, condition, seed=5, params=0.8)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@functools.cache
def mixed_canvas(chunk, mode="overlap", mesh=None, split="windows", solver="dpmpp_2m"):
    drawn = sampler_of(mixing, chunk=chunk, mesh=mesh, split=split, solver=solver)
    return draw(drawn, plan_of((29, 21), mode), params=0.8)


@pytest.mark.parametrize("mode", ["overlap", "offset"])
def test_chunks_do_not_change_the_picture(mode):
    """One by one, and in chunks that do not divide the windows."""
    one = mixed_canvas(1, mode)
    assert plan_of((29, 21), mode).steps[0].count % 7
    assert one.std() > 0.05
    np.testing.assert_allclose(mixed_canvas(7, mode), one, atol=1e-5)


SPLITS = [
    ("overlap", "windows", "dpmpp_2m"),
    ("overlap", "rows", "dpmpp_2m"),
    ("offset", "rows", "ddpm"),
    ("offset", "windows", "ddpm"),
]


def collectives(split, mesh):
    """Kinds of what devices send each other when windows are cut and added."""
    drawn, plan = sampler_of(mixing, chunk=16, mesh=mesh, split=split), plan_of((29, 21))
    programs, layout, count = drawn.programs(plan), drawn.layout(plan), drawn.windows_at_once(plan)
    held, parts = layout.sharding, drawn.canvas.in_parts
    array = lambda shape, where, dtype=np.float32: jax.ShapeDtypeStruct(
        shape, dtype, sharding=where
    )
    x, corners = array(layout.shape, held), array((count, 2), held, np.int32)
    x0_hat = array((count, WINDOW, WINDOW, CHANNELS), parts)
    lowered = {
        "cut": programs.cut.lower(x, corners),
        "add": programs.add.lower(x, x0_hat, corners, array((count, 2, WINDOW), held)),
    }
    texts = {name: program.compile().as_text() for name, program in lowered.items()}
    return {name: [c.kind for c in hlo_stats.collectives(text)] for name, text in texts.items()}


def save_splits(folder):
    """Run by the tests below, in one process of eight devices or two of four."""
    mesh = Mesh(np.array(jax.devices()), ("data",))
    for i, (mode, split, solver) in enumerate(SPLITS):
        found = mixed_canvas(16, mode, mesh, split, solver)
        if jax.process_index() == 0:
            np.save(pathlib.Path(folder) / f"{i}.npy", found)
    try:
        sampler_of(mixing, chunk=12, mesh=mesh)
        message = ""
    except ValueError as error:
        message = str(error)
    sent = {split: collectives(split, mesh) for split in ("windows", "rows")}
    said = {"devices": jax.device_count(), "message": message, "sent": sent}
    print(json.dumps(said), flush=True)


def start_process(code, devices):
    here = pathlib.Path(__file__)
    environment = os.environ | {
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}",
        "NPROC": "16",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": f"{here.parent}:{here.parents[1]}:{here.parents[2]}",
    }
    return subprocess.Popen(
        [sys.executable, "-c", code], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def require_the_same(folder):
    for i, (mode, _, solver) in enumerate(SPLITS):
        expected = mixed_canvas(7, mode, solver=solver)
        assert expected.std() > 0.05
        np.testing.assert_allclose(np.load(folder / f"{i}.npy"), expected, atol=1e-5)


def test_devices_do_not_change_the_picture(tmp_path):
    """Windows of a chunk, or rows of the canvas, over eight devices: more than it has rows of
    windows."""
    run = start_process(f"import test_sampler as t; t.save_splits({str(tmp_path)!r})", 8)
    out, err = patience.communicate(run)
    assert run.returncode == 0, err
    said = json.loads(out.splitlines()[-1])
    assert said["devices"] == 8
    assert "got chunk=12, devices=8" in said["message"]
    # Where every device holds the canvas, windows come together once; rows keep their own.
    assert said["sent"] == {
        "windows": {"cut": [], "add": ["all-gather"]}, "rows": {"cut": [], "add": []}
    }  # fmt: skip
    require_the_same(tmp_path)


def test_processes_do_not_change_the_picture(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    runs = [
        start_process(
            "import jax; "
            f"jax.distributed.initialize('127.0.0.1:{port}', 2, {number}); "
            f"import test_sampler as t; t.save_splits({str(tmp_path)!r}); "
            "from ssldiff_jax.train import hosts; hosts.leave_together()",
            4,
        )
        for number in range(2)
    ]
    for run in runs:
        out, err = patience.communicate(run)
        assert run.returncode == 0, err
        assert json.loads(out.splitlines()[-1])["devices"] == 8
    require_the_same(tmp_path)


def test_one_trace_serves_seeds_conditions_and_plans():
    traces = []

    def counted(params, x_t, t, condition):
        traces.append(x_t.shape)
        return mixing(params, x_t, t, condition)

    drawn = sampler_of(counted, steps=3)
    plan = plan_of((12, 20), "offset", steps=3)
    first = draw(drawn, plan)
    traced = len(traces)
    assert traced > 0
    others = [
        draw(drawn, plan, seed=1),
        draw(drawn, plan, lambda corners: by_place(corners) + 1),
        draw(drawn, plan_of((12, 20), "offset", steps=3, seed=9)),
        draw(drawn, plan, params=0.3),
    ]
    assert len(traces) == traced
    for other in others:
        assert np.abs(other - first).max() > 1e-3
    np.testing.assert_array_equal(draw(drawn, plan), first)


PROGRAMS = ("start", "cut", "add", "advance", "fetch")


def use(monkeypatch, *, plain, **programs):
    """Run every canvas by these: the network, and those of PROGRAMS."""
    chosen = types.SimpleNamespace(**programs)
    monkeypatch.setattr(sampler.GridSampler, "programs", lambda self, plan: chosen)
    network = types.SimpleNamespace(of_kind={"plain": plain})
    monkeypatch.setattr(sampler.GridSampler, "network", property(lambda self: network))


def test_the_sampler_runs_from_an_export(monkeypatch):
    """Traced once, kept as bytes, and run without the model's code."""
    plan = plan_of((12, 20), "offset")
    drawn, other = sampler_of(mixing), sampler_of(paint)
    kept = {}

    def exporting(name, program):
        def call(*args):
            if name not in kept:
                kept[name] = jax.export.export(program)(*args).serialize()
            return program(*args)

        return call

    programs = drawn.programs(plan)
    made = {name: getattr(programs, name) for name in PROGRAMS}
    made["plain"] = drawn.network.of_kind["plain"]
    use(monkeypatch, **{name: exporting(name, program) for name, program in made.items()})
    expected = draw(drawn, plan)

    back = {name: jax.export.deserialize(bytearray(blob)).call for name, blob in kept.items()}
    use(monkeypatch, **back)
    np.testing.assert_allclose(draw(other, plan), expected, atol=1e-6)
    assert expected.std() > 0.05


def test_conditions_paint_their_own_place():
    """Three rows and two columns of cells; nothing is turned or mirrored."""
    cells = np.zeros((3, 2, 3), np.float32)
    cells[..., 0], cells[..., 1] = np.arange(3)[:, None], 10 + np.arange(2)
    plan = plan_of((3 * WINDOW, 2 * WINDOW), stride=WINDOW)
    lattice = conditions.Lattice(cells, plan.canvas, WINDOW, interpolation="lerp")
    found = draw(sampler_of(paint), plan, conditions.InterpolatedCondition(lattice))
    expected = cells[..., :2].repeat(WINDOW, axis=0).repeat(WINDOW, axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_conditions_follow_the_moving_windows():
    """A plane of embeddings, painted by windows that move, stays near the plane."""
    cells = np.zeros((4, 6, 3), np.float32)
    cells[..., 0], cells[..., 1] = np.arange(4)[:, None], np.arange(6)
    plan = plan_of((4 * WINDOW, 6 * WINDOW), "offset", weights="uniform")
    lattice = conditions.Lattice(cells, plan.canvas, WINDOW, interpolation="lerp")
    found = draw(sampler_of(paint), plan, conditions.InterpolatedCondition(lattice))
    place = np.indices(plan.canvas).transpose(1, 2, 0) + 0.5
    ideal = np.clip(place / WINDOW - 0.5, 0, [3, 5])
    # A window is flat where the plane rises by one over its side.
    assert np.abs(found - ideal).max() < 0.6
    assert np.abs((found - ideal).mean(axis=(0, 1))).max() < 0.2


@pytest.mark.parametrize(
    ("scale", "interval", "calls"),
    [(1.0, (0.0, 1.0), 1), (3.0, (0.0, 1.0), 2), (3.0, (0.4, 1.0), 1.75), (3.0, (0.0, 0.1), 1)],
)
@pytest.mark.parametrize(("chunk", "windows", "chunks"), [(3, 9, 3), (7, 14, 2), (32, 8, 1)])
def test_forwards_are_counted(scale, interval, calls, chunk, windows, chunks):
    """Timesteps 999, 749, 499 and 249: an interval from .4 up guides three of four."""
    asked = []

    def counted(params, x_t, t, condition):
        jax.debug.callback(lambda x: asked.append(len(x)), x_t)
        return pixelwise(params, x_t, t, condition)

    drawn = sampler_of(counted, scale=scale, chunk=chunk, interval=interval)
    plan = plan_of((13, 21))
    draw(drawn, plan)
    jax.effects_barrier()
    # 4 steps of 8 windows, in 8 (a quarter of 32), 7 + 7 or 3 + 3 + 3: the last is filled up.
    assert drawn.unet_forwards(plan) == sum(asked) == 4 * windows * calls
    assert drawn.num_chunks(plan) == 4 * chunks


def test_a_run_goes_on_where_it_was_left():
    """After any chunk: state and place are all there is."""
    drawn, plan = sampler_of(mixing, solver="ddpm", chunk=3), plan_of((17, 20), "offset")
    key, whole = jax.random.key(0), draw(sampler_of(mixing, solver="ddpm", chunk=3), plan)
    total = drawn.num_chunks(plan)
    for stop in (1, 5, total - 1):
        walk = drawn.iterate(np.float32(1), plan, by_place, key, drawn.start(plan, key))
        for _ in range(stop):
            state, place = next(walk)
        assert drawn.chunks_before(plan, place) == stop
        kept = jax.tree.map(np.asarray, state)
        for state, _ in drawn.iterate(np.float32(1), plan, by_place, key, kept, place):
            last = state
        np.testing.assert_array_equal(drawn.rows(plan, last, 0, 17), whole)


def waiting_for(event, timeout):
    """A denoiser that waits for the host to do something else meanwhile, and whether it did."""
    came = []

    def denoise(params, x_t, t, condition):
        note = lambda _: came.append(event.wait(timeout))
        jax.debug.callback(note, x_t, ordered=True)
        return mixing(params, x_t, t, condition)

    return denoise, came


def test_conditions_of_the_next_chunk_are_made_while_the_network_works():
    """The network waits for them within its first call: one after the other it would in vain."""
    second, calls = threading.Event(), []

    def condition(corners):
        calls.append(threading.current_thread())
        if len(calls) == 2:
            second.set()
        return by_place(corners)

    denoise, came = waiting_for(second, timeout=60)
    drawn, plan = sampler_of(denoise, chunk=3, steps=2), plan_of((17, 20), "offset", steps=2)
    draw(drawn, plan, condition)
    jax.effects_barrier()
    assert came[0]
    assert len(calls) == drawn.num_chunks(plan)
    assert threading.main_thread() not in calls


def test_nothing_is_made_far_ahead():
    """One chunk beyond the one at work: conditions of a large image are never all at hand."""
    made, plan = [], plan_of((29, 21))
    drawn, key = sampler_of(mixing, chunk=2), jax.random.key(0)
    condition = lambda corners: made.append(len(corners)) or by_place(corners)
    walk = drawn.iterate(np.float32(1), plan, condition, key, drawn.start(plan, key))
    for chunk in range(1, 6):
        next(walk)
        assert chunk <= len(made) <= chunk + 2
    walk.close()
    stopped = len(made)
    assert stopped < drawn.num_chunks(plan)
    assert all(not thread.name.startswith("ThreadPool") for thread in threading.enumerate())


@pytest.mark.parametrize("error", [OSError("tile 7 is broken"), KeyboardInterrupt()])
def test_what_stops_the_conditions_stops_the_run(error):
    """At its own chunk, those before it done; as itself, once; and no thread is left."""
    made, plan = [], plan_of((29, 21))
    drawn, key = sampler_of(mixing, chunk=2), jax.random.key(0)

    def condition(corners):
        if len(made) == 3:
            raise error
        made.append(corners)
        return by_place(corners)

    walk, done = drawn.iterate(np.float32(1), plan, condition, key, drawn.start(plan, key)), []
    with pytest.raises(type(error)) as caught:
        done.extend(walk)
    assert caught.value is error
    assert caught.value.__cause__ is caught.value.__context__ is None
    assert len(done) == 3
    assert all(not thread.name.startswith("ThreadPool") for thread in threading.enumerate())


def test_no_host_array_reaches_a_program():
    """Weights of files are NumPy: brought once, and what a chunk needs by name."""
    drawn, plan = sampler_of(mixing, solver="ddpm", chunk=3), plan_of((17, 20), "offset")
    expected = draw(drawn, plan, params=0.8)
    key = jax.random.key(0)
    with jax.transfer_guard_host_to_device("disallow"):
        found = drawn(np.float32(0.8), plan, by_place, key)
    np.testing.assert_array_equal(found, expected)


def test_known_latents_are_kept():
    """Where keep is 1 the picture is the given one, to the last bit of the solver; elsewhere it
    is drawn."""
    plan, rng = plan_of((17, 20), "offset"), np.random.default_rng(0)
    known = rng.normal(size=(17, 20, CHANNELS)).astype(np.float32)
    keep = np.zeros((17, 20), np.float32)
    keep[:, :9] = 1
    for solver in ("dpmpp_2m", "ddpm"):
        found = draw(
            sampler_of(mixing, solver=solver), plan, start=sampler.InitLatents(known, keep)
        )
        np.testing.assert_allclose(found[:, :9], known[:, :9], atol=1e-4)
        assert np.abs(found[:, 9:] - known[:, 9:]).mean() > 0.3


def test_less_noise_stays_nearer_to_what_is_given():
    """A denoiser that believes in zeros pulls further the more steps there are."""
    plan = plan_of((16, 16), "offset")
    known = np.ones((16, 16, CHANNELS), np.float32)
    x0_hat = lambda params, x_t, t, condition: 0.9 * x_t
    found = []
    for t_start in (100, 400, 999):
        config = small_configs.section(
            "sample.solver", name="ddim", num_solver_steps=4, t_start=t_start
        )
        table = solvers.solver_table(config, SCHEDULE)
        guided = lambda denoise: guidance.GuidedX0(denoise, process.Process(SCHEDULE, "x0"))
        drawn = sampler.GridSampler(x0_hat, guided, table, 4, canvas_of())
        found.append(np.abs(draw(drawn, plan, start=sampler.InitLatents(known)) - known).mean())
    assert found[0] < found[1] < found[2]


def test_a_canvas_that_wraps_has_no_border():
    """Rolled by whole windows, conditions and all, it is the same picture; its sides meet."""
    plan = plan_of((24, 32), "offset", border="wrap")
    assert plan.field == plan.canvas
    smooth = lambda corners: np.sin(
        2 * np.pi * np.concatenate([corners / [24, 32], corners[:, :1] / 24], 1)
    ).astype(np.float32)
    found = draw(sampler_of(paint, steps=4), plan, smooth)
    across = np.abs(found[0] - found[-1]).mean(), np.abs(found[:, 0] - found[:, -1]).mean()
    inside = np.abs(np.diff(found, axis=0)).max(), np.abs(np.diff(found, axis=1)).max()
    assert across[0] <= inside[0] + 1e-5
    assert across[1] <= inside[1] + 1e-5


def test_bfloat16_halves_the_canvas_and_little_else():
    plan = plan_of((29, 21), "offset")
    half = sampler_of(mixing, dtype="bfloat16")
    assert 2 * half.state_bytes(plan) == sampler_of(mixing).state_bytes(plan)
    found, exact = draw(half, plan, params=0.8), mixed_canvas(7, "offset")
    assert 0 < np.abs(found - exact).max() < 0.05 * exact.std()


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("solver", ["dpmpp_2m", "ddpm"])
def test_no_program_holds_the_canvas_twice(solver, given):
    """Beyond what goes in and what comes out, the compiler sets aside a few rows of blocks."""
    drawn, plan = sampler_of(mixing, solver=solver), plan_of((40 * WINDOW, 5 * WINDOW), "offset")
    compiled, layout = drawn.programs(plan), drawn.layout(plan)
    key, blank = jax.random.key_data(jax.random.key(0)), jax.ShapeDtypeStruct(layout.shape, "f4")
    known = (blank, blank) if given else (None, None)
    state = jax.eval_shape(compiled.start, key, *known)
    row = {name: column[0] for name, column in drawn.table.columns().items()}
    programs = compiled.start.lower(key, *known), compiled.advance.lower(state, row, key, 0)
    of_rows = 12 * layout.num_bytes / (layout.rows + 1)
    for program in programs:
        found = program.compile().memory_analysis()
        assert found.temp_size_in_bytes < of_rows < layout.num_bytes / 3
    assert found.alias_size_in_bytes > 0.99 * drawn.state_bytes(plan)


@given(
    size=st.tuples(st.integers(8, 40), st.integers(8, 40)),
    mode=st.sampled_from(["offset", "overlap", "paper"]),
    stride=st.integers(1, 8),
    chunk=st.sampled_from([1, 6]),
)
@settings(max_examples=12, deadline=None)
def test_no_size_leaves_a_pixel_undrawn(size, mode, stride, chunk):
    plan = plan_of(size, mode, stride=stride, steps=2)
    found = draw(sampler_of(mixing, steps=2, chunk=chunk), plan)
    assert found.shape == (*size, CHANNELS)
    assert np.isfinite(found).all()
    assert np.abs(found).min(axis=-1).max() < 100


def test_plans_and_tables_must_agree():
    with pytest.raises(ValueError, match="the solver's 3 steps, got 4"):
        draw(sampler_of(paint, steps=3), plan_of((13, 21)))


def test_conditions_must_be_one_a_window():
    with pytest.raises(ValueError, match=r"conditions must be \(4, D\), got \(3, 3\)"):
        draw(sampler_of(paint), plan_of((13, 21)), lambda corners: np.zeros((3, 3)))


@pytest.mark.parametrize("chunk", [0, -4])
def test_a_chunk_holds_windows(chunk):
    with pytest.raises(ValueError, match=f"chunk={chunk}"):
        sampler_of(paint, chunk=chunk)


@pytest.mark.parametrize("mesh", [None, Mesh(np.array(jax.devices()[:1]), (field.AXIS,))])
def test_canvases_bring_no_parameters_again(mesh, monkeypatch):
    drawn, seen = sampler_of(pixelwise, mesh=mesh), []
    plan, params = plan_of((11, 23)), np.float32(0.5)
    programs, plain = drawn.programs(plan), drawn.network.of_kind["plain"]

    def network(params, *inputs):
        seen.append(params)
        return plain(params, *inputs)

    use(monkeypatch, plain=network, **{name: getattr(programs, name) for name in PROGRAMS})
    for seed in (0, 1):
        drawn(params, plan, by_place, jax.random.key(seed))
    assert len(seen) > plan.num_steps
    assert isinstance(seen[0], jax.Array)
    assert all(one is seen[0] for one in seen)


def test_calls_at_the_published_sizes():
    """By the defaults, 25 windows at a time. 1024² px: 9 steps of one chunk and 3 of two, where
    windows overlap; the first 8 of 12 timesteps are above 40 % of the noise and take two calls."""
    section = small_configs.section
    table = solvers.solver_table(section("sample.solver"), SCHEDULE)
    guided = lambda denoise: guidance.GuidedX0(
        denoise, process.Process(SCHEDULE, "x0"), section("sample.guidance")
    )
    chunk = section("sample").window_batch
    drawn = sampler.GridSampler(mixing, guided, table, chunk, canvas_of())
    for px, usual, last in ((1024, 1, 2), (4096, 12, 16), (16384, 169, 225)):
        plan = windows.plan_windows(section("sample.windows"), (px // 4, px // 4), 64, 12)
        calls = 25 * (8 * 2 * usual + usual + 3 * last)
        assert drawn.unet_forwards(plan) == calls
    side_by_side = dataclasses.replace(section("sample.windows"), last=windows.SIDE_BY_SIDE)
    plan = windows.plan_windows(side_by_side, (256, 256), 64, 12)
    assert drawn.unet_forwards(plan) == 500
