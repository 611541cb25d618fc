"""Imports go one way: a sub-package knows itself and those before it. The context of a run is
defined in `runs` and ends at the `run` of each step."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGES = (
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


def files_of(package):
    folder = ROOT / "ssldiff_jax"
    return (
        [folder / f"{package}.py"]
        if package == "main"
        else sorted((folder / package).rglob("*.py"))
    )


def rooms_of(path):
    names = [module.split(".") for module in imported(path)]
    return {name[1] for name in names if name[0] == "ssldiff_jax" and len(name) > 1}


def test_the_rooms_are_these():
    folder = ROOT / "ssldiff_jax"
    found = {p.name for p in folder.iterdir() if p.is_dir() and (p / "__init__.py").exists()}
    found |= {p.stem for p in folder.glob("*.py")} - {"__init__"}
    assert found == set(PACKAGES)
    # The package itself imports one sub-package, on use, and nothing before.
    package = ast.parse((folder / "__init__.py").read_text())
    modules = [n.module for n in package.body if isinstance(n, ast.ImportFrom)]
    assert modules == ["typing"]
    assert rooms_of(folder / "__init__.py") <= {"generation"}


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_earlier_ones_only(package):
    paths = files_of(package)
    assert paths
    earlier = set(PACKAGES[: PACKAGES.index(package) + 1])
    later = {
        str(path.relative_to(ROOT)): sorted(rooms_of(path) - earlier)
        for path in paths
        if rooms_of(path) - earlier
    }
    assert later == {}


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.py")), ids=lambda p: p.name)
def test_configs_import_configs_only(path):
    assert {module.split(".")[0] for module in imported(path)} <= {"ml_collections", "configs"}


TABLE = ("table", "inputs", "later")
"""Files of `stages` that are no step: its table, and what that is made of."""


def steps_of(path):
    """The step or tool that a file of `stages` belongs to; tools are packages or files."""
    parts = path.relative_to(ROOT / "ssldiff_jax" / "stages").with_suffix("").parts
    return parts[1] if parts[0] == "tools" else parts[0]


def test_steps_import_no_other_step_but_evaluate():
    folder = ROOT / "ssldiff_jax" / "stages"
    wrong = {}
    for path in sorted(folder.rglob("*.py")):
        own = steps_of(path)
        if own in (*TABLE, "__init__"):
            continue
        names = [m.removeprefix("ssldiff_jax.stages.") for m in imported(path) if ".stages." in m]
        others = {name.removeprefix("tools.").split(".")[0] for name in names} - {own, "evaluate"}
        if others:
            wrong[str(path.relative_to(folder))] = others
    assert wrong == {}


def test_stages_are_the_rows_of_the_table():
    from ssldiff_jax.runs.command import catalog

    folder = ROOT / "ssldiff_jax" / "stages"
    names = lambda where: {
        p.stem
        for p in where.iterdir()
        if not p.name.startswith("_") and p.stem not in (*TABLE, "README")
    }
    tools = {name for name, row in catalog.ROWS.items() if row.tool}
    assert names(folder / "tools") == tools
    # `judge` trains an encoder as the stage `encoder` does.
    assert names(folder) - {"tools"} == set(catalog.ROWS) - tools - {"judge"}


def test_the_context_ends_at_run():
    """Packages but `runs` and `stages` know no context, and a step has it in `run` alone."""
    outside = [
        str(path.relative_to(ROOT))
        for package in PACKAGES
        if package not in ("runs", "stages")
        for path in files_of(package)
        if "ssldiff_jax.runs.stage" in imported(path)
    ]
    assert outside == []
    takes = lambda node: any(arg.arg == "context" for arg in node.args.args)
    named = {
        f"{path.name}: {node.name}"
        for path in files_of("stages")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and takes(node) and not node.name.startswith("run")
    }
    assert named == set()


def test_every_function_that_the_table_imports_later_is_there():
    from ssldiff_jax.stages import later, table

    found = [
        value
        for stage in table.STAGES.values()
        for value in vars(stage).values()
        if isinstance(value, later.Later)
    ]
    assert len(found) >= len(table.STAGES)
    assert all(callable(value.function) for value in found)
