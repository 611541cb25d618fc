"""Parameters of our models from files of published ones, and back."""

import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from ssldiff_jax.autoencoder import autoencoder, lpips
from ssldiff_jax.diffusion import conditioning
from ssldiff_jax.encoders import encoder, known, vit
from ssldiff_jax.weights import diffusers_vae, latent_diffusion, names, reader
from ssldiff_jax.weights import lpips as lpips_tables
from ssldiff_jax.weights import vit as vit_tables


def read_model(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """The tensors of a file that belong to the model, without optimizer and trainer."""
    tensors = reader.read(path)
    if "state_dict" in {name.partition(".")[0] for name in tensors}:
        return _section(tensors, "state_dict.")
    if "teacher" in {name.partition(".")[0] for name in tensors}:
        return _section(tensors, "teacher.")
    return tensors


def load_encoder(path: str | pathlib.Path, config: encoder.EncoderConfig) -> Any:
    """Parameters of the encoder that `config` names; its own ViT has timm's names."""
    sizes = config.architecture.vit
    family = "timm" if config.name == encoder.OWN else known.ENCODERS[config.name].names
    table = encoder_names(sizes, family)
    image = jnp.zeros((1, sizes.image_px, sizes.image_px, 3))
    return table.load(read_model(path), names.abstract(vit.ViT(sizes), image), str(path))


def encoder_names(sizes: vit.ViTConfig, family: known.Names) -> names.NameMap:
    """The table of a family of names."""
    if family == "timm":
        return vit_tables.timm_names(sizes)
    return vit_tables.hugging_face_names(sizes, family.removeprefix("hf_"))


def load_autoencoder(path: str | pathlib.Path, config: autoencoder.AutoencoderConfig) -> Any:
    """Parameters of a KL or VQ autoencoder from a file of latent diffusion or diffusers.

    Raises WeightsError for the light autoencoder, which nobody publishes.
    """
    if config.kind == "light":
        raise reader.WeightsError(f"{path}: autoencoder.kind must be kl or vq, got light")
    tensors = read_model(path)
    return autoencoder_names(tensors, config).load(tensors, abstract_autoencoder(config), str(path))


def autoencoder_names(
    tensors: dict[str, np.ndarray], config: autoencoder.AutoencoderConfig
) -> names.NameMap:
    """The table that a file's names ask for."""
    if any(name.startswith("encoder.down_blocks.") for name in tensors):
        return diffusers_vae.vae_names(config.conv)
    return latent_diffusion.first_stage_names(config.conv)


def abstract_autoencoder(config: autoencoder.AutoencoderConfig) -> Any:
    """Shapes of an autoencoder's parameters."""
    f, c = config.chosen.downsample_factor, config.chosen.latent_channels
    image, noise = jnp.zeros((1, 8 * f, 8 * f, 3)), jnp.zeros((1, 8, 8, c))
    return names.abstract(autoencoder.Autoencoder(config), image, noise)


def load_denoiser(path: str | pathlib.Path, config: conditioning.DenoiserConfig) -> Any:
    """Parameters of the UNet and its conditioner."""
    tensors, like = read_model(path), abstract_denoiser(config)
    return {
        "unet": latent_diffusion.unet_names(config.unet).load(tensors, like["unet"], str(path)),
        "conditioner": latent_diffusion.conditioner_names().load(
            tensors, like["conditioner"], str(path)
        ),
    }


def abstract_denoiser(config: conditioning.DenoiserConfig) -> Any:
    """Shapes of a denoiser's parameters."""
    side = 2 ** (len(config.unet.channel_mult) + 1)
    return names.abstract(
        conditioning.Denoiser(config),
        jnp.zeros((1, side, side, config.unet.latent_channels)),
        jnp.zeros(1, jnp.int32),
        jnp.zeros((1, config.embedding_dim)),
    )


def load_lpips(paths: str) -> Any:
    """Parameters of LPIPS from VGG-16's file and that of the linear layers, comma-separated."""
    files = [part.strip() for part in paths.split(",") if part.strip()]
    if len(files) != 2:
        raise reader.WeightsError(
            f"lpips_weights must name VGG-16's file and the linear layers', got {paths!r}"
        )
    image = jnp.zeros((1, 32, 32, 3))
    like = names.abstract(lpips.LPIPS(), image, image)
    vgg = lpips_tables.vgg_names().load(read_model(files[0]), like["vgg"], files[0])
    # One channel of output each: (1, C, 1, 1) there.
    flat = lambda name, value: value.reshape(-1) if name.startswith("lin") else value
    lines = {name: flat(name, value) for name, value in read_model(files[1]).items()}
    linear = {k: v for k, v in like.items() if k != "vgg"}
    return {"vgg": vgg} | lpips_tables.linear_names().load(lines, linear, files[1])


def export(path: str | pathlib.Path, *parts: tuple[names.NameMap, Any]) -> None:
    """Write models under the names of their tables into one safetensors file."""
    tensors: dict[str, np.ndarray] = {}
    for table, params in parts:
        tensors |= table.save(params)
    safetensors.numpy.save_file(tensors, path)


def _section(tensors: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
