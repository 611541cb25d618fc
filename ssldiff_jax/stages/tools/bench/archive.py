"""Part of the tool `bench`: how fast slides become records, and records are read again."""

import functools
import pathlib
import shutil
import time
from collections.abc import Iterator

import numpy as np

from ssldiff_jax.core import memory
from ssldiff_jax.data import archive, demo_slide, plan, records, tiling
from ssldiff_jax.slides import pyramid, tissue
from ssldiff_jax.slides import slide as slide_lib
from ssldiff_jax.stages.tools.bench import results

_SIDE, _PX, _MPP = 8192, 256, 0.5
_READ = 1024

# Of sections stained with H&E, whatever the run is of, so that machines can be compared.
_HE = tissue.TissueConfig(
    mpp=8.0,
    min_saturation=0.05,
    max_saturation=0.10,
    min_luminance=0.10,
    max_luminance=1.0,
    pen_chroma=0.3,
    fold_density=2.0,
    blur_um=0.0,
    blur_mpp=1.0,
    smooth_radius_um=16.0,
)


def rows(folder: pathlib.Path, repetitions: int = 3) -> Iterator[results.Figure]:
    """A pyramid of 8192² px in JPEG, made of real tissue, through the stage `patches` in one
    process: read, masked, cut, compressed, hashed; then checked, decoded, and read at random."""
    folder = folder / "archive"
    folder.mkdir(parents=True, exist_ok=True)
    pyramid.write_pyramid(folder / "slide.tiff", _tissue(), pyramid.Scale(_MPP))
    tiled, checked, decoded, scattered, sizes = [], [], [], [], []
    for i in range(repetitions):
        task = _task(folder, i)
        memory.reset_peak()
        before, began = memory.rss_mb(), time.perf_counter()
        tiling.tile(task)
        seconds, peak = time.perf_counter() - began, memory.peak_rss_mb() - before
        entry = archive.Entry.read(task.folder)
        count = archive.publish(folder / f"records-{i}", {0: entry})["train"]
        tiled.append(count / seconds)
        sizes.append(sum(s.bytes for s in entry.shards["train"]) / count)
        checked.append(_rate(count, lambda i=i: list(archive.damaged(folder / f"records-{i}"))))
        source = records.RecordSource(folder / f"records-{i}", "train")
        decoded.append(_rate(count, lambda s=source: [s[n] for n in range(len(s))]))
        # As a shuffled training reads them.
        chosen = np.random.default_rng(0).integers(0, count, _READ)
        scattered.append(_rate(_READ, lambda s=source, d=chosen: [s.record(n) for n in d]))
    shutil.rmtree(folder)
    yield "archive/tiled_per_core", tiled, "patches/s"
    yield "archive/tiling_memory", [peak], "MB"
    yield "archive/bytes", sizes, "B/patch"
    yield "archive/hashed_per_core", checked, "patches/s"
    yield "archive/decoded_per_core", decoded, "patches/s"
    yield "archive/read_at_random", scattered, "records/s"


def _task(folder: pathlib.Path, number: int) -> tiling.Task:
    config = tiling.TilingConfig(
        _MPP,
        _HE,
        # Next to nothing held out, and a pattern that matches no name: all records are of training.
        plan.HoldoutConfig("area", 1e-9, "$^"),
        # Every square, of tissue or not, so that machines do the same work.
        plan.RecordConfig(_PX, _PX, 0.0, 95, ()),
        plan.RegionConfig(1, 1, 1),
        _PX,
        0,
    )
    path = folder / "slide.tiff"
    opener = functools.partial(slide_lib.open_slide, path, mpp=_MPP)
    return tiling.Task(str(path), opener, number, config, folder)


def _tissue() -> np.ndarray:
    """The slide of the demo, over and over."""
    slide = slide_lib.open_slide(demo_slide.demo_slide())
    pixels = slide.read_region(0, 0, *slide.shape, mpp=slide.mpp)
    slide.close()
    repeats = [-(-_SIDE // size) for size in pixels.shape[:2]]
    return np.ascontiguousarray(np.tile(pixels, (*repeats, 1))[:_SIDE, :_SIDE])


def _rate(count: int, call) -> float:
    began = time.perf_counter()
    call()
    return count / (time.perf_counter() - began)
