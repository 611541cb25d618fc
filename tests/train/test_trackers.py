"""Weights & Biases and MLflow, by their own readers; each test is skipped where its package is not
installed. Neither reaches a network."""

import importlib.util
import json
import pathlib
import socket
import struct
import time

import numpy as np
import pytest
from PIL import Image

from ssldiff_jax.train import boards

PICTURE = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
VALUES = {"denoiser.train.batch_size": 16, "denoiser.unet.channel_mult": [1, 3], "seed": 7}


def config(to, **changes):
    values = {"looks": 1, "project": "slides", "wandb_mode": "offline", "mlflow_uri": ""}
    return boards.LoggingConfig(to=to, **values | changes)


@pytest.fixture
def about(tmp_path):
    folder = tmp_path / "mine" / "denoiser"
    folder.mkdir(parents=True)
    return boards.About("denoiser", folder.parent, folder, VALUES)


@pytest.fixture(autouse=True)
def without_network(monkeypatch):
    """Addresses of other machines are refused; sockets of this one stay."""
    connect = socket.socket.connect

    def refuse(self, address):
        is_here = isinstance(address, str) or address[0] in ("127.0.0.1", "::1", "localhost")
        assert is_here, f"reached for {address}"
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", refuse)


def train(to, about, steps, **changes):
    """Figures and a picture of some steps, as a training gives them, and its end."""
    (board,) = boards.opened(config(to, **changes), about)
    assert board._board is not None  # else the warning says why
    for step in steps:
        board.write(step, {"loss": 1 / step, "learning_rate": 0.5})
    board.show(steps[-1], "variations", PICTURE)
    board.close()
    assert board._board is not None


def test_names_of_trackers_are_checked():
    assert config("").trackers == ()
    assert config("wandb, mlflow").trackers == ("wandb", "mlflow")
    with pytest.raises(ValueError, match="must name some of wandb, mlflow, got 'tensorflow'"):
        config("tensorflow")


def test_a_tracker_that_is_not_installed_is_told_with_what_installs_it(monkeypatch):
    there = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "wandb" else there(name)
    )
    assert list(config("").missing()) == []
    line = next(iter(config("wandb").missing()))
    assert line == (
        "config.logging.to=wandb expects the package wandb, got none: pip install wandb"
    )


def test_mlflow_has_what_was_written_and_a_resumed_run_goes_on(about):
    mlflow = pytest.importorskip("mlflow")
    train("mlflow", about, [2, 4])
    train("mlflow", about, [4, 6])
    uri = f"sqlite:///{about.workdir / 'mlflow.db'}"
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("slides")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "mine/denoiser"
    assert run.info.status == "FINISHED"
    assert run.data.params == {key: str(value) for key, value in VALUES.items()}
    history = client.get_metric_history(run.info.run_id, "loss")
    assert {(m.step, m.value) for m in history} == {(2, 1 / 2), (4, 1 / 4), (6, 1 / 6)}
    # Beside the run, whatever the folder of the command.
    found = sorted((about.workdir / "mlartifacts").rglob("*.png"))
    assert [path.name for path in found] == ["00000004.png", "00000006.png"]
    np.testing.assert_array_equal(np.asarray(Image.open(found[0])), PICTURE)


def test_mlflow_may_be_another_store(about, tmp_path):
    mlflow = pytest.importorskip("mlflow")
    uri = f"sqlite:///{tmp_path / 'all.db'}"
    train("mlflow", about, [2], mlflow_uri=uri)
    assert mlflow.MlflowClient(tracking_uri=uri).get_experiment_by_name("slides") is not None
    assert not (about.workdir / "mlflow.db").exists()
    # Pictures never lie in the folder of the command.
    assert len(list((tmp_path / "mlartifacts").rglob("*.png"))) == 1


BLOCK, HEAD = 32768, struct.Struct("<IHB")


def records(path):
    """What an offline run of wandb holds: messages in a log as LevelDB writes it, in parts that
    lie within blocks, each after its check, its length and whether it is whole (1) or the first,
    a middle or the last of one (2, 3, 4)."""
    from wandb.proto import wandb_internal_pb2

    data, message = path.read_bytes(), b""
    assert data[:4] == b":W&B"
    at = 7
    while at + HEAD.size <= len(data):
        if BLOCK - at % BLOCK < HEAD.size:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = HEAD.unpack_from(data, at)
        at += HEAD.size
        message += data[at : at + length]
        at += length
        if kind in (1, 4):
            yield wandb_internal_pb2.Record.FromString(message)
            message = b""


def wait_for(condition):
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)


def history(path):
    """Of every step that was logged: name → value as JSON has it."""
    for record in records(path):
        if record.HasField("history"):
            yield {
                ".".join(item.nested_key) or item.key: json.loads(item.value_json)
                for item in record.history.item
            }


def test_wandb_has_what_was_written_and_a_resumed_run_goes_on(about):
    pytest.importorskip("wandb")
    train("wandb", about, [2, 4])
    train("wandb", about, [4, 6])
    files = sorted(about.workdir.glob("wandb/offline-run-*/run-*.wandb"))
    assert len(files) == 2
    for path in files:
        # A process of wandb's own writes it, and is a moment late.
        wait_for(lambda path=path: any(r.HasField("exit") for r in records(path)))
    begun = [next(r.run for r in records(path) if r.HasField("run")) for path in files]
    # One run, of which each file has a part.
    assert len({run.run_id for run in begun}) == 1
    assert {(run.project, run.display_name, run.run_group, run.job_type) for run in begun} == {
        ("slides", "mine/denoiser", "mine", "denoiser")
    }
    keys = {item.key: item.value_json for item in begun[0].config.update}
    assert keys["denoiser.train.batch_size"] == "16"
    rows = [row for path in files for row in history(path)]
    losses = [(row["step"], row["loss"]) for row in rows if "loss" in row]
    assert losses == [(2, 1 / 2), (4, 1 / 4), (4, 1 / 4), (6, 1 / 6)]
    shown = [row for row in rows if any(key.startswith("variations") for key in row)]
    assert [row["step"] for row in shown] == [4, 6]
    pictures = [p for path in files for p in path.parent.rglob("*.png")]
    assert len(pictures) == 2
    np.testing.assert_array_equal(np.asarray(Image.open(pictures[0])), PICTURE)


def test_a_store_that_is_no_database_stops_nothing(about, caplog):
    pytest.importorskip("mlflow")
    (about.workdir / "mlflow.db").write_text("no database")
    (board,) = boards.opened(config("mlflow"), about)
    board.write(1, {"loss": 1.0})
    board.close()
    (line,) = [m for m in caplog.messages if m.startswith("mlflow gets nothing more")]
    assert pathlib.Path(about.folder / "logging.json").exists() is False
    assert "\n" not in line
