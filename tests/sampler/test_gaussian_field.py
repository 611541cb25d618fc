"""The sampler on a field whose best denoiser is known: Gaussian, stationary, seen one window at a
time."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_configs

from ssldiff_jax.diffusion import guidance, process, solvers
from ssldiff_jax.evaluation.metrics import seams
from ssldiff_jax.sampler import field, sampler, windows

SCHEDULE = small_configs.section("denoiser.schedule")
WINDOW, CHANNELS, STEPS, CANVAS = 32, 8, 12, (150, 200)


def smooth(distance):
    return np.exp(-0.5 * (distance / 3) ** 2)


def rough(distance):
    return np.exp(-distance / 4)


def best_denoiser(covariance):
    """E[x0 | x_t] of a window of the field whose covariance is that of its rows times that of its
    columns: in the eigenvectors of both, every coefficient is shrunk alone (Wiener)."""
    pixel = np.arange(WINDOW)
    power, basis = np.linalg.eigh(covariance(np.abs(pixel[:, None] - pixel)))
    power = jnp.asarray(np.outer(power, power).clip(0), jnp.float32)[..., None]
    basis, alpha_bar = jnp.float32(basis), jnp.float32(SCHEDULE.alpha_bar)
    turn = lambda a, x, b: jnp.einsum("ia,nabc,jb->nijc", a, x, b)

    def denoise(params, x_t, t, condition):
        signal = alpha_bar[t][:, None, None, None]
        gain = jnp.sqrt(signal) * power / (signal * power + 1 - signal)
        return turn(basis, gain * turn(basis.T, x_t, basis.T), basis)

    return denoise


LAST = windows.LastSteps(3, 1 / 8)


def planned(mode="offset", *, max_offset=0, stride=WINDOW, last=windows.SIDE_BY_SIDE, seed=0):
    config = windows.WindowConfig(mode, stride, max_offset, "tapered", "margin", last)
    return windows.plan_windows(config, CANVAS, WINDOW, STEPS, seed)


@functools.cache
def drawn_field(covariance, mode="offset", *, seed=0, **how):
    plan = planned(mode, seed=seed, **how)
    table = solvers.solver_table(
        small_configs.section("sample.solver", name="dpmpp_2m", num_solver_steps=STEPS), SCHEDULE
    )
    guided = lambda denoise: guidance.GuidedX0(denoise, process.Process(SCHEDULE, "x0"))
    canvas = field.CanvasConfig(CHANNELS)
    drawn = sampler.GridSampler(best_denoiser(covariance), guided, table, 42, canvas)
    nothing = lambda corners: np.zeros((len(corners), 1), np.float32)
    return drawn(np.float32(1), plan, nothing, jax.random.key(seed))


def steps_across(canvas, axis):
    """Mean squared difference of neighbours across every line."""
    return np.mean(np.diff(canvas, axis=axis) ** 2, axis=(1 - axis, 2))


def true_field(covariance):
    """The field itself, not drawn by windows."""
    roots = []
    for size in CANVAS:
        pixel = np.arange(size)
        power, basis = np.linalg.eigh(covariance(np.abs(pixel[:, None] - pixel)))
        roots.append(basis * np.sqrt(power.clip(0)))
    noise = np.random.default_rng(0).normal(size=(*CANVAS, CHANNELS))
    return np.einsum("ia,abc,jb->ijc", roots[0], noise, roots[1], optimize=True)


def seam_energy(canvas, lines):
    return seams.step_ratio(canvas, lines, factor=1, reach=WINDOW // 2)


def seam_energy_by_hand(canvas, plan, step):
    """Over all other lines, wherever they lie."""
    at_lines, elsewhere, of_step = [], [], plan.steps[step]
    for axis, starts in enumerate((of_step.rows, of_step.cols)):
        energy, field = steps_across(canvas, axis), plan.field[axis]
        line = np.arange(1, len(energy) + 1)
        is_line = np.isin(line, np.concatenate([starts, starts + WINDOW]) % field)
        at_lines.append(energy[is_line])
        elsewhere.append(energy[~is_line])
    return np.concatenate(at_lines).mean() / np.concatenate(elsewhere).mean()


@pytest.mark.parametrize(
    ("covariance", "max_offset", "last"),
    [(smooth, 0, 19), (smooth, WINDOW // 8, 2.5), (smooth, WINDOW // 2, 2.3), (rough, 16, 1.5)],
)
def test_the_last_step_leaves_seams_at_the_borders_of_its_windows(covariance, max_offset, last):
    """Where they lie side by side. The true field has none there. A grid that moves leaves far
    fainter ones than one that does not, since the steps before saw what lies across; but not
    none."""
    plan = planned(max_offset=max_offset)
    found = drawn_field(covariance, max_offset=max_offset)
    lines = seams.of_last_steps(plan, factor=1, size=CANVAS)
    assert seam_energy_by_hand(found, plan, -1) == pytest.approx(last, rel=0.05)
    assert seam_energy(found, lines[0]) == pytest.approx(last, rel=0.1)
    assert seam_energy(true_field(covariance), lines[0]) == pytest.approx(1, abs=0.1)
    if max_offset:
        # Smoothed by the last step; and no line is special where no window ended.
        assert seam_energy(found, lines[1]) < 1.4
        at_rest = seams.Lines.every(WINDOW, CANVAS)
        assert seam_energy(found, at_rest) < 1.2


@pytest.mark.parametrize("covariance", [smooth, rough])
@pytest.mark.parametrize("max_offset", [WINDOW // 8, WINDOW // 2])
def test_windows_of_the_last_steps_leave_none(covariance, max_offset):
    """At the lines of these steps; the same moves and noise leave 1.5 to 2.5 where windows lie side
    by side."""
    how = {"max_offset": max_offset, "last": LAST}
    at_lines, by_hand, true = [], [], true_field(covariance)
    for seed in range(3):
        plan, found = planned(**how, seed=seed), drawn_field(covariance, **how, seed=seed)
        lines = seams.of_last_steps(plan, factor=1, size=CANVAS)
        assert len(lines) == LAST.steps
        for step, where in enumerate(lines, start=1):
            at_lines.append(seam_energy(found, where) - seam_energy(true, where))
            by_hand.append(seam_energy_by_hand(found, plan, -step))
    assert np.mean(by_hand) == pytest.approx(1, abs=0.05)
    assert np.mean(at_lines) == pytest.approx(0, abs=0.05)
    assert max(by_hand) < 1.1


def test_overlapping_windows_leave_next_to_no_seams():
    for covariance in (smooth, rough):
        plan = planned("overlap", stride=WINDOW // 2)
        found = drawn_field(covariance, "overlap", stride=WINDOW // 2)
        lines = seams.Lines.of_step(plan, -1, factor=1, size=CANVAS)
        assert seam_energy(found, lines) == pytest.approx(1.04, abs=0.04)


@pytest.mark.parametrize(
    ("covariance", "max_offset"), [(smooth, WINDOW // 8), (smooth, WINDOW // 2), (rough, 16)]
)
def test_a_moving_grid_has_no_borders_of_the_image(covariance, max_offset):
    """Half a window along the border is as the rest, and so are its outermost lines."""
    found = drawn_field(covariance, max_offset=max_offset, last=LAST)
    inside = np.zeros(CANVAS, bool)
    inside[16:-16, 16:-16] = True
    assert (found[~inside] ** 2).mean() == pytest.approx((found[inside] ** 2).mean(), rel=0.1)
    outermost = [steps_across(found, axis)[[0, -1]].mean() for axis in (0, 1)]
    everywhere = [steps_across(found, axis).mean() for axis in (0, 1)]
    assert np.mean(outermost) == pytest.approx(np.mean(everywhere), rel=0.15)


def test_what_windows_cost_in_variance():
    """The field has variance 1. A few solver steps lose some of it whatever the windows; averages
    of overlapping windows keep the rest, and a grid that moves keeps most."""
    alone = drawn_field(smooth).var()
    assert 0.93 < alone < 1
    averaged = drawn_field(smooth, "overlap", stride=WINDOW // 2).var()
    assert averaged == pytest.approx(alone, abs=0.03)
    moving = drawn_field(smooth, max_offset=WINDOW // 8, last=LAST).var()
    assert 0.8 * alone < moving < alone
