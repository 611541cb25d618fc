"""Rulers of seams: what was planted is found in its place, and nothing where nothing was."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_configs
from scipy import ndimage
from skimage import data

from ssldiff_jax.diffusion import guidance, process, solvers
from ssldiff_jax.evaluation.metrics import means, seams
from ssldiff_jax.sampler import field, sampler, windows

FACTOR, PERIOD = 4, 32


def texture(size=(256, 320), seed=0):
    """Smooth colours without direction or place, steps of about 1.5 grey levels."""
    noise = np.random.default_rng(seed).normal(size=(*size, 3))
    smooth = ndimage.gaussian_filter(noise, (2, 2, 0))
    return (128 + 4 * smooth / smooth.std()).round().astype(np.uint8)


def planted(image, grey, px=20, *, period=PERIOD, axes=(0, 1)):
    """Squares that are brighter by `grey` in turns, their borders at px, px + period, …"""
    place = lambda axis: (np.arange(image.shape[axis]) - px) // period * (axis in axes)
    is_bright = (place(0)[:, None] + place(1)) % 2 == 1
    return (image + grey * is_bright[..., None]).astype(np.uint8)


def lines(image, px=20, period=PERIOD):
    return seams.Lines(*(tuple(range(px, size, period)) for size in image.shape[:2]))


def ratio(image, where, **options):
    return seams.step_ratio(image, where, factor=FACTOR, reach=PERIOD // 2, **options)


@pytest.mark.parametrize("size", [(256, 320), (250, 333), (512, 70)])
def test_a_planted_step_is_found_at_its_phase(size):
    image = texture(size)
    honest = seams.worst_phase(image, period=PERIOD, factor=FACTOR)
    for grey in (1, 2):
        found = seams.worst_phase(planted(image, grey), period=PERIOD, factor=FACTOR)
        assert found.px == 20
        assert found.ratio > max(honest.ratio, 1 + 0.1 * grey**2)
    at_20 = planted(image, 2)
    assert ratio(at_20, lines(image)) > 1.4
    # Elsewhere the same step is no seam, and makes none.
    assert ratio(at_20, lines(image, 4)) < 1.1
    assert ratio(image, lines(image)) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize(("axis", "name"), [(0, "rows"), (1, "cols")])
def test_lines_in_one_direction(axis, name):
    image = planted(texture(), 2, axes=(axis,))
    found = seams.worst_phase(image, period=PERIOD, factor=FACTOR)
    assert (found.axis, found.px) == (name, 20)
    only = seams.Lines(*(w if i == axis else () for i, w in enumerate(((20, 52), (20, 52)))))
    other = seams.Lines(only.cols, only.rows)
    assert ratio(image, only) > 1.4 > 1.2 > ratio(image, other)


def test_the_ratio_is_that_of_steps():
    """White noise: a step of `grey` adds its square to a mean square of 2·variance."""
    image = np.random.default_rng(0).integers(90, 110, (256, 256, 3)).astype(np.uint8)
    square = 2 * (20**2 - 1) / 12
    for grey in (0, 4, 10):
        found = ratio(planted(image, grey), lines(image))
        assert found == pytest.approx(1 + grey**2 / square, rel=0.03)
    # By hand, where there is one line and one other on either side; in absolute steps 6 / 3.
    image = np.repeat(np.uint8([[0] * 4 + [2] * 4 + [8] * 4 + [12] * 4] * 3)[..., None], 3, axis=2)
    one = seams.Lines((), (8,))
    squares = seams.step_ratio(image, one, factor=4, reach=4)
    assert squares == pytest.approx(6**2 / (2**2 + 4**2) * 2)
    assert seams.step_ratio(image, one, factor=4, reach=4, power=1) == pytest.approx(2)
    beside = [seams.Lines((), (12,))]
    assert seams.step_ratio(image, one, factor=4, reach=4, besides=beside) == pytest.approx(9)


def test_real_tissue_tells_a_step_from_none():
    """Each phase of a real image is its own control: what was planted raises its phase alone, by
    its square over that of the tissue's steps. Alone it is found where it is as large as they are
    (root of the mean square 10)."""
    image = data.immunohistochemistry().clip(8, 240)
    of = lambda x: seams.phases(x, period=64, factor=FACTOR)
    own = np.array([phase.ratio for phase in of(image)])
    for grey in (1, 2, 8):
        found = of(planted(image, grey, period=64))
        gain = np.array([phase.ratio for phase in found]) - own
        assert {(found[i].axis, found[i].px) for i in np.argsort(gain)[-2:]} == {
            ("rows", 20), ("cols", 20),
        }  # fmt: skip
    assert max(found, key=lambda phase: phase.ratio).px == 20
    where = seams.Lines.every(64, image.shape[:2])
    assert ratio(image, where) == pytest.approx(1, abs=0.15)


def test_only_what_lies_beside_a_line_counts():
    """Neither the other direction's steps nor those of a part without texture."""
    noise = np.random.default_rng(0).integers(-40, 40, (256, 320, 3))
    striped = (128 + noise[:1] + noise // 20).astype(np.uint8)
    assert ratio(striped, seams.Lines((64, 128), ())) == pytest.approx(1, abs=0.1)
    half = (128 + noise).astype(np.uint8)
    half[:, :160] = 200
    assert ratio(half, seams.Lines((), tuple(range(192, 304, 16)))) == pytest.approx(1, abs=0.1)


def test_what_has_no_lines_has_no_figure():
    image = texture((32, 32))
    assert ratio(image, seams.Lines.every(PERIOD, (32, 32))) is None
    assert seams.worst_phase(image[:4, :4], period=PERIOD, factor=FACTOR) is None
    assert ratio(np.full((64, 64, 3), 9, np.uint8), seams.Lines((32,), ())) == 1
    step = np.full((64, 64, 3), 9, np.uint8)
    step[32:] = 10
    assert 1e3 < ratio(step, seams.Lines((32,), ())) < np.inf
    with pytest.raises(ValueError, match="must be whole latents of 4 px, got period=30"):
        seams.worst_phase(image, period=30, factor=FACTOR)


def test_lines_of_the_last_steps():
    config = windows.WindowConfig("offset", 1, 4, "uniform", "margin", windows.SIDE_BY_SIDE)
    plan = windows.plan_windows(config, (20, 40), 8, 5, seed=3)
    found = seams.of_last_steps(plan, factor=4, size=(78, 160))
    assert len(found) == 3
    for step, where in zip((4, 3, 2), found, strict=True):
        start = plan.steps[step].rows[0] % 8
        expected = {4 * k for k in range(1, 20) if k % 8 == start and 4 * k < 78}
        assert set(where.rows) == expected
    still = windows.plan_windows(
        windows.WindowConfig("offset", 1, 0, "uniform", "margin", windows.SIDE_BY_SIDE),
        (8, 8),
        8,
        1,
    )
    assert seams.of_last_steps(still, factor=4, size=(32, 32)) == [seams.Lines((), ())]


@pytest.mark.parametrize(("mode", "max_offset"), [("offset", 0), ("offset", 3), ("overlap", 0)])
def test_lines_are_where_an_image_has_its_seams(mode, max_offset):
    """Windows that are of a colour of their place whatever they see: the image steps where the
    last step's windows end, and nowhere else."""
    window, size, levels = (
        8,
        (77, 94),
        small_configs.section("denoiser.schedule"),
    )
    config = windows.WindowConfig(
        mode, window, max_offset, "uniform", "margin", windows.SIDE_BY_SIDE
    )
    plan = windows.plan_windows(config, (20, 24), window, 4, seed=1)
    table = solvers.solver_table(
        small_configs.section("sample.solver", name="dpmpp_2m", num_solver_steps=4), levels
    )
    colour = lambda params, x, t, condition: jnp.zeros_like(x) + condition[:, None, None]
    guided = lambda denoise: guidance.GuidedX0(denoise, process.Process(levels, "x0"))
    draws = sampler.GridSampler(colour, guided, table, 20, field.CanvasConfig(1))
    of_place = lambda corners: corners @ np.float32([[0.01], [0.037]])
    canvas = draws(np.float32(1), plan, of_place, jax.random.key(0))
    image = canvas.repeat(FACTOR, axis=0).repeat(FACTOR, axis=1)[: size[0], : size[1]]
    found = seams.of_last_steps(plan, factor=FACTOR, size=size)[0]
    for axis, told in enumerate((found.rows, found.cols)):
        step = np.abs(np.diff(image, axis=axis)).max(axis=(1 - axis, 2))
        assert (np.flatnonzero(step > 1e-3) + 1).tolist() == list(told)


def test_rings_are_held_against_the_middle():
    row = np.arange(64)
    ring = np.minimum.outer(np.minimum(row, 63 - row), np.minimum(row, 63 - row))
    shade = np.where(ring < 4, -5, 0) + np.where(ring == 0, -2, 0)
    real = np.random.default_rng(0).integers(90, 160, (50, 64, 64, 3))
    patches = (real + shade[..., None]).astype(np.uint8)
    found = seams.ring_profile(patches)
    assert found.shape == (50, 16)
    expected = [-7, -5, -5, -5] + 12 * [0]
    np.testing.assert_allclose(found.mean(axis=0), expected, atol=0.25)
    # By masks, one ring after another.
    grey = patches.mean(axis=-1)
    middle = grey[:, 16:48, 16:48].mean(axis=(1, 2))
    by_mask = [grey[:, ring == k].mean(axis=1) - middle for k in range(16)]
    np.testing.assert_allclose(found, np.stack(by_mask, axis=1), atol=1e-9)


def test_means():
    assert means.Mean.of([]) is means.Mean.of([None]) is None
    assert means.Mean.of([2.0, None]) == means.Mean(2.0, None, 1)
    found = means.Mean.of([1.0, 2.0, 6.0])
    assert (found.value, found.count) == (3.0, 3)
    assert found.error == pytest.approx(np.sqrt(7 / 3))  # variance 7 of three values
