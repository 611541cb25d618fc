"""Published models of random weights, small, in files of the real names and under the real names of
tensors."""

import dataclasses
import json
import pathlib

import numpy as np
import pixcell_folders
import small_configs
from safetensors.numpy import save_file

from configs import pixcell, tcga, zoom_brca, zoom_naip
from ssldiff_jax.core import schema
from ssldiff_jax.diffusion import control
from ssldiff_jax.encoders import known, vit
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.weights import names, published
from ssldiff_jax.weights.tables import diffusers_vae, pixart

ENCODER = "dino-vits16"
"""What small configs name in the place of every published encoder."""
DIM = known.ENCODERS[ENCODER].vit.width


def drawn(like):
    """Random parameters of these shapes."""
    import jax

    generator = np.random.default_rng(0)
    draw = lambda leaf: 0.02 * generator.standard_normal(leaf.shape).astype(np.float32)
    return jax.tree.map(draw, like)


def write(folder: pathlib.Path) -> None:
    """Encoders, first stages, and the denoisers that pages name, but PixCell's: `write_pixcell`."""
    folder.mkdir()
    sizes = known.ENCODERS[ENCODER].vit
    image = np.zeros((1, sizes.image_px, sizes.image_px, 3), np.float32)
    params = drawn(names.abstract(vit.ViT(sizes), image))
    for name in ("uni", "uni2-h", "hipt.pth", "phikon", "dinov2"):
        published.export(folder / name, (published.encoder_names(sizes, "timm"), params))
    run = _small(tcga.get_config())
    published.export(folder / "vq-f4.ckpt", _first_stage(run))
    for name, config in {
        "crc_20x": run, "brca_20x": run,
        "zoom_brca": _small(zoom_brca.get_config()), "zoom_naip": _small(zoom_naip.get_config()),
    }.items():  # fmt: skip
        denoiser = config.denoiser_sizes(DIM)
        parts = published.denoiser_parts(denoiser, drawn(published.abstract_denoiser(denoiser)))
        published.export(folder / f"{name}.ckpt", *parts, _first_stage(config))
    write_stage(folder / "sd3")
    write_control(folder / "controlnet")


def write_stage(folder: pathlib.Path) -> None:
    """SD3's autoencoder as a folder of diffusers."""
    conv = _small(_pixcell("256")).autoencoder.model.conv
    like = published.abstract_autoencoder(_small(_pixcell("256")).autoencoder.model)
    about = {"scaling_factor": 1.5305, "shift_factor": 0.0609}
    _write(folder, diffusers_vae.vae_names(conv).save(drawn(like)), about)


def write_control(folder: pathlib.Path) -> None:
    """A ControlNet of one block, of the transformer that sees one embedding."""
    config = _small(_pixcell("256")).denoiser_sizes(DIM)
    config = dataclasses.replace(config, control=control.Control(1, 1.0))
    params = drawn(published.abstract_denoiser(config))["control"]
    _write(folder, pixart.control_names(config.dit, 1).save(params), {})


def write_pixcell(folder: pathlib.Path, model: str) -> None:
    """The folder of one of the two transformers."""
    config = _small(_pixcell(model)).denoiser_sizes(DIM)
    params = drawn(published.abstract_denoiser(config))
    tensors = pixart.transformer_names(config.dit).save(params["dit"])
    tensors |= pixart.conditioner_names().save(params["conditioner"])
    shape = config.dit.shape
    about = {
        "num_attention_heads": shape.num_heads,
        "attention_head_dim": shape.width // shape.num_heads,
    }
    _write(folder / "transformer", tensors, about)
    scheduler = folder / "scheduler" / "scheduler_config.json"
    scheduler.parent.mkdir()
    scheduler.write_text(json.dumps(pixcell_folders.SCHEDULER))


def _write(folder, tensors, about):
    folder.mkdir(parents=True)
    arrays = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    save_file(arrays, folder / "diffusion_pytorch_model.safetensors")
    (folder / "config.json").write_text(json.dumps(about))


def _pixcell(model):
    config = pixcell.get_config(model)
    for section in (config.encoder, config.autoencoder, config.denoiser):
        section.weights = "not read"
    return config


def _small(config) -> run_config.RunConfig:
    config = small_configs.small(config)
    for section in (config.encoder, config.autoencoder, config.denoiser):
        section.train.num_steps = 0 if section.weights else 2
    return schema.build(run_config.RunConfig, config.to_dict())


def _first_stage(run):
    config = run.autoencoder.model
    params = drawn(published.abstract_autoencoder(config))
    return published.autoencoder_names({}, config), params
