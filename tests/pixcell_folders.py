"""Small PixCell models as they are published: recorded weights, random, under the real names."""

import json
import pathlib
import shutil

from safetensors.numpy import save_file

from configs import pixcell

SCHEDULER = {
    "_class_name": "DPMSolverMultistepScheduler",
    "beta_schedule": "linear",
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
}


def write(folder: pathlib.Path, recorded, stage, *, control: bool = False) -> pathlib.Path:
    """A folder of diffusers with `recorded` weights of a transformer, of a ControlNet where it is
    asked for, and of the autoencoder `stage`."""
    under = "controlnet."
    own = {k: v for k, v in recorded.weights.items() if not k.startswith(under)}
    _write_part(folder / "transformer", own, recorded.spec["constructor"])
    _write_part(folder / "vae", stage.weights, stage.spec["constructor"])
    if control:
        net = {k.removeprefix(under): v for k, v in recorded.weights.items() if k.startswith(under)}
        _write_part(folder / "controlnet", net, recorded.spec["controlnet"]["constructor"])
    _write_json(folder / "scheduler" / "scheduler_config.json", SCHEDULER)
    _write_json(folder / "model_index.json", {"_class_name": "PixCellPipeline"})
    return folder


def config(recorded, stage):
    """The config of such a folder: `configs/pixcell.py` with the sizes of recorded models."""
    c, sizes, conv = recorded.spec["constructor"], stage.spec["constructor"], None
    values = pixcell.get_config("1024" if c["caption_num_tokens"] > 1 else "256")
    shape = values.denoiser.dit.shape
    shape.width = c["num_attention_heads"] * c["attention_head_dim"]
    shape.depth, shape.num_heads = c["num_layers"], c["num_attention_heads"]
    values.denoiser.dit.positions.base = c["sample_size"] // c["patch_size"]
    values.denoiser.dit.positions.scale = float(c["interpolation_scale"])
    conv, channels = values.autoencoder.model.conv, sizes["block_out_channels"]
    conv.channels, conv.num_res_blocks = channels[0], sizes["layers_per_block"]
    conv.channel_mult = tuple(n // channels[0] for n in channels)
    px = c["sample_size"] * 2 ** (len(channels) - 1)
    values.data.crops.patch_px = px
    for section in (values.encoder, values.judge):
        section.model.vit.image_px = px
    values.sample.windows.max_offset = c["sample_size"] // 2
    values.sample.solver.num_solver_steps = 2
    values.sample.window_batch = 4
    values.sample.decode.tile, values.sample.decode.overlap = 16, 4
    return values


def in_original_names(weights, depth: int):
    """Tensors as PixArt's own code names them: joined layers, other names."""
    import numpy as np

    joined = lambda *names: np.concatenate([weights[name] for name in names])
    ends = {
        "x_embedder.proj": "pos_embed.proj",
        "t_embedder.mlp.0": "adaln_single.emb.timestep_embedder.linear_1",
        "t_embedder.mlp.2": "adaln_single.emb.timestep_embedder.linear_2",
        "t_block.1": "adaln_single.linear",
        "y_embedder.y_proj.fc1": "caption_projection.linear_1",
        "y_embedder.y_proj.fc2": "caption_projection.linear_2",
        "final_layer.linear": "proj_out",
    }
    found = {
        "y_embedder.y_embedding": weights["caption_projection.uncond_embedding"],
        "final_layer.scale_shift_table": weights["scale_shift_table"],
    }
    if "y_pos_embed.y_pos_embed" in weights:
        found["y_pos_embed"] = weights["y_pos_embed.y_pos_embed"]
    for leaf in ("weight", "bias"):
        found |= {f"{ours}.{leaf}": weights[f"{theirs}.{leaf}"] for ours, theirs in ends.items()}
        for i in range(depth):
            a, b = f"transformer_blocks.{i}", f"blocks.{i}"
            found[f"{b}.scale_shift_table"] = weights[f"{a}.scale_shift_table"]
            found[f"{b}.attn.qkv.{leaf}"] = joined(*(f"{a}.attn1.to_{x}.{leaf}" for x in "qkv"))
            found[f"{b}.cross_attn.kv_linear.{leaf}"] = joined(
                *(f"{a}.attn2.to_{x}.{leaf}" for x in "kv")
            )
            for ours, theirs in {
                "attn.proj": "attn1.to_out.0", "cross_attn.q_linear": "attn2.to_q",
                "cross_attn.proj": "attn2.to_out.0", "mlp.fc1": "ff.net.0.proj",
                "mlp.fc2": "ff.net.2",
            }.items():  # fmt: skip
                found[f"{b}.{ours}.{leaf}"] = weights[f"{a}.{theirs}.{leaf}"]
    return found


def _write_part(folder: pathlib.Path, weights, constructor) -> None:
    folder.mkdir(parents=True)
    save_file(dict(weights), folder / "diffusion_pytorch_model.safetensors")
    _write_json(folder / "config.json", constructor)


def _write_json(path: pathlib.Path, values) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))


def copied(folder: pathlib.Path, to: pathlib.Path) -> pathlib.Path:
    """A folder to spoil."""
    shutil.copytree(folder, to)
    return to
