"""Tables for transformers of PixArt's blocks as diffusers names them, PixCell's among them, and
their own code's names in those of diffusers."""

import dataclasses
import re
from collections.abc import Mapping

import numpy as np

from ssldiff_jax.diffusion import dit
from ssldiff_jax.formats.torch_zip import WeightsError
from ssldiff_jax.weights.names import Entry, NameMap

_BLOCK = {
    "qkv": ("attn1.to_q", "attn1.to_k", "attn1.to_v"),
    "out": "attn1.to_out.0",
    "cross/q": "attn2.to_q",
    "cross/kv": ("attn2.to_k", "attn2.to_v"),
    "cross/out": "attn2.to_out.0",
    "mlp_in": "ff.net.0.proj",
    "mlp_out": "ff.net.2",
}

_ENDS = {
    "time_in": "adaln_single.emb.timestep_embedder.linear_1",
    "time_out": "adaln_single.emb.timestep_embedder.linear_2",
    "modulation": "adaln_single.linear",
}

_TOKENS = {
    "token_in": "caption_projection.linear_1",
    "token_out": "caption_projection.linear_2",
}
NULL = "caption_projection.uncond_embedding"
PATCH_IN = "pos_embed.proj"
# One array of ours from several names there, which stand in the file of either part.
_IN_TRANSFORMER = (r"(?!caption_projection\.).*",)
_IN_CONDITIONER = (r"caption_projection\..*",)

# PixArt's own names, and those that diffusers gives the same layers.
_BLOCK_NAMES = {
    "attn.proj": "attn1.to_out.0",
    "cross_attn.q_linear": "attn2.to_q",
    "cross_attn.proj": "attn2.to_out.0",
    "mlp.fc1": "ff.net.0.proj",
    "mlp.fc2": "ff.net.2",
}
_JOINED = {
    "attn.qkv": ("attn1.to_q", "attn1.to_k", "attn1.to_v"),
    "cross_attn.kv_linear": ("attn2.to_k", "attn2.to_v"),
}
_NAMES = {
    "x_embedder.proj": PATCH_IN,
    "t_embedder.mlp.0": "adaln_single.emb.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "adaln_single.emb.timestep_embedder.linear_2",
    "t_block.1": "adaln_single.linear",
    "y_embedder.y_proj.fc1": "caption_projection.linear_1",
    "y_embedder.y_proj.fc2": "caption_projection.linear_2",
    "final_layer.linear": "proj_out",
}
_ARRAYS = {
    "y_embedder.y_embedding": NULL,
    "final_layer.scale_shift_table": "scale_shift_table",
    "y_pos_embed": "y_pos_embed.y_pos_embed",
    "pos_embed": "pos_embed.pos_embed",
}
POSITIONS = ("pos_embed.pos_embed", "y_pos_embed.y_pos_embed", "cond_pos_embed.pos_embed")
"""Buffers that hold sines of places, no parameters."""


@dataclasses.dataclass(frozen=True)
class Patches:
    """A layer of patches of latents: a convolution there, whose stride is its size, and a dense
    layer of their values here, (row, column, channel)."""

    patch: int

    def from_file(self, tensor: np.ndarray) -> np.ndarray:
        """OIHW → (H·W·I, O)."""
        if tensor.ndim != 4:
            return tensor
        return tensor.transpose(2, 3, 1, 0).reshape(-1, len(tensor))

    def to_file(self, value: np.ndarray) -> np.ndarray:
        """The inverse."""
        if value.ndim == 1:
            return value
        kernel = value.reshape(self.patch, self.patch, -1, value.shape[-1])
        return kernel.transpose(3, 2, 0, 1)


@dataclasses.dataclass(frozen=True)
class MeanOutputs:
    """The last layer, whose outputs are, of each latent of a patch, `channels` of a prediction and
    as many of a variance: these are left out, and zeros where it is written."""

    channels: int

    def from_file(self, tensor: np.ndarray) -> np.ndarray:
        """(p·p·2C, D) → (D, p·p·C)."""
        if len(tensor) % (2 * self.channels):
            return tensor.T
        parts = tensor.reshape(-1, 2, self.channels, *tensor.shape[1:])
        return parts[:, 0].reshape(-1, *tensor.shape[1:]).T

    def to_file(self, value: np.ndarray) -> np.ndarray:
        """The inverse, but for the variance."""
        mean = value.T.reshape(-1, 1, self.channels, *value.shape[:-1])
        both = np.concatenate([mean, np.zeros_like(mean)], axis=1)
        return both.reshape(-1, *value.shape[:-1])


