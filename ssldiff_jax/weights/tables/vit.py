"""Tables for vision transformers: timm's and DINO's names, and those of Hugging Face."""

from ssldiff_jax.encoders import vit
from ssldiff_jax.weights.names import Entry, NameMap

_TIMM_BLOCK = {
    "norm1": "norm1",
    "qkv": "attn.qkv",
    "proj": "attn.proj",
    "norm2": "norm2",
    "fc1": "mlp.fc1",
    "fc2": "mlp.fc2",
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

_SWIGLU = {"fc1": "mlp.weights_in", "fc2": "mlp.weights_out"}


def timm_names(config: vit.ViTConfig) -> NameMap:
    """timm's VisionTransformer and DINO's own code, which share their names."""
    lines = [
        Entry("class_token", "cls_token", "tensor"),
        Entry("register_tokens", "reg_token", "tensor"),
        Entry("position", "pos_embed", "tensor"),
        Entry("patch_embed", "patch_embed.proj"),
        Entry("norm", "norm"),
    ]
    for i in range(config.depth):
        lines += _block(f"blocks_{i}", f"blocks.{i}", _TIMM_BLOCK)
        lines += _layer_scale(f"blocks_{i}", (f"blocks.{i}.ls1.gamma", f"blocks.{i}.ls2.gamma"))
    return NameMap(
        entries=tuple(lines),
        # As released: the backbone alone, or with its head as one wrapped module.
        prefixes=("module.backbone.", "backbone.", "module.", ""),
        # Heads and the token of masked training; the last three are of our own exports.
        ignored=(r"head\..*", r"mask_token", r"fc_norm\..*", r"(token_)?origin", r"whitening"),
    )


def hugging_face_names(config: vit.ViTConfig, family: str) -> NameMap:
    """transformers' ViTModel (`vit`) and Dinov2Model (`dinov2`)."""
    lines = [
        Entry("class_token", "embeddings.cls_token", "tensor"),
        Entry("register_tokens", "embeddings.register_tokens", "tensor"),
        Entry("position", "embeddings.position_embeddings", "tensor"),
        Entry("patch_embed", "embeddings.patch_embeddings.projection"),
        Entry("norm", "layernorm"),
    ]
    block = dict(_HF_VIT_BLOCK if family == "vit" else _HF_DINOV2_BLOCK)
    if config.variant.mlp == "swiglu":
        block |= _SWIGLU
    for i in range(config.depth):
        theirs = f"encoder.layer.{i}"
        lines += _block(f"blocks_{i}", theirs, block)
        scales = (f"{theirs}.layer_scale1.lambda1", f"{theirs}.layer_scale2.lambda1")
        lines += _layer_scale(f"blocks_{i}", scales)
    return NameMap(
        entries=tuple(lines),
        prefixes=("vit.", "dinov2.", ""),
        ignored=(r"embeddings\.mask_token", r"pooler\..*", r"classifier\..*"),
    )


def _block(ours: str, theirs: str, table: dict[str, str | tuple[str, ...]]) -> list[Entry]:
    under = lambda name: f"{theirs}.{name}"
    return [
        Entry(f"{ours}/{mine}", under(name) if isinstance(name, str) else tuple(map(under, name)))
        for mine, name in table.items()
    ]


def _layer_scale(ours: str, theirs: tuple[str, str]) -> list[Entry]:
    return [Entry(f"{ours}/scale{i + 1}", name, "tensor") for i, name in enumerate(theirs)]
