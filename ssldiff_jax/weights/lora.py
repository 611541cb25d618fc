"""LoRA weights (Hu et al. 2022) as diffusers and PEFT write them, merged into those of their base:
W + scale · (alpha / rank) · up · down."""

import dataclasses
import json
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ssldiff_jax.formats import tensors as reader

_USUAL = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors", "adapter_model.bin")
_CONFIG = "adapter_config.json"
# What may stand before the name of a layer: the pipeline's part, and wrappers of PEFT.
_BEFORE = r"(?:base_model\.model\.)?(?:(?:transformer|unet)\.)?"
# Of PEFT, of diffusers, and of its first releases.
_KINDS = {
    "down": r"\.lora_A(?:\.[\w-]+)?\.weight|\.lora\.down\.weight|_lora\.down\.weight",
    "up": r"\.lora_B(?:\.[\w-]+)?\.weight|\.lora\.up\.weight|_lora\.up\.weight",
    "alpha": r"\.alpha",
}
# In the head of a file, what diffusers knows of the adapter.
_METADATA = "lora_adapter_metadata"


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """A file or folder of LoRA weights, "" for none, and how much of them is merged: 1 as they
    were trained, 0 nothing."""

    weights: str
    scale: float


NONE = LoraConfig("", 1.0)


@dataclasses.dataclass(frozen=True)
class _Layer:
    """What is added to one weight: up (O, r) · down (r, I) · scale."""

    up: np.ndarray
    down: np.ndarray
    scale: float

    def added_to(self, weight: np.ndarray) -> np.ndarray:
        """The weight with it, float32."""
        up, down = (np.asarray(x, np.float32) for x in (self.up, self.down))
        # Of convolutions as of matrices: all that goes in is a row.
        change = up.reshape(len(up), -1) @ down.reshape(len(down), -1)
        return weight.astype(np.float32) + np.float32(self.scale) * change.reshape(weight.shape)

    def fits(self, weight: np.ndarray) -> bool:
        """Whether it is of a weight of that shape."""
        rank, inputs = len(self.down), self.down[:1].size
        sizes = (len(self.up), self.up.size, inputs * len(self.up))
        return weight.ndim > 1 and sizes == (len(weight), len(weight) * rank, weight.size)


class Merged(Mapping[str, np.ndarray]):
    """The tensors of a base with a LoRA in them. A merged one is made when it is asked for, so that
    there is never more than one beside the base."""

    def __init__(self, base: Mapping[str, np.ndarray], layers: Mapping[str, _Layer]):
        self._base, self._layers = base, layers

    def __getitem__(self, name: str) -> np.ndarray:
        tensor, layer = self._base[name], self._layers.get(name)
        return tensor if layer is None else layer.added_to(tensor)

    def __iter__(self) -> Iterator[str]:
        return iter(self._base)

    def __len__(self) -> int:
        return len(self._base)


def merged(
    base: Mapping[str, np.ndarray], config: LoraConfig, source: str
) -> Mapping[str, np.ndarray]:
    """The tensors of `base`, the file `source`, with a LoRA merged by its scale; as they are where
    the config names none.

    Raises WeightsError for a LoRA of another base, and for what is none.
    """
    if not config.weights:
        return base
    path = _file(pathlib.Path(config.weights).expanduser())
    layers = _layers(reader.read(path), _Alphas.of(path), config.scale, path)
    foreign = sorted(name for name in layers if name not in base)
    if foreign:
        raise reader.WeightsError(
            f"{path} must be a LoRA of {source}, got {len(foreign)} of {len(layers)} layers that "
            f"it has not, first {foreign[0].removesuffix('.weight')}"
        )
    for name, layer in layers.items():
        if not layer.fits(base[name]):
            raise reader.WeightsError(
                f"{path} must be a LoRA of {source}, whose {name} is {base[name].shape}, got up "
                f"{layer.up.shape} and down {layer.down.shape}"
            )
    return Merged(base, layers)


