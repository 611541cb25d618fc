"""The configs of the repository: beside the package in a clone, inside it where it is installed."""

import contextlib
import importlib.util
import pathlib
import sys
import types
from collections.abc import Iterator

_PACKAGE = pathlib.Path(__file__).parents[2]
_INSIDE = _PACKAGE / "_shipped" / "configs"
CONFIGS = _INSIDE if _INSIDE.is_dir() else _PACKAGE.parent / "configs"
"""Where they lie. A package named `configs` would be everybody's, so none is installed."""

_NAME = "configs"


def found(config: str) -> str:
    """The file that `configs/NAME.py[:MODE]` names: in the current folder as any other path, or,
    where there is none, the one of the repository."""
    path, colon, mode = config.partition(":")
    ours = CONFIGS / pathlib.PurePath(path).name
    named = pathlib.PurePath(path).parent == pathlib.PurePath(_NAME)
    if not named or pathlib.Path(path).is_file() or not ours.is_file():
        return config
    return f"{ours}{colon}{mode}"


def default_workdir(config: str) -> str:
    """`runs/NAME` of a config `…/NAME.py`; one with a mode has a folder of its own."""
    path, _, mode = config.partition(":")
    return "/".join(("runs", "_".join(filter(None, (pathlib.Path(path).stem, mode)))))


@contextlib.contextmanager
def importable(config: str = "") -> Iterator[None]:
    """While it lasts `from configs import …` finds these configs.

    One of them, or no config at all, finds nothing else under that name: a user's own `configs`, in
    the folder of the command, would be imported in its place. A config of the user's finds what is
    in that folder, and on the path, first.
    """
    folders = [str(CONFIGS)]
    taken = _take()
    try:
        file = pathlib.Path(config.partition(":")[0])
        if config and file.resolve().parent != CONFIGS.resolve():
            theirs = _on_the_path()
            folders = None if theirs is None else [*theirs, *folders]
        if folders is not None:
            package = types.ModuleType(_NAME)
            package.__path__ = folders
            sys.modules[_NAME] = package
        yield
    finally:
        _take()
        sys.modules.update(taken)


def _on_the_path() -> list[str] | None:
    """Folders named `configs` that an import would look into; None for a package with code of its
    own, which stays what it is."""
    here = pathlib.Path.cwd() / _NAME
    spec = importlib.util.find_spec(_NAME)
    if spec is not None and spec.origin is not None:
        return None
    folders = [str(here)] if here.is_dir() else []
    return folders + (list(spec.submodule_search_locations or ()) if spec else [])


def _take() -> dict[str, types.ModuleType]:
    """Forget the modules of a package `configs`, and return them."""
    names = [name for name in sys.modules if name.partition(".")[0] == _NAME]
    return {name: sys.modules.pop(name) for name in names}
