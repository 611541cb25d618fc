"""Writes of a save that failed print nothing beside the error."""

import asyncio
import logging
import sys
import types

import numpy as np
import pytest
import tensorstore

from ssldiff_jax.train import save_noise


def write_past_the_end_of_its_loop(folder):
    """A write of tensorstore that ends after its event loop was closed."""
    spec = {
        "driver": "zarr",
        "kvstore": {"driver": "file", "path": str(folder)},
        "metadata": {"shape": [900, 900], "chunks": [300, 300], "dtype": "<f4"},
        "create": True,
    }
    store, values = tensorstore.open(spec).result(), np.ones((900, 900), np.float32)
    written = []

    async def write():
        written.append(store.write(values))
        await written[0]

    async def begin():
        asyncio.ensure_future(write())  # noqa: RUF006
        await asyncio.sleep(0)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(begin())
    loop.close()
    written[0].result()


def test_a_write_that_ends_late_is_silent_and_other_errors_are_not(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: told.append(args.exc_value))
    save_noise.silence.cache_clear()
    save_noise.silence()
    write_past_the_end_of_its_loop(tmp_path)
    other = RuntimeError("another")
    sys.unraisablehook(types.SimpleNamespace(exc_value=other))
    assert [error for error in told if "loop" in str(error)] == []
    assert other in told
    save_noise.silence.cache_clear()


@pytest.mark.parametrize(
    ("name", "path", "message", "error", "is_told"),
    [
        (
            "absl",
            "/x/orbax/checkpoint/future.py",
            "raised",
            (ValueError, ValueError(), None),
            False,
        ),
        ("absl", "/x/orbax/checkpoint/future.py", "a warning", None, True),
        ("absl", "/x/other.py", "raised", (ValueError, ValueError(), None), True),
        (
            "asyncio",
            "/x/asyncio/base.py",
            "never retrieved coro=<f() at /x/orbax/s.py>",
            None,
            False,
        ),
        ("asyncio", "/x/asyncio/base.py", "never retrieved coro=<f() at /x/mine.py>", None, True),
    ],
)
def test_only_what_is_raised_too_is_left_out_of_logs(name, path, message, error, is_told):
    save_noise.silence()
    record = logging.LogRecord(name, logging.ERROR, path, 1, message, (), error)
    assert bool(logging.getLogger(name).filter(record)) == is_told
