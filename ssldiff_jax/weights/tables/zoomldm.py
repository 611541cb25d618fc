"""The table for ZoomLDM's conditioner, a transformer of torchvision's; its UNet and its first stage
have the names of latent diffusion."""

from collections.abc import Mapping
from typing import Any

from ssldiff_jax.diffusion import embedding_transformer
from ssldiff_jax.formats.tensors import WeightsError
from ssldiff_jax.weights.names import Entry, NameMap

_PREFIX = "cond_stage_model."
_REDUCE, _LEVELS = f"{_PREFIX}dim_reduce.weight", f"{_PREFIX}mag_embedding.weight"

# 1 and 2 of an MLP are a GELU and dropout, without parameters.
_BLOCK = {
    "norm1": "ln_1",
    "proj": "self_attention.out_proj",
    "norm2": "ln_2",
    "fc1": "mlp.0",
    "fc2": "mlp.3",
}


def conditioner_names(config: embedding_transformer.TransformerConfig) -> NameMap:
    """Every parameter of the conditioner."""
    entries = [
        Entry("reduce", "dim_reduce"),
        Entry("pad", "pad_token", "tensor"),
        Entry("level/embedding", "mag_embedding.weight", "tensor"),
        Entry("position", "encoder.pos_embedding", "tensor"),
        Entry("norm", "encoder.ln"),
        Entry("out", "final_proj"),
        Entry("norm_out", "layer_norm"),
    ]
    for i in range(config.depth):
        theirs = f"encoder.layers.encoder_layer_{i}"
        entries += [Entry(f"block_{i}/{our}", f"{theirs}.{name}") for our, name in _BLOCK.items()]
        # torch keeps queries, keys and values in one.
        qkv = f"{theirs}.self_attention.in_proj"
        entries.append(Entry(f"block_{i}/qkv", qkv, "underscored"))
    return NameMap(tuple(entries), (_PREFIX,), _PREFIX)


def require_sizes(tensors: Mapping[str, Any], source: str, *, width: int, num_levels: int) -> int:
    """The length of the embeddings that a file's conditioner takes.

    Raises WeightsError where it has none, or one of another width or number of levels.
    """
    if _REDUCE not in tensors:
        other = " (the file has patch_fc: config.denoiser.conditioner.name=linear)"
        has_other = f"{_PREFIX}patch_fc.weight" in tensors
        raise WeightsError(
            f"{source}: expected ZoomLDM's {_REDUCE}, got no such tensor{other * has_other}"
        )
    found, dim = tensors[_REDUCE].shape
    if found != width:
        raise WeightsError(
            f"{source}: the conditioner must be as wide as config.denoiser.unet.context_dim="
            f"{width}, got {found}"
        )
    levels = len(tensors[_LEVELS]) if _LEVELS in tensors else 0
    if levels != num_levels:
        raise WeightsError(
            f"{source}: the conditioner must know the {num_levels} levels of config.data.levels, "
            f"got {levels}"
        )
    return dim
