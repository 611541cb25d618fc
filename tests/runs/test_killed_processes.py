"""Of two processes one is killed, in a training and while shards are written: the other ends, the
same command resumes, and all outputs are those of a run that was left alone."""

import logging
import threading

import jax
import kill_often
import pytest
import same_outputs

from ssldiff_jax import main

STAGES = "--config.stages=patches,encoder,embeddings"


def test_every_step_gets_its_kills():
    steps = list("abcde")
    for count in (3, 5, 12):
        kills = kill_often.plan(steps, count, 3, seed=count)
        counts = [sum(kill.step == step for kill in kills) for step in steps]
        assert sum(counts) == count
        assert max(counts) - min(counts) <= 1
        assert [kill.step for kill in kills] == sorted(kill.step for kill in kills)
        assert all(0 <= kill.part < 1 and 0 <= kill.process < 3 for kill in kills)
        assert kills == kill_often.plan(steps, count, 3, seed=count)
    assert kill_often.plan(steps, 5, 3, seed=1) != kill_often.plan(steps, 5, 3, seed=2)


@pytest.mark.slow
@pytest.mark.e2e
def test_the_other_ends_and_nothing_is_lost(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    flags = lambda name: ["--config=configs/tiny.py", f"--workdir={tmp_path / name}", STAGES]
    kill_often.run_whole(flags("whole"), 2)
    for kill in (kill_often.Kill("encoder", 0.7, 1), kill_often.Kill("embeddings", 0.1, 0)):
        outcome = kill_often.kill_once(flags("killed"), 2, kill, seconds=2.0)
        assert not outcome.failure, outcome.line
    kill_often.run_whole(flags("killed"), 2)
    assert same_outputs.differences(tmp_path / "whole", tmp_path / "killed") == []


@pytest.mark.parametrize("how", ["auto", "given"])
def test_processes_that_do_not_begin_are_waited_for_aloud(monkeypatch, caplog, how):
    environment = {"COORDINATOR_ADDRESS": "x:1", "NUM_PROCESSES": "4", "PROCESS_ID": "0"}
    for name, value in environment.items():
        monkeypatch.setenv(f"JAX_{name}", value)
    said = threading.Event()
    caplog.handler.addFilter(lambda record: said.set() or True)
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_: said.wait(60))
    monkeypatch.setattr(main, "_JOIN_S", 0.01)
    with caplog.at_level(logging.WARNING, "ssldiff_jax"):
        main._join_hosts(how)
    (line,) = (record.getMessage() for record in caplog.records)
    count = "all" if how == "auto" else "4"
    assert line.startswith(f"waits for {count} processes of this run to begin")
    # Those that come in time are not waited for.
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_: None)
    monkeypatch.setattr(main, "_JOIN_S", 3600.0)
    main._join_hosts(how)
    assert len(caplog.records) == 1
