"""The published large-image loop, step by step with its recorded noise."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_configs

from ssldiff_jax.autoencoder import autoencoder, conv
from ssldiff_jax.diffusion import conditioning, guidance, process, solvers
from ssldiff_jax.sampler import conditions, decode, field, sampler, windows
from ssldiff_jax.weights import published
from ssldiff_jax.weights.tables import latent_diffusion
from tests.weights.test_parity import autoencoder_config, close, unet_config

SCHEDULE = small_configs.section("denoiser.schedule")


@pytest.fixture(scope="module")
def recorded(golden):
    return golden("lrdm_panorama")


@pytest.fixture(scope="module")
def plan(recorded):
    c = recorded.spec["constructor"]
    assert c["stride"] == c["window"] // 4
    config = windows.WindowConfig("paper", 1, 0, "tapered", "margin", windows.SIDE_BY_SIDE)
    return windows.plan_windows(config, tuple(c["canvas"]), c["window"], c["num_steps"])


@pytest.fixture(scope="module")
def embeddings(recorded, plan):
    c = recorded.spec["constructor"]
    cells = recorded.inputs["embeddings"].reshape(*c["embedding_grid"], -1)
    lattice = conditions.Lattice(cells, plan.canvas, c["window"], interpolation="slerp")
    return conditions.InterpolatedCondition(lattice)


@pytest.fixture(scope="module")
def denoiser(golden, recorded):
    """The denoiser and its weights, of the UNet's file and the conditioner's."""
    unet_file = golden("lrdm_unet")
    config = conditioning.DenoiserConfig(unet_config(unet_file.spec["constructor"]), 64)
    like, weights = published.abstract_denoiser(config), unet_file.weights | recorded.weights
    params = {
        "unet": latent_diffusion.unet_names(config.unet).load(weights, like["unet"], "unet"),
        "conditioner": latent_diffusion.conditioner_names().load(
            weights, like["conditioner"], "conditioner"
        ),
    }
    return conditioning.Denoiser(config), params


def test_windows_cover_as_recorded(recorded, plan):
    assert plan.steps[0].count == recorded.spec["constructor"]["windows"]
    count = np.zeros((*plan.canvas, 1))
    for row, col in plan.steps[0].corners():
        count[row : row + plan.window, col : col + plan.window] += 1
    np.testing.assert_array_equal(count[..., 0], recorded.outputs["coverage"][0, 0])


def test_windows_see_the_recorded_embeddings(recorded, plan, embeddings):
    expected, found = recorded.outputs["window_embeddings"], embeddings(plan.steps[0].corners())
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def clean(table, i):
    """A table of one step at the timestep of step i that ends at x0_hat."""
    one = {name: column[[i]] for name, column in table.columns().items()}
    ends = {"x": np.float32([0]), "x0": np.float32([1]), "noise": np.float32([0])}
    return dataclasses.replace(table, **(one | ends))


def test_every_step_of_the_loop(recorded, plan, embeddings, denoiser, monkeypatch):
    model, params = denoiser
    config = small_configs.section("sample.solver", name="paper", num_solver_steps=plan.num_steps)
    table = solvers.solver_table(config, SCHEDULE)
    np.testing.assert_array_equal(
        table.t + config.time_offset, recorded.spec["constructor"]["timesteps"]
    )
    guided = functools.partial(
        guidance.GuidedX0,
        process=process.Process(SCHEDULE, "eps"),
        config=dataclasses.replace(guidance.UNGUIDED, scale=4.0),
        time_offset=config.time_offset,
    )
    denoise = lambda params, *args: model.apply({"params": params}, *args)
    canvas = field.CanvasConfig(channels=3)
    drawn = sampler.GridSampler(denoise, guided, clean(table, 0), 15, canvas)
    programs, key = drawn.programs(plan), jax.random.key(0)
    # One trace for the tables of all steps.
    monkeypatch.setattr(sampler.GridSampler, "programs", lambda self, plan: programs)
    monkeypatch.setattr(sampler.GridSampler, "network", drawn.network)
    one_step = dataclasses.replace(plan, steps=plan.steps[:1])

    def blend(params, x_t, i):
        step = dataclasses.replace(drawn, table=clean(table, i))
        state = step.start(one_step, key)
        state = state._replace(x=jnp.asarray(step.layout(plan).store(x_t)))
        *_, (end, _) = step.iterate(params, one_step, embeddings, key, state)
        return step.rows(plan, end, 0, plan.canvas[0])

    alpha, sigma = SCHEDULE.alphas[999], SCHEDULE.sigmas[999]
    picture = lambda name: recorded.image(name)[0]
    x_t = jnp.float32(alpha * picture("panorama_latent") + sigma * picture("epsilon_init"))
    close(x_t, picture("canvas_init"))
    history = table.blank_history(x_t.shape)
    with jax.default_matmul_precision("highest"):
        for i in range(len(table.t)):
            row = {name: column[i] for name, column in table.columns().items()}
            x0 = blend(params, x_t, i)
            close(x0, picture(f"x0_avg_step{i}"), 5e-5)
            noise = picture(f"z_step{i}") if f"z_step{i}" in recorded.inputs else 0.0
            x_t, history = solvers.advance(row, x_t, x0, history, noise)
            close(x_t, picture(f"canvas_step{i}"), 5e-5)


def test_decoded_windows_blend_as_recorded(golden, recorded):
    first_stage = golden("lrdm_vq_f4")
    c = first_stage.spec["constructor"]
    d = c["ddconfig"]
    sizes = conv.ConvConfig(
        d["z_channels"], d["ch"], tuple(d["ch_mult"]), d["num_res_blocks"], latent_conv="1x1"
    )
    config = autoencoder_config("vq", sizes, c["n_embed"])
    table = latent_diffusion.first_stage_names(sizes)
    params = table.load(first_stage.weights, published.abstract_autoencoder(config), "vq")
    trained = autoencoder.TrainedAutoencoder(
        config, params, autoencoder.LatentScaling((1.0,) * 3, (0.0,) * 3)
    )
    window, stride = (recorded.spec["constructor"][name] for name in ("window", "stride"))
    decoder = decode.TiledDecoder(
        trained.decode, 4, decode.DecodeConfig(window, window - stride, 15, "paper")
    )
    with jax.default_matmul_precision("highest"):
        found, calls = decoder(params, recorded.image("decode_latent")[0])
    assert calls == 45
    expected = recorded.outputs["blend_uint8_nhwc"][0]
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert np.mean(found != expected) < 0.01
