"""Weights by the address of a repository, read by the library of the real Hub from one on this
machine."""

import importlib.abc
import json
import logging
import os
import pathlib
import pickle
import subprocess
import sys

import local_hub
import numpy as np
import pytest
import safetensors.numpy
from torch_writer import TorchFile

from ssldiff_jax.formats import fingerprints, hub, tensors
from ssldiff_jax.formats.torch_zip import WeightsError

huggingface_hub = pytest.importorskip("huggingface_hub")

ROOT = pathlib.Path(__file__).parents[2]
ONES = {"w": np.ones(3, np.float32)}
SAFE = safetensors.numpy.save(ONES)


@pytest.fixture(scope="module")
def served():
    with local_hub.serving() as server:
        yield server


@pytest.fixture
def there(served, tmp_path, monkeypatch):
    """An empty Hub, an empty cache."""
    for known in (served.commits, served.refs, served.gated, served.private, served.asked):
        known.clear()
    served.status = None
    with local_hub.asked(served, tmp_path / "cache", monkeypatch) as server:
        yield server


def torch_file(tmp_path, value):
    weights, path = TorchFile(), tmp_path / "w.bin"
    weights.write(path, {"w": weights.tensor(np.full(3, value, np.float32))})
    return path.read_bytes()


def line(address):
    with pytest.raises(WeightsError) as caught:
        tensors.read(address)
    (text,) = str(caught.value).splitlines()
    return text


@pytest.mark.parametrize(
    ("text", "repo", "revision", "path"),
    [
        ("hf://org/name", "org/name", "main", ""),
        ("hf://org/name/", "org/name", "main", ""),
        ("hf:/org/name/sub/x.ckpt", "org/name", "main", "sub/x.ckpt"),
        ("hf://org/na.me-2@v1.0/transformer", "org/na.me-2", "v1.0", "transformer"),
        ("hf://org/name@refs/pr/3/x.bin", "org/name", "refs/pr/3", "x.bin"),
        ("hf://org/name@a%2Fb", "org/name", "a/b", ""),
    ],
)
def test_addresses_are_taken_apart(text, repo, revision, path):
    for given in (text, pathlib.Path(text)):
        assert hub.is_address(given)
        address = hub.Address.parse(given)
        assert address == hub.Address(repo, revision, path)
        assert hub.Address.parse(str(address)) == address


@pytest.mark.parametrize("text", ["hf://name", "hf://datasets/org/name", "hf://org/na me", "hf:/"])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(WeightsError, match=r"expected the address of a model, hf://org/name\[@"):
        hub.Address.parse(text)


