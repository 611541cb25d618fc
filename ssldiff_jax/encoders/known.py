"""Published encoders: architecture, expected input, licence, and where weights can be requested."""

import dataclasses
import functools
from typing import Literal

from ssldiff_jax.encoders import vit

Names = Literal["timm", "hf_vit", "hf_dinov2"]

_HALF = (0.5, 0.5, 0.5)  # mean and deviation: pixels in [−1, 1]
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True)
class KnownEncoder:
    """One published encoder; its embedding is the class token after the last norm.

    Attributes:
        vit: sizes; `image_px` is what its position embeddings were made for.
        input_px: side that patches are resized to.
        names: what its tensors are called.
        licence: as its authors state it.
        source: where the weights are.
        mean: of RGB in [0, 1], subtracted.
        std: divided by.
    """

    vit: vit.ViTConfig
    input_px: int
    names: Names
    licence: str
    source: str
    mean: tuple[float, ...] = _IMAGENET_MEAN
    std: tuple[float, ...] = _IMAGENET_STD


_variant = functools.partial(dataclasses.replace, vit.PLAIN)
_DINO = _variant(resize="dino")
# Where a layer scale starts says no more than that there is one: weights are read over it.
_SCALED = _variant(layer_scale=1e-5)
_DINOV2 = _variant(layer_scale=1.0, resize="hugging_face")
# mlp_width: the card's mlp_ratio 2.66667·2 is of gate and value side by side.
_UNI2 = _variant(
    mlp="swiglu", mlp_width=4096, num_registers=8, layer_scale=1e-5, positions="patches"
)

_HIPT = "Apache-2.0 with Commons Clause"
_MAHMOOD = "CC-BY-NC-ND-4.0, on request"
_META = "Apache-2.0"
_OWKIN = "Owkin non-commercial"

ENCODERS: dict[str, KnownEncoder] = {
    "hipt": KnownEncoder(
        vit.ViTConfig(256, 16, 384, 12, 6, "class", _DINO),
        256, "timm", _HIPT, "github.com/mahmoodlab/HIPT", mean=_HALF, std=_HALF,
    ),
    "dino-vits16": KnownEncoder(
        vit.ViTConfig(224, 16, 384, 12, 6, "class", _DINO),
        224, "timm", _META, "github.com/facebookresearch/dino",
    ),
    "dino-vitb16": KnownEncoder(
        vit.ViTConfig(224, 16, 768, 12, 12, "class", _DINO),
        224, "timm", _META, "github.com/facebookresearch/dino",
    ),
    # Hugging Face's ViT has the epsilon of BERT.
    "phikon": KnownEncoder(
        vit.ViTConfig(
            224, 16, 768, 12, 12, "class", _variant(resize="hugging_face", epsilon=1e-12)
        ),
        224, "hf_vit", _OWKIN, "huggingface.co/owkin/phikon",
    ),
    "phikon-v2": KnownEncoder(
        vit.ViTConfig(224, 16, 1024, 24, 16, "class", _DINOV2),
        224, "hf_dinov2", _OWKIN, "huggingface.co/owkin/phikon-v2",
    ),
    "uni": KnownEncoder(
        vit.ViTConfig(224, 16, 1024, 24, 16, "class", _SCALED),
        224, "timm", _MAHMOOD, "huggingface.co/MahmoodLab/UNI",
    ),
    "uni2-h": KnownEncoder(
        vit.ViTConfig(224, 14, 1536, 24, 24, "class", _UNI2),
        224, "timm", _MAHMOOD, "huggingface.co/MahmoodLab/UNI2-h",
    ),
    # Meta's DINOv2 ends its training at 518 px, which its positions are for.
    "dinov2-small": KnownEncoder(
        vit.ViTConfig(518, 14, 384, 12, 6, "class", _DINOV2),
        224, "hf_dinov2", _META, "huggingface.co/facebook/dinov2-small",
    ),
    "dinov2-base": KnownEncoder(
        vit.ViTConfig(518, 14, 768, 12, 12, "class", _DINOV2),
        224, "hf_dinov2", _META, "huggingface.co/facebook/dinov2-base",
    ),
    "dinov2-large": KnownEncoder(
        vit.ViTConfig(518, 14, 1024, 24, 16, "class", _DINOV2),
        224, "hf_dinov2", _META, "huggingface.co/facebook/dinov2-large",
    ),
    "dinov2-giant": KnownEncoder(
        vit.ViTConfig(
            518, 14, 1536, 40, 24,
            "class", dataclasses.replace(_DINOV2, mlp="swiglu", mlp_width=4096),
        ),
        224, "hf_dinov2", _META, "huggingface.co/facebook/dinov2-giant",
    ),
}  # fmt: skip
