"""CLIP as transformers saves it: a folder with config, weights, and what each tower needs."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from ssldiff_jax.encoders import clip
from ssldiff_jax.formats import hub, tensors
from ssldiff_jax.formats.tensors import WeightsError
from ssldiff_jax.weights import names
from ssldiff_jax.weights.names import Entry, NameMap

# What transformers takes where a config is silent.
_TOWER = {
    "num_hidden_layers": 12,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
_IMAGES = _TOWER | {
    "hidden_size": 768,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "image_size": 224,
    "patch_size": 32,
    "num_channels": 3,
}
_TEXTS = _TOWER | {
    "hidden_size": 512,
    "num_attention_heads": 8,
    "intermediate_size": 2048,
    "vocab_size": 49408,
    "max_position_embeddings": 77,
    "eos_token_id": 49407,
}
_ACTIVATIONS = ("quick_gelu", "gelu")
# PIL's number of it, which is what the file has.
_BICUBIC = 3

_BLOCK = {
    "norm1": "layer_norm1",
    "qkv": tuple(f"self_attn.{name}_proj" for name in "qkv"),
    "proj": "self_attn.out_proj",
    "norm2": "layer_norm2",
    "fc1": "mlp.fc1",
    "fc2": "mlp.fc2",
}
# The temperature of its training, and a buffer that counts 0 … n − 1.
_IGNORED = (r"logit_scale", r".*\.position_ids")


def image_names(config: clip.ImageConfig) -> NameMap:
    """transformers' CLIPModel and CLIPVisionModelWithProjection."""
    embeddings = "vision_model.embeddings"
    return NameMap(
        entries=(
            Entry("class_token", f"{embeddings}.class_embedding", "tensor"),
            Entry("patch_embed", f"{embeddings}.patch_embedding"),
            Entry("position", f"{embeddings}.position_embedding.weight", "tensor"),
            # Spelt so by transformers.
            Entry("norm_in", "vision_model.pre_layrnorm"),
            *_blocks("vision_model", config.tower.depth),
            Entry("norm", "vision_model.post_layernorm"),
            Entry("projection", "visual_projection"),
        ),
        ignored=(*_IGNORED, r"text_(model|projection)\..*"),
    )


def text_names(config: clip.TextConfig) -> NameMap:
    """transformers' CLIPModel and CLIPTextModelWithProjection."""
    embeddings = "text_model.embeddings"
    return NameMap(
        entries=(
            Entry("words", f"{embeddings}.token_embedding.weight", "tensor"),
            Entry("position", f"{embeddings}.position_embedding.weight", "tensor"),
            *_blocks("text_model", config.tower.depth),
            Entry("norm", "text_model.final_layer_norm"),
            Entry("projection", "text_projection"),
        ),
        ignored=(*_IGNORED, r"(vision_model|visual_projection)\..*"),
    )


def _blocks(model: str, depth: int) -> list[Entry]:
    lines = []
    for i in range(depth):
        under = lambda name, i=i: f"{model}.encoder.layers.{i}.{name}"
        lines += [
            Entry(
                f"blocks_{i}/{ours}",
                under(theirs) if isinstance(theirs, str) else tuple(map(under, theirs)),
            )
            for ours, theirs in _BLOCK.items()
        ]
    return lines


def load_images(folder: str | pathlib.Path) -> clip.ImageEncoder:
    """The image tower in a folder: `config.json` (a CLIP), its weights, and, where there is one,
    `preprocessor_config.json`; without it images are prepared as CLIP's own.

    Raises WeightsError for a file that is missing or of another model.
    """
    folder = hub.local(folder)
    config = image_config(folder)
    px = config.image_px
    prepared = pixels(folder, px)
    like = names.abstract(clip.ImageTower(config), jnp.zeros((1, px, px, 3)))
    params = image_names(config).load(tensors.read(folder), like, str(folder))
    return clip.ImageEncoder(config, prepared, params)


def load_texts(folder: str | pathlib.Path) -> clip.TextEncoder:
    """The text tower in a folder: `config.json` (a CLIP), `tokenizer.json` and its weights.

    Raises WeightsError for a file that is missing or of another model.
    """
    # Not at the top: a machine that only computes need not have it.
    import tokenizers

    folder = hub.local(folder)
    config = text_config(folder)
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise WeightsError(f"{folder} must hold a CLIP, got no tokenizer.json")
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exceptions
        raise WeightsError(f"{path} cannot be read: {error}") from error
    # JAX reads the last row of a table for an index beyond it: a wrong word, and no error.
    if tokenizer.get_vocab_size() > config.vocab_size:
        raise WeightsError(
            f"{path} must have at most {config.vocab_size} tokens, got {tokenizer.get_vocab_size()}"
        )
    like = names.abstract(clip.TextTower(config), jnp.zeros((1, 2), int))
    params = text_names(config).load(tensors.read(folder), like, str(folder))
    return clip.TextEncoder(config, params, tokenizer, source=str(path))


