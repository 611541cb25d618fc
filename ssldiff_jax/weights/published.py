"""Parameters of our models from files of published ones, and back."""

import dataclasses
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from ssldiff_jax.autoencoder import autoencoder, lpips
from ssldiff_jax.core import arrays
from ssldiff_jax.diffusion import conditioning
from ssldiff_jax.encoders import encoder, known, vit
from ssldiff_jax.formats import atomic, hub
from ssldiff_jax.formats import tensors as reader
from ssldiff_jax.weights import diffusers_folder, names, transformers
from ssldiff_jax.weights.tables import diffusers_vae, latent_diffusion, pixart, zoomldm
from ssldiff_jax.weights.tables import lpips as lpips_tables
from ssldiff_jax.weights.tables import vit as vit_tables

# Where a training state keeps the model: PixArt's averaged one, Lightning's, and DINO's averaged
# network.
_SECTIONS = ("state_dict_ema.", "state_dict.", "teacher.")
_SOURCES = ("patch", "region")
_OWN_AUTOENCODER = "autoencoder"
# Ours alone: what tells the level beside the timestep.
_OWN_LEVEL = "level_embedding"


@dataclasses.dataclass(frozen=True)
class ModelFile:
    """The tensors of a file that belong to a model, without its optimizer and trainer.

    `about` is what the config.json of a folder of diffusers says.
    """

    path: str
    tensors: Mapping[str, np.ndarray]
    about: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def read(cls, path: str | pathlib.Path, part: str = "") -> "ModelFile":
        """Read a file, a set of shards or a folder; of a pipeline of diffusers its `part`, such as
        the transformer. Code in a folder is not run.

        Raises WeightsError for what cannot be read.
        """
        about = {}
        if part:
            # By an address too: the parts of a pipeline come together.
            whole = hub.local(path)
            diffusers_folder.say_code(whole)
            inside = diffusers_folder.part(whole, part)
            about = diffusers_folder.config(inside)
            path = path if inside == whole else inside
        tensors = reader.read(path)
        # A training state has the optimiser's moments and a trainer's records beside the model.
        for section in _SECTIONS:
            own = {k.removeprefix(section): v for k, v in tensors.items() if k.startswith(section)}
            if own:
                return cls(str(path), own, about)
        return cls(str(path), tensors, about)


def load_encoder(file: ModelFile, name: str, architecture: encoder.Architecture) -> Any:
    """Parameters of the encoder called `name`; a ViT of our own has timm's names.

    Raises WeightsError that says which sizes were expected and which came.
    """
    entry, sizes = known.ENCODERS.get(name), architecture.vit
    family = vit_tables.family_of(file.tensors, entry.names if entry else "timm")
    table = encoder_names(sizes, family)
    expected = vit_tables.Found.expected(sizes)
    found = vit_tables.Found.of(file.tensors, table) or expected
    stored = _of_grid(architecture, found.positions) if entry and entry.any_grid else architecture
    if found != vit_tables.Found.expected(stored.vit):
        raise reader.WeightsError(f"{file.path} must be {name}: {expected}, got {found}")
    params = table.load(file.tensors, abstract_encoder(stored), file.path)
    if stored.vit != sizes:
        of_vit = params if architecture.head is None else params["trunk"]
        of_vit["position"] = _refitted(of_vit["position"], stored.vit, sizes)
    return params


def abstract_encoder(architecture: encoder.Architecture) -> Any:
    """Shapes of an encoder's parameters."""
    px = architecture.vit.image_px
    return names.abstract(architecture.model, jnp.zeros((1, px, px, 3)))


def _of_grid(architecture: encoder.Architecture, positions: int) -> encoder.Architecture:
    """The architecture with as many positions, where they are those of a square."""
    sizes = architecture.vit
    num_patches = positions - (sizes.num_positions - sizes.side**2)
    side = math.isqrt(max(num_patches, 0))
    if side == 0 or side**2 != num_patches:
        return architecture
    sizes = dataclasses.replace(sizes, image_px=side * sizes.patch_px)
    return dataclasses.replace(architecture, vit=sizes)


def _refitted(position: np.ndarray, old: vit.ViTConfig, new: vit.ViTConfig) -> np.ndarray:
    """Position embeddings of another grid, resized as they would be at every call."""
    others = old.num_positions - old.side**2
    sides = (old.side,) * 2, (new.side,) * 2
    grid = vit.fitted(position[:, others:], *sides, new.variant.resize)
    return np.concatenate([position[:, :others], grid], axis=1)


def encoder_names(sizes: vit.ViTConfig, family: known.Names) -> names.NameMap:
    """The table of a family of names."""
    return vit_tables.names_of(family, sizes)


