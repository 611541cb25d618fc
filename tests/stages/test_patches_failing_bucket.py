"""Slides in a bucket that fails: for a while, and the records are the same; for ever, and the
others are used."""

import json
import logging
import re
import resource
import tempfile

import failing_bucket
import pytest
import tifffile
import tissue_like

from configs import demo
from ssldiff_jax.runs import launch
from ssldiff_jax.slides import attempts
from ssldiff_jax.stages import table

pytest.importorskip("aiohttp")

NAMES = ("a.tif", "b.tif", "c.tif")


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    monkeypatch.setattr(attempts, "WAITS", (0.01, 0.02, 0.04, 0.08))
    with failing_bucket.serving() as server:
        for number, name in enumerate(NAMES):
            resolution = {"resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER"}
            pixels = tissue_like.pixels(number)
            tifffile.imwrite(
                tmp_path / name, pixels, photometric="rgb", metadata=None, **resolution
            )
            server.files[name] = (tmp_path / name).read_bytes()
        yield server


def patches(bucket, workdir, processes=1):
    c = demo.get_config()
    c.stages, c.data.engine.processes = "patches", processes
    c.data.slides = ",".join(map(bucket.address, NAMES))
    c.data.regions.rows = c.data.regions.cols = c.data.regions.count = 1
    return launch.launch(c.to_dict(), workdir, table.STAGES)


def records(workdir):
    splits = json.loads((workdir / "patches/records/manifest.json").read_text())["splits"]
    return {name: [shard["sha256"] for shard in s["shards"]] for name, s in splits.items()}


def test_one_that_fails_for_a_while_gives_the_same_records(bucket, tmp_path, caplog):
    patches(bucket, tmp_path / "whole")
    for name in NAMES:
        bucket.faults[name] = [503, 503, 503, "break", "break", 503]
    with caplog.at_level(logging.WARNING, "ssldiff_jax"):
        assert patches(bucket, tmp_path / "again") is None
    assert not any(bucket.faults.values())
    assert records(tmp_path / "again") == records(tmp_path / "whole")
    for name in NAMES:
        lines = [r.getMessage() for r in caplog.records if bucket.address(name) in r.getMessage()]
        assert 0 < len(lines) <= 6
        assert all(" in 0." in line for line in lines)


def test_a_slide_that_is_never_answered_costs_that_slide(bucket, tmp_path, caplog):
    bucket.faults["b.tif"] = [503] * 1000
    with caplog.at_level(logging.WARNING, "ssldiff_jax"):
        line = patches(bucket, tmp_path / "run")
    # Five times to know what it is, and five to copy it: as few waits as there are questions.
    waits = [r.getMessage() for r in caplog.records if "; try " in r.getMessage()]
    assert [re.search(r"try (\d) of 5", wait)[1] for wait in waits] == [*"2345", *"2345"]
    assert line.startswith("1 of the files could not be used")
    (left_out,) = (tmp_path / "run/patches/quarantine.jsonl").read_text().splitlines()
    left_out = json.loads(left_out)
    assert left_out["slide"] == bucket.address("b.tif")
    assert "answered 503 Service Unavailable, 5 times in" in left_out["reason"]
    assert bucket.address("b.tif") in left_out["reason"]
    done = json.loads((tmp_path / "run/patches/done.json").read_text())
    assert sorted(done["facts"]["slides"].values()) == ["a.tif", "c.tif"]


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_slide_that_may_not_be_had_costs_that_slide(bucket, tmp_path, status):
    bucket.faults["b.tif"] = [status] * 1000
    line = patches(bucket, tmp_path / "run")
    assert line.startswith("1 of the files could not be used")
    (left_out,) = (tmp_path / "run/patches/quarantine.jsonl").read_text().splitlines()
    left_out = json.loads(left_out)
    assert left_out["slide"] == bucket.address("b.tif")
    assert bucket.address("b.tif") in left_out["reason"]
    assert ("nothing is there" if status == 404 else str(status)) in left_out["reason"]
    assert len(left_out["reason"].splitlines()) == 1
    done = json.loads((tmp_path / "run/patches/done.json").read_text())
    assert sorted(done["facts"]["slides"].values()) == ["a.tif", "c.tif"]


@pytest.mark.parametrize("status", [403, 404])
def test_slides_of_which_none_may_be_had_are_one_line(bucket, tmp_path, status):
    for name in NAMES:
        bucket.faults[name] = [status] * 1000
    with pytest.raises(ValueError, match="no slide could be used; the first: ") as told:
        patches(bucket, tmp_path / "run")
    assert bucket.address("a.tif") in str(told.value)
    assert len(str(told.value).splitlines()) == 1


def test_a_bucket_that_never_answers_is_one_line(bucket, tmp_path):
    for name in NAMES:
        bucket.faults[name] = [503] * 1000
    with pytest.raises(
        ValueError, match=r"no slide could be used; the first: .*answered 503"
    ) as told:
        patches(bucket, tmp_path / "run")
    assert bucket.address("a.tif") in str(told.value)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_full_temporary_folder_is_named_and_costs_no_slide(
    bucket, tmp_path, monkeypatch, processes
):
    """Slides are copied there while they are read: files of at most 300 kB, as on a full disk, in
    the processes that copy too."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, before[1]))
    try:
        with pytest.raises(launch.USER_ERRORS) as caught:
            patches(bucket, tmp_path / "run", processes=processes)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"the disk of {tmp_path} must hold what it writes of stage 'patches', ")
    assert "(TMPDIR)" in line
    assert any(f"no room for a copy of {bucket.address(name)}" in line for name in NAMES)
    if processes == 1:  # another one may be at its end yet
        assert list(tmp_path.glob("slide-*")) == []
    assert patches(bucket, tmp_path / "run", processes=processes) is None
    assert (tmp_path / "run/patches/quarantine.jsonl").read_text() == ""