def image_config(folder: pathlib.Path) -> clip.ImageConfig:
    """Sizes of the image tower, of `config.json`."""
    path, config = _config(folder)
    try:
        section = _section(config, "vision_config", _IMAGES)
        if section["num_channels"] != 3:
            raise ValueError(f"num_channels={section['num_channels']}")
        return clip.ImageConfig(
            _tower(config, section), int(section["image_size"]), int(section["patch_size"])
        )
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path} must have the sizes of a CLIP, got: {error!r}") from error


def text_config(folder: pathlib.Path) -> clip.TextConfig:
    """Sizes of the text tower, of `config.json`."""
    path, config = _config(folder)
    try:
        section = _section(config, "text_config", _TEXTS)
        sizes = ("vocab_size", "max_position_embeddings", "eos_token_id")
        return clip.TextConfig(_tower(config, section), *(int(section[name]) for name in sizes))
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path} must have the sizes of a CLIP, got: {error!r}") from error


def _config(folder: pathlib.Path) -> tuple[pathlib.Path, Mapping[str, Any]]:
    path = folder / "config.json"
    if not path.is_file():
        raise WeightsError(f"{folder} must hold a CLIP, got no config.json")
    config = _json(path)
    if config.get("model_type") != "clip":
        raise WeightsError(f"{path}: model_type must be clip, got {config.get('model_type')!r}")
    return path, config


def _json(path: pathlib.Path) -> Mapping[str, Any]:
    try:
        values = json.loads(path.read_text())
    except ValueError as error:
        raise WeightsError(f"{path} must be JSON, got: {error}") from error
    if not isinstance(values, dict):
        raise WeightsError(f"{path} must be a JSON object, got {type(values).__name__}")
    return values


def _section(config: Mapping[str, Any], name: str, usual: Mapping[str, Any]) -> dict[str, Any]:
    """A section of a config; old ones say it twice, and the second counts."""
    return {**usual, **(config.get(f"{name}_dict") or config.get(name) or {})}


def _tower(config: Mapping[str, Any], section: Mapping[str, Any]) -> clip.TowerConfig:
    if section["hidden_act"] not in _ACTIVATIONS:
        raise ValueError(f"hidden_act={section['hidden_act']}, not one of {_ACTIVATIONS}")
    return clip.TowerConfig(
        width=int(section["hidden_size"]),
        depth=int(section["num_hidden_layers"]),
        num_heads=int(section["num_attention_heads"]),
        mlp_width=int(section["intermediate_size"]),
        # transformers' default, too.
        dim=int(config.get("projection_dim", 512)),
        activation=section["hidden_act"],
        epsilon=float(section["layer_norm_eps"]),
    )


def pixels(folder: pathlib.Path, image_px: int) -> clip.Pixels:
    """How images are prepared, of `preprocessor_config.json`, or as CLIP's own without it."""
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return clip.Pixels(resize_px=image_px)
    values, usual = _json(path), clip.Pixels()
    steps = ("do_resize", "do_center_crop", "do_rescale", "do_normalize")
    left_out = [step for step in steps if not values.get(step, True)]
    resample = values.get("resample", _BICUBIC)
    if left_out or resample != _BICUBIC:
        raise WeightsError(
            f"{path} must resize bicubically (resample 3), crop, rescale and normalise, got "
            f"resample={resample} and not {', '.join(left_out) or 'less'}"
        )
    try:
        size, crop = values.get("size", image_px), values.get("crop_size", image_px)
        # A number in old files, a dictionary in newer ones.
        if isinstance(size, int) or "shortest_edge" in size:
            # The shorter side, and the middle of the longer one is cut out.
            fit, resize_px = "shorter", size if isinstance(size, int) else size["shortest_edge"]
        else:
            # Both sides, whatever the shape was.
            fit, resize_px = "both", _side(size)
        crop_px = _side(crop)
        mean, std = (
            tuple(float(v) for v in values.get(key, default))
            for key, default in (("image_mean", usual.mean), ("image_std", usual.std))
        )
        config = clip.Pixels(int(resize_px), fit, mean, std)
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path} must be of a CLIP image processor, got: {error!r}") from error
    # The tower has position embeddings for one size.
    if crop_px != image_px or config.resize_px < image_px or (len(mean), len(std)) != (3, 3):
        raise WeightsError(
            f"{path} must give squares of {image_px} px and three colours, got size={size}, "
            f"crop_size={crop}, {len(mean)} means and {len(std)} deviations"
        )
    return config


def _side(size: int | Mapping[str, int]) -> int:
    if isinstance(size, int):
        return size
    if size["height"] != size["width"]:
        raise ValueError(f"{size} is not square")
    return int(size["height"])