def load_autoencoder(file: ModelFile, config: autoencoder.AutoencoderConfig) -> Any:
    """Parameters of a KL or VQ autoencoder from a file of latent diffusion or diffusers, or of the
    light one from an export of ours.

    Raises WeightsError for the light autoencoder in any other file: nobody publishes one.
    """
    # Our exports alone have these names.
    own = any(name.startswith(f"{_OWN_AUTOENCODER}.") for name in file.tensors)
    if config.kind == "light" and not own:
        raise reader.WeightsError(f"{file.path}: autoencoder.kind must be kl or vq, got light")
    # By the file's own names, because the same model is published in two libraries' layouts.
    table = autoencoder_names(file.tensors, config)
    return table.load(file.tensors, abstract_autoencoder(config), file.path)


def autoencoder_names(
    tensors: Mapping[str, np.ndarray], config: autoencoder.AutoencoderConfig
) -> names.NameMap:
    """The table that a file's names ask for; with no tensors, the one that is written."""
    if config.kind == "light":
        return names.own_names(abstract_autoencoder(config), _OWN_AUTOENCODER)
    if any(name.startswith("encoder.down_blocks.") for name in tensors):
        return diffusers_vae.vae_names(config.conv)
    return latent_diffusion.first_stage_names(config.conv)


def latent_scaling(
    file: ModelFile, config: autoencoder.AutoencoderConfig
) -> autoencoder.LatentScaling:
    """How a checkpoint's latents were scaled: as it says where it is an export of ours, else not
    at all."""
    channels = config.chosen.latent_channels
    # Without it as latent diffusion uses its VQ-f4: unscaled.
    scale = file.tensors.get("latent_scale", np.ones(channels))
    shift = file.tensors.get("latent_shift", np.zeros(channels))
    if scale.shape != (channels,) or shift.shape != (channels,):
        raise reader.WeightsError(
            f"{file.path}: latent_scale and latent_shift must be ({channels},), got {scale.shape} "
            f"and {shift.shape}"
        )
    return autoencoder.LatentScaling(tuple(scale.tolist()), tuple(shift.tolist()))


def abstract_autoencoder(config: autoencoder.AutoencoderConfig) -> Any:
    """Shapes of an autoencoder's parameters."""
    f, c = config.chosen.downsample_factor, config.chosen.latent_channels
    # Parameters do not depend on the size of an image.
    image, noise = jnp.zeros((1, 8 * f, 8 * f, config.bands)), jnp.zeros((1, 8, 8, c))
    return names.abstract(autoencoder.Autoencoder(config), image, noise)


def load_denoiser(
    file: ModelFile,
    config: conditioning.DenoiserConfig,
    adapters: transformers.Adapters | None = None,
) -> Any:
    """Parameters of the network and its conditioner; averaged ones where the file has them.

    Raises WeightsError for a file that does not fit, and for a LoRA of anything but a published
    transformer.
    """
    adapters = adapters or transformers.Adapters()
    if pixart.is_one(file.tensors):
        of_file = transformers.PublishedTransformer.of(file.path, file.tensors, file.about)
        # Before the shapes, which take their time and may be impossible ones.
        of_file.require(config)
        if adapters.control is not None:
            adapters.control.require(config.dit)
        return of_file.load(config, abstract_denoiser(config), adapters)
    if adapters.lora.weights or adapters.control:
        raise reader.WeightsError(
            f"{file.path}: expected a published transformer for config.denoiser.lora and control, "
            "got another model"
        )
    tensors, like = averaged(file.tensors), abstract_denoiser(config)
    tables = _denoiser_names(config, like)
    return {name: table.load(tensors, like[name], file.path) for name, table in tables.items()}


def _denoiser_names(config: conditioning.DenoiserConfig, like: Any) -> dict[str, names.NameMap]:
    """The table of each part of a denoiser; a student's step has none."""
    if config.dit is not None:
        own = {name: part for name, part in like.items() if name not in ("level", "step")}
        tables = {name: names.own_names(part, name) for name, part in own.items()}
    else:
        tables = {
            "unet": latent_diffusion.unet_names(config.unet),
            "conditioner": zoomldm.conditioner_names(config.transformer)
            if config.transformer
            else latent_diffusion.conditioner_names(_sources(config)),
        }
    if "level" in like:
        tables["level"] = names.own_names(like["level"], _OWN_LEVEL)
    return tables


@dataclasses.dataclass(frozen=True)
class ConditionerSizes:
    """Dimensions of the embeddings a checkpoint was trained on; `region` 0 has none."""

    patch: int
    region: int


