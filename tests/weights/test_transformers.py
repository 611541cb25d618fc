"""Published transformers that do not fit: one line says how."""

import dataclasses
import json

import numpy as np
import pytest

from ssldiff_jax.autoencoder import autoencoder
from ssldiff_jax.diffusion import process, schedule
from ssldiff_jax.formats import tensors as reader
from ssldiff_jax.weights import diffusers_folder, published, transformers
from tests.weights.tables.test_pixart import load, sizes_of, split
from tests.weights.test_parity import autoencoder_config


@pytest.fixture(scope="module")
def recorded(golden):
    return golden("pixcell_dit_1024")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": {"width": 96, "depth": 3, "num_heads": 4}},
         r"another model .*, got config\.denoiser\.dit\.shape\.width=96 \(must be 72\)$"),
        ({"shape": {"width": 72, "depth": 2, "num_heads": 2}},
         r"shape\.depth=2 \(must be 3\), config\.denoiser\.dit\.shape\.num_heads=2 \(must be 4\)"),
        ({"latent_channels": 4}, r"latent_channels=4 \(must be 16\)"),
        ({"positions": {"base": 16, "scale": 1.0}}, r"positions\.scale=1\.0 \(must be 2\.0\)"),
        ({"positions": {"base": 8, "scale": 2.0}}, r"positions\.base=8 \(must be 16\)"),
        ({"mlp": "swiglu"}, r"mlp=swiglu \(must be gelu\)"),
        ({"conditioning": "scale_shift"}, r"conditioning=scale_shift \(must be cross_attention\)"),
    ],
)  # fmt: skip
def test_a_config_of_another_model_is_refused(recorded, changes, message):
    config = sizes_of(recorded, **changes)
    with pytest.raises(reader.WeightsError, match=message) as caught:
        load(recorded, split(recorded)[0], config)
    assert "\n" not in str(caught.value)


def test_tokens_and_embeddings_of_another_model_are_refused(recorded, golden):
    small = golden("pixcell_dit_256")
    # 16 tokens for a model of one, and one for a model of 16.
    for of, asked, message in (
        (small, 4, r"tokens of a window .*=16 \(must be 1\)"),
        (recorded, 1, r"tokens of a window .*=1 \(must be 16\)"),
    ):
        config = dataclasses.replace(sizes_of(of), tokens_per_side=asked)
        with pytest.raises(reader.WeightsError, match=message):
            load(of, split(of)[0], config)
    config = dataclasses.replace(sizes_of(recorded), embedding_dim=32)
    with pytest.raises(reader.WeightsError, match=r"dimension of embeddings=32 \(must be 48\)"):
        load(recorded, split(recorded)[0], config)
    config = dataclasses.replace(sizes_of(recorded), embedding_length="one")
    with pytest.raises(reader.WeightsError, match=r"embedding_length=one \(must be own\)"):
        load(recorded, split(recorded)[0], config)


def test_a_unet_is_asked_for(recorded):
    config = dataclasses.replace(sizes_of(recorded), dit=None)
    with pytest.raises(reader.WeightsError, match=r"network=unet \(must be dit\)"):
        load(recorded, split(recorded)[0], config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("transformer_blocks.1.attn2.to_v.bias"),
         r"1 missing: transformer_blocks\.1\.attn2\.to_v\.bias"),
        (lambda t: t.update({"adaln_single.emb.resolution.weight": np.ones((2, 2))}),
         r"1 unexpected: adaln_single\.emb\.resolution\.weight"),
        (lambda t: t.update({"proj_out.weight": np.ones((64, 72), np.float32)}),
         r"1 misshaped: proj_out\.weight \(64, 72\)"),
        (lambda t: t.update({"adaln_single.linear.bias": np.full(432, np.inf, np.float32)}),
         r"1 not finite: adaln_single\.linear\.bias"),
        (lambda t: t.pop("caption_projection.uncond_embedding"),
         r"expected caption_projection\.uncond_embedding of 2 dimensions, got none"),
        (lambda t: t.update({"y_pos_embed.y_pos_embed": np.zeros((1, 16, 48), np.float32)}),
         r"y_pos_embed must be the sines of config\.denoiser\.dit\.positions, .* difference of 1"),
        (lambda t: t.update({"y_pos_embed.y_pos_embed": np.zeros((1, 9, 48), np.float32)}),
         r"y_pos_embed must hold \(16, 48\), got \(1, 9, 48\)"),
    ],
    ids=["missing", "unexpected", "shape", "infinite", "null", "positions", "count"],
)  # fmt: skip
def test_a_file_that_is_not_whole_is_refused(recorded, change, message):
    tensors = dict(split(recorded)[0])
    change(tensors)
    with pytest.raises(reader.WeightsError, match=message) as caught:
        load(recorded, tensors, sizes_of(recorded))
    assert "\n" not in str(caught.value)


def test_stored_positions_of_patches_are_compared(recorded):
    config, tensors = sizes_of(recorded), dict(split(recorded)[0])
    from ssldiff_jax.diffusion import positions

    sines = positions.of_patches(config.dit.positions, 16, 16, 72)[None]
    load(recorded, tensors | {"pos_embed.pos_embed": sines.astype(np.float16)}, config)
    with pytest.raises(reader.WeightsError, match=r"pos_embed\.pos_embed must be the sines"):
        load(recorded, tensors | {"pos_embed.pos_embed": sines[:, ::-1]}, config)


