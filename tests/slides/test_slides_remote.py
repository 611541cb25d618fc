"""Slides behind an address whose server fails: for a while, for ever, or in the middle."""

import itertools
import logging
import time
import types

import failing_bucket
import fsspec
import fsspec.implementations.http
import numpy as np
import pytest
import tifffile

from ssldiff_jax.slides import attempts, remote
from ssldiff_jax.slides.protocol import SlideError

aiohttp = pytest.importorskip("aiohttp")

PIXELS = np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8)


@pytest.fixture(params=[{"ranges": True, "tags": True}], ids=str)
def bucket(request, tmp_path):
    resolution = {"resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, photometric="rgb", metadata=None, **resolution)
    with failing_bucket.serving(**request.param) as server:
        server.files["a.tif"] = (tmp_path / "a.tif").read_bytes()
        server.files["folder/"] = b"<a href='b.tif'>b.tif</a> <a href='c.txt'>c.txt</a>"
        yield server


@pytest.fixture
def waits(monkeypatch):
    """What would have been waited for."""
    waits = []
    clock = types.SimpleNamespace(sleep=waits.append, monotonic=time.monotonic)
    monkeypatch.setattr(attempts, "time", clock)
    return waits


def pixels(address):
    slide = remote.open_remote(address)
    try:
        return slide.read_region(0, 0, *PIXELS.shape[:2], mpp=0.5)
    finally:
        slide.close()


ACTIONS = {
    "open": lambda address: pixels(address).tolist(),
    "fingerprint": remote.fingerprint,
    "find": lambda address: remote.find(address.replace("a.tif", "folder/")),
}
NAMES = {"open": "a.tif", "fingerprint": "a.tif", "find": "folder/"}


@pytest.mark.parametrize("status", [503, 403, 401])
def test_a_slide_that_was_named_is_left_to_who_reads_it(bucket, waits, status):
    """So that one costs itself alone."""
    bucket.faults["a.tif"] = [status] * 1000
    assert remote.find(bucket.address("a.tif")) == [bucket.address("a.tif")]
    assert waits == []
    for name, status in {"b.tif": None, "c.tif": 403, "d.svs": 401, "e.tif?key=a/b.c": 403}.items():
        bucket.faults[name] = [status] * 1000 if status else []
        assert remote.find(bucket.address(name)) == [bucket.address(name)]
    assert waits == []
    for pattern in ("*.svs", "none/"):
        with pytest.raises(SlideError, match=r"no slide matches|expected an address that opens"):
            remote.find(bucket.address(pattern))


@pytest.mark.parametrize(
    ("action", "fault"),
    [*itertools.product(ACTIONS, (503, 429, 500)), ("open", "break")],
)
def test_what_passes_is_waited_for(bucket, waits, caplog, action, fault):
    expected, name = ACTIONS[action](bucket.address("a.tif")), NAMES[action]
    if action == "find":
        assert expected == [bucket.address("folder/b.tif")]
    # Lists are kept.
    fsspec.implementations.http.HTTPFileSystem.clear_instance_cache()
    bucket.faults[name] = [fault] * 3
    with caplog.at_level(logging.WARNING, "ssldiff_jax"):
        assert ACTIONS[action](bucket.address("a.tif")) == expected
    assert bucket.faults[name] == []
    assert waits
    assert all(2 * before <= after * 1.5 for before, after in itertools.pairwise(waits))
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == len(waits)
    for number, line in enumerate(lines, 2):
        assert line.startswith(bucket.address(name))
        assert (f"answered {fault} " if fault != "break" else "broke the connection") in line
        assert f"try {number} of 6 in {waits[number - 2]:.1f} s" in line


@pytest.mark.parametrize("action", ACTIONS)
def test_one_that_never_answers_is_given_up_with_address_and_status(bucket, waits, action):
    fsspec.implementations.http.HTTPFileSystem.clear_instance_cache()
    name = NAMES[action]
    bucket.faults[name] = [503] * 1000
    with pytest.raises(SlideError, match=r"503 Service Unavailable, 6 times in \d+ s") as caught:
        ACTIONS[action](bucket.address("a.tif"))
    assert bucket.address(name) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert len(waits) == 5
    assert waits == sorted(waits)
    assert 31 <= sum(waits) <= 46.5


def test_one_that_cannot_be_reached_is_given_up(waits):
    with failing_bucket.serving() as closed:
        address = closed.address("a.tif")
    with pytest.raises(SlideError, match=r"broke the connection .*, 6 times"):
        remote.open_remote(address)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("status", [404, 403, 401])
def test_what_does_not_pass_is_not_waited_for(bucket, waits, action, status):
    name = NAMES[action]
    if status == 404:
        del bucket.files[name]
    bucket.faults[name] = [status] * 1000
    with pytest.raises(SlideError, match=bucket.address(name)):
        ACTIONS[action](bucket.address("a.tif"))
    assert waits == []
    # HEAD and GET, of the folder too.
    assert bucket.asked[name] <= 3


def test_a_file_beside_a_raster_is_not_taken_for_missing_where_the_server_fails(bucket, waits):
    """It says where pixels are valid: without it records would be others."""
    bucket.files["a.tif.msk"] = b"mask"
    expected = remote.fingerprint(bucket.address("a.tif"))
    assert expected[-1] == [4, str(hash(b"mask"))]
    # HEAD, and the GET that follows where it fails.
    bucket.faults["a.tif.msk"] = [503, 503]
    assert remote.fingerprint(bucket.address("a.tif")) == expected
    assert len(waits) == 1
    bucket.faults["a.tif.msk"] = [503] * 1000
    with pytest.raises(SlideError, match="503"):
        remote.open_remote(bucket.address("a.tif"))


@pytest.mark.parametrize("bucket", [{"ranges": r, "tags": False} for r in (True, False)],
                         ids=["ranges", "no ranges"], indirect=True)  # fmt: skip
@pytest.mark.parametrize("fault", [None, "break", 503])
def test_a_slide_without_a_check_sum_is_known_by_its_beginning(bucket, waits, fault):
    """Also where a server sends all of a file that part of was asked for, or breaks off."""
    bucket.files["a.tif"] = PIXELS.tobytes() * 10
    assert len(bucket.files["a.tif"]) > 2**21
    expected = remote.fingerprint(bucket.address("a.tif"))
    # Of the requests the second is that of the bytes.
    bucket.faults["a.tif"] = [None, None, fault] if fault else []
    assert remote.fingerprint(bucket.address("a.tif")) == expected
    assert len(waits) == (fault is not None)
    bucket.files["a.tif"] = b"x" + bucket.files["a.tif"][1:]
    assert remote.fingerprint(bucket.address("a.tif")) != expected


def test_a_slow_answer_is_waited_for_and_a_silent_one_is_not(bucket, waits, monkeypatch):
    """However long all of it takes, past the limit that clients have by themselves; and nothing
    for longer than a while."""
    monkeypatch.setattr(attempts, "SILENT_S", 0.9)
    monkeypatch.setattr(aiohttp.client, "DEFAULT_TIMEOUT", aiohttp.ClientTimeout(total=0.9))
    expected = pixels(bucket.address("a.tif"))
    bucket.faults["a.tif"] = ["drip"]
    np.testing.assert_array_equal(pixels(bucket.address("a.tif")), expected)
    assert waits == []
    bucket.faults["a.tif"] = ["silent"]
    np.testing.assert_array_equal(pixels(bucket.address("a.tif")), expected)
    assert len(waits) == 1


def test_what_a_user_set_for_the_client_stays(monkeypatch):
    monkeypatch.setitem(fsspec.config.conf, "http", {"client_kwargs": {"trust_env": True}})
    options = attempts.http_options("http://x/a.tif")["http"]["client_kwargs"]
    assert options["trust_env"] is True
    assert options["timeout"].total is None
    assert attempts.http_options("memory://x/a.tif") == {}
