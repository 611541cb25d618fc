"""OME-Zarr among the slides of a run: good ones become records, each other costs itself alone."""

import json
import sys

import failing_bucket
import pytest
import tissue_like

from configs import demo
from ssldiff_jax.runs import launch
from ssldiff_jax.slides import SlideError, open_slide
from ssldiff_jax.stages import table


def write(path, pixels, scale=0.5):
    zarr = pytest.importorskip("zarr", minversion="3.1")
    axes = [{"name": "c", "type": "channel"}]
    axes += [{"name": n, "type": "space", "unit": "micrometer"} for n in "yx"]
    transforms = [{"type": "scale", "scale": [1, scale, scale]}] if scale else []
    dataset = {"path": "0", "coordinateTransformations": transforms}
    image = {"axes": axes, "datasets": [dataset]}
    attributes = {"ome": {"version": "0.5", "multiscales": [image]}}
    group = zarr.open_group(path, mode="w", attributes=attributes)
    group.create_array("0", data=pixels.transpose(2, 0, 1), chunks=(3, 128, 128))
    return path


def patches(named, workdir, processes=1):
    c = demo.get_config()
    c.stages, c.data.engine.processes = "patches", processes
    c.data.slides = named
    c.data.regions.rows = c.data.regions.cols = c.data.regions.count = 1
    return launch.launch(c.to_dict(), workdir, table.STAGES)


def records(workdir):
    splits = json.loads((workdir / "patches/records/manifest.json").read_text())["splits"]
    return {name: [shard["sha256"] for shard in s["shards"]] for name, s in splits.items()}


def quarantine(workdir):
    lines = (workdir / "patches/quarantine.jsonl").read_text().splitlines()
    return {line["slide"]: line["reason"] for line in map(json.loads, lines)}


def test_a_bad_store_costs_that_slide(tmp_path):
    good = write(tmp_path / "good.ome.zarr", tissue_like.pixels(0))
    write(tmp_path / "other.ome.zarr", tissue_like.pixels(1))
    write(tmp_path / "unscaled.zarr", tissue_like.pixels(2), scale=0)
    cut = write(tmp_path / "cut.zarr", tissue_like.pixels(3))
    chunk = cut / "0/c/0/1/1"
    chunk.write_bytes(chunk.read_bytes()[:-9])
    import zarr

    zarr.open_group(tmp_path / "cells.zarr", mode="w", attributes={"encoding-type": "anndata"})
    line = patches(str(tmp_path), tmp_path / "run")
    assert line.startswith("3 of the files could not be used")
    left_out = quarantine(tmp_path / "run")
    words = {"unscaled": "pass --config.data.mpp=", "cut": "0/c/0/1/1", "cells": "anndata"}
    assert set(left_out) == {str(tmp_path / f"{name}.zarr") for name in words}
    for name, word in words.items():
        reason = left_out[str(tmp_path / f"{name}.zarr")]
        assert str(tmp_path / f"{name}.zarr") in reason
        # What is cut off may be told by the codec, which knows no name of a chunk.
        assert word in reason or (name == "cut" and "readable OME-Zarr" in reason)
    facts = json.loads((tmp_path / "run/patches/done.json").read_text())["facts"]
    assert sorted(facts["slides"].values()) == ["good.ome.zarr", "other.ome.zarr"]
    # One alone, in processes of its own, becomes what it did among others.
    patches(str(good), tmp_path / "alone", processes=2)
    assert records(tmp_path / "alone")["train"]


def test_a_store_that_answers_403_costs_that_slide(tmp_path):
    pytest.importorskip("aiohttp")
    names = ("a.ome.zarr", "b.zarr")
    for number, name in enumerate(names):
        write(tmp_path / "slides" / name, tissue_like.pixels(number))
    with failing_bucket.serving() as server:
        for path in (tmp_path / "slides").rglob("*"):
            if path.is_file():
                server.files[str(path.relative_to(tmp_path / "slides"))] = path.read_bytes()
        for name in list(server.files):
            if name.startswith("b.zarr"):
                server.faults[name] = [403] * 1000
        line = patches(",".join(map(server.address, names)), tmp_path / "run")
        bad = server.address("b.zarr")
    assert line.startswith("1 of the files could not be used")
    ((slide, reason),) = quarantine(tmp_path / "run").items()
    assert slide == bad
    assert bad in reason
    assert "403" in reason
    # What lies far away becomes the same records as what lies here.
    patches(str(tmp_path / "slides" / "a.ome.zarr"), tmp_path / "near")
    assert records(tmp_path / "near") == records(tmp_path / "run")


def test_without_the_library_the_line_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "a.zarr").mkdir()
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(SlideError, match=r'pip install "zarr>=3.1"'):
        open_slide(tmp_path / "a.zarr")
