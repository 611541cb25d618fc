"""Formats that are written by libraries which need not be installed."""

import importlib.util
from collections.abc import Iterable

WRITERS = {
    "ome.zarr": ("zarr", 'pip install "zarr>=3.1"'),
    "dcm": ("pydicom", 'pip install "pydicom>=3.0"'),
}
"""By format: the library, and how it is installed."""


def require(formats: Iterable[str]) -> None:
    """Raise ValueError for a format whose library is not installed."""
    for name in formats:
        package, install = WRITERS.get(name, ("numpy", ""))
        if importlib.util.find_spec(package) is None:
            raise ValueError(f"to write {name} needs {package}, got none: {install}")