def transformer_names(config: dit.DiTConfig) -> NameMap:
    """The transformer, without its conditioner."""
    entries = (
        *(Entry(ours, theirs) for ours, theirs in _ENDS.items()),
        *_of_blocks(config.shape.depth),
        Entry("patch_in", PATCH_IN, Patches(config.patch)),
        Entry("patch_out", "proj_out", MeanOutputs(config.latent_channels)),
        Entry("table_out", "scale_shift_table", "tensor"),
    )
    return NameMap(entries, ignored=_IN_CONDITIONER)


def conditioner_names() -> NameMap:
    """What makes tokens of embeddings."""
    entries = tuple(Entry(ours, theirs) for ours, theirs in _TOKENS.items())
    return NameMap((*entries, Entry("null", NULL, "tensor")), ignored=_IN_TRANSFORMER)


def control_names(config: dit.DiTConfig, depth: int) -> NameMap:
    """A ControlNet of `depth` blocks. Of a copy of the transformer it has layers of the output that
    nothing calls."""
    entries = (
        *(Entry(f"conditioner/{ours}", theirs) for ours, theirs in _TOKENS.items()),
        Entry("conditioner/null", NULL, "tensor"),
        *(Entry(ours, theirs) for ours, theirs in _ENDS.items()),
        *_of_blocks(depth),
        Entry("patch_in", PATCH_IN, Patches(config.patch)),
        Entry("map_in", "cond_pos_embed.proj", Patches(config.patch)),
        Entry("control_out", "controlnet_blocks.{}", blocks=depth),
    )
    return NameMap(entries, ignored=(r"proj_out\..*", "scale_shift_table"))


def _of_blocks(depth: int) -> tuple[Entry, ...]:
    under = "transformer_blocks.{}."
    table = Entry("blocks/stacked/table", f"{under}scale_shift_table", "tensor", depth)
    named = lambda names: (names,) if isinstance(names, str) else names
    return (table, *(
        Entry(f"blocks/stacked/{ours}", tuple(under + name for name in named(theirs)), blocks=depth)
        for ours, theirs in _BLOCK.items()
    ))  # fmt: skip


def is_one(names: Mapping[str, object]) -> bool:
    """Whether these are names of such a transformer, as diffusers or as PixArt's code has them."""
    return any(
        name.startswith(("transformer_blocks.0.attn2.", "blocks.0.cross_attn.")) for name in names
    )


def in_diffusers_names(tensors: Mapping[str, np.ndarray], source: str) -> dict[str, np.ndarray]:
    """The tensors of PixArt's own code by the names of diffusers; those that have these already as
    they are. Nothing is copied.

    Raises WeightsError for joined layers that do not part.
    """
    if not any(name.startswith("blocks.0.") for name in tensors):
        return dict(tensors)
    renamed: dict[str, np.ndarray] = {}
    for name, tensor in tensors.items():
        # The normal and the frozen form of a wrapped model.
        name = re.sub(r"^(model|base_model|module)\.", "", name)
        module, _, leaf = name.rpartition(".")
        if name in _ARRAYS:
            renamed[_ARRAYS[name]] = tensor
        elif module in _NAMES:
            renamed[f"{_NAMES[module]}.{leaf}"] = tensor
        elif match := re.fullmatch(r"blocks\.(\d+)\.(.+)", name):
            renamed |= _of_block(f"transformer_blocks.{match[1]}", match[2], tensor, source)
        else:
            renamed[name] = tensor
    return renamed


def _of_block(under: str, name: str, tensor: np.ndarray, source: str) -> dict[str, np.ndarray]:
    module, _, leaf = name.rpartition(".")
    if module not in _JOINED:
        return {f"{under}.{_BLOCK_NAMES.get(module, module)}.{leaf}" if module else
                f"{under}.{leaf}": tensor}  # fmt: skip
    into = _JOINED[module]
    if not tensor.ndim or len(tensor) % len(into):
        raise WeightsError(
            f"{source}: {name} must be {len(into)} layers side by side, got {tensor.shape}"
        )
    parts = np.split(tensor, len(into))
    return {f"{under}.{part}.{leaf}": x for part, x in zip(into, parts, strict=True)}
