import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_configs

from ssldiff_jax.core import rng, schema
from ssldiff_jax.diffusion import schedule, solvers

SCHEDULE = small_configs.section("denoiser.schedule")
STRAIGHT = small_configs.section("denoiser.schedule", name="linear")
ALL = [("ddim", 0.0), ("ddim", 0.3), ("ddim", 1.0), ("ddpm", 0.0), ("dpmpp_2m", 0.0)]


advance = jax.jit(solvers.advance)


def table_of(name, steps, eta=0.0, t_start=999, noise=SCHEDULE):
    return solvers.solver_table(
        small_configs.section(
            "sample.solver", name=name, num_solver_steps=steps, eta=eta, t_start=t_start
        ),
        noise,
    )


@dataclasses.dataclass(frozen=True)
class Gaussian:
    """x0 ~ N(mean, std²), whose posterior mean and probability flow are known."""

    mean: float = 0.7
    std: float = 0.5
    noise: schedule.Schedule = SCHEDULE

    def marginal(self, t):
        alpha, sigma = self.noise.alphas[t], self.noise.sigmas[t]
        return alpha * self.mean, np.sqrt((alpha * self.std) ** 2 + sigma**2)

    def gain(self, t):
        """How far x0_hat moves with x_t."""
        return self.noise.alphas[t] * self.std**2 / self.marginal(t)[1] ** 2

    def x0_hat(self, x_t, t):
        return self.mean + self.gain(t) * (x_t - self.marginal(t)[0])

    def flow(self, z, t):
        """Where the probability flow that ends at mean + std·z is at t."""
        mean, std = self.marginal(t)
        return mean + std * z


def integrate(table, data, z, num_rows=None):
    """The deterministic solver on exact x0_hat."""
    x_t, history = data.flow(z, table.t[0]), table.blank_history(z.shape)
    for i in range(len(table.t))[:num_rows]:
        row = {k: v[i] for k, v in table.columns().items()}
        x0_hat = data.x0_hat(x_t, table.t[i])
        x_next, history = advance(row, x_t, x0_hat, history, np.zeros_like(z))
        x_t = np.asarray(x_next, float)
    return x_t


Z = np.linspace(-2, 2, 9)


@pytest.mark.parametrize("noise", [SCHEDULE, STRAIGHT], ids=["scaled_linear", "linear"])
@pytest.mark.parametrize(
    ("name", "steps", "atol"),
    [("ddim", 1000, 0.01), ("dpmpp_2m", 100, 0.03), ("plms", 100, 0.02)],
)
def test_deterministic_solvers_reach_the_probability_flow(name, steps, atol, noise):
    data = Gaussian(noise=noise)
    found = integrate(table_of(name, steps, noise=noise), data, Z)
    np.testing.assert_allclose(found, data.mean + data.std * Z, atol=atol)


def error_half_way(name, steps):
    """Half of the steps end at t = 499 whatever their number, far from the first-order last one."""
    data = Gaussian()
    rows = steps // 2 + (name == "plms")
    found = integrate(table_of(name, steps), data, Z, num_rows=rows)
    return np.abs(found - data.flow(Z, 499)).max()


@pytest.mark.parametrize(("name", "ratio"), [("ddim", 2.0), ("dpmpp_2m", 4.0)])
def test_order_of_convergence(name, ratio):
    errors = np.array([error_half_way(name, steps) for steps in (20, 40, 80)])
    np.testing.assert_allclose(errors[:-1] / errors[1:], ratio, rtol=0.15)


def plms_of_the_paper(table_t, data, x_t, ends):
    """Liu et al. 2022 as a loop over eps_hat, with the first step taken twice."""
    alpha = lambda t: SCHEDULE.alphas[t] if t >= 0 else 1.0
    sigma = lambda t: SCHEDULE.sigmas[t] if t >= 0 else 0.0
    eps_hat = lambda x, t: (x - alpha(t) * data.x0_hat(x, t)) / sigma(t)
    move = lambda x, eps, t, to: alpha(to) * (x - sigma(t) * eps) / alpha(t) + sigma(to) * eps
    seen = []
    for t, to in zip(table_t, ends, strict=True):
        eps = eps_hat(x_t, t)
        if not seen:
            mean = (eps + eps_hat(move(x_t, eps, t, to), to)) / 2
        elif len(seen) == 1:
            mean = (3 * eps - seen[-1]) / 2
        elif len(seen) == 2:
            mean = (23 * eps - 16 * seen[-1] + 5 * seen[-2]) / 12
        else:
            mean = (55 * eps - 59 * seen[-1] + 37 * seen[-2] - 9 * seen[-3]) / 24
        seen.append(eps)
        x_t = move(x_t, mean, t, to)
    return x_t


