"""configs/one_gpu.py: it fits the cards that it is for, and trains in as many parts."""

import json
import pathlib

import numpy as np
import pytest
import small_configs

from configs import default, one_gpu
from ssldiff_jax.core import schema
from ssldiff_jax.runs import batches, launch
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import folders
from ssldiff_jax.stages import table
from ssldiff_jax.stages.tools.plan import devices, facts
from ssldiff_jax.train import chips

CARDS = {"80gb": ("NVIDIA H100", 80e9), "24gb": ("NVIDIA GeForce RTX 4090", 24e9)}

# What XLA's compiler for an H200 said of the published step: bytes of the state, and of each
# example beside it at a batch of 64.
STATE, EXAMPLE = 6.42e9, 19.3e9 / 64


def with_weights(config):
    for section in (config.encoder, config.judge, config.autoencoder):
        section.weights = "weights.safetensors"
    return schema.build(run_config.RunConfig, config.to_dict())


@pytest.mark.slow
@pytest.mark.parametrize("card", CARDS)
def test_the_published_step_fits_the_card(card):
    config = with_weights(one_gpu.get_config(card))
    there = devices.Devices.of(config)
    assert (there.kind, there.memory) == CARDS[card]
    plan = facts.Facts(config, folders.Folders.of(config, pathlib.Path("run")), there, None, "")
    training = plan.training("denoiser")
    part = config.denoiser.train.batch_size // config.denoiser.train.compute.accumulate
    needed = training.device_state_bytes + training.live_bytes
    assert training.device_state_bytes == pytest.approx(STATE, rel=0.01)
    # Gradients of parts are summed beside it.
    expected = STATE + 4 * training.num_params + part * EXAMPLE
    assert needed == pytest.approx(expected, rel=0.12)
    assert max(needed, expected) < 0.9 * there.memory
    assert training.step_flops == pytest.approx(607e9 * 600, rel=0.01)


@pytest.mark.parametrize("card", CARDS)
def test_it_trains_as_published_but_for_parts(card):
    config, published = with_weights(one_gpu.get_config(card)), default.get_config()
    own = config.denoiser.train
    assert own.batch_size == published.denoiser.train.batch_size
    assert own.num_steps == published.denoiser.train.num_steps
    assert list(batches.uneven({"denoiser": own}, devices=1)) == []
    assert config.encoder.train.num_steps == config.judge.train.num_steps == 0
    assert chips.Group.named(config.plan.devices).count == 1
    with pytest.raises(ValueError, match="takes 80gb or 24gb, got '40gb'"):
        one_gpu.get_config("40gb")


@pytest.mark.slow
@pytest.mark.e2e
def test_one_step_in_as_many_parts(tmp_path):
    """Its networks of nothing, trained here in place of the published ones."""
    config = small_configs.published(one_gpu.get_config())
    for section in (config.encoder, config.judge):
        section.name = "own"
    config.data.slides, config.data.holdout.by = "demo", "area"
    config.data.crops.num_crops = 30
    config.denoiser.train.num_steps = 1
    config.denoiser.train.batch_size = config.denoiser.train.compute.accumulate
    config.stages = "patches,encoder,embeddings,autoencoder,latents,denoiser"
    launch.launch(config.to_dict(), tmp_path, table.STAGES)
    (line,) = (tmp_path / "denoiser" / "metrics.jsonl").read_text().splitlines()
    metrics = json.loads(line)
    assert metrics["step"] == 1
    assert metrics["skipped"] == 0
    assert np.isfinite(metrics["loss"])
