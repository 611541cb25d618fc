"""Which files of a folder of models are its weights, and which are wanted of it."""

import logging
import re
from collections.abc import Callable, Iterable, Sequence

from ssldiff_jax.formats.torch_zip import WeightsError

_LOG = logging.getLogger(__name__)

WHOLE = ("model.safetensors", "diffusion_pytorch_model.safetensors", "pytorch_model.bin")
"""Usual names of all weights in one file, safetensors first."""
PICKLES = (".bin", ".ckpt", ".pt", ".pth")
"""Ends of the names of torch files, which are pickles: they are read without executing them."""
KINDS = ((".safetensors",), PICKLES)
"""Ends of the names of weights, the better first."""
_SHARD = re.compile(r"(pytorch_|diffusion_pytorch_)?model-\d+-of-\d+\.(safetensors|bin)")
_TEXTS = (".json", ".md", ".txt")
_SHOWN = 6  # names in a line


def wanted(names: Sequence[str], path: str, at: Callable[[str], str]) -> list[str]:
    """Of the files of a repository those to bring: the file `path` itself, or of the folder `path`
    its weights and the texts beside them; where it has no weights of its own, those in the folders
    below it. `at` gives the address of a path.

    Raises WeightsError where there are none, or several of which one must be chosen.
    """
    is_index = path.endswith(".index.json")
    if path in names and not is_index:
        return [path]
    root = path.rpartition("/")[0] if is_index else path
    inside = [name for name in names if _is_in(name, root)]
    if not inside or (is_index and path not in names):
        raise WeightsError(f"{at('')} has no file or folder {path!r}; it has {listed(names)}")
    own = [name for name in inside if name.rpartition("/")[0] == root]
    weights = _weights(own)
    if len(weights) > 1 and weights[0].endswith(PICKLES) and not any(map(_is_usual, weights)):
        raise WeightsError(
            f"{at(path)} has several files of weights, of which the address must name one, such as "
            f"{at(weights[0])}; got {listed(weights)}"
        )
    if not weights:
        own, weights = inside, _weights(inside)
    if not weights:
        raise WeightsError(
            f"{at(path)} must have weights, safetensors or torch files ({', '.join(PICKLES)}), got "
            f"{listed(inside)}"
        )
    texts = [n for n in own if n.endswith(_TEXTS) or n.rpartition("/")[2].startswith("LICENSE")]
    return weights + texts


def decides(name: str) -> bool:
    """Whether a file decides what a model is: its weights and its configs do."""
    return name.endswith((*KINDS[0], *PICKLES, ".json"))


def warn_of_code(where: object, names: Iterable[str], folder: str = "") -> None:
    """Say that code in a folder of weights is not run."""
    code = sorted(name for name in names if name.endswith(".py") and _is_in(name, folder))
    if code:
        _LOG.warning("%s: code in the folder is ignored and never run (%s)", where, listed(code))


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - _SHOWN
    return (", ".join(names[:_SHOWN]) or "nothing") + (f" and {more} more" if more > 0 else "")


def _weights(names: Sequence[str]) -> list[str]:
    """In each folder the best kind of weights that it has; of several files those with the usual
    names, if any."""
    chosen: list[str] = []
    for folder in dict.fromkeys(name.rpartition("/")[0] for name in names):
        own = [name for name in names if name.rpartition("/")[0] == folder]
        kinds = ([name for name in own if name.endswith(ends)] for ends in KINDS)
        best = next(filter(None, kinds), [])
        chosen += [name for name in best if _is_usual(name)] or best
    return chosen


def _is_usual(name: str) -> bool:
    last = name.rpartition("/")[2]
    return last in WHOLE or bool(_SHARD.fullmatch(last))


def _is_in(name: str, folder: str) -> bool:
    return not folder or name.startswith(f"{folder}/")
