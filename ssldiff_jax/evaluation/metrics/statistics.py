"""Reference statistics as files that can be published."""

import dataclasses
import hashlib
import json
import pathlib
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from ssldiff_jax.core import moments
from ssldiff_jax.formats import atomic

FORMAT = "ssldiff_jax statistics 1"


@dataclasses.dataclass(frozen=True)
class Extraction:
    """How features came from images: those of another extraction do not compare.

    Attributes:
        extractor: its name.
        digest: a hash of its weights.
        dim: D of a feature.
        image_format: of the files, with what was lost: "PNG", "JPEG 90".
        image_px: side of an image, px.
    """

    extractor: str
    digest: str
    dim: int
    image_format: str
    image_px: int


@dataclasses.dataclass(frozen=True, eq=False)
class Statistics:
    """Moments of the features of a data set, and where they come from."""

    extraction: Extraction
    dataset: str
    moments: moments.Moments


def write(path: pathlib.Path, statistics: Statistics) -> str:
    """Write a .safetensors file; its header, plain JSON, has the manifest.

    Returns the SHA-256 of manifest and numbers, to publish beside the file.
    """
    stored = statistics.moments
    # A file that contradicts itself could never be read.
    require_same(dataclasses.replace(statistics.extraction, dim=stored.dim), statistics.extraction)
    tensors = {"count": np.array([stored.count]), "mean": stored.mean, "scatter": stored.scatter}
    # Sorted, because the text is hashed: one manifest has one.
    manifest = json.dumps(
        dataclasses.asdict(statistics.extraction)
        | {"dataset": statistics.dataset, "count": stored.count},
        sort_keys=True,
    )
    digest = _digest(manifest, tensors)
    header = {"format": FORMAT, "manifest": manifest, "sha256": digest}
    save = lambda p: safetensors.numpy.save_file(tensors, p, metadata=header)
    atomic.write_atomic(path, save)
    return digest


def sha256_of(path: pathlib.Path) -> str:
    """The hash that a file says it has; `read` holds it against the content."""
    return _load(path)[0].get("sha256", "")


def read(
    path: pathlib.Path, expected: Extraction | None = None, sha256: str | None = None
) -> Statistics:
    """Read what `write` wrote; nothing in it is executed.

    Args:
        path: of the file.
        expected: the extraction that the statistics are to be compared with; None takes any.
        sha256: what `write` returned, where it was published; None believes the file's own.

    Raises ValueError that names the file where it is no such file, its content does not have the
    hash, or it is of another extraction.
    """
    header, tensors = _load(path)
    if header.get("format") != FORMAT:
        raise ValueError(f"{path}: expected {FORMAT!r}, got format {header.get('format')!r}")
    manifest = header.get("manifest", "")
    actual, expected_digest = _digest(manifest, tensors), sha256 or header.get("sha256", "")
    if actual != expected_digest:
        raise ValueError(f"{path}: expected sha256 {expected_digest:.12}…, got {actual:.12}…")
    values = _manifest(path, manifest)
    extraction = Extraction(**{f.name: values[f.name] for f in dataclasses.fields(Extraction)})
    if expected is not None:
        require_same(extraction, expected, f"{path}: ")
    return Statistics(extraction, values["dataset"], _moments(path, values, tensors))


def require_same(actual: Extraction, expected: Extraction, where: str = "") -> None:
    """ValueError that names the first thing in which two extractions differ."""
    for field in dataclasses.fields(Extraction):
        value, target = getattr(actual, field.name), getattr(expected, field.name)
        if value != target:
            raise ValueError(f"{where}expected {field.name} {target!r}, got {value!r}")


def _load(path: pathlib.Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    try:
        with safetensors.safe_open(path, "np") as file:
            return file.metadata() or {}, {n: file.get_tensor(n) for n in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: expected a safetensors file, got one with {error}") from error


def _manifest(path: pathlib.Path, text: str) -> dict[str, Any]:
    """The manifest as a dictionary whose fields are of the right types."""
    types = {f.name: f.type for f in dataclasses.fields(Extraction)}
    types |= {"dataset": str, "count": int}
    try:
        values = json.loads(text)
    # Brackets nested by the thousand end in a RecursionError.
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: expected a manifest in JSON, got {text:.40!r}") from error
    if not isinstance(values, dict) or {k: type(v) for k, v in values.items()} != types:
        raise ValueError(f"{path}: expected a manifest of {sorted(types)}, got {text:.200}")
    return values


def _moments(
    path: pathlib.Path, manifest: dict[str, Any], tensors: dict[str, np.ndarray]
) -> moments.Moments:
    dim, count = manifest["dim"], manifest["count"]
    shapes = {"count": (1,), "mean": (dim,), "scatter": (dim, dim)}
    got = {name: tensor.shape for name, tensor in tensors.items()}
    if got != shapes:
        raise ValueError(f"{path}: expected tensors {shapes}, got {got}")
    if count < 2 or tensors["count"].tolist() != [count]:
        got = tensors["count"].tolist()
        raise ValueError(f"{path}: expected one count of 2 or more, got {count} and {got}")
    loaded = moments.Moments(dim)
    loaded.count = count
    loaded.mean, loaded.scatter = (tensors[n].astype(np.float64) for n in ("mean", "scatter"))
    if not (np.isfinite(loaded.mean).all() and np.isfinite(loaded.scatter).all()):
        raise ValueError(f"{path}: expected finite moments, got NaN or infinity")
    return loaded


def _digest(manifest: str, tensors: dict[str, np.ndarray]) -> str:
    """SHA-256 of the manifest and every tensor with its name, type and shape."""
    hasher = hashlib.sha256(manifest.encode())
    for name in sorted(tensors):
        tensor = np.ascontiguousarray(tensors[name])
        # The same bytes in another type or shape would be other numbers.
        hasher.update(f"\n{name} {tensor.dtype.str} {tensor.shape}\n".encode())
        hasher.update(tensor.data)
    return hasher.hexdigest()
