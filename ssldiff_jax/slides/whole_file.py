"""Images that a library writes by name: whole, or not there."""

import contextlib
import os
import pathlib
import secrets
import shutil
from collections.abc import Iterator


@contextlib.contextmanager
def beside(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Lend a name for what is only needed in between."""
    between = path.with_name(f"{path.name}.between")
    try:
        yield between
    finally:
        between.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Lend a name beside `path` and move it there once the block is through.

    Raises OSError that names `path`, whichever library could not write.
    """
    import pyvips
    import rasterio

    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        yield temporary
        os.replace(temporary, path)
    except (OSError, pyvips.Error, rasterio.errors.RasterioError) as error:
        detail = " ".join(str(error).split())
        raise OSError(f"expected to write {path}, got: {detail}") from error
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Lend the name of a folder beside `path` and move it there once the block is through; what
    was there is removed after that.

    Raises OSError that names `path`.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    old = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        if not path.parent.is_dir():  # libraries would make it
            raise FileNotFoundError(f"no such folder: {path.parent}")
        yield temporary
        if path.exists():
            path.rename(old)
        temporary.rename(path)
    except OSError as error:
        if old.exists() and not path.exists():
            old.rename(path)
        detail = " ".join(str(error).split())
        raise OSError(f"expected to write {path}, got: {detail}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
