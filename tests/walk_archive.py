"""A walk through all stages with an archive of real counts and tiny pixels.

    .venv/bin/python tests/walk_archive.py --crops=10_000_000 --workdir=/tmp/walk

Not part of the test suite. It writes the archive entries of some hundred slides (records of 8 × 8
px, holes in the tissue, whole cases held out) with the writers that the stage `patches` uses, then
runs the real command on them: every stage, and `verify`. Models are as small as they can be and
train for a few steps, so that counts cost and not arithmetic: one embedding and one latent for
each crop, a tenth as many grids, 10 000 held-out and 100 000 training patches in `evaluate`.

For every stage it tells seconds, CPU seconds, the peak of memory and of open files (of the process
and its children), and the bytes of its folder; it fails where all of it takes more than an hour or
4 GB. The command may have 1024 files open. The archive takes 1.1 kB a crop on the disk and
everything else as much again; `--workdir` is deleted at the end unless `--keep` is given.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import re
import resource
import shutil
import subprocess
import sys
import threading
import time

import numpy as np
import psutil
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

PX = 8
MPP = 0.5
SLIDE_RECORDS = 25_000
HELD_OUT = 0.1
IMAGES = 64  # different squares of a slide: pixels are not what is walked through
FILES, BYTES, SECONDS = 1024, 4 * 2**30, 3600

CONFIG = """
from configs import tiny


def get_config():
    c = tiny.get_config()
    c.runtime.keep_freed_memory = False
    d = c.data
    d.slides, d.mpp, d.patch_mpp = {slides!r}, {mpp}, {mpp}
    d.holdout.by, d.holdout.fraction = "case", {held_out}
    d.records.record_px = d.records.stride_px = d.crops.patch_px = {px}
    d.records.jpeg_quality = 50
    d.crops.num_crops = d.crops.context_px = 0
    d.regions.count, d.regions.rows, d.regions.cols = 1, 4, 4
    for section in (c.encoder, c.judge):
        section.model.vit.image_px, section.model.vit.patch_px = {px}, 4
        section.model.vit.width, section.model.vit.num_heads = 16, 2
        section.model.shift_px = 0
    c.autoencoder.model.kind = "light"
    c.autoencoder.model.light.channels = 8
    c.autoencoder.loss.perceptual_weight = 0.0
    c.prior.conditions.measure = "none"
    c.prior.grids.count, c.prior.grids.count_test = {grids}, 256
    c.evaluate.classes = ""
    c.evaluate.num_patches, c.evaluate.num_training = {num_patches}, {num_training}
    c.sample.chunk = 512
    c.sample.num_variations = 2
    return c
