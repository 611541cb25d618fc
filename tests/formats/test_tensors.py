"""Reading files that nobody vouches for."""

import io
import json
import os
import pickle
import random
import subprocess
import sys
import zipfile

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from torch_writer import TorchFile

from ssldiff_jax.formats import tensors as reader
from ssldiff_jax.formats import torch_zip

FUZZED = 3_000


@pytest.fixture
def lightning(golden_path):
    return golden_path("lightning_like.ckpt")


def test_a_training_state_gives_its_tensors(lightning, golden_path):
    found = reader.read(lightning)
    expected = safetensors.numpy.load_file(golden_path("lightning_like_expected.safetensors"))
    for name, value in expected.items():
        assert found[f"state_dict.{name}"].dtype == value.dtype
        np.testing.assert_array_equal(found[f"state_dict.{name}"], value)
    others = {name.partition(".")[0] for name in found} - {"state_dict"}
    assert others == {"callbacks", "optimizer_states"}


def test_nothing_the_file_names_is_imported(lightning):
    """pytorch_lightning, omegaconf and torch are named; none may even be looked for."""
    program = (
        "import sys\n"
        "class Watch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        top = name.split('.')[0]\n"
        "        assert top not in ('torch', 'pytorch_lightning', 'omegaconf'), name\n"
        "sys.meta_path.insert(0, Watch())\n"
        "from ssldiff_jax.formats import torch_zip; import pathlib\n"
        "before = set(sys.modules)\n"
        f"torch_zip.read(pathlib.Path({str(lightning)!r}))\n"
        "print(sorted(set(sys.modules) - before))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


class Attack:
    """What a pickle can ask for."""

    def __init__(self, call, *args):
        self.call, self.args = call, args

    def __reduce__(self):
        return self.call, self.args


@pytest.mark.parametrize(
    "make",
    [
        lambda mark: Attack(os.system, f"touch {mark}"),
        lambda mark: Attack(eval, f"open({str(mark)!r}, 'w')"),
        lambda mark: Attack(subprocess.Popen, ["touch", str(mark)]),
        lambda mark: Attack(exec, f"open({str(mark)!r}, 'w')"),
    ],
)
def test_a_pickle_that_calls_code_runs_nothing(tmp_path, make):
    mark, path = tmp_path / "mark", tmp_path / "attack.ckpt"
    weights = TorchFile()
    value = {"state_dict": {"w": weights.tensor(np.ones(3, np.float32))}, "hook": make(mark)}
    weights.write(path, value)
    np.testing.assert_array_equal(reader.read(path)["state_dict.w"], np.ones(3))
    assert not mark.exists()


def test_a_tensor_made_by_other_code_is_refused_by_name(tmp_path):
    weights, path = TorchFile(), tmp_path / "w.ckpt"
    foreign = weights.tensor(np.ones(3, np.float32), rebuild="torch._utils _rebuild_sparse_tensor")
    weights.write(path, {"state_dict": {"block.weight": foreign}})
    with pytest.raises(reader.WeightsError, match=r"block\.weight.*_rebuild_sparse_tensor"):
        reader.read(path)


@pytest.mark.parametrize("dtype", ["f4", "f8", "f2", "i8", "i4", "i2", "i1", "u1", "?", "bfloat16"])
def test_types(tmp_path, dtype):
    weights, path = TorchFile(), tmp_path / "w.pth"
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    value = np.array([[0, 1, 2], [3, 4, 5]]).astype(kind)
    weights.write(path, {"w": weights.tensor(value)})
    found = reader.read(path)["w"]
    assert found.dtype == kind
    np.testing.assert_array_equal(found, value)
    assert not found.flags.writeable


@pytest.mark.parametrize(
    ("size", "stride", "offset", "message"),
    [
        ((4,), (1,), 0, "beyond a storage of 3 values"),
        ((3,), (1,), 1, "beyond a storage"),
        ((2, 2), (3, 1), 0, "beyond a storage"),
        ((100,), (0,), 0, "beyond a storage"),
        ((3,), (-1,), 2, "integers ≥ 0"),
        ((-3,), (1,), 0, "integers ≥ 0"),
        ((3,), (1, 1), 0, "tensor w"),
        ((3.0,), (1,), 0, "integers ≥ 0"),
    ],
)
def test_a_tensor_beyond_its_storage_is_refused(tmp_path, size, stride, offset, message):
    weights, path = TorchFile(), tmp_path / "w.pth"
    view = weights.tensor(np.ones(3, np.float32), size=size, stride=stride, offset=offset)
    weights.write(path, {"w": view})
    with pytest.raises(reader.WeightsError, match=message):
        reader.read(path)


def test_damage_is_found(lightning, tmp_path):
    data = bytearray(lightning.read_bytes())
    with zipfile.ZipFile(lightning) as archive:
        at = archive.getinfo("lightning_like/data/1").header_offset
    data[at + 4000] ^= 1
    path = tmp_path / "damaged.ckpt"
    path.write_bytes(data)
    with pytest.raises(reader.WeightsError, match=r"damaged\.ckpt: member data/1 is damaged"):
        reader.read(path)


@pytest.mark.parametrize("length", [0, 3, 9, 100, 5000])
def test_a_truncated_file_is_one_clear_line(lightning, tmp_path, length):
    path = tmp_path / "cut.ckpt"
    path.write_bytes(lightning.read_bytes()[:length])
    with pytest.raises(reader.WeightsError, match=r"cut\.ckpt.*expected") as caught:
        reader.read(path)
    assert "\n" not in str(caught.value)


def test_compressed_and_foreign_archives(tmp_path):
    path = tmp_path / "w.ckpt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w/data.pkl", pickle.dumps({}, protocol=2))
    with pytest.raises(reader.WeightsError, match=r"stored, got a compressed data\.pkl"):
        reader.read(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(reader.WeightsError, match=r"one data\.pkl, got 0"):
        reader.read(path)


def test_not_weights_at_all(tmp_path):
    path = tmp_path / "notes.ckpt"
    path.write_text("these are notes and no weights")
    with pytest.raises(reader.WeightsError, match="expected safetensors or a torch file"):
        reader.read(path)
    with pytest.raises(reader.WeightsError, match="no such file of weights"):
        reader.read(tmp_path / "nothing.ckpt")
    (tmp_path / "more.ckpt").write_text("two of which one must be chosen")
    expected = r"expected one of model\.safetensors.* got more\.ckpt, notes\.ckpt"
    with pytest.raises(reader.WeightsError, match=expected):
        reader.read(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(reader.WeightsError, match="another name, got nothing"):
        reader.read(tmp_path / "empty")


def test_of_a_folder_safetensors_are_read_first_and_code_never(tmp_path, caplog):
    values = {}

    def put(name):
        values[name] = float(len(values))
        safetensors.numpy.save_file({"a": np.full(2, values[name])}, tmp_path / name)

    # Each is read where all before it are there too.
    order = ("x.ckpt", "x.safetensors", "pytorch_model.bin", "model.safetensors")
    for name in order:
        put(name)
        assert reader.read(tmp_path)["a"][0] == values[name]
    (tmp_path / "pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "gone.bin"}}')
    (tmp_path / "flax_model.msgpack.index.json").write_text("{}")
    assert reader.read(tmp_path)["a"][0] == values["model.safetensors"]
    assert caplog.records == []
    (tmp_path / "model.py").write_text("raise SystemExit")
    reader.read(tmp_path)
    (record,) = caplog.records
    assert record.getMessage() == (
        f"{tmp_path}: code in the folder is ignored and never run (model.py)"
    )


def test_safetensors_with_bfloat16(tmp_path):
    tensors = {"a": np.ones((2, 3), ml_dtypes.bfloat16), "b": np.arange(4, dtype=np.float16)}
    safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors")
    found = reader.read(tmp_path)
    assert {k: v.dtype for k, v in found.items()} == {k: v.dtype for k, v in tensors.items()}
    np.testing.assert_array_equal(found["b"], tensors["b"])


def sharded(folder):
    safetensors.numpy.save_file({"a": np.ones(2)}, folder / "m-1-of-2.safetensors")
    weights = TorchFile()
    weights.write(folder / "m-2-of-2.bin", {"b": weights.tensor(np.zeros(3, np.float32))})
    placed = {"a": "m-1-of-2.safetensors", "b": "m-2-of-2.bin"}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    return index


def test_shards(tmp_path):
    index = sharded(tmp_path)
    assert set(reader.read(index)) == set(reader.read(tmp_path)) == {"a", "b"}


def test_half_a_shard_set(tmp_path):
    index = sharded(tmp_path)
    (tmp_path / "m-2-of-2.bin").unlink()
    with pytest.raises(reader.WeightsError, match=r"2 shards expected, missing m-2-of-2\.bin"):
        reader.read(index)


def test_an_index_that_promises_too_much(tmp_path):
    index = sharded(tmp_path)
    told = json.loads(index.read_text())
    told["weight_map"]["c"] = "m-1-of-2.safetensors"
    index.write_text(json.dumps(told))
    with pytest.raises(reader.WeightsError, match="shards lack 1 tensors, first c"):
        reader.read(index)
    index.write_text("{]")
    with pytest.raises(reader.WeightsError, match="expected an index with a weight_map"):
        reader.read(index)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Some bytes changed, or a piece cut out, doubled or moved."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at, length = rng.randrange(len(data)), rng.choice((1, 1, 2, 8, 64))
        kind = rng.randrange(5)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at : at + length] = rng.randbytes(length)
        elif kind == 2:
            del data[at : at + length]
        elif kind == 3:
            data[at:at] = data[at : at + length]
        else:
            data[at : at + length] = bytes(len(data[at : at + length]))
    return bytes(data)


def repacked(data: bytes, pickled: bytes) -> bytes:
    """The archive with another pickle and right checksums: only the pickle can complain."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for info in old.infolist():
            content = old.read(info)
            new.writestr(info.filename, pickled if info.filename.endswith("data.pkl") else content)
    return out.getvalue()


def outcome(path) -> tuple[str | None, dict]:
    """The refusal, or the tensors; any other error is the caller's."""
    try:
        return None, reader.read(path)
    except reader.WeightsError as error:
        return str(error), {}


def test_thousands_of_mutated_files_give_clean_errors(lightning, golden_path, tmp_path):
    """Half mutate a whole file, half only the instructions inside."""
    whole = lightning.read_bytes()
    with zipfile.ZipFile(lightning) as archive:
        instructions = archive.read("lightning_like/data.pkl")
    tensors = safetensors.numpy.save(
        {"a": np.ones((4, 4), np.float32), "b": np.zeros(3, np.float16)}
    )
    rng, path, refused = random.Random(0), tmp_path / "mutated", 0
    for i in range(FUZZED):
        if i % 4 == 0:
            path.write_bytes(mutated(tensors, rng))
        elif i % 4 == 1:
            path.write_bytes(mutated(whole, rng))
        else:
            path.write_bytes(repacked(whole, mutated(instructions, rng)))
        refusal, found = outcome(path)
        refused += refusal is not None
        assert refusal is None or str(path) in refusal
        assert all(isinstance(value, np.ndarray) for value in found.values())
        assert sum(value.nbytes for value in found.values()) < 1 << 20
    # Some mutations hit what nothing reads; most must be noticed.
    assert refused > FUZZED // 2


def test_refused_instructions(tmp_path):
    path = tmp_path / "w.ckpt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w/data.pkl", pickle.dumps({"w": bytearray(10)}, protocol=5))
    with pytest.raises(torch_zip.WeightsError, match="BYTEARRAY8"):
        reader.read(path)