def _file(path: pathlib.Path) -> pathlib.Path:
    """The file of weights of a folder that has one under a usual name."""
    if not path.is_dir():
        return path
    found = [path / name for name in _USUAL if (path / name).is_file()]
    if not found:
        raise reader.WeightsError(f"{path}: expected one of {', '.join(_USUAL)}")
    return found[0]


def _layers(
    tensors: Mapping[str, np.ndarray], alphas: "_Alphas", scale: float, path: pathlib.Path
) -> dict[str, _Layer]:
    """By the names of the weights that they are added to."""
    parts: dict[str, dict[str, np.ndarray]] = {}
    for name, tensor in tensors.items():
        layer, kind = _parse(name, path)
        parts.setdefault(layer, {})[kind] = tensor
    layers = {}
    for layer, part in parts.items():
        if not {"up", "down"} <= part.keys():
            raise reader.WeightsError(
                f"{path}: expected both halves of a LoRA of {layer}, got {', '.join(part)}"
            )
        if min(part["up"].ndim, part["down"].ndim) < 2 or not len(part["down"]):
            raise reader.WeightsError(
                f"{path}: a LoRA of {layer} must be two matrices of rank 1 or more, got "
                f"{part['up'].shape} and {part['down'].shape}"
            )
        if not all(np.isfinite(x.astype(np.float32)).all() for x in part.values()):
            raise reader.WeightsError(f"{path}: the LoRA of {layer} must be finite")
        rank = len(part["down"])
        own = part.get("alpha")
        factor = alphas.of_layer(layer, rank) if own is None else float(np.ravel(own)[0]) / rank
        layers[f"{layer}.weight"] = _Layer(part["up"], part["down"], scale * factor)
    if not layers:
        raise reader.WeightsError(f"{path}: expected LoRA weights, got no tensor")
    return layers


def _parse(name: str, path: pathlib.Path) -> tuple[str, str]:
    """The layer that a tensor is of, and which part of its LoRA."""
    for kind, ending in _KINDS.items():
        if match := re.fullmatch(f"{_BEFORE}(.+?)(?:{ending})", name):
            # The first releases: attn1.processor.to_q_lora, to_out_lora of attn1.to_out.0.
            layer = match[1].replace(".processor.", ".")
            return re.sub(r"\.to_out$", ".to_out.0", layer), kind
    raise reader.WeightsError(
        f"{path}: expected LoRA weights (lora_A, lora_B, lora.down, lora.up, alpha), got {name}"
    )


@dataclasses.dataclass(frozen=True)
class _Alphas:
    """What a file says beside its tensors of how layers are scaled; where it says nothing alpha is
    the rank, as diffusers has it."""

    alpha: float | None = None
    patterns: Mapping[str, float] = dataclasses.field(default_factory=dict)
    root: bool = False

    @classmethod
    def of(cls, path: pathlib.Path) -> "_Alphas":
        """From the head of a safetensors file, or from PEFT's config beside it."""
        values: dict[str, Any] = {}
        beside = path.with_name(_CONFIG)
        try:
            if beside.is_file():
                values = json.loads(beside.read_text())
            elif text := reader.metadata(path).get(_METADATA):
                # By the pipeline's part: transformer.lora_alpha.
                values = {k.rpartition(".")[2]: v for k, v in json.loads(text).items()}
            alpha, patterns = values.get("lora_alpha"), dict(values.get("alpha_pattern") or {})
            number = None if alpha is None else float(alpha)
            return cls(number, {k: float(v) for k, v in patterns.items()},
                       bool(values.get("use_rslora")))  # fmt: skip
        except (ValueError, TypeError, AttributeError) as error:
            raise reader.WeightsError(
                f"{beside if beside.is_file() else path}: expected lora_alpha and alpha_pattern, "
                f"got {error}"
            ) from error

    def of_layer(self, layer: str, rank: int) -> float:
        """alpha / rank, or alpha / √rank (Kalajdzievski 2023)."""
        own = [a for pattern, a in self.patterns.items() if layer.endswith(pattern)]
        alpha = own[0] if own else self.alpha
        if alpha is None:
            return 1.0
        return alpha / (rank**0.5 if self.root else rank)
