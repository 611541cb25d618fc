"""Published encoders: architecture, expected input, licence, and where weights can be requested."""

import dataclasses
import functools
from typing import Literal

from ssldiff_jax.encoders import attention_pool, vit
from ssldiff_jax.encoders.pixels import IMAGENET_MEAN, IMAGENET_STD, Pixels

Names = Literal["timm", "dinov2", "hf_vit", "hf_dinov2", "hf_dinov3", "conch"]


@dataclasses.dataclass(frozen=True)
class KnownEncoder:
    """One published encoder; its embedding is of tokens after the last norm.

    Attributes:
        vit: sizes, and by its pool what the embedding is; `image_px` is what its position
            embeddings were made for.
        pixels: what it expects of an image.
        names: what its tensors are called.
        licence: as its authors state it.
        source: where the weights are.
        head: what makes the embedding of tokens, where it is not the pool of the ViT.
        any_grid: whether the position embeddings of a file may be of another square grid, and are
            resized once, as they would be at every call.
        unverified: what no public source says and no file was at hand for.
    """

    vit: vit.ViTConfig
    pixels: Pixels
    names: Names
    licence: str
    source: str
    head: attention_pool.AttentionPool | None = None
    any_grid: bool = False
    unverified: str = ""

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self.head.dim if self.head else self.vit.dim


_variant = functools.partial(dataclasses.replace, vit.PLAIN)
_imagenet = functools.partial(Pixels, mean=IMAGENET_MEAN, std=IMAGENET_STD)
_NATURAL = _imagenet(224)
_CUBIC = _imagenet(224, filter="cubic")
# The middle of a larger image: what torchvision calls Resize(256), CenterCrop(224).
_MIDDLE = _imagenet(224, resize_px=256, filter="cubic")

_DINO = _variant(resize="dino")
# Where a layer scale starts says no more than that there is one: weights are read over it.
_SCALED = _variant(layer_scale=1e-5)
_DINOV2 = _variant(layer_scale=1.0, resize="hugging_face")
# Its resizing is antialiased, as timm's.
_REGISTERS = _variant(layer_scale=1.0, num_registers=4)
_DINOV3 = _variant(layer_scale=1.0, num_registers=4, positions="rotary", epsilon=1e-5)
# mlp_width: the cards' ratios, as 2.66667·2, are of gate and value side by side.
_GATED = dataclasses.replace(_SCALED, mlp="swiglu", mlp_width=4096)
_UNI2 = dataclasses.replace(_GATED, num_registers=8, positions="patches")
_OPTIMUS = dataclasses.replace(_UNI2, num_registers=4)
_VIRCHOW = dataclasses.replace(_GATED, mlp_width=3416)
# Its registers have positions: timm's, unlike Meta's.
_VIRCHOW2 = dataclasses.replace(_VIRCHOW, num_registers=4, positions="registers")

_of_optimus = functools.partial(
    Pixels, mean=(0.707223, 0.578729, 0.703617), std=(0.211883, 0.230117, 0.177517)
)
_OF_HIBOU = Pixels(224, (0.7068, 0.5755, 0.722), (0.195, 0.2316, 0.1816), filter="cubic")
_OF_SATELLITE = Pixels(224, (0.430, 0.411, 0.296), (0.213, 0.156, 0.143))
_OF_FMOW = Pixels(224, (0.418201, 0.421480, 0.399127), (0.287743, 0.275418, 0.276402), 256, "cubic")

_APACHE = "Apache-2.0"
_HIPT = "Apache-2.0 with Commons Clause"
_MAHMOOD = "CC-BY-NC-ND-4.0, on request"
_META = "Apache-2.0"
_META3 = "DINOv3 License, on request"
_ON_REQUEST = "Apache-2.0, on request"
_OWKIN = "Owkin non-commercial"
_HUB = "huggingface.co/"


def _dinov2(name: str, width: int, depth: int, heads: int, variant: vit.ViTVariant) -> KnownEncoder:
    # Meta's DINOv2 ends its training at 518 px, which its positions are for.
    sizes = vit.ViTConfig(518, 14, width, depth, heads, "class", variant)
    pixels = _MIDDLE if variant.num_registers else _NATURAL
    return KnownEncoder(sizes, pixels, "hf_dinov2", _META, f"{_HUB}facebook/{name}")


