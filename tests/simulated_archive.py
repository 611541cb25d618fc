"""An archive of real form and any count, with tiny pixels: what `walk_archive.py` walks through."""

import json
import os
import pathlib

import numpy as np
from PIL import Image

from ssldiff_jax.core import schema
from ssldiff_jax.data import archive, plan, records, slide_source, store
from ssldiff_jax.formats import shards
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.slides import tissue

PX = 8
MPP = 0.5
SLIDE_RECORDS = 25_000
LINKED_RECORDS = 10_000  # of a slide, where files are links
WRITTEN = 8  # slides whose files others link to: a file may have 65 000 links on ext4
HELD_OUT = 0.1
WIDTH, CHANNELS = 16, 4  # of embeddings and latents
IMAGES = 64  # different squares of a slide: pixels are not what is walked through

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
        section.model.vit.width, section.model.vit.num_heads = {width}, 2
        section.model.shift_px = 0
    c.autoencoder.model.kind = "light"
    c.autoencoder.model.light.channels = 8
    c.autoencoder.model.light.latent_channels = {channels}
    c.autoencoder.loss.perceptual_weight = 0.0
    c.prior.conditions.measure = "none"
    c.prior.grids.count, c.prior.grids.count_test = {grids}, 256
    c.evaluate.classes = ""
    c.evaluate.num_patches, c.evaluate.num_training = {num_patches}, {num_training}
    c.sample.window_batch = 512
    c.sample.num_variations = 2
    c.sample.windows.max_offset = 1
    return c
"""


def config_text(folder: pathlib.Path, crops: int, grids: int) -> str:
    """The config file of a walk."""
    return CONFIG.format(
        slides=str(folder / "slides"),
        mpp=MPP,
        held_out=HELD_OUT,
        px=PX,
        grids=grids,
        width=WIDTH,
        channels=CHANNELS,
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


def write_archive(folder: pathlib.Path, crops: int, *, linked: bool = False) -> int:
    """Slides by name and their entries; returns how many slides there are. Only one of them is an
    image, of which the references are cut: the others are never opened. Of those that are `linked`
    only the first have files of their own."""
    count = max(crops // (LINKED_RECORDS if linked else SLIDE_RECORDS), 8)
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
    built = schema.build(run_config.RunConfig, values)
    each = np.diff(np.linspace(0, crops, count + 1).astype(int))
    sizes = dict(zip(train, each.tolist(), strict=True)) | dict.fromkeys(test, 1500)
    written: dict[int, list[pathlib.Path]] = {}
    for number, task in enumerate(slide_source.tasks(built.data, folder / "run" / "archive")):
        size, pixels = sizes[task.name], image if task.name == test[0] else None
        alike = written.setdefault(size, [])
        if linked and task.name in train and len(alike) == WRITTEN:
            link_entry(task, number, alike[number % WRITTEN])
            continue
        write_entry(task, number, size, pixels)
        if task.name in train:
            alike.append(task.folder)
    return count + len(test)


def config_values(folder: pathlib.Path) -> dict:
    """The config of a walk, as the command reads it."""
    scope: dict = {}
    exec((folder / "walk_config.py").read_text(), scope)  # our own text
    return scope["get_config"]().to_dict()


def write_entry(task, number: int, count: int, image: np.ndarray | None) -> None:
    """What tiling would have made of a slide; of one with an `image` all of it is tissue."""

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
            look=f"walk-{number}",
            tissue=dict.fromkeys(tissue.KINDS, 1 / len(tissue.KINDS)),
            parts={split: [0, side]},
            regions=[] if image is None else [{"tissue": 1.0, "cells": region}],
        )


def link_entry(task, number: int, source: pathlib.Path) -> None:
    """Another slide with the files of one: places, and records that bear its name."""
    task.folder.mkdir()
    for path in source.iterdir():
        if path.name != "entry.json":
            os.link(path, task.folder / path.name)
    entry = json.loads((source / "entry.json").read_text())
    entry["name"] = task.name
    own = {"case": pathlib.PurePath(task.name).stem}
    entry["facts"] |= own | dict.fromkeys(("identity", "look"), f"walk-{number}")
    (task.folder / "entry.json").write_text(json.dumps(entry))


def write_stores(folder: pathlib.Path, crops: int, *, linked: bool = False) -> None:
    """Every shard of embeddings and latents, as the stages would have written them; of those that
    are `linked` only the first and the last are files of their own."""

    generator, size = np.random.default_rng(0), store.SHARD_SIZE
    embedding = generator.standard_normal((size, WIDTH), np.float32)
    moments = generator.standard_normal((size, 2, 2, 2 * CHANNELS)).astype(np.float16)
    sums = np.stack([np.full(CHANNELS, 4 * size), np.zeros(CHANNELS), np.full(CHANNELS, 4 * size)])
    for name, field, values, tally in (
        ("embeddings", "embedding", embedding, None),
        ("latents", "moments", moments, lambda batch: sums),
    ):
        fields = (store.Field(field, values.shape[1:], str(values.dtype)),)
        made = store.SharedStore(folder / "run" / name, fields, crops, size)
        last = made.num_shards - 1
        for number in made.missing():
            if linked and 0 < number < last:
                link_shard(made.folder, number)
            else:
                made.write(number, [{field: values[: len(made.examples(number))]}], tally)


def link_shard(folder: pathlib.Path, number: int) -> None:
    """The first shard of a store, under another number."""
    suffix = shards.SUFFIX
    os.link(folder / f"00000.{suffix}", folder / f"{number:05d}.{suffix}")
    note = json.loads((folder / "00000.json").read_text())
    note["shard"]["file"] = f"{number:05d}.{suffix}"
    (folder / f"{number:05d}.json").write_text(json.dumps(note))