def test_joined_layers_that_do_not_part(recorded):
    tensors = {"blocks.0.cross_attn.q_linear.weight": np.ones((4, 4))}
    tensors["blocks.0.attn.qkv.weight"] = np.ones((7, 4))
    with pytest.raises(reader.WeightsError, match=r"attn\.qkv\.weight must be 3 layers .*\(7, 4\)"):
        load(recorded, tensors, sizes_of(recorded))


def test_a_controlnet_of_another_transformer(golden):
    small = golden("pixcell_dit_256")
    _, net = split(small)
    config = sizes_of(small)
    for change, message in (
        ({"cond_pos_embed.proj.weight": np.ones((96, 16, 2, 2))}, r"\(96, 16, 2, 2\) and 2"),
        ({"transformer_blocks.99.x": np.ones(1)}, r"at most 3 blocks, got .* and 100"),
    ):
        control = transformers.PublishedControl("net", net | change)
        with pytest.raises(reader.WeightsError, match=rf"must be a ControlNet of .*{message}"):
            control.require(config.dit)
    with pytest.raises(reader.WeightsError, match="got none and 0"):
        transformers.PublishedControl("net", {}).require(config.dit)


PROCESS = process.Process(schedule.Schedule("linear_betas", 1000, 1e-4, 0.02), "eps")
SAID = {"beta_schedule": "linear", "num_train_timesteps": 1000, "beta_start": 1e-4,
        "beta_end": 0.02, "prediction_type": "epsilon"}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beta_schedule": "scaled_linear"}, r"schedule\.name='linear_betas' \(must be 'scaled_l"),
        ({"beta_end": 0.012}, r"schedule\.beta_end=0\.02 \(must be 0\.012\)"),
        ({"num_train_timesteps": 500}, r"num_timesteps=1000 \(must be 500\)"),
        ({"prediction_type": "v_prediction"}, r"loss\.prediction='eps' \(must be 'v'\)"),
    ],
)
def test_a_scheduler_that_says_another_training(change, message):
    transformers.require_process("folder", SAID, PROCESS)
    transformers.require_process("folder", {}, PROCESS)
    with pytest.raises(reader.WeightsError, match=message):
        transformers.require_process("folder", SAID | change, PROCESS)


def test_scaling_of_latents_is_that_of_the_folder_or_of_sd3(golden):
    conv = golden("diffusers_autoencoder_kl_sd3").spec["constructor"]
    from tests.weights.test_parity import conv as conv_lib

    sizes = conv_lib.ConvConfig(16, 32, (1, 1, 2, 2), 1, latent_conv="none")
    config = autoencoder_config("kl", sizes)
    told = diffusers_folder.scaling("vae", conv, config)
    assert told == autoencoder.LatentScaling((1.5305,) * 16, (0.0609,) * 16)
    assert diffusers_folder.scaling("vae", {}, config) == told
    other = diffusers_folder.scaling("vae", {"scaling_factor": 0.13, "shift_factor": None}, config)
    assert other == autoencoder.LatentScaling((0.13,) * 16, (0.0,) * 16)
    few = autoencoder_config("kl", dataclasses.replace(sizes, latent_channels=4))
    with pytest.raises(reader.WeightsError, match=r"config\.json with scaling_factor.*got 4 chann"):
        diffusers_folder.scaling("vae", {}, few)


def test_parts_of_a_folder(tmp_path, caplog):
    (tmp_path / "model_index.json").write_text("{}")
    (tmp_path / "vae").mkdir()
    assert diffusers_folder.part(tmp_path, "vae") == tmp_path / "vae"
    with pytest.raises(reader.WeightsError, match="expected a folder transformer in it, got none"):
        diffusers_folder.part(tmp_path, "transformer")
    for text, message in (("[]", "expected a JSON object, got list"), ("{", "expected JSON, got")):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(reader.WeightsError, match=rf"config\.json: {message}"):
            diffusers_folder.config(tmp_path)
    mark = tmp_path / "mark"
    (tmp_path / "vae" / "pipeline.py").write_text(f"open({str(mark)!r}, 'w')")
    diffusers_folder.say_code(tmp_path)
    assert f"{tmp_path} has code that is not run: vae/pipeline.py" in caplog.text
    assert not mark.exists()


def test_a_shard_that_is_missing(tmp_path, recorded):
    import pixcell_folders
    from safetensors.numpy import save_file

    tensors = split(recorded)[0]
    names, folder = sorted(tensors), tmp_path / "transformer"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(recorded.spec["constructor"]))
    placed = {}
    for number, part in ((1, names[::2]), (2, names[1::2])):
        file = f"diffusion_pytorch_model-0000{number}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file)
        placed |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": placed}
    path = folder / "diffusion_pytorch_model.safetensors.index.json"
    path.write_text(json.dumps(index))
    file = published.ModelFile.read(tmp_path, "transformer")
    assert file.about == recorded.spec["constructor"]
    whole = load(recorded, tensors, sizes_of(recorded))
    shards = published.load_denoiser(file, sizes_of(recorded))
    np.testing.assert_array_equal(
        shards["dit"]["blocks"]["stacked"]["qkv"]["kernel"],
        whole["dit"]["blocks"]["stacked"]["qkv"]["kernel"],
    )
    gone = pixcell_folders.copied(tmp_path, tmp_path.with_name("gone"))
    (gone / "transformer" / placed[names[0]]).unlink()
    with pytest.raises(reader.WeightsError, match=r"2 shards expected, missing .*-00001-"):
        published.ModelFile.read(gone, "transformer")
