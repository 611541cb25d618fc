"""Tables for vision transformers: timm's names, those of Meta's code, of Hugging Face, of CONCH."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from ssldiff_jax.encoders import known, vit
from ssldiff_jax.weights.names import Entry, NameMap

Block = Mapping[str, str | tuple[str, ...]]

_TIMM_BLOCK = {
    "norm1": "norm1",
    "qkv": "attn.qkv",
    "proj": "attn.proj",
    "norm2": "norm2",
    "fc1": "mlp.fc1",
    "fc2": "mlp.fc2",
    "qv_bias": ("attn.q_bias", "attn.v_bias"),
}

# Three matrices there, one here, side by side.
_QKV = tuple(f"attention.attention.{name}" for name in ("query", "key", "value"))

_HF_VIT_BLOCK = {
    "norm1": "layernorm_before",
    "qkv": _QKV,
    "proj": "attention.output.dense",
    "norm2": "layernorm_after",
    "fc1": "intermediate.dense",
    "fc2": "output.dense",
}

_HF_DINOV2_BLOCK = {
    "norm1": "norm1",
    "qkv": _QKV,
    "proj": "attention.output.dense",
    "norm2": "norm2",
    "fc1": "mlp.fc1",
    "fc2": "mlp.fc2",
}

_HF_DINOV3_BLOCK = {
    "norm1": "norm1",
    "qkv": tuple(f"attention.{name}_proj" for name in "qkv"),
    "proj": "attention.o_proj",
    "norm2": "norm2",
    "fc1": "mlp.up_proj",
    "fc2": "mlp.down_proj",
    "qv_bias": ("attention.q_proj.bias", "attention.v_proj.bias"),
}

# Gate and value side by side, or each by itself.
_SWIGLU = {
    "dinov2": {"fc1": "mlp.w12", "fc2": "mlp.w3"},
    "hf_dinov2": {"fc1": "mlp.weights_in", "fc2": "mlp.weights_out"},
    "hf_dinov3": {"fc1": ("mlp.gate_proj", "mlp.up_proj")},
}

_LS_GAMMA = ("ls1.gamma", "ls2.gamma")
_LAYER_SCALE = ("layer_scale1.lambda1", "layer_scale2.lambda1")

# Beside the ViT, whose names begin with trunk.
_ATTENTION_POOL = (
    Entry("query", "attn_pool_contrast.query", "tensor"),
    Entry("norm_query", "attn_pool_contrast.ln_q"),
    Entry("norm_tokens", "attn_pool_contrast.ln_k"),
    Entry("to_query", "attn_pool_contrast.to_q"),
    Entry("to_key_value", "attn_pool_contrast.to_kv"),
    Entry("to_out", "attn_pool_contrast.to_out"),
    Entry("norm", "ln_contrast"),
)


def names_of(family: known.Names, config: vit.ViTConfig) -> NameMap:
    """The table of a family of names."""
    if family == "conch":
        return _conch_names(config)
    if family in ("timm", "dinov2"):
        return _timm_names(config, family)
    return _hugging_face_names(config, family)


def family_of(tensors: Mapping[str, np.ndarray], usual: known.Names) -> known.Names:
    """The family of names that a file of an encoder has: mostly the one it is published under;
    DINOv2's are published by their authors too, under the names of their code."""
    is_metas = usual == "hf_dinov2" and any(name.startswith("blocks.") for name in tensors)
    return "dinov2" if is_metas else usual


def _timm_names(config: vit.ViTConfig, family: str) -> NameMap:
    """timm's VisionTransformer and DINO's own code, which share their names; DINOv2's code calls
    registers and gated MLPs otherwise."""
    is_dinov2 = family == "dinov2"
    block = _gated(_TIMM_BLOCK, family, config)
    lines = [
        Entry("class_token", "cls_token", "tensor"),
        Entry("register_tokens", "register_tokens" if is_dinov2 else "reg_token", "tensor"),
        Entry("position", "pos_embed", "tensor"),
        Entry("patch_embed", "patch_embed.proj"),
        Entry("norm", "norm"),
    ]
    return NameMap(
        entries=(*lines, *_blocks("blocks", config, block, _LS_GAMMA)),
        # As released: the backbone alone, or with its head as one wrapped module, or with the
        # trainer's state beside it.
        prefixes=("module.backbone.", "backbone.", "module.", "model.", ""),
        # Heads, and what masked training needs besides; the last three are of our own exports.
        ignored=(
            r"head\..*", r"mask_token", r"fc_norm\..*", r"decoder_.*",
            r"(token_)?origin", r"whitening",
        ),
    )  # fmt: skip


