"""Which slides a config names, and how remote ones are asked."""

import threading
import types

import fsspec
import pytest

from ssldiff_jax.data import named_slides, slide_source
from ssldiff_jax.slides import remote, slide


@pytest.fixture
def bucket():
    """200 files of different sizes in a file system that is an address away."""
    system = fsspec.filesystem("memory")
    names = [f"memory://bucket/slide_{number:03d}.svs" for number in range(200)]
    for number, name in enumerate(names):
        system.pipe(name, b"x" * (number + 1))
    slide_source.query_again()
    yield names
    system.rm("memory://bucket", recursive=True)


def test_slides_are_asked_together_and_answers_keep_their_order(bucket, monkeypatch):
    asked, together, at_work, most = remote.fingerprint, threading.Barrier(8), set(), []

    def slow(source):
        at_work.add(source)
        most.append(len(at_work))
        if source in bucket[:8]:
            together.wait(timeout=60)  # broken where fewer than 8 are asked at a time
        at_work.discard(source)
        return asked(source)

    monkeypatch.setattr(remote, "fingerprint", slow)
    found = slide_source.fingerprints(bucket)
    assert [facts[:2] for facts in found] == [
        [f"slide_{number:03d}.svs", number + 1] for number in range(200)
    ]
    assert max(most) <= 32


def test_one_that_does_not_answer_is_known_by_its_size_of_minus_one(bucket):
    missing = "memory://bucket/none.svs"
    found = slide_source.fingerprints([bucket[0], missing, bucket[1]])
    assert [facts[1] for facts in found] == [1, -1, 2]


def test_a_command_asks_each_slide_once(bucket, monkeypatch):
    asked, ask = [], remote.fingerprint
    monkeypatch.setattr(remote, "fingerprint", lambda s: asked.append(s) or ask(s))
    first = slide_source.fingerprints(bucket)
    assert slide_source.fingerprints(bucket) == first
    assert sorted(asked) == bucket
    fsspec.filesystem("memory").pipe(bucket[3], b"mended")
    slide_source.query_again()
    assert slide_source.fingerprints(bucket[3:4])[0][1] == len(b"mended")


def test_a_command_waits_once_for_a_server_that_is_down(monkeypatch):
    """As for one that answers; the next command asks again."""
    asked = []

    def is_down(source):
        asked.append(source)
        raise slide.SlideError(f"expected an address that opens, got {source}: 503, 6 times")

    slide_source.query_again()
    monkeypatch.setattr(remote, "fingerprint", is_down)
    address = "https://down.example/a.svs"
    for commands in (1, 2):
        for _ in range(3):
            assert slide_source.fingerprints([address]) == [["a.svs", -1]]
        assert asked == [address] * commands
        slide_source.query_again()


@pytest.mark.parametrize("beside", ["", "memory://bucket/slide_007.svs,"])
def test_a_path_that_two_parts_name_is_one_slide_beside_addresses_too(tmp_path, bucket, beside):
    for name in ("b.svs", "a.svs", "c.svs"):
        (tmp_path / name).write_bytes(name.encode())
    parts = f"{beside}{tmp_path}/b.svs,{tmp_path}/*.svs,{tmp_path}/a.svs"
    data = types.SimpleNamespace(slides=parts)
    local = [str(tmp_path / name) for name in ("a.svs", "b.svs", "c.svs")]
    found = named_slides.sources(data)
    assert found[:3] == local
    assert list(map(remote.name_of, found[3:])) == ["slide_007.svs"][: len(beside)]
