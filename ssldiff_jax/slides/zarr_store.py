"""Stores of Zarr: a folder or what lies behind an address, whose chunks are whole or refused."""

import functools
import struct
from typing import TYPE_CHECKING, Any

from ssldiff_jax.slides import attempts, ngff

if TYPE_CHECKING:
    import zarr

# A frame of Blosc 1 begins with 16 bytes; the last four of them count its own bytes.
_HEAD, _COUNT_AT = 16, 12


def open_group(source: str) -> "tuple[zarr.abc.store.Store, zarr.Group]":
    """The store of a folder or an address, and its group, of either version of Zarr.

    Raises ImportError without zarr, and what library and file system do.
    """
    # Not at the top: it is optional.
    import zarr
    from zarr.storage import FsspecStore, LocalStore

    if "://" in source:
        options = attempts.http_options(source)
        plain = FsspecStore.from_url(source, storage_options=options, read_only=True)
    else:
        plain = LocalStore(source, read_only=True)
    store, errors = _checked()(plain), []
    # One by one: buckets that may not be listed forbid what is not there, which is the other one.
    for version in (3, 2):
        try:
            group = zarr.open_group(store, mode="r", zarr_format=version, use_consolidated=False)
            return store, group
        except Exception as error:  # every file system has its own
            if attempts.reason_to_try_again(error):
                raise
            errors.append(error)
    stated = [error for error in errors if not isinstance(error, FileNotFoundError)]
    raise stated[0] if stated else errors[-1]


@functools.cache
def _checked() -> type:
    """The class of stores that know which arrays are of Blosc, which reads beyond the end of a
    frame that was cut off and returns whatever lies in memory there."""
    from zarr.storage import WrapperStore

    class CheckedStore(WrapperStore):
        def __init__(self, store):
            super().__init__(store)
            self._of_blosc: set[str] = set()

        def watch(self, array):
            """Check the chunks of an array from here on, where they are frames of Blosc."""
            if _is_blosc(array):
                self._of_blosc.add(array.path.strip("/") + "/")

        async def get(self, key, prototype, byte_range=None):
            value = await super().get(key, prototype, byte_range)
            is_document = key.rpartition("/")[2] in ngff.DOCUMENTS
            is_chunk = not is_document and any(key.startswith(path) for path in self._of_blosc)
            if value is not None and byte_range is None and is_chunk:
                _require_whole(key, value.to_bytes())
            return value

    return CheckedStore


def _require_whole(key: str, frame: bytes) -> None:
    expected = _HEAD
    if len(frame) >= _HEAD:
        (expected,) = struct.unpack_from("<I", frame, _COUNT_AT)
    if len(frame) != expected:
        raise ValueError(f"chunk {key} must have {expected} bytes, got {len(frame)}")


def _is_blosc(array: Any) -> bool:
    metadata = array.metadata
    # Of versions 2 and 3 of Zarr.
    codecs = (getattr(metadata, "compressor", None), *getattr(metadata, "codecs", ()))
    return any(type(codec).__name__ in ("Blosc", "BloscCodec") for codec in codecs)
