"""The sampler on a field whose best denoiser is known: Gaussian, stationary, seen one window at a
time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssldiff_jax.diffusion import guidance, schedule, solvers
from ssldiff_jax.sampler import field, sampler, windows

SCHEDULE = schedule.Schedule()
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


def drawn_field(covariance, mode="offset", *, max_offset=0, stride=WINDOW):
    table = solvers.solver_table(solvers.SolverConfig("dpmpp_2m", STEPS), SCHEDULE)
    guided = lambda denoise: guidance.GuidedX0(denoise, SCHEDULE, "x0")
    config = windows.WindowConfig(mode, stride, max_offset, "tapered")
    plan = windows.plan_windows(config, CANVAS, WINDOW, STEPS)
    canvas = field.CanvasConfig(CHANNELS)
    drawn = sampler.GridSampler(best_denoiser(covariance), guided, table, 42, canvas)
    nothing = lambda corners: np.zeros((len(corners), 1), np.float32)
    return drawn(np.float32(1), plan, nothing, jax.random.key(0))


def steps_across(canvas, axis):
    """Mean squared difference of neighbours across every line."""
    return np.mean(np.diff(canvas, axis=axis) ** 2, axis=(1 - axis, 2))


def seam_energy(canvas):
    at_lines, elsewhere = [], []
    for axis in (0, 1):
        step = steps_across(canvas, axis)
        is_line = np.arange(1, len(step) + 1) % WINDOW == 0
        at_lines.append(step[is_line])
        elsewhere.append(step[~is_line])
    return np.concatenate(at_lines).mean() / np.concatenate(elsewhere).mean()


@pytest.mark.parametrize(
    ("covariance", "max_offset"), [(smooth, WINDOW // 8), (smooth, WINDOW // 2), (rough, 16)]
)
def test_a_moving_grid_has_neither_seams_nor_borders(covariance, max_offset):
    assert seam_energy(drawn_field(covariance)) > 4
    found = drawn_field(covariance, max_offset=max_offset)
    assert seam_energy(found) < 1.1
    # Half a window along the border is as the rest, and so are its outermost lines.
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
    moving = drawn_field(smooth, max_offset=WINDOW // 8).var()
    assert 0.8 * alone < moving < alone
