"""Name maps: which tensor of a file is which parameter of a model, read in both directions."""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Protocol

import flax.traverse_util
import jax
import numpy as np

from ssldiff_jax.formats import mapped
from ssldiff_jax.formats.torch_zip import WeightsError

# Flax's names of a layer's arrays, and torch's: there a norm's scale is a weight too.
_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}
# Names of a kind that an error lists: a file of another model has hundreds.
_LISTED = 8


class Form(Protocol):
    """A layout of a family's own, of the weight and the bias of a module."""

    def from_file(self, tensor: np.ndarray) -> np.ndarray:
        """In our layout."""

    def to_file(self, value: np.ndarray) -> np.ndarray:
        """In the file's layout."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """A line of a table.

    Attributes:
        ours: way to a module, or to one array, through our parameters.
        theirs: its name in the file; several names are parts, one after the other along the
            output axis.
        form: `module` has a weight (matrices transposed, convolutions OIHW) and a bias;
            `module_1x1` is a dense layer here and a 1×1 convolution there; `tensor` is one
            array in the same layout; or a layout of the family's own.
        blocks: of layers that are alike, how many our arrays hold, along the leading axis; names
            in the file have `{}` where the number of one stands. 0 for a layer by itself.
    """

    ours: str
    theirs: str | tuple[str, ...]
    form: Literal["module", "module_1x1", "tensor"] | Form = "module"
    blocks: int = 0

    @property
    def parts(self) -> tuple[str, ...]:
        """The names in the file."""
        return (self.theirs,) if isinstance(self.theirs, str) else self.theirs

    def matches(self, path: str) -> bool:
        """Whether a parameter belongs to this line."""
        return path == self.ours if self.form == "tensor" else path.rpartition("/")[0] == self.ours

    def names(self, path: str) -> tuple[str, ...]:
        """Names in the file of the parts of one parameter; of several blocks with `{}`."""
        if self.form == "tensor":
            return self.parts
        return tuple(f"{part}.{_LEAVES[path.rpartition('/')[2]]}" for part in self.parts)

    def names_of_blocks(self, path: str) -> Iterator[tuple[str, ...]]:
        """Names in the file of the parts of one parameter, for each of its blocks."""
        names = self.names(path)
        for number in range(self.blocks or 1):
            yield tuple(name.replace("{}", str(number)) for name in names)

    def from_file(self, tensor: np.ndarray) -> np.ndarray:
        """One part in our layout."""
        if not isinstance(self.form, str):
            return self.form.from_file(tensor)
        if self.form == "tensor" or tensor.ndim == 1:
            return tensor
        # Some tools save these as matrices; the layer is the same.
        if self.form == "module_1x1" and tensor.ndim == 4 and tensor.shape[2:] == (1, 1):
            tensor = tensor[:, :, 0, 0]
        # OIHW → HWIO, (out, in) → (in, out).
        return tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor.T

    def to_file(self, value: np.ndarray) -> np.ndarray:
        """One part in the file's layout: the inverse."""
        if not isinstance(self.form, str):
            return self.form.to_file(value)
        if self.form == "tensor" or value.ndim == 1:
            return value
        value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
        return value[:, :, None, None] if self.form == "module_1x1" else value


