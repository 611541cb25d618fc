"""Imports go one way: a room knows itself and the rooms before it."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
ROOMS = (
    "core",
    "formats",
    "slides",
    "data",
    "encoders",
    "autoencoder",
    "diffusion",
    "prior",
    "sampler",
    "weights",
    "evaluation",
    "train",
    "report",
    "runs",
    "generation",
    "stages",
    "main",
)


def imported(path):
    """Every module that a file imports, at its top or inside a function."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def files_of(room):
    folder = ROOT / "ssldiff_jax"
    return [folder / f"{room}.py"] if room == "main" else sorted((folder / room).rglob("*.py"))


def rooms_of(path):
    names = [module.split(".") for module in imported(path)]
    return {name[1] for name in names if name[0] == "ssldiff_jax" and len(name) > 1}


def test_the_rooms_are_these():
    folder = ROOT / "ssldiff_jax"
    found = {p.name for p in folder.iterdir() if p.is_dir() and (p / "__init__.py").exists()}
    found |= {p.stem for p in folder.glob("*.py")} - {"__init__"}
    assert found == set(ROOMS)
    # The package itself is a door: it opens one room on use, and nothing before.
    package = ast.parse((folder / "__init__.py").read_text())
    modules = [n.module for n in package.body if isinstance(n, ast.ImportFrom)]
    assert modules == ["typing"]
    assert rooms_of(folder / "__init__.py") <= {"generation"}


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_earlier_rooms_only(room):
    paths = files_of(room)
    assert paths
    earlier = set(ROOMS[: ROOMS.index(room) + 1])
    later = {
        str(path.relative_to(ROOT)): sorted(rooms_of(path) - earlier)
        for path in paths
        if rooms_of(path) - earlier
    }
    assert later == {}


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.py")), ids=lambda p: p.name)
def test_configs_import_configs_only(path):
    assert {module.split(".")[0] for module in imported(path)} <= {"ml_collections", "configs"}
