import io
import itertools
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from ssldiff_jax import slides
from ssldiff_jax.data import archive, crop_reader, crops, loader, plan, store
from ssldiff_jax.data import records as records_lib

CONFIG = loader.LoaderConfig(num_threads=2, prefetch=4)
SIDE = 48


def stained(height, width, seed=0):
    """Smooth pinks and purples, as JPEG likes them."""
    generator = np.random.default_rng(seed)
    coarse = generator.uniform(0, 1, (height // 16 + 1, width // 16 + 1))
    mix = np.asarray(Image.fromarray(coarse.astype(np.float32)).resize((width, height)))
    pink, purple = np.array([225, 160, 200]), np.array([110, 70, 150])
    return np.round(pink + (purple - pink) * mix[..., None]).astype(np.uint8)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """(how it was read, squares by split, counts, folder) of a synthetic slide."""
    folder = tmp_path_factory.mktemp("records")
    Image.fromarray(stained(200, 260)).save(folder / "slide.png")
    slide = slides.open_slide(folder / "slide.png", mpp=0.5)
    places = [(top, left) for top in (0, 60, 104) for left in (0, 90, 180, 212)]
    squares = [plan.Square(0, top, left, SIDE, SIDE) for top, left in places]
    splits = {"train": squares[:9], "test": squares[9:]}
    read = lambda s: slide.read_region(s.top, s.left, s.height, s.width, mpp=0.5)
    about = {"slide": "slide.png", "case": "slide", "label": "", "mpp": 0.5}
    with archive.new_entry(folder / "entry", **about) as (writer, _):
        for split, found in splits.items():
            for square in found:
                writer.add(split, square, read(square), quality=95)
        writer.close()
    counts = archive.publish(folder / "records", {7: archive.Entry.read(folder / "entry")})
    yield read, splits, counts, folder / "records"
    slide.close()


@pytest.fixture(scope="module")
def source(written):
    return records_lib.RecordSource(written[3], "train")


def batches(source, *, seed=0, batch_size=4, side=32):
    return loader.patch_batches(
        source, side=side, dihedral=True, batch_size=batch_size, seed=seed, config=CONFIG
    )


def first(iterable, count):
    return list(itertools.islice(iterable, count))


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_record_comes_back_as_it_was_read(written, split):
    read, splits, counts, folder = written
    found = records_lib.RecordSource(folder, split)
    assert len(found) == counts[split] == len(splits[split])
    for i, square in enumerate(splits[split]):
        distance = np.abs(found[i] - read(square).astype(int))
        assert distance.mean() < 1.5
        assert distance.max() < 20
        assert found.places[i].tolist() == [7, square.top, square.left, -1]
    assert found.slides.tolist() == [[7, counts[split]]]


def test_chroma_is_stored_at_full_resolution(written):
    raw = records_lib.encoded_image(records_lib.RecordSource(written[3], "train").record(0))
    with Image.open(io.BytesIO(raw)) as image:
        assert image.format == "JPEG"
        # 4:4:4: the sampling factors of all three components are 1.
        assert {layer[1:3] for layer in image.layer} == {(1, 1)}


def test_same_seed_same_batches(source):
    for a, b in zip(first(batches(source), 4), first(batches(source), 4), strict=True):
        assert_equal(a, b)


def test_another_seed_gives_others(source):
    a, b = (first(batches(source, seed=seed), 1)[0] for seed in (0, 1))
    assert not np.array_equal(a["pixels"], b["pixels"])


def test_index_is_the_place_in_the_stream(source):
    found = first(batches(source), 6)
    assert [b["pixels"].shape for b in found] == [(4, 32, 32, 3)] * 6
    np.testing.assert_array_equal(np.concatenate([b["index"] for b in found]), np.arange(24))


def test_every_epoch_sees_every_record_in_another_order(source):
    records = np.stack([source[i] for i in range(len(source))])
    # Crops as large as the record tell which one they were, whatever their orientation.
    images = np.concatenate(
        [b["pixels"] for b in first(batches(source, batch_size=9, side=SIDE), 3)]
    )
    key = lambda image: tuple(np.sort(image.astype(int).sum(axis=-1).ravel()))
    which = {key(record): i for i, record in enumerate(records)}
    epochs = np.array([which[key(image)] for image in images]).reshape(3, 9)
    for epoch in epochs:
        assert sorted(epoch) == list(range(9))
    assert not (epochs == epochs[0]).all()


@pytest.mark.parametrize("taken", [0, 1, 5])
def test_batches_are_the_same_from_any_number_on(source, taken):
    iterator = iter(batches(source))
    first(iterator, taken)
    expected = first(iterator, 3)
    for a, b in zip(expected, first(batches(source).since(taken), 3), strict=True):
        assert_equal(a, b)
    assert expected[0]["index"][0] == 4 * taken


def on_host(monkeypatch, host, count, make, num_batches):
    monkeypatch.setattr(loader.jax, "process_index", lambda: host)
    monkeypatch.setattr(loader.jax, "process_count", lambda: count)
    return first(make(), num_batches)


def test_two_hosts_part_the_stream_of_one(source, monkeypatch):
    make = lambda: batches(source, batch_size=6)
    whole = first(make(), 4)
    hosts = [on_host(monkeypatch, host, 2, make, 4) for host in (0, 1)]
    for step, expected in enumerate(whole):
        shares = [host[step] for host in hosts]
        assert all(len(share["index"]) == 3 for share in shares)
        both = {name: np.concatenate([s[name] for s in shares]) for name in expected}
        order = np.argsort(both["index"])
        # The same examples in the same global batch; which host has which does not matter.
        assert_equal({name: value[order] for name, value in both.items()}, expected)
    seen = np.concatenate([b["index"] for host in hosts for b in host])
    assert sorted(seen) == list(range(24))


def test_batch_that_hosts_cannot_share_is_refused(source, monkeypatch):
    with pytest.raises(ValueError, match="batch_size=4, hosts=3"):
        on_host(monkeypatch, 0, 3, lambda: batches(source), 1)


def test_crop_larger_than_a_record_is_refused(source):
    with pytest.raises(ValueError, match=f"record_px={SIDE}, crop=64"):
        first(batches(source, side=64), 1)


def test_an_embedding_belongs_to_its_latents_crop_and_orientation(source, tmp_path):
    """Both caches are filled from their own CropTable; the loader must pair the same pixels."""
    config = crops.CropConfig(
        patch_px=16, num_crops=40, context_px=4, dihedral=True, condition_on="patch"
    )
    tables = [crops.CropTable(len(source), SIDE, config, seed=0) for _ in range(2)]
    assert [tables[0][i] for i in range(40)] == [tables[1][i] for i in range(40)]

    cut = lambda table: np.stack([table[i].cut(source[table[i].record], 24) for i in range(40)])
    inner = [cut(table)[:, 4:20, 4:20] for table in tables]
    latents, embeddings = (write(tmp_path / n, n, x) for n, x in zip("lm", inner, strict=True))
    found = loader.cached_batches(latents, embeddings, batch_size=8, seed=3, config=CONFIG)
    seen = first(found, 5)
    again = first(found.since(3), 1)[0]
    assert_equal(again, first(found, 4)[3])
    np.testing.assert_array_equal(again["index"], np.arange(24, 32))
    for batch in seen:
        np.testing.assert_array_equal(batch["l"], batch["m"])
    assert len({image.tobytes() for batch in seen for image in batch["l"]}) == 40


def write(folder, name, values):
    writer = store.StoreWriter(folder, (store.Field(name, values.shape[1:], "uint8"),), 16)
    writer.append(**{name: values})
    writer.close()
    return store.Store(folder)


@pytest.mark.parametrize(
    ("mode", "saved"),
    [
        ("RGB", {"format": "JPEG", "quality": 95, "subsampling": 0}),
        ("RGB", {"format": "JPEG", "quality": 60, "subsampling": 2, "progressive": True}),
        ("L", {"format": "JPEG", "quality": 90}),
        ("CMYK", {"format": "JPEG", "quality": 90}),
        ("RGB", {"format": "PNG"}),
        ("P", {"format": "PNG"}),
    ],
)
def test_squares_of_any_maker_are_decoded_as_pillow_decodes_them(mode, saved):
    pixels = np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, **saved)
    decoded = records_lib.decode(file.getvalue())
    np.testing.assert_array_equal(decoded, np.asarray(Image.open(file).convert("RGB")))
    assert not decoded.flags.writeable


def test_a_square_that_is_cut_off_is_refused():
    whole = records_lib.encode(np.full((64, 64, 3), 9, np.uint8), 90).getvalue()
    with pytest.raises(OSError, match="runcated"):
        records_lib.decode(whole[: len(whole) // 2])


def turned(square, orientation):
    square = np.rot90(square, orientation % 4)
    return square[:, ::-1] if orientation >= 4 else square


@pytest.mark.parametrize(("patch_px", "context_px"), [(16, 0), (16, 4), (8, 3), (24, 12)])
def test_crops_are_read_as_they_lie_in_their_records(source, patch_px, context_px):
    config = crops.CropConfig(patch_px, 40, context_px, True, "patch")
    table = crops.CropTable(len(source), SIDE, config, seed=1)
    reader, side = crop_reader.CropReader(source, table), patch_px + 2 * context_px
    numbers = [5, 39, 0, 5, 17]
    expected = np.stack(
        [
            turned(source[c.record][c.top : c.top + side, c.left : c.left + side], c.orientation)
            for c in map(table.__getitem__, numbers)
        ]
    )
    np.testing.assert_array_equal(reader.with_context(numbers), expected)
    inner = slice(context_px, context_px + patch_px)
    np.testing.assert_array_equal(reader.patches(numbers), expected[:, inner, inner])


@pytest.mark.parametrize("context_px", [0, 2])
def test_cells_are_read_with_the_patch_between_them(source, context_px):
    side = 12
    config = crops.CropConfig(side, 40, context_px, True, "cells")
    table = crops.CropTable(len(source), SIDE, config, seed=1)
    reader, numbers = crop_reader.CropReader(source, table), range(40)
    cells, corners = reader.cells(numbers)
    assert cells.shape == (40, 4, side, side, 3)
    blocks = cells.reshape(40, 2, 2, side, side, 3).swapaxes(2, 3).reshape(40, 2 * side, -1, 3)
    patches = reader.patches(numbers)
    for block, corner, patch in zip(blocks, corners, patches, strict=True):
        # The corner is in sides of a patch, from the patch to the cells.
        top, left = np.round(-corner * side).astype(int)
        np.testing.assert_array_equal(block[top : top + side, left : left + side], patch)


_OPENED = """
import sys, threading
from ssldiff_jax.data import records
source = records.RecordSource({folder!r}, "train")
before = set(sys.modules)
thread = threading.Thread(target=lambda: source[0])
thread.start(); thread.join()
print(*sorted(set(sys.modules) - before))
"""


def test_threads_that_decode_import_nothing_of_tfds(written):
    """It imports its parts when they are first named: two threads at once waited for ever."""
    words = [sys.executable, "-c", _OPENED.format(folder=str(written[3]))]
    root = pathlib.Path(__file__).parents[2]
    result = subprocess.run(words, cwd=root, capture_output=True, text=True, check=True)
    assert not [name for name in result.stdout.split() if "tensorflow" in name or "etils" in name]