def conditioner_sizes(
    file: ModelFile, config: conditioning.DenoiserConfig | None = None
) -> ConditionerSizes:
    """What a checkpoint's conditioner reads; `config` says what is known of it before.

    Raises WeightsError where it has none, or a transformer of other sizes.
    """
    if config is not None and config.transformer is not None:
        width, levels = config.unet.context_dim, config.num_levels
        dim = zoomldm.require_sizes(file.tensors, file.path, width=width, num_levels=levels)
        return ConditionerSizes(dim, 0)
    if pixart.is_one(file.tensors):
        of_file = transformers.PublishedTransformer.of(file.path, file.tensors, file.about)
        return ConditionerSizes(of_file.embedding_dim, 0)
    own = file.tensors.get("conditioner.token_in.kernel")
    if own is not None:
        return ConditionerSizes(own.shape[0], 0)
    kernels = {name: file.tensors.get(f"cond_stage_model.{name}_fc.weight") for name in _SOURCES}
    if kernels["patch"] is None:
        raise reader.WeightsError(
            f"{file.path}: expected cond_stage_model.patch_fc.weight, got no such tensor"
        )
    region = kernels["region"]
    return ConditionerSizes(kernels["patch"].shape[-1], 0 if region is None else region.shape[-1])


def averaged(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """With averages over training in the place of the last weights, where a file has them.

    Latent diffusion writes them without the dots: `model_ema.` and the letters of the name.
    """
    flat = {f"model_ema.{name.removeprefix('model.').replace('.', '')}": name for name in tensors}
    return dict(tensors) | {
        flat[name]: value
        for name, value in tensors.items()
        if name.startswith("model_ema.") and name in flat
    }


def abstract_denoiser(config: conditioning.DenoiserConfig) -> Any:
    """Shapes of the parameters of a denoiser or a student."""
    # Parameters do not depend on the side: 4 × 4 is left where the network is coarsest.
    side, t = 4 * config.network.side_multiple, jnp.zeros(1, jnp.int32)
    told = conditioning.Step(t, jnp.ones(1)) if config.is_student else None
    x_t = jnp.zeros((1, side, side, config.network.latent_channels))
    condition = jnp.zeros((1, config.condition_dim))
    shown = x_t if config.control is not None else None
    return names.abstract(conditioning.Denoiser(config), x_t, t, condition, told, shown)


def denoiser_parts(
    config: conditioning.DenoiserConfig, params: Any
) -> tuple[tuple[names.NameMap, Any], ...]:
    """A denoiser's tables with the parameters each of them names, to export."""
    tables = _denoiser_names(config, params)
    return tuple((table, params[name]) for name, table in tables.items())


def _sources(config: conditioning.DenoiserConfig) -> tuple[str, ...]:
    """What the conditioner has a linear layer for."""
    if config.num_cells > 1 or config.tokens_per_side > 1:
        return ("patch", "place")
    return _SOURCES if config.region_dim else _SOURCES[:1]


def load_lpips(paths: str) -> Any:
    """Parameters of LPIPS from VGG-16's file and that of the linear layers, comma-separated."""
    files = [part.strip() for part in paths.split(",") if part.strip()]
    if len(files) != 2:
        raise reader.WeightsError(
            f"lpips_weights must name VGG-16's file and the linear layers', got {paths!r}"
        )
    # VGG-16 halves its maps four times: 2 × 2 are left.
    image = jnp.zeros((1, 32, 32, 3))
    like = names.abstract(lpips.LPIPS(), image, image)
    vgg, linear_layers = (ModelFile.read(path) for path in files)
    # One channel of output each: (1, C, 1, 1) there.
    lines = {
        name: value.reshape(-1) if name.startswith("lin") else value
        for name, value in linear_layers.tensors.items()
    }
    # Two files that nobody publishes as one: each is checked against its own part.
    linear = {k: v for k, v in like.items() if k != "vgg"}
    features = lpips_tables.vgg_names().load(vgg.tensors, like["vgg"], vgg.path)
    return {"vgg": features} | lpips_tables.linear_names().load(lines, linear, linear_layers.path)


def export(
    path: str | pathlib.Path,
    *parts: tuple[names.NameMap, Any],
    metadata: Mapping[str, str] | None = None,
    **ours: arrays.AnyArray,
) -> None:
    """Write models under the names of their tables into one safetensors file, and beside them
    what no table names: `latent_scale`, `latent_shift`, `origin`; and `metadata` in its head.

    The file appears whole or not at all. Raises OSError where it cannot be written.
    """
    # Not at the top: a machine that only computes need not have it.
    import safetensors.numpy

    # safetensors writes memory as it lies: of another order than C it would be another tensor.
    tensors = {name: np.asarray(value, np.float32, order="C") for name, value in ours.items()}
    for table, params in parts:
        tensors |= table.save(params)
    head = dict(metadata or {})
    atomic.write_atomic(
        pathlib.Path(path), lambda p: safetensors.numpy.save_file(tensors, p, metadata=head)
    )