@pytest.mark.parametrize("steps", [2, 3, 4, 10])
def test_plms_is_its_loop(steps):
    data, table = Gaussian(), table_of("plms", steps)
    assert len(table.t) == steps + 1
    t = [int(n) for n in np.delete(table.t, 1)]
    expected = plms_of_the_paper(t, data, data.flow(Z, t[0]), [*t[1:], -1])
    np.testing.assert_allclose(integrate(table, data, Z), expected, rtol=2e-4)


def test_leading_timesteps_end_at_one():
    leading = small_configs.section(
        "sample.solver", name="plms", num_solver_steps=50, spacing="leading"
    )
    t = np.delete(solvers.solver_table(leading, SCHEDULE).t, 1)
    np.testing.assert_array_equal(t, np.arange(50)[::-1] * 20 + 1)


def test_the_papers_noise_is_that_of_single_timesteps():
    """About a quarter of the deviation that its stride of 20 asks for."""
    paper, ddpm = table_of("paper", 50), table_of("ddpm", 50)
    np.testing.assert_array_equal(paper.t + 1, np.arange(1000, 0, -20))
    ratio = paper.noise[:-1] / ddpm.noise[:-1]
    assert 0.2 < np.median(ratio) < 0.28
    beta = 1 - SCHEDULE.alpha_bar[999] / SCHEDULE.alpha_bar[998]
    expected = beta * (1 - SCHEDULE.alpha_bar[979]) / (1 - SCHEDULE.alpha_bar[999])
    assert paper.noise[0] ** 2 == pytest.approx(expected, rel=1e-5)
    assert small_configs.section("sample.solver", name="paper").time_offset == 1


def test_dpmpp_2m_needs_fewer_steps_than_ddim():
    assert error_half_way("dpmpp_2m", 20) < error_half_way("ddim", 40)


@pytest.mark.parametrize("noise", [SCHEDULE, STRAIGHT], ids=["scaled_linear", "linear"])
@pytest.mark.parametrize(("name", "eta"), ALL)
def test_a_known_x0_keeps_the_marginals(name, eta, noise):
    """From N(alpha·x0, sigma²) every row leads to N(alpha_next·x0, sigma_next²)."""
    table = table_of(name, 25, eta, noise=noise)
    alpha, sigma = noise.alphas[table.t], noise.sigmas[table.t]
    mean = table.x * alpha + table.x0 + table.history.sum(axis=1)
    np.testing.assert_allclose(mean, table.alpha_next, atol=1e-6)
    variance = (table.x * sigma) ** 2 + table.noise**2
    np.testing.assert_allclose(variance, table.sigma_next**2, atol=1e-6)


def test_euler_of_flow_matching_is_ddim_on_the_straight_path():
    """x + (sigma' − sigma)·u, with the velocity u = (x − x0_hat) / sigma."""
    table = table_of("ddim", 20, noise=STRAIGHT)
    x_t, x0 = np.random.default_rng(0).normal(size=(2, 20))
    sigma = STRAIGHT.sigmas[table.t]
    after = np.append(sigma[1:], 0.0)
    x_next, _ = advance(table.columns(), x_t, x0, np.zeros((0, 20)), 0 * x0)
    np.testing.assert_allclose(x_next, x_t + (after - sigma) * (x_t - x0) / sigma, atol=1e-5)


def test_the_papers_solver_does_not_know_the_straight_path():
    with pytest.raises(ValueError, match=r"betas must come from .*, got schedule.name=linear"):
        table_of("paper", 20, noise=STRAIGHT)


