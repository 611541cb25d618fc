"""Embeddings, latents and grids go on at the shard where they were cut off."""

import json

import numpy as np
import pytest

from configs import tiny
from ssldiff_jax.data import store
from ssldiff_jax.runs import amounts, launch
from ssldiff_jax.stages import grids, table


def run(workdir, stages):
    config = tiny.get_config()
    config.stages = stages
    launch.launch(config.to_dict(), workdir, table.STAGES)


def times(folder):
    return {p.name: p.stat().st_mtime_ns for p in folder.glob("*.array_record")}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run before its embeddings."""
    workdir = tmp_path_factory.mktemp("run")
    run(workdir, "patches,encoder,autoencoder")
    return workdir


@pytest.mark.parametrize("name", ["embeddings", "latents"])
def test_a_stage_that_is_cut_off_goes_on_at_the_shard(trained, name, monkeypatch):
    monkeypatch.setattr(store, "SHARD_SIZE", 16)  # of 64 crops
    write, written = store.SharedStore.write, []

    def dies(made, number, *args):
        if number == 2:
            raise KeyboardInterrupt
        written.append(number)
        write(made, number, *args)

    monkeypatch.setattr(store.SharedStore, "write", dies)
    with pytest.raises(KeyboardInterrupt):
        run(trained, name)
    folder = trained / name
    before = times(folder)
    assert (sorted(before), written) == (["00000.array_record", "00001.array_record"], [0, 1])
    monkeypatch.setattr(store.SharedStore, "write", write)
    run(trained, name)
    after = times(folder)
    assert before.items() <= after.items()
    assert len(after) == 4
    values = store.Store(folder)
    assert len(values) == 64

    # As if it had never been cut off: another store, of one shard.
    monkeypatch.setattr(store, "SHARD_SIZE", 4096)
    cut = values.batch(range(64))
    facts = json.loads((folder / "done.json").read_text())["facts"]
    config = tiny.get_config()
    config.stages = config.force = name
    launch.launch(config.to_dict(), trained, table.STAGES)
    whole = store.Store(folder).batch(range(64))
    for field, expected in whole.items():
        np.testing.assert_allclose(cut[field], expected, atol=1e-5)
    again = json.loads((folder / "done.json").read_text())["facts"]
    assert facts.keys() == again.keys()
    for key in ("latent_scale", "effective_rank"):
        if key in facts:
            np.testing.assert_allclose(facts[key], again[key], rtol=1e-5)


def grids_of(folder):
    found = store.Store(folder / "train")
    white = {"whitening": np.load(folder / "whitening.npz")["matrix"]}
    return found.batch(range(len(found))) | white


def test_grids_that_are_cut_off_go_on_at_the_shard(trained, monkeypatch):
    """Cut off once while whitening is measured, and once while grids are stored white."""
    monkeypatch.setattr(amounts, "GRIDS_OF_SHARD", 8)  # of 40 grids, and 8 held-out ones
    monkeypatch.setattr(grids, "_MEASURED", 3)
    write, written = store.SharedStore.write, []

    def dies_at(*places):
        def dies(made, number, *args, **kwargs):
            if (made.folder.name, number) in places:
                raise KeyboardInterrupt
            written.append((made.folder.name, number))
            write(made, number, *args, **kwargs)

        monkeypatch.setattr(store.SharedStore, "write", dies)

    for place in (("raw_train", 1), ("train", 4), ("test", 0)):
        dies_at(place)
        with pytest.raises(KeyboardInterrupt):
            run(trained, "grids")
        # Nothing goes before what takes its place is there.
        assert (trained / "grids" / "raw_train").exists()
    dies_at()
    run(trained, "grids")
    raw, white = [("raw_train", i) for i in range(3)], [("train", i) for i in range(5)]
    assert written == [*raw, *white, ("test", 0)]
    assert not (trained / "grids" / "raw_train").exists()
    cut = grids_of(trained / "grids")
    assert len(cut["grid"]) == 40
    said = json.loads((trained / "grids" / "captions_train.json").read_text())
    assert len(said) == 40

    # Shards that were kept raw are those that are embedded when they are stored.
    config = tiny.get_config()
    config.stages = config.force = "grids"
    launch.launch(config.to_dict(), trained, table.STAGES)
    again = grids_of(trained / "grids")
    for field, expected in again.items():
        np.testing.assert_allclose(cut[field], expected, atol=2e-3, err_msg=field)
