"""A checkpoint under ZoomLDM's published names, small and with made-up weights, from its file to
images of every level."""

import numpy as np
import pytest
from torch_writer import TorchFile

from configs import zoom_brca, zoom_naip
from ssldiff_jax.core import schema
from ssldiff_jax.formats import tensors as reader
from ssldiff_jax.generation import generator
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.weights import published
from ssldiff_jax.weights.tables import latent_diffusion
from tests.weights.test_published import drawn

DIM = 12


def small(config):
    """The shipped config with networks of nothing; all else as it is."""
    config.data.crops.patch_px = config.encoder.model.vit.image_px = 32
    config.judge.model.vit.image_px = 32
    config.autoencoder.model.conv.channels = 32
    config.autoencoder.model.conv.channel_mult = (1, 2, 2)
    config.autoencoder.model.conv.num_res_blocks = 1
    config.autoencoder.model.vq.num_codes = 7
    unet, conditioner = config.denoiser.unet, config.denoiser.conditioner
    unet.channels, unet.channel_mult, unet.num_res_blocks = 32, (1, 2), 1
    unet.attention_levels, unet.context_dim = (1,), 16
    conditioner.depth, conditioner.num_heads, conditioner.mlp_width = 1, 2, 24
    config.sample.solver.num_solver_steps = 2
    config.sample.windows.max_offset, config.sample.window_batch = 2, 3
    config.sample.decode.tile, config.sample.decode.overlap = 8, 2
    return config


def of_file(config):
    """The checked config of a run whose denoiser is a file's."""
    config.denoiser.weights = "weights.ckpt"
    return schema.build(run_config.RunConfig, config.to_dict())


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A bare state dict, as it is published: weights, averages of the UNet, buffers."""
    run = of_file(small(zoom_brca.get_config()))
    sizes, stage = run.denoiser_sizes(DIM), run.autoencoder.model
    params = drawn(published.abstract_denoiser(sizes))
    tensors = {}
    for table, part in published.denoiser_parts(sizes, params):
        tensors |= table.save(part)
    first = drawn(published.abstract_autoencoder(stage), seed=1)
    unet = {k: v for k, v in tensors.items() if k.startswith("model.")}
    averages = {f"model_ema.{k.removeprefix('model.').replace('.', '')}": 0.5 * v
                for k, v in unet.items()}  # fmt: skip
    tensors |= latent_diffusion.first_stage_names(stage.conv).save(first) | averages
    tensors |= {"model_ema.num_updates": np.array(9), "betas": np.ones(1000, np.float32)}
    path, file = tmp_path_factory.mktemp("zoom") / "weights.ckpt", TorchFile()
    file.write(path, {name: file.tensor(value) for name, value in tensors.items()})
    return path, params


def test_every_level_of_a_checkpoint_is_generated_from_one_grid(checkpoint):
    path, params = checkpoint
    model = generator.Generator.load(path, small(zoom_brca.get_config()))
    kernel = model.trained.params["unet"]["conv_in"]["kernel"]
    np.testing.assert_allclose(kernel, 0.5 * params["unet"]["conv_in"]["kernel"])
    np.testing.assert_array_equal(
        model.trained.params["conditioner"]["pad"], params["conditioner"]["pad"]
    )
    # A slide of 128 × 192 patches at 20×.
    grid = np.random.default_rng(0).normal(size=(128, 192, DIM)).astype(np.float32)
    for number, level in enumerate((32.0, 64.0, 128.0), start=6):
        large = model.at_level(level).generate(grid, seed=1)
        assert large.mpp == pytest.approx(0.5 * level)
        assert large.image.shape == (128 * 32 // level, 192 * 32 // level, 3)
        plan = model.at_level(level).plan_from_grid(grid)
        assert plan.condition(np.zeros((1, 2), int))[0, -1] == number
    images = [m.sample_patches(np.ones((1, side**2 * DIM), np.float32), seed=1)
              for m, side in ((model, 1), (model.at_level(4.0), 4))]  # fmt: skip
    assert not np.array_equal(*images)


def test_the_unconditional_half_is_zero_tokens_at_every_level(checkpoint):
    """The null of the published code, by its guidance of 2."""
    path, _ = checkpoint
    model = generator.Generator.load(path, small(zoom_brca.get_config()))
    networks = model.networks
    condition = networks.condition(np.ones((2, DIM), np.float32), 0)
    assert not np.asarray(networks.denoiser.config.null(condition)).any()
    assert model.config.sample.guidance.scale == 2.0


def test_levels_of_another_file_are_refused_in_one_line(checkpoint):
    path, _ = checkpoint
    with pytest.raises(reader.WeightsError) as caught:
        generator.Generator.load(path, small(zoom_naip.get_config()))
    assert str(caught.value) == (
        f"{path}: the conditioner must know the 4 levels of config.data.levels, got 8"
    )


@pytest.mark.parametrize("make", [zoom_brca.get_config, zoom_naip.get_config])
def test_shipped_sizes_are_the_published_ones(make):
    run = of_file(make())
    sizes = run.denoiser_sizes(1024)
    count = 8 if make is zoom_brca.get_config else 4
    assert sizes.sides == (1, 2, 4, 8, 8, 8, 8, 8)[:count]
    assert (sizes.num_levels, sizes.unet.context_dim) == (count, 512)
    assert sizes.transformer == type(sizes.transformer)(12, 8, 2048)


def test_an_encoder_is_named_with_its_weights():
    run = of_file(zoom_brca.get_config("/weights/uni"))
    assert (run.encoder.name, run.encoder.weights) == ("uni", "/weights/uni")
    assert run.encoder.architecture.vit.width == 1024
