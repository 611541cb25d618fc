"""Of two processes one is killed, in a training and while shards are written: the other ends, the
same command resumes, and all outputs are those of a run that was left alone."""

import kill_often
import pytest
import same_outputs

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
