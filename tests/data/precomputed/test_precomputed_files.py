"""Embeddings computed elsewhere: every format gives the same rows; what does not fit is named."""

import random
import resource

import h5py
import numpy as np
import psutil
import pytest
import safetensors.numpy
from torch_writer import TorchFile

from ssldiff_jax.data.precomputed import alignment, files

VALUES = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
CORNERS = np.array([(64 * (i % 3), 64 * (i // 3)) for i in range(9)])


def hdf5(path, attributes=(), **arrays):
    with h5py.File(path, "w") as file:
        for name, value in arrays.items():
            file[name] = value
        for name, value in dict(attributes).items():
            file["coords"].attrs[name] = value
    return path


def torch(path, value):
    file = TorchFile()
    file.write(path, file.tensor(value) if isinstance(value, np.ndarray) else value(file))
    return path


WRITERS = {
    ".h5": lambda p: hdf5(p, features=VALUES, coords=CORNERS),
    ".hdf5": lambda p: hdf5(p, feat_20x=VALUES),
    ".npy": lambda p: np.save(p, VALUES),
    ".pt": lambda p: torch(p, VALUES),
    ".pth": lambda p: torch(p, lambda file: {"features": file.tensor(VALUES), "epoch": 1}),
    ".safetensors": lambda p: safetensors.numpy.save_file({"embeddings": VALUES}, p),
}


@pytest.mark.parametrize("suffix", files.SUFFIXES)
def test_every_format_gives_the_same_rows(tmp_path, suffix):
    path = tmp_path / f"slide{suffix}"
    WRITERS[suffix](path)
    assert files.find(tmp_path, "slide") == path
    found = files.open_features(path)
    assert (len(found), found.dim) == VALUES.shape
    order = np.array([7, 0, 7, 3])
    np.testing.assert_array_equal(found.rows(order), VALUES[order])


def test_half_precision_becomes_single(tmp_path):
    found = files.open_features(hdf5(tmp_path / "s.h5", features=VALUES.astype(np.float16)))
    assert found.rows(np.arange(9)).dtype == np.float32
    np.testing.assert_allclose(found.rows(np.arange(9)), VALUES, rtol=1e-3)


def test_one_of_several_arrays_is_named(tmp_path):
    path = hdf5(tmp_path / "f.h5", feat_20x=VALUES, feat_5x=VALUES[:3])
    assert len(files.open_features(path, "feat_5x")) == 3
    with pytest.raises(files.WeightsError, match=r"f\.h5.*dataset names one\), got feat_20x, f"):
        files.open_features(path)
    with pytest.raises(files.WeightsError, match=r"named 'feat_10x', got feat_20x, feat_5x"):
        files.open_features(path, "feat_10x")


@pytest.mark.parametrize(
    ("attributes", "patch_px"),
    [
        ({"patch_size": 256}, 256),
        ({"patch_size": 256, "patch_level": 1, "downsample": (4.0, 4.0)}, 1024),
        ({"patch_size": 256, "patch_size_level0": 512}, 512),
        ({}, 0),
    ],
)
def test_corners_and_patch_size_as_tilers_write_them(tmp_path, attributes, patch_px):
    path = hdf5(tmp_path / "s.h5", attributes, coords=CORNERS, features=VALUES)
    found = files.open_features(path)
    np.testing.assert_array_equal(found.corners, CORNERS)
    assert found.patch_px == patch_px


def test_corners_of_another_file(tmp_path):
    told = files.open_corners(hdf5(tmp_path / "s.h5", {"patch_size": 64}, coords=CORNERS))
    bare = files.open_features(torch(tmp_path / "s.pt", VALUES))
    found = files.with_corners(bare, told)
    np.testing.assert_array_equal(found.corners, CORNERS)
    assert found.patch_px == 64
    short = files.open_features(torch(tmp_path / "short.pt", VALUES[:-1]))
    with pytest.raises(files.WeightsError, match=r"short\.pt.*s\.h5, got 8 rows and 9 patches"):
        files.with_corners(short, told)
    other = hdf5(tmp_path / "o.h5", features=VALUES, coords=CORNERS[::-1])
    with pytest.raises(files.WeightsError, match=r"o\.h5: coords.*\[128, 128\] and \[0, 0\] in r"):
        files.with_corners(files.open_features(other), told)


def with_nan():
    values = VALUES.copy()
    values[5, 1] = np.nan
    return values


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"features": VALUES, "coords": CORNERS[:-1]}, "coords must be as many as features"),
        ({"features": VALUES.astype(int)}, r"features must be floats \(N, D\), got int64 \(9, 4\)"),
        ({"features": VALUES[None]}, r"must be floats \(N, D\), got float32 \(1, 9, 4\)"),
        ({"features": VALUES, "coords": CORNERS[:, :1]}, r"coords must be \(N, 2\)"),
        ({"label": np.zeros(3)}, "got none"),
        ({"features": with_nan()}, "features must be finite, got NaN or infinity in row 5"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, arrays, message):
    path = hdf5(tmp_path / "bad.h5", **arrays)
    with pytest.raises(files.WeightsError, match=r"bad\.h5: .*" + message):
        files.open_features(path).rows(np.arange(9))


def test_links_out_of_the_file_are_refused(tmp_path):
    hdf5(tmp_path / "secret.h5", features=VALUES)
    path = tmp_path / "link.h5"
    with h5py.File(path, "w") as file:
        file["features"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "/features")
    with pytest.raises(files.WeightsError, match=r"link\.h5: features must be data of this"):
        files.open_features(path)
    (tmp_path / "raw").write_bytes(VALUES.tobytes())
    with h5py.File(path, "w") as file:
        outside = [(str(tmp_path / "raw"), 0, VALUES.nbytes)]
        file.create_dataset("features", VALUES.shape, "f4", external=outside)
    with pytest.raises(files.WeightsError, match=r"link\.h5: features must be data of this"):
        files.open_features(path)


@pytest.mark.parametrize("suffix", [".h5", ".npy", ".pt"])
def test_damaged_files_are_one_line(tmp_path, suffix):
    path = tmp_path / f"cut{suffix}"
    WRITERS[suffix](path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(files.WeightsError, match=rf"cut\{suffix}") as caught:
        files.open_features(path).rows(np.arange(9))
    assert "\n" not in str(caught.value)
    with pytest.raises(files.WeightsError, match="no such file of embeddings"):
        files.open_features(tmp_path / f"none{suffix}")


@pytest.fixture
def little_memory():
    """4 GB more and no further: HDF5's own library believes a damaged file's sizes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    now = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (now + (4 << 30), hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def test_mutated_hdf5_gives_clean_errors(tmp_path, little_memory):
    whole = hdf5(
        tmp_path / "a.h5", {"patch_size": 64}, features=VALUES, coords=CORNERS
    ).read_bytes()
    chance, path = random.Random(0), tmp_path / "b.h5"
    read, refused = 0, []
    for _ in range(1000):
        changed = bytearray(whole)
        for _ in range(chance.randint(1, 6)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        path.write_bytes(changed[: chance.choice([len(whole), chance.randrange(len(whole))])])
        try:
            files.open_features(path).rows(np.arange(9))
            read += 1
        except files.WeightsError as error:
            refused.append(str(error))
    assert read
    assert refused
    assert all("b.h5" in line and "\n" not in line for line in refused)


def patches(count, seed=0):
    """Noise around colours that drift from patch to patch, as along a slide."""
    rng = np.random.default_rng(seed)
    colour = 128 + np.cumsum(rng.normal(0, 8, (count, 3)), axis=0)
    noise = rng.normal(0, 12, (count, 16, 16, 3))
    return np.clip(colour[:, None, None] + noise, 0, 255).astype(np.uint8)


def test_embeddings_agree_with_their_own_patches_only():
    pixels = patches(80)
    mixing = np.random.default_rng(1).normal(size=(9, 24))
    embedding = np.tanh(alignment.look(pixels) @ mixing / 100)
    looks = alignment.look(pixels)
    moves = lambda e: [np.roll(e, k, axis=0) for k in (-2, -1, 1, 2)]
    own = alignment.agreement(embedding, looks, moves(embedding))
    assert own.holds
    assert own.own > 0.3
    for wrong in (embedding[::-1], np.roll(embedding, 1, axis=0), np.roll(embedding, -2, axis=0)):
        assert not alignment.agreement(wrong, looks, moves(wrong)).holds
    other = alignment.look(patches(80, seed=5)) @ mixing
    assert not alignment.agreement(other, looks, moves(other)).own > 0.3