@dataclasses.dataclass(frozen=True)
class NameMap:
    """A table for one model in one kind of file.

    Attributes:
        entries: its lines; every parameter matches exactly one.
        prefixes: what may stand before every name; the first that any tensor has is taken off.
        written: which of them is put before names that are written.
        ignored: patterns of names in the file that are no parameters of the model.
    """

    entries: tuple[Entry, ...]
    prefixes: tuple[str, ...] = ("",)
    written: str = ""
    ignored: tuple[str, ...] = ()

    def load(self, tensors: Mapping[str, np.ndarray], like: Any, source: str) -> Any:
        """Parameters shaped like `like` (arrays or `jax.eval_shape`'s), float32.

        Raises WeightsError that lists what is missing, unexpected, of another shape or not
        finite; nothing is skipped.
        """
        tensors = self._own(tensors)
        targets = flax.traverse_util.flatten_dict(like, sep="/")
        lines = {path: self._line(path) for path in targets}
        expected = {
            name for path, line in lines.items() for of in line.names_of_blocks(path) for name in of
        }
        problems: dict[str, list[str]] = {
            # All of them before anything is raised: one run tells what is wrong with a file.
            "missing": sorted(expected - set(tensors)),
            "unexpected": sorted(
                name for name in set(tensors) - expected if not self._ignores(name)
            ),
            "misshaped": [],
            "not finite": [],
        }
        arrays = {}
        for path, leaf in targets.items():
            arrays[path] = np.empty(leaf.shape, np.float32)
            self._fill(arrays[path], lines[path], path, tensors, problems)
        _raise(source, problems)
        return flax.traverse_util.unflatten_dict(arrays, sep="/")

    def save(self, params: Any) -> dict[str, np.ndarray]:
        """Tensors under the file's names."""
        tensors = {}
        for path, value in flax.traverse_util.flatten_dict(params, sep="/").items():
            line = self._line(path)
            blocks = np.asarray(value) if line.blocks else np.asarray(value)[None]
            for names, block in zip(line.names_of_blocks(path), blocks, strict=True):
                for name, part in zip(names, np.split(block, len(names), axis=-1), strict=True):
                    # safetensors writes memory as it lies, and a transpose is a view.
                    tensors[self.written + name] = np.ascontiguousarray(line.to_file(part))
        return tensors

    def _fill(
        self,
        array: np.ndarray,
        line: Entry,
        path: str,
        tensors: Mapping[str, np.ndarray],
        problems: dict[str, list[str]],
    ) -> None:
        """One parameter from the tensors of its blocks; what is wrong is noted in `problems`."""
        blocks = array if line.blocks else array[None]
        for block, names in zip(blocks, line.names_of_blocks(path), strict=True):
            # Named as missing already; the shapes of all others are still compared.
            if not all(name in tensors for name in names):
                continue
            # Once each: of some files a tensor is made when it is asked for.
            found = [tensors[name] for name in names]
            parts = [line.from_file(tensor) for tensor in found]
            if _joined_shape(parts) != block.shape:
                problems["misshaped"].append(f"{names[0]} {found[0].shape}")
                continue
            np.concatenate(parts, axis=-1, out=block, casting="unsafe")
            for tensor in found:
                mapped.release(tensor)
            if not np.isfinite(block).all():
                problems["not finite"].append(names[0])

    def _ignores(self, name: str) -> bool:
        return any(re.fullmatch(pattern, name) for pattern in self.ignored)

    def _own(self, tensors: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        for prefix in self.prefixes:
            if not prefix and tensors:
                return tensors
            own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            # One family of names in a file: the next prefix may be a part of this one.
            if own:
                return own
        return {}

    def _line(self, path: str) -> Entry:
        lines = [entry for entry in self.entries if entry.matches(path)]
        # A fault of the table, not of the file: no WeightsError.
        if len(lines) != 1:
            raise ValueError(f"one line of the table must match {path}, got {len(lines)}")
        return lines[0]


def own_names(like: Any, under: str) -> NameMap:
    """The table of a model that nobody else has names for: our own, with dots, behind `under`."""
    paths = flax.traverse_util.flatten_dict(like, sep="/")
    lines = tuple(Entry(path, path.replace("/", "."), "tensor") for path in paths)
    return NameMap(lines, (f"{under}.",), f"{under}.")


def abstract(model: Any, *args: Any, **kwargs: Any) -> Any:
    """Shapes of a Flax model's parameters, without making them."""
    # Traced, not run: compiling the published UNet's init takes a minute on two cores.
    init = lambda: model.init(jax.random.key(0), *args, **kwargs)["params"]
    return jax.eval_shape(init)


def _joined_shape(parts: list[np.ndarray]) -> tuple[int, ...] | None:
    """The shape of parts side by side along their last axis, where they fit."""
    if any(part.ndim == 0 or part.shape[:-1] != parts[0].shape[:-1] for part in parts):
        return None
    return (*parts[0].shape[:-1], sum(part.shape[-1] for part in parts))


def _raise(source: str, problems: Mapping[str, list[str]]) -> None:
    parts = []
    for what, names in problems.items():
        if names:
            more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
            parts.append(f"{len(names)} {what}: {', '.join(names[:_LISTED])}{more}")
    if parts:
        raise WeightsError(f"{source} does not fit the model; {'; '.join(parts)}")
