"""Shapes of arrays are checked while the tests run, in every sub-package."""

import importlib
import inspect
import pkgutil

import conftest
import jaxtyping
import numpy as np
import pytest

import ssldiff_jax
from ssldiff_jax.data import records

PACKAGES = [module.name for module in pkgutil.iter_modules(ssldiff_jax.__path__) if module.ispkg]


def functions_of_arrays(package):
    """Functions of a sub-package that say a shape, by name."""
    path = importlib.import_module(f"ssldiff_jax.{package}").__path__
    for found in pkgutil.walk_packages(path, f"ssldiff_jax.{package}."):
        module = importlib.import_module(found.name)
        for name, function in vars(module).items():
            is_own = inspect.isfunction(function) and function.__module__ == module.__name__
            if is_own and any(map(conftest.has_shape, function.__annotations__.values())):
                yield f"{found.name}.{name}", function


@pytest.mark.parametrize("package", PACKAGES)
def test_functions_of_arrays_are_checked(package):
    unchecked = [
        name for name, function in functions_of_arrays(package)
        if not hasattr(function, "__wrapped__")
    ]  # fmt: skip
    assert unchecked == []


def test_there_are_functions_of_arrays():
    """Or the tests above would find nothing to be unchecked."""
    assert sum(len(list(functions_of_arrays(package))) for package in PACKAGES) > 200


def test_an_array_of_another_rank_is_refused():
    colour = np.zeros((8, 8, 3), np.uint8)
    records.encode(colour, 90)
    with pytest.raises(jaxtyping.TypeCheckError, match=r"u8\[8,8\]"):
        records.encode(colour[..., 0], 90)