@pytest.mark.parametrize("noise", [SCHEDULE, STRAIGHT], ids=["scaled_linear", "linear"])
def test_ddpm_draws_the_variance_of_the_data(noise):
    data, table = Gaussian(noise=noise), table_of("ddpm", 1000, noise=noise)
    variance = data.marginal(999)[1] ** 2
    for t, x, x0, noise in zip(table.t, table.x, table.x0, table.noise, strict=True):
        variance = (x + x0 * data.gain(t)) ** 2 * variance + noise**2
    assert variance == pytest.approx(data.std**2, rel=0.04)


def test_ddpm_is_the_posterior_of_ho_et_al():
    """Equation 7 of Ho et al. 2020, over all timesteps."""
    table = table_of("ddpm", 1000)
    bar = SCHEDULE.alpha_bar[::-1]
    before = np.append(bar[1:], 1.0)
    beta = 1 - bar / before
    np.testing.assert_allclose(table.x0, np.sqrt(before) * beta / (1 - bar), atol=1e-6)
    np.testing.assert_allclose(table.x, np.sqrt(1 - beta) * (1 - before) / (1 - bar), atol=1e-6)
    np.testing.assert_allclose(table.noise**2, beta * (1 - before) / (1 - bar), atol=1e-7)


def test_ddim_of_eta_one_is_ddpm():
    for name, column in table_of("ddpm", 30).columns().items():
        np.testing.assert_array_equal(table_of("ddim", 30, eta=1.0).columns()[name], column)


def test_ddim_without_noise_is_its_formula():
    """Song et al. 2021, equation 12: x0_hat and eps_hat mixed anew at the next timestep."""
    table = table_of("ddim", 50)
    after = np.append(table.t[1:], -1)
    alphas, sigmas = np.append(SCHEDULE.alphas, 1.0), np.append(SCHEDULE.sigmas, 0.0)
    x_t, x0 = np.random.default_rng(0).normal(size=(2, 50))
    eps = (x_t - alphas[table.t] * x0) / sigmas[table.t]
    found, _ = advance(table.columns(), x_t, x0, np.zeros((0, 50)), 0 * x0)
    np.testing.assert_allclose(found, alphas[after] * x0 + sigmas[after] * eps, atol=1e-5)
    assert not table.noise.any()


@pytest.mark.parametrize(("name", "eta"), ALL)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_the_last_step_returns_x0_hat(name, eta, steps):
    table = table_of(name, steps, eta, t_start=900)
    last = [table.x[-1], table.x0[-1], table.history[-1].sum(), table.noise[-1]]
    np.testing.assert_allclose(last, [0, 1, 0, 0], atol=1e-12)
    assert (table.alpha_next[-1], table.sigma_next[-1]) == (1, 0)


@pytest.mark.parametrize(
    "plan",
    [SCHEDULE, small_configs.section("denoiser.schedule", name="cosine")],
    ids=lambda p: p.name,
)
@pytest.mark.parametrize("spacing", ["trailing", "leading"])
@pytest.mark.parametrize("name", ["ddim", "ddpm", "dpmpp_2m", "plms", "paper"])
def test_every_number_of_steps_has_a_table_or_is_refused(name, spacing, plan):
    """All timesteps once and in order, inside the schedule; coefficients are numbers, and of a
    clean x0 that is known every step keeps the mean."""
    for steps in (1, 2, 3, 501, 999, 1000):
        config = small_configs.section(
            "sample.solver", name=name, num_solver_steps=steps, spacing=spacing
        )
        if (spacing, steps) == ("leading", 1000):
            with pytest.raises(ValueError, match=r"in \[1, 999\] .* got num_solver_steps=1000"):
                solvers.solver_table(config, plan)
            continue
        table = solvers.solver_table(config, plan)
        t = np.delete(table.t, 1) if name == "plms" else table.t
        assert len(t) == steps
        assert np.all(np.diff(t) < 0)
        assert (t[0] == 999) if spacing == "trailing" else (t[-1] == 1)
        assert 0 <= t[-1] <= t[0] <= 999
        assert all(np.isfinite(column).all() for column in table.columns().values())
        if name in ("ddim", "ddpm", "paper"):
            mean = table.x * plan.alphas[table.t] + table.x0
            np.testing.assert_allclose(mean, table.alpha_next, atol=1e-5)


