"""The table for FID's InceptionV3 under pytorch-fid's names, and the file it is published in."""

import functools
import pathlib
from typing import Any

import flax.traverse_util
import jax.numpy as jnp

from ssldiff_jax.encoders import inception
from ssldiff_jax.formats import hub, tensors, torch_legacy
from ssldiff_jax.weights import names
from ssldiff_jax.weights.names import Entry, NameMap

# Running statistics are constants here, and no parameters in torch: both have a line.
_NORM = {
    "scale": "bn.weight",
    "bias": "bn.bias",
    "mean": "bn.running_mean",
    "variance": "bn.running_var",
}


@functools.cache
def abstract_inception() -> Any:
    """Shapes of the network's parameters."""
    px = inception.INPUT_PX
    return names.abstract(inception.Inception(), jnp.zeros((1, px, px, 3)))


def inception_names() -> NameMap:
    """`pt_inception-2015-12-05-6726825d.pth`; its classifier is not used."""
    end = "/conv/kernel"
    paths = flax.traverse_util.flatten_dict(abstract_inception(), sep="/")
    layers = [path.removesuffix(end) for path in paths if path.endswith(end)]
    lines = [line for layer in layers for line in layer_names(layer)]
    # The classifier, the head that helped its training, and torch's counts of batches.
    ignored = (r"fc\..*", r"AuxLogits\..*", r".*\.num_batches_tracked")
    return NameMap(tuple(lines), ignored=ignored)


def layer_names(ours: str) -> list[Entry]:
    """Lines of one convolution with its batch norm."""
    theirs = ours.replace("/", ".")
    norm = [Entry(f"{ours}/{mine}", f"{theirs}.{name}", "tensor") for mine, name in _NORM.items()]
    return [Entry(f"{ours}/conv", f"{theirs}.conv"), *norm]


def load_inception(path: str | pathlib.Path) -> Any:
    """Parameters from a torch file of any age or a safetensors file.

    Raises WeightsError for a file that is missing, of another kind or of another network.
    """
    path = hub.local(path)
    # pytorch-fid's file is of a torch before 1.6; who saved it again has another kind.
    read = torch_legacy.read if torch_legacy.is_one(path) else tensors.read
    return inception_names().load(read(path), abstract_inception(), str(path))