def _dinov3(
    name: str,
    width: int,
    depth: int,
    heads: int,
    variant: vit.ViTVariant = _DINOV3,
    pixels: Pixels = _NATURAL,
) -> KnownEncoder:
    sizes = vit.ViTConfig(224, 16, width, depth, heads, "class", variant)
    return KnownEncoder(sizes, pixels, "hf_dinov3", _META3, f"{_HUB}facebook/{name}")


def _swiglu(variant: vit.ViTVariant, width: int) -> vit.ViTVariant:
    return dataclasses.replace(variant, mlp="swiglu", mlp_width=width)


ENCODERS: dict[str, KnownEncoder] = {
    "hipt": KnownEncoder(
        vit.ViTConfig(256, 16, 384, 12, 6, "class", _DINO),
        Pixels(256), "timm", _HIPT, "github.com/mahmoodlab/HIPT",
    ),
    "dino-vits16": KnownEncoder(
        vit.ViTConfig(224, 16, 384, 12, 6, "class", _DINO),
        _NATURAL, "timm", _META, "github.com/facebookresearch/dino",
    ),
    "dino-vitb16": KnownEncoder(
        vit.ViTConfig(224, 16, 768, 12, 12, "class", _DINO),
        _NATURAL, "timm", _META, "github.com/facebookresearch/dino",
    ),
    # Hugging Face's ViT has the epsilon of BERT.
    "phikon": KnownEncoder(
        vit.ViTConfig(
            224, 16, 768, 12, 12, "class", _variant(resize="hugging_face", epsilon=1e-12)
        ),
        _NATURAL, "hf_vit", _OWKIN, f"{_HUB}owkin/phikon",
    ),
    "phikon-v2": KnownEncoder(
        vit.ViTConfig(224, 16, 1024, 24, 16, "class", _DINOV2),
        _NATURAL, "hf_dinov2", _OWKIN, f"{_HUB}owkin/phikon-v2",
    ),
    "uni": KnownEncoder(
        vit.ViTConfig(224, 16, 1024, 24, 16, "class", _SCALED),
        _NATURAL, "timm", _MAHMOOD, f"{_HUB}MahmoodLab/UNI",
    ),
    "uni2-h": KnownEncoder(
        vit.ViTConfig(224, 14, 1536, 24, 24, "class", _UNI2),
        _NATURAL, "timm", _MAHMOOD, f"{_HUB}MahmoodLab/UNI2-h",
    ),
    "h-optimus-0": KnownEncoder(
        vit.ViTConfig(224, 14, 1536, 40, 24, "class", _OPTIMUS),
        _of_optimus(224), "timm", _APACHE, f"{_HUB}bioptimus/H-optimus-0",
    ),
    "h-optimus-1": KnownEncoder(
        vit.ViTConfig(224, 14, 1536, 40, 24, "class", _OPTIMUS),
        _of_optimus(224), "timm", _MAHMOOD, f"{_HUB}bioptimus/H-optimus-1",
    ),
    "h0-mini": KnownEncoder(
        vit.ViTConfig(
            224, 14, 768, 12, 12, "class_mean", dataclasses.replace(_OPTIMUS, mlp_width=2048)
        ),
        _of_optimus(224), "timm", _MAHMOOD, f"{_HUB}bioptimus/H0-mini",
    ),
    "virchow": KnownEncoder(
        vit.ViTConfig(224, 14, 1280, 32, 16, "class_mean", _VIRCHOW),
        _CUBIC, "timm", _ON_REQUEST, f"{_HUB}paige-ai/Virchow",
    ),
    "virchow2": KnownEncoder(
        vit.ViTConfig(224, 14, 1280, 32, 16, "class_mean", _VIRCHOW2),
        _CUBIC, "timm", _MAHMOOD, f"{_HUB}paige-ai/Virchow2",
    ),
    "gigapath": KnownEncoder(
        vit.ViTConfig(224, 16, 1536, 40, 24, "class", _GATED),
        _MIDDLE, "timm", _ON_REQUEST, f"{_HUB}prov-gigapath/prov-gigapath",
    ),
    "hibou-b": KnownEncoder(
        vit.ViTConfig(224, 14, 768, 12, 12, "class", _swiglu(_REGISTERS, 2048)),
        _OF_HIBOU, "hf_dinov2", _ON_REQUEST, f"{_HUB}histai/hibou-b",
        unverified="names on the hub",
    ),
    "hibou-l": KnownEncoder(
        vit.ViTConfig(224, 14, 1024, 24, 16, "class", _swiglu(_REGISTERS, 2736)),
        _OF_HIBOU, "hf_dinov2", _ON_REQUEST, f"{_HUB}histai/hibou-L",
        unverified="names on the hub",
    ),
    # Its file has positions of 224 px, by the code that reads it.
    "conch-v1.5": KnownEncoder(
        vit.ViTConfig(
            448, 16, 1024, 24, 16, "class", _variant(layer_scale=1.0, resize="dino")
        ),
        _imagenet(448), "conch", _MAHMOOD, f"{_HUB}MahmoodLab/conchv1_5, pytorch_model_vision.bin",
        attention_pool.AttentionPool(768, 8), any_grid=True, unverified="positions' grid",
    ),
    # Its file has positions of 518 px, by its number of values.
    "midnight": KnownEncoder(
        vit.ViTConfig(224, 14, 1536, 40, 24, "class_mean", _swiglu(_DINOV2, 4096)),
        Pixels(224), "hf_dinov2", "MIT", f"{_HUB}kaiko-ai/midnight",
        any_grid=True, unverified="positions' grid",
    ),
    "openmidnight": KnownEncoder(
        vit.ViTConfig(224, 14, 1536, 40, 24, "class", _swiglu(_REGISTERS, 4096)),
        _NATURAL, "dinov2", _APACHE, f"{_HUB}SophontAI/OpenMidnight, teacher_checkpoint_load.pt",
    ),
    "dinov2-small": _dinov2("dinov2-small", 384, 12, 6, _DINOV2),
    "dinov2-base": _dinov2("dinov2-base", 768, 12, 12, _DINOV2),
    "dinov2-large": _dinov2("dinov2-large", 1024, 24, 16, _DINOV2),
    "dinov2-giant": _dinov2("dinov2-giant", 1536, 40, 24, _swiglu(_DINOV2, 4096)),
    "dinov2-reg-small": _dinov2("dinov2-with-registers-small", 384, 12, 6, _REGISTERS),
    "dinov2-reg-base": _dinov2("dinov2-with-registers-base", 768, 12, 12, _REGISTERS),
    "dinov2-reg-large": _dinov2("dinov2-with-registers-large", 1024, 24, 16, _REGISTERS),
    "dinov2-reg-giant": _dinov2(
        "dinov2-with-registers-giant", 1536, 40, 24, _swiglu(_REGISTERS, 4096)
    ),
    "dinov3-small": _dinov3("dinov3-vits16-pretrain-lvd1689m", 384, 12, 6),
    "dinov3-small-plus": _dinov3(
        "dinov3-vits16plus-pretrain-lvd1689m", 384, 12, 6, _swiglu(_DINOV3, 1536)
    ),
    "dinov3-base": _dinov3("dinov3-vitb16-pretrain-lvd1689m", 768, 12, 12),
    "dinov3-large": _dinov3("dinov3-vitl16-pretrain-lvd1689m", 1024, 24, 16),
    "dinov3-large-sat": _dinov3(
        "dinov3-vitl16-pretrain-sat493m", 1024, 24, 16, pixels=_OF_SATELLITE
    ),
    "dinov3-huge-plus": _dinov3(
        "dinov3-vith16plus-pretrain-lvd1689m", 1280, 32, 20, _swiglu(_DINOV3, 5120)
    ),
    # Whose fine-tuning pools the mean; of frozen features its authors say nothing.
    "satmae": KnownEncoder(
        vit.ViTConfig(224, 16, 1024, 24, 16, "mean", vit.PLAIN),
        _OF_FMOW, "timm", "CC-BY-NC-4.0", "zenodo.org/record/7369797, fmow_pretrain.pth",
        unverified="embedding",
    ),
}  # fmt: skip
