"""Slides that go while a run reads them: removed, cut short, or with the folder that held them."""

import json
import os
import pathlib
import shutil
import subprocess

import numpy as np
import pytest
import rasterio
import tifffile
import tissue_like

from configs import demo
from ssldiff_jax.data import records
from ssldiff_jax.runs import launch
from ssldiff_jax.slides import slide as slide_lib
from ssldiff_jax.stages import table

NAMES = ("1.tif", "2.tif", "3.tif")


def tiles(path, pixels):
    """Of OpenSlide."""
    tifffile.imwrite(
        path, pixels, photometric="rgb", metadata=None, compression="zlib", tile=(64, 64),
        resolution=(2e4, 2e4), resolutionunit="CENTIMETER",
    )  # fmt: skip


def raster(path, pixels):
    """Of GDAL, on the ground."""
    place = rasterio.transform.from_origin(5e5, 5e6, 5e-7, 5e-7)
    with rasterio.open(
        path, "w", driver="GTiff", width=768, height=768, count=3, dtype="uint8", crs="EPSG:32614",
        transform=place, compress="deflate", tiled=True, blockxsize=64, blockysize=64,
    ) as file:  # fmt: skip
        file.write(np.moveaxis(pixels, -1, 0))


@pytest.fixture
def slides(tmp_path):
    folder = tmp_path / "slides"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        tiles(folder / name, tissue_like.pixels(number))
    return folder


def patches(slides, workdir, **changes):
    c = demo.get_config()
    c.stages, c.data.slides, c.data.engine.processes = "patches", str(slides), 1
    c.data.regions.rows = c.data.regions.cols = c.data.regions.count = 1
    c.update_from_flattened_dict(changes)
    return launch.launch(c.to_dict(), workdir, table.STAGES)


def used(workdir):
    """Names of slides, and the mean error of their records."""
    names = json.loads((workdir / "patches/done.json").read_text())["facts"]["slides"]
    source, errors = records.RecordSource(workdir / "patches/records", "train"), {}
    for number in range(len(source)):
        slide, top, left, _ = source.places[number].tolist()
        name, cut = names[str(slide)], source[number].astype(int)
        expected = tissue_like.pixels(NAMES.index(name))[
            top : top + len(cut), left : left + len(cut)
        ]
        errors.setdefault(name, []).append(np.abs(expected - cut).mean())
    return {name: np.mean(values) for name, values in errors.items()}


def quarantine(workdir):
    lines = (workdir / "patches/quarantine.jsonl").read_text().splitlines()
    return {pathlib.PurePath(q["slide"]).name: q["reason"] for q in map(json.loads, lines)}


def at_read(monkeypatch, name, number, do):
    """Do something before the read of that number of a slide."""
    read, count = slide_lib.LeveledSlide.read_region, []

    def reads(slide, *args, **kwargs):
        if slide.path.name == name:
            count.append(1)
            if len(count) == number:
                do(slide.path)
        return read(slide, *args, **kwargs)

    monkeypatch.setattr(slide_lib.LeveledSlide, "read_region", reads)


def test_one_that_is_removed_after_it_was_listed_costs_that_slide(slides, tmp_path, monkeypatch):
    at_read(monkeypatch, "1.tif", 3, lambda path: path.with_name("2.tif").unlink())
    assert patches(slides, tmp_path / "run").startswith("1 of the files could not be used")
    left_out = quarantine(tmp_path / "run")
    assert left_out.keys() == {"2.tif"}
    assert str(slides / "2.tif") in left_out["2.tif"]
    assert "no such file" in left_out["2.tif"].lower()
    assert used(tmp_path / "run").keys() == {"1.tif", "3.tif"}


@pytest.mark.parametrize("write", [tiles, raster])
def test_one_that_is_cut_short_while_it_is_read_costs_that_slide(
    slides, tmp_path, monkeypatch, write
):
    """Its first part is still there: records of what is missing must not be black."""
    write(slides / "2.tif", tissue_like.pixels(1))
    cut = lambda path: os.truncate(path, path.stat().st_size // 3)
    at_read(monkeypatch, "2.tif", 1, cut)
    assert patches(slides, tmp_path / "run").startswith("1 of the files could not be used")
    left_out = quarantine(tmp_path / "run")
    assert left_out.keys() == {"2.tif"}
    assert str(slides / "2.tif") in left_out["2.tif"]
    found = used(tmp_path / "run")
    assert found.keys() == {"1.tif", "3.tif"}
    assert max(found.values()) < 3


def test_one_that_is_removed_while_it_is_read_is_read_to_its_end(slides, tmp_path, monkeypatch):
    """An open file stays; held-out regions, for which it is opened again, are of another."""
    at_read(monkeypatch, "3.tif", 5, lambda path: path.unlink())
    patches(slides, tmp_path / "run")
    found = used(tmp_path / "run")
    assert {"1.tif", "2.tif"} <= found.keys()
    assert max(found.values()) < 3
    regions = json.loads((tmp_path / "run/patches/regions.json").read_text())
    assert "3.tif" not in {region["slide_name"] for region in regions}


def renamed(folder):
    folder.rename(folder.with_name("away"))


def unmounted(folder):
    # As of a share that is gone: open files stay.
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("goes", [renamed, unmounted])
def test_a_folder_that_goes_is_one_line_and_the_same_command_resumes(
    slides, tmp_path, monkeypatch, goes
):
    kept = tmp_path / "kept"
    shutil.move(slides, kept)
    slides.mkdir()
    if goes is unmounted:
        mount = ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(slides)]
        if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("only root may mount a folder")
    shutil.copytree(kept, slides, dirs_exist_ok=True)
    patches(kept, tmp_path / "whole")
    with monkeypatch.context() as patch:
        at_read(patch, "2.tif", 5, lambda path: goes(path.parent))
        with pytest.raises(launch.USER_ERRORS) as caught:
            patches(slides, tmp_path / "run")
    (line,) = str(caught.value).splitlines()
    assert "no slide could be used; the first: " in line
    assert str(slides) in line
    assert quarantine(tmp_path / "run").keys() == set(NAMES)
    assert not (tmp_path / "run/patches/done.json").exists()

    shutil.copytree(kept, slides, dirs_exist_ok=True)
    assert patches(slides, tmp_path / "run") is None
    found = used(tmp_path / "run")
    assert found == used(tmp_path / "whole")
    assert found.keys() == set(NAMES)