"""


def config_text(folder: pathlib.Path, crops: int) -> str:
    """The config file of a walk."""
    return CONFIG.format(
        slides=str(folder / "slides"),
        mpp=MPP,
        held_out=HELD_OUT,
        px=PX,
        grids=max(crops // 10, 64),
        num_patches=min(10_000, crops // 50),
        num_training=min(100_000, crops // 10),
    )


def lattice(generator: np.random.Generator, count: int) -> np.ndarray:
    """(top, left) of `count` records in reading order: a square of tissue with round holes."""
    side = int(np.ceil((count / 0.7) ** 0.5))
    rows, cols = np.mgrid[:side, :side]
    there = np.ones((side, side), bool)
    while there.sum() > count:
        row, col = generator.integers(side, size=2)
        there &= np.hypot(rows - row, cols - col) > side / 12
    there.ravel()[np.flatnonzero(~there)[: count - there.sum()]] = True
    return np.argwhere(there) * PX


def texture(generator: np.random.Generator, side: int) -> np.ndarray:
    """Smooth pinks and purples."""
    coarse = generator.uniform(0, 1, (side // 4 + 1,) * 2).astype(np.float32)
    mix = np.asarray(Image.fromarray(coarse).resize((side, side)))[..., None]
    pixels = np.array([225, 160, 200]) * mix + np.array([110, 70, 150]) * (1 - mix)
    return np.round(pixels).astype(np.uint8)


def write_archive(folder: pathlib.Path, crops: int) -> int:
    """Slides by name and their entries; returns how many slides there are. Only one of them is an
    image, of which the references are cut: the others are never opened."""
    from ssldiff_jax.core import config as config_lib
    from ssldiff_jax.data import plan
    from ssldiff_jax.stages import config as run_config
    from ssldiff_jax.stages import slide_source

    count = max(crops // SLIDE_RECORDS, 8)
    (folder / "slides").mkdir(parents=True, exist_ok=True)
    names = (f"case{i:05d}.png" for i in range(10 * count))
    train, test = [], []
    for name in names:
        is_test = plan.is_held_out(pathlib.PurePath(name).stem, HELD_OUT)
        if len(train) < count or (is_test and not test):
            (test if is_test else train).append(name)
    for name in (*train, *test):
        (folder / "slides" / name).write_bytes(name.encode())
    image = texture(np.random.default_rng(1), 50 * PX)
    Image.fromarray(image).save(folder / "slides" / test[0])
    values = config_values(folder)
    built = config_lib.build(run_config.RunConfig, values)
    each = np.diff(np.linspace(0, crops, count + 1).astype(int))
    sizes = dict(zip(train, each.tolist(), strict=True)) | dict.fromkeys(test, 1500)
    for number, task in enumerate(slide_source.tasks(built, folder / "run" / "archive")):
        write_entry(task, number, sizes[task.name], image if task.name == test[0] else None)
    return count + len(test)


def config_values(folder: pathlib.Path) -> dict:
    """The config of a walk, as the command reads it."""
    scope: dict = {}
    exec((folder / "walk_config.py").read_text(), scope)  # our own text
    return scope["get_config"]().to_dict()


def write_entry(task, number: int, count: int, image: np.ndarray | None) -> None:
    """What tiling would have made of a slide; of one with an `image` all of it is tissue."""
    from ssldiff_jax.data import archive, plan, records
    from ssldiff_jax.slides import tissue

    case, generator = pathlib.PurePath(task.name).stem, np.random.default_rng(number)
    split = "test" if plan.is_held_out(case, HELD_OUT) else "train"
    places = lattice(generator, count) if image is None else np.argwhere(np.ones((50, 50))) * PX
    source = texture(generator, PX * IMAGES) if image is None else image
    about = {"slide": task.name, "case": case, "label": "", "mpp": MPP}
    square = lambda top, left: plan.Square(0, int(top), int(left), PX, PX)
    cut = lambda top, left: source[top : top + PX, left : left + PX]
    some = places if image is not None else [(0, PX * i) for i in range(IMAGES)]
    serialized = [
        records.serialize(records.encode(cut(*at), 50), square(*at), **about) for at in some
    ]
    side = int(places.max()) + PX
    region = [[top, left, -1] for top in range(0, 4 * PX, PX) for left in range(0, 4 * PX, PX)]
    with archive.new_entry(task.folder, **about) as (writer, folder):
        writer.declare(split)
        for i, (top, left) in enumerate(places.tolist()):
            writer.add_record(split, square(top, left), serialized[i % len(serialized)])
        Image.fromarray(source[:64, :64]).save(folder / "overview.png")
        writer.close(
            case=case,
            native_mpp=MPP,
            shape=[side, side],
            identity=f"walk-{number}",
            tissue=dict.fromkeys(tissue.KINDS, 1 / len(tissue.KINDS)),
            parts={split: [0, side]},
            regions=[] if image is None else [{"tissue": 1.0, "cells": region}],
        )


@dataclasses.dataclass
class Row:
    """What a stage took."""

    stage: str
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_bytes: int = 0
    open_files: int = 0
    folder_bytes: int = 0


class Watched:
    """The command, and what it takes by the stage it is at."""

    def __init__(self, folder: pathlib.Path, stages: str):
        self.rows = [Row("start")]
        words = [sys.executable, "-m", "ssldiff_jax.main"]
        words += [f"--config={folder / 'walk_config.py'}", f"--workdir={folder / 'run'}"]
        self._process = subprocess.Popen(
            [*words, f"--config.stages={stages}"],
            cwd=ROOT,
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES)),
        )
        self._began = self._cpu = 0.0

    def run(self) -> int:
        """Until it ends; returns its exit code."""
        self._began = time.monotonic()
        reader = threading.Thread(target=self._read, daemon=True)
        reader.start()
        while self._process.poll() is None:
            self._look()
            time.sleep(0.5)
        reader.join()
        return self._process.returncode

    def _read(self) -> None:
        for line in self._process.stderr:
            print(line, end="", flush=True)
            if found := re.search(r"stage (\w+) (starts|goes on)", line):
                self._end()
                self.rows.append(Row(found[1]))
        self._end()

    def _end(self) -> None:
        now = time.monotonic()
        self.rows[-1].seconds, self._began = now - self._began, now

    def _look(self) -> None:
        row, memory, handles, cpu = self.rows[-1], 0, 0, 0.0
        try:
            whole = psutil.Process(self._process.pid)
            for process in (whole, *whole.children(recursive=True)):
                memory += process.memory_info().rss
                handles += process.num_fds()
                times = process.cpu_times()
                cpu += times.user + times.system
        except psutil.Error:
            return
        row.peak_bytes, row.open_files = max(row.peak_bytes, memory), max(row.open_files, handles)
        row.cpu_seconds += max(cpu - self._cpu, 0)
        self._cpu = cpu


def bytes_in(folder: pathlib.Path) -> int:
    """Of all files, each counted once however many links it has."""
    found = {(s := path.lstat()).st_ino: s.st_size for path in folder.rglob("*") if path.is_file()}
    return sum(found.values())


def table(rows: list[Row]) -> str:
    """The rows for people."""
    lines = [f"{'stage':12} {'seconds':>8} {'cpu s':>8} {'peak MB':>8} {'files':>6} {'MB':>9}"]
    lines += [
        f"{r.stage:12} {r.seconds:8.1f} {r.cpu_seconds:8.1f} {r.peak_bytes / 1e6:8.0f} "
        f"{r.open_files:6d} {r.folder_bytes / 1e6:9.1f}"
        for r in rows
    ]
    return "\n".join(lines)


def main() -> None:
    """Make the archive, run the command twice, tell what it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--crops", type=int, default=100_000)
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--stages", default="all")
    parser.add_argument("--keep", action="store_true")
    asked = parser.parse_args()
    folder = asked.workdir.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "walk_config.py").write_text(config_text(folder, asked.crops))
    began = time.monotonic()
    slides = write_archive(folder, asked.crops)
    print(f"{asked.crops} crops of {slides} slides written in {time.monotonic() - began:.0f} s")
    rows, codes = [], []
    for stages in (asked.stages, "verify"):
        watched = Watched(folder, stages)
        codes.append(watched.run())
        rows += watched.rows
    for row in rows:
        row.folder_bytes = bytes_in(folder / "run" / row.stage)
    rows.append(Row("all", sum(r.seconds for r in rows), sum(r.cpu_seconds for r in rows),
                    max(r.peak_bytes for r in rows), max(r.open_files for r in rows),
                    bytes_in(folder / "run")))  # fmt: skip
    print(table(rows))
    told = {"crops": asked.crops, "rows": [dataclasses.asdict(row) for row in rows]}
    print(json.dumps(told))
    if not asked.keep:
        shutil.rmtree(folder)
    if any(codes):
        sys.exit(f"expected the command to end with 0, got {codes}")
    if rows[-1].peak_bytes > BYTES or rows[-1].seconds > SECONDS:
        sys.exit(f"expected {BYTES} bytes and {SECONDS} s at most, got {rows[-1]}")


if __name__ == "__main__":
    main()