@pytest.mark.parametrize("path", ["weights/hf", "hf", "/hf:/x", "hf:x", "gs://org/name"])
def test_paths_are_themselves(path, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert not hub.is_address(path)
    assert hub.local(path) == pathlib.Path(path)
    assert hub.pinned(path) == path
    assert hub.local("~/w.ckpt") == tmp_path / "w.ckpt"


def test_safetensors_come_before_pickles_and_code_stays_away(there, tmp_path, caplog):
    files = {
        "model.safetensors": SAFE, "pytorch_model.bin": torch_file(tmp_path, 2.0),
        "model.fp16.safetensors": b"other", "config.json": b"{}", "README.md": b"card",
        "modeling.py": b"raise SystemExit('run')", "onnx/model.onnx": b"onnx",
    }  # fmt: skip
    commit = there.push("org/name", files)
    with caplog.at_level(logging.INFO, "ssldiff_jax"):
        found = tensors.read("hf://org/name")
    np.testing.assert_array_equal(found["w"], ONES["w"])
    assert there.brought() == ["README.md", "config.json", "model.safetensors"]
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [
        "hf://org/name: code in the folder is ignored and never run (modeling.py)",
        f"hf://org/name is hf://org/name@{commit}",
    ]
    assert not list(hub.local("hf://org/name").rglob("*.py"))


def test_a_pickle_alone_is_read_and_said(there, tmp_path, caplog):
    there.push("org/name", {"pytorch_model.bin": torch_file(tmp_path, 2.0), "config.json": b"{}"})
    np.testing.assert_array_equal(tensors.read("hf://org/name")["w"], np.full(3, 2.0))
    (message,) = [record.getMessage() for record in caplog.records]
    assert message == (
        "hf://org/name: there are no safetensors; of pytorch_model.bin, a pickle, tensors are read "
        "and nothing is run"
    )


class Attack:
    """What a pickle can ask for."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def test_a_pickle_of_the_hub_runs_nothing(there, tmp_path):
    mark, path, weights = tmp_path / "mark", tmp_path / "attack.bin", TorchFile()
    state = {"w": weights.tensor(np.ones(3, np.float32))}
    weights.write(path, {"state_dict": state, "hook": Attack(mark)})
    there.push("org/name", {"pytorch_model.bin": path.read_bytes()})
    np.testing.assert_array_equal(tensors.read("hf://org/name")["state_dict.w"], np.ones(3))
    there.push("org/bare", {"pytorch_model.bin": pickle.dumps(Attack(mark))})
    assert "hf://org/bare@" in line("hf://org/bare")
    assert not mark.exists()


def test_a_file_is_brought_alone(there):
    there.push("org/name", {"a/x.ckpt": SAFE, "a/y.ckpt": b"", "model.safetensors": b"other"})
    np.testing.assert_array_equal(tensors.read("hf://org/name/a/x.ckpt")["w"], ONES["w"])
    assert there.brought() == ["a/x.ckpt"]


def test_a_folder_without_weights_of_its_own_brings_those_below(there):
    name = "diffusion_pytorch_model.safetensors"
    zeros = safetensors.numpy.save({"w": np.zeros(3, np.float32)})
    # All of other content: what is alike is fetched once.
    files = {
        "model_index.json": b"{}", "pipeline.py": b"", f"transformer/{name}": SAFE,
        "transformer/config.json": b"[]", f"vae/{name}": zeros, "vae/x.bin": b"pickle",
    }  # fmt: skip
    there.push("org/name", files)
    folder = hub.local("hf://org/name")
    expected = sorted(set(files) - {"pipeline.py", "vae/x.bin"})
    assert there.brought() == expected
    np.testing.assert_array_equal(tensors.read(folder / "vae")["w"], np.zeros(3))
    hub.snapshot.cache_clear()
    tensors.read("hf://org/name/transformer")
    assert there.brought() == []


def sharded(names):
    placed = {name: f"model-0000{i + 1}-of-00002.safetensors" for i, name in enumerate(names)}
    files = {
        file: safetensors.numpy.save({name: np.full(2, i, np.float32)})
        for i, (name, file) in enumerate(placed.items())
    }
    return {"model.safetensors.index.json": json.dumps({"weight_map": placed}).encode(), **files}


@pytest.mark.parametrize("path", ["", "/model.safetensors.index.json"])
def test_shards_are_one_file(there, path):
    there.push("org/name", sharded("ab"))
    found = tensors.read(f"hf://org/name{path}")
    assert {name: value[0] for name, value in found.items()} == {"a": 0, "b": 1}


def test_a_shard_that_is_missing_is_named(there):
    files = sharded("ab")
    del files["model-00002-of-00002.safetensors"]
    commit = there.push("org/name", files)
    assert line("hf://org/name") == (
        f"hf://org/name@{commit}/model.safetensors.index.json: 2 shards expected, missing "
        "model-00002-of-00002.safetensors"
    )


def test_a_revision_is_one_commit_whatever_came_later(there):
    first = there.push("org/name", {"model.safetensors": SAFE}, ref="v1")
    second = safetensors.numpy.save({"w": np.zeros(3, np.float32)})
    there.push("org/name", {"model.safetensors": second})
    for revision in ("v1", first):
        address = f"hf://org/name@{revision}"
        np.testing.assert_array_equal(tensors.read(address)["w"], ONES["w"])
        assert hub.pinned(address) == f"hf://org/name@{first}"
        assert hub.noted(weights=address, other="/a/path") == {"weights": hub.pinned(address)}
    known = [fingerprints.of_path(f"hf://org/name@{name}") for name in ("v1", first, "main")]
    assert known[0] == known[1] != known[2]
    np.testing.assert_array_equal(tensors.read("hf://org/name")["w"], np.zeros(3))


def test_a_branch_that_moves_does_not_move_a_process(there):
    there.push("org/name", {"model.safetensors": SAFE, "README.md": b"a"})
    before = fingerprints.of_path("hf://org/name"), hub.pinned("hf://org/name")
    zeros = safetensors.numpy.save({"w": np.zeros(3, np.float32)})
    there.push("org/name", {"model.safetensors": zeros})
    assert (fingerprints.of_path("hf://org/name"), hub.pinned("hf://org/name")) == before
    hub.snapshot.cache_clear()
    assert fingerprints.of_path("hf://org/name") != before[0]


@pytest.mark.parametrize("copies", [False, True])
def test_a_text_that_was_corrected_makes_no_other_weights(there, copies, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_SYMLINKS", copies)
    files = {"model.safetensors": SAFE, "README.md": b"a", "config.json": b"{}"}
    known, commits = [], []
    for more in ({}, {"README.md": b"better"}, {"config.json": b'{"sizes": 1}'}):
        there.push("org/name", files | more)
        hub.snapshot.cache_clear()
        known.append(fingerprints.of_path("hf://org/name"))
        commits.append(hub.pinned("hf://org/name"))
    assert len(set(commits)) == 3
    assert known[0] == known[1] != known[2]


def offline(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    hub.snapshot.cache_clear()


def gone(there, monkeypatch):
    # A port that nobody listens at.
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    hub.snapshot.cache_clear()


def test_the_cache_serves_without_a_network(there, monkeypatch, caplog):
    files = {"model.safetensors": SAFE, "pytorch_model.bin": b"", "config.json": b"{}"}
    commit = there.push("org/name", files)
    tensors.read("hf://org/name")
    for cut, said in ((lambda: offline(monkeypatch), 0), (lambda: gone(there, monkeypatch), 1)):
        cut()
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", not said)
        caplog.clear()
        there.asked.clear()
        for address in ("hf://org/name", f"hf://org/name@{commit}"):
            np.testing.assert_array_equal(tensors.read(address)["w"], ONES["w"])
        assert there.asked == []
        messages = [record.getMessage() for record in caplog.records]
        assert [m for m in messages if "is taken from the cache: no network" in m] == messages
        assert len(messages) == 2 * said


def test_a_server_that_fails_is_no_network(there):
    there.push("org/name", {"model.safetensors": SAFE})
    tensors.read("hf://org/name")
    hub.snapshot.cache_clear()
    there.status = 500
    np.testing.assert_array_equal(tensors.read("hf://org/name")["w"], ONES["w"])


def test_what_is_not_in_the_cache_is_said(there, monkeypatch, tmp_path):
    there.push("org/name", {"model.safetensors": SAFE, "x.ckpt": SAFE})
    offline(monkeypatch)
    cache = tmp_path / "cache" / "hub"
    assert line("hf://org/name") == (
        f"hf://org/name must be in the cache {cache}, where it is not: HF_HUB_OFFLINE forbids "
        "asking the Hub"
    )
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    gone(there, monkeypatch)
    found = line("hf://org/name")
    assert found.startswith(f"hf://org/name must be in the cache {cache}, where it is not: no netw")
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", there.endpoint)
    tensors.read("hf://org/name")
    offline(monkeypatch)
    # One file of a repository that the cache has in part.
    assert line("hf://org/name/x.ckpt").startswith("hf://org/name has no file or folder 'x.ckpt'")


def test_a_repository_that_is_not_there_or_private(there, monkeypatch):
    for known in (False, True):
        if known:
            monkeypatch.setenv("HF_TOKEN", local_hub.TOKEN)
        assert line("hf://org/none") == (
            f"hf://org/none: no such model at {there.endpoint}/org/none, or a private one: "
            "HF_TOKEN must be a token of an account that may read it"
        )
    monkeypatch.delenv("HF_TOKEN")
    there.push("org/own", {"model.safetensors": SAFE})
    there.private.add("org/own")
    assert "or a private one: HF_TOKEN" in line("hf://org/own")
    monkeypatch.setenv("HF_TOKEN", local_hub.TOKEN)
    np.testing.assert_array_equal(tensors.read("hf://org/own")["w"], ONES["w"])


def test_a_gated_repository_takes_a_token(there, monkeypatch):
    there.push("org/asked", {"model.safetensors": SAFE})
    there.gated.add("org/asked")
    assert line("hf://org/asked") == (
        "hf://org/asked is given to those alone who asked for it: ask on "
        f"{there.endpoint}/org/asked, then set HF_TOKEN to a token of that account"
    )
    monkeypatch.setenv("HF_TOKEN", local_hub.TOKEN)
    np.testing.assert_array_equal(tensors.read("hf://org/asked")["w"], ONES["w"])


def test_a_revision_or_a_file_that_is_not_there(there):
    there.push("org/name", {"model.safetensors": SAFE, "config.json": b"{}"})
    assert line("hf://org/name@v9") == (
        f"hf://org/name@v9: {there.endpoint}/org/name has no branch, tag or commit 'v9'"
    )
    assert line("hf://org/name/vae") == (
        "hf://org/name has no file or folder 'vae'; it has model.safetensors, config.json"
    )


def test_a_folder_without_weights_and_one_with_several(there):
    there.push("org/texts", {"README.md": b"", "model.onnx": b"", "config.json": b"{}"})
    assert line("hf://org/texts") == (
        "hf://org/texts must have weights, safetensors or torch files (.bin, .ckpt, .pt, .pth), "
        "got README.md, model.onnx, config.json"
    )
    there.push("org/several", {"a.ckpt": SAFE, "b.ckpt": SAFE})
    assert line("hf://org/several") == (
        "hf://org/several has several files of weights, of which the address must name one, such "
        "as hf://org/several/a.ckpt; got a.ckpt, b.ckpt"
    )
    assert there.brought() == []


def test_a_name_that_the_library_refuses(there):
    assert line("hf://org/a--b").startswith("hf://org/a--b: expected an answer of ")


def test_without_the_package_one_line_says_what_to_install(monkeypatch):
    class Absent(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] == "huggingface_hub":
                raise ModuleNotFoundError(name)

    for name in [n for n in sys.modules if n.partition(".")[0] == "huggingface_hub"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    hub.snapshot.cache_clear()
    assert line("hf://org/name") == (
        "hf://org/name needs the package huggingface_hub, which is not installed: "
        "pip install huggingface_hub"
    )


def test_paths_need_no_package():
    program = (
        "import sys; from ssldiff_jax.formats import hub, tensors; hub.local('x')\n"
        "assert not [m for m in sys.modules if m.startswith('huggingface_hub')]"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_the_librarys_own_variables_steer_it(served, tmp_path):
    served.status = None
    commit = served.push("org/variables", {"model.safetensors": SAFE})
    served.gated.add("org/variables")
    environment = os.environ | local_hub.environment(served, tmp_path)
    program = "from ssldiff_jax.formats import hub; print(hub.local('hf://org/variables'))"

    def run(**more):
        return subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, env=environment | more,
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    assert "given to those alone who asked for it" in run().stderr
    done = run(HF_TOKEN=local_hub.TOKEN)
    folder = tmp_path / "hub" / "models--org--variables" / "snapshots" / commit
    assert pathlib.Path(done.stdout.strip()) == folder
    assert run(HF_HUB_OFFLINE="1").stdout == done.stdout