def test_leading_timesteps_span_the_schedule_whatever_their_number():
    """Those that divide it are latent diffusion's; none leaves a gap of a stride before t_start."""
    for steps in (10, 50, 250, 30, 600, 999):
        t = solvers.solver_table(
            small_configs.section(
                "sample.solver", name="ddim", num_solver_steps=steps, spacing="leading"
            ),
            SCHEDULE,
        ).t
        if 1000 % steps == 0:
            np.testing.assert_array_equal(t, np.arange(0, 1000, 1000 // steps)[::-1] + 1)
        assert np.all(np.abs(-np.diff(t) - 1000 / steps) < 1)
        assert 1000 - t[0] <= 1000 / steps + 1


@pytest.mark.parametrize(("steps", "t_start"), [(1, 0), (20, 999), (7, 500), (300, 299)])
def test_timesteps_fall_from_t_start_in_equal_steps(steps, t_start):
    t = table_of("ddim", steps, t_start=t_start).t
    assert t[0] == t_start
    falls = -np.diff(np.append(t, -1))
    assert np.all(np.abs(falls - (t_start + 1) / steps) <= 1)
    assert falls.sum() == t_start + 1


@pytest.mark.parametrize(
    ("steps", "t_start", "message"),
    [
        (0, 999, "num_solver_steps=0, t_start=999"),
        (1001, 999, "num_solver_steps=1001, t_start=999"),
        (11, 9, "num_solver_steps=11, t_start=9"),
        (5, 1000, r"t_start must lie in \[0, 1000\), got t_start=1000"),
        (5, -1, "t_start=-1"),
    ],
)
def test_impossible_steps_are_refused(steps, t_start, message):
    with pytest.raises(ValueError, match=message):
        table_of("ddim", steps, t_start=t_start)


def test_sample_runs_the_table():
    """With data that are one point, or a Gaussian, the sampler lands where the loop above does."""
    data, table, shape = Gaussian(), table_of("dpmpp_2m", 10), (3, 2, 2, 1)
    steps = np.arange(1000)
    gain, mean = np.float32(data.gain(steps)), np.float32(data.marginal(steps)[0])

    def x0_hat(x_t, t, embedding):
        at = lambda a: jnp.asarray(a)[t][:, None, None, None]
        return embedding[:, :, None, None] + at(gain) * (x_t - at(mean))

    embedding, key = np.full((3, 1), data.mean, np.float32), jax.random.key(4)
    found = jax.jit(lambda e, k: solvers.sample(x0_hat, table, shape, e, k))(embedding, key)
    keys = [rng.at_place(key, 0, 0, i) for i in range(3)]
    start = np.stack([jax.random.normal(k, shape[1:]) for k in keys]).astype(float)
    mean, std = data.marginal(999)
    np.testing.assert_allclose(found, integrate(table, data, (start - mean) / std), atol=1e-4)


@pytest.mark.parametrize(
    ("name", "eta", "message"),
    [
        ("ddim", 2.0, r"eta must lie in \[0, 1\], got eta=2.0"),
        ("ddim", -0.5, "got eta=-0.5"),
        ("ddim", float("nan"), "got eta=nan"),
        ("dpmpp_2m", 0.5, "eta must be 0 but for ddim, got eta=0.5, name=dpmpp_2m"),
    ],
)
def test_noise_that_no_step_can_have_is_refused(name, eta, message):
    """Song et al. 2021: noise² ≤ sigma_next² everywhere exactly where eta ≤ 1."""
    with pytest.raises(ValueError, match=message):
        small_configs.section("sample.solver", name=name, eta=eta)
    values = dataclasses.asdict(small_configs.section("sample.solver")) | {"name": name, "eta": eta}
    with pytest.raises(schema.ConfigError, match=f"config.sample.solver: .*{message}"):
        schema.build(solvers.SolverConfig, values, "config.sample.solver")


def test_eta_one_is_the_most_that_every_schedule_allows():
    """A timestep of nearly no signal to one of nearly none less: its noise is all there is."""
    alpha, sigma = SCHEDULE.alphas, SCHEDULE.sigmas
    share = (1 - (alpha[1:] / alpha[:-1]) ** 2) / sigma[1:] ** 2  # of eta = 1, over sigma_next²
    assert share.max() < 1
    from_noise = (1 - alpha[-1] ** 2) / sigma[-1] ** 2  # in one step to the clean image
    assert from_noise == pytest.approx(1)
