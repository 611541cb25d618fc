"""Formats that are written by libraries which need not be installed."""

import importlib.util
from collections.abc import Iterable

WRITERS = {
    "ome.zarr": ("zarr", 'pip install "zarr>=3.1"'),
    "dcm": ("pydicom", 'pip install "pydicom>=3.0"'),
    "h5ad": ("anndata", 'pip install "anndata>=0.12"'),
}
"""By format: the library, and how it is installed."""


def is_there(name: str) -> bool:
    """Whether a format can be written here."""
    package, _ = WRITERS.get(name, ("numpy", ""))
    return importlib.util.find_spec(package) is not None


def require(formats: Iterable[str]) -> None:
    """Raise ValueError for a format whose library is not installed."""
    for name in formats:
        if not is_there(name):
            package, install = WRITERS[name]
            raise ValueError(f"to write {name} needs {package}, got none: {install}")