def _hugging_face_names(config: vit.ViTConfig, family: str) -> NameMap:
    """transformers' ViTModel, Dinov2Model, Dinov2WithRegistersModel and DINOv3ViTModel, as files
    have them."""
    is_dinov3 = family == "hf_dinov3"
    patches = "embeddings.patch_embeddings"
    lines = [
        Entry("class_token", "embeddings.cls_token", "tensor"),
        Entry("register_tokens", "embeddings.register_tokens", "tensor"),
        Entry("position", "embeddings.position_embeddings", "tensor"),
        Entry("patch_embed", patches if is_dinov3 else f"{patches}.projection"),
        Entry("norm", "norm" if is_dinov3 else "layernorm"),
    ]
    table = {
        "hf_vit": _HF_VIT_BLOCK, "hf_dinov2": _HF_DINOV2_BLOCK, "hf_dinov3": _HF_DINOV3_BLOCK
    }[family]  # fmt: skip
    under = "layer" if is_dinov3 else "encoder.layer"
    block = _gated(table, family, config)
    return NameMap(
        entries=(*lines, *_blocks(under, config, block, _LAYER_SCALE)),
        prefixes=("vit.", "dinov2.", "dinov2_with_registers.", ""),
        ignored=(r"embeddings\.mask_token", r"pooler\..*", r"classifier\..*"),
    )


def _conch_names(config: vit.ViTConfig) -> NameMap:
    """The vision tower of CONCH v1.5: timm's ViT, and the attention that makes its embedding."""
    trunk = [
        Entry(f"trunk/{entry.ours}", tuple(f"trunk.{part}" for part in entry.parts), entry.form)
        for entry in _timm_names(config, "timm").entries
    ]
    return NameMap(entries=(*trunk, *_ATTENTION_POOL))


def _gated(table: Block, family: str, config: vit.ViTConfig) -> Block:
    is_gated = config.variant.mlp == "swiglu"
    return dict(table) | (_SWIGLU.get(family, {}) if is_gated else {})


def _blocks(
    under: str, config: vit.ViTConfig, table: Block, scales: tuple[str, str]
) -> list[Entry]:
    # Arrays of their own: biases of queries and values, where keys have none, and layer scales.
    arrays = {"scale1": scales[0], "scale2": scales[1]}
    lines = []
    for i in range(config.depth):
        for mine, name in {**table, **arrays}.items():
            parts = (name,) if isinstance(name, str) else name
            theirs = tuple(f"{under}.{i}.{part}" for part in parts)
            form = "tensor" if mine == "qv_bias" or mine in arrays else "module"
            lines.append(Entry(f"blocks_{i}/{mine}", theirs, form))
    return lines


@dataclasses.dataclass(frozen=True)
class Found:
    """The sizes of a vision transformer, by the tensors of a file."""

    width: int
    depth: int
    registers: int
    positions: int

    def __str__(self) -> str:
        return (
            f"width {self.width}, depth {self.depth}, {self.registers} registers, "
            f"{self.positions} positions"
        )

    @classmethod
    def expected(cls, config: vit.ViTConfig) -> "Found":
        """Those of a config."""
        v = config.variant
        return cls(config.width, config.depth, v.num_registers, config.num_positions)

    @classmethod
    def of(cls, tensors: Mapping[str, np.ndarray], table: NameMap) -> "Found | None":
        """Those in a file; None where it has no class token under the table's name."""
        tensors = table.own(tensors)
        names = {entry.ours.removeprefix("trunk/"): entry.parts[0] for entry in table.entries}
        token = tensors.get(names["class_token"])
        if token is None:
            return None
        count = lambda name: tensors[names[name]].shape[1] if names[name] in tensors else 0
        under = names["blocks_0/norm1"].partition("0.")[0]
        blocks = (name.removeprefix(under) for name in tensors if name.startswith(under))
        numbers = {part.partition(".")[0] for part in blocks}
        return cls(token.shape[-1], len(numbers), count("register_tokens"), count("position"))
