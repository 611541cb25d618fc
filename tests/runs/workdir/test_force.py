"""What is made anew is made beside the old, which stays whole until it is replaced."""

import dataclasses
import json
import logging
import os
import pathlib
import shutil
import types

import pytest

from ssldiff_jax.runs import runner, stage
from ssldiff_jax.runs.workdir import force as anew
from tests.runs import test_runner

Section = test_runner.Section
ALL = ("first", "second", "third")


class Work(test_runner.Work):
    """Its stages also write a checkpoint that tells the size they were made with."""

    def __init__(self, workdir, bucket=None):
        super().__init__(workdir)
        self.runtime = types.SimpleNamespace(checkpoints=str(bucket or ""))

    def context(self, **sections):
        return super().context(**{"runtime": self.runtime, **sections})

    def work(self, name):
        run = super().work(name)

        def run_and_save(context):
            saved = context.folders.checkpoints(name)
            saved.mkdir(parents=True, exist_ok=True)
            (saved / "weights").write_text(str(getattr(context.config, name).size))
            return run(context)

        return run_and_save

    def weights(self, name):
        return (self.context().folders.checkpoints(name) / "weights").read_text()

    def cut_off(self, name, **settings):
        self.broken = {name}
        with pytest.raises(KeyboardInterrupt):
            self.run(**settings)
        self.broken = set()


@pytest.fixture
def work(tmp_path):
    return Work(tmp_path / "run")


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_failure_leaves_the_old_one_byte_for_byte(work):
    work.run()
    before = contents(work.workdir / "second")
    work.cut_off("second", force=["second"], second=Section(size=9))
    assert contents(work.workdir / "second") == before
    assert work.run() == []


def test_what_is_asked_but_cannot_be_read_is_missed_before_anything_is_written(work):
    work.run()
    before = contents(work.workdir)

    def missing(config):
        raise ValueError("no such file: slide.svs")

    work.table["first"] = dataclasses.replace(work.table["first"], inputs=missing)
    with pytest.raises(ValueError, match="no such file"):
        runner.check(work.table, work.context(), ["first"], {"first"})
    with pytest.raises(ValueError, match="no such file"):
        work.run(["first"], force=["first"])
    assert contents(work.workdir) == before


def test_the_same_command_goes_on_with_what_was_begun_beside(work):
    work.run()
    asked = {"chosen": ["second"], "force": ["second"], "second": Section(size=9)}
    work.cut_off("second", **asked)
    assert work.run(**asked) == ["second"]
    assert work.done("second")["facts"] == {"length": 2}
    assert work.weights("second") == "9"
    assert not list(work.workdir.glob(".second.*"))
    # When it has ended the same flags make it anew once more.
    assert work.run(**asked) == ["second"]
    assert work.done("second")["facts"] == {"length": 1}


def test_checkpoints_begun_beside_for_another_config_are_kept(work, caplog):
    work.run()
    work.cut_off("second", chosen=["second"], force=["second"], second=Section(size=9))
    work.run(["second"], force=["second"], second=Section(size=5))
    assert work.done("second")["facts"] == {"length": 1}
    assert work.weights("second") == "5"
    kept = work.workdir / anew.EARLIER / "second-1" / "checkpoints" / "weights"
    assert kept.read_text() == "9"
    assert "second.size: 9 → 5" in caplog.text


def test_stages_downstream_read_the_old_one_until_the_new_is_whole(work):
    work.run()
    seen = []
    inner = work.table["first"].run

    def run(context):
        facts = inner(context)
        seen.append(work.weights("first"))
        assert work.run(["third"], third=Section()) == []
        return facts

    work.table["first"] = dataclasses.replace(work.table["first"], run=run)
    work.run(["first"], force=["first"], first=Section(size=4))
    assert seen == ["3"]
    assert work.weights("first") == "4"
    with pytest.raises(stage.WorkdirError, match=r"'second'.*an earlier stage was rebuilt"):
        work.run(first=Section(size=4))


def test_a_command_that_was_cut_off_does_not_repeat_what_it_made(work, caplog):
    work.run()
    asked = {"force": ["first", "second", "third"], "first": Section(size=4)}
    work.cut_off("second", **asked)
    assert work.weights("first") == "4"
    with caplog.at_level(logging.INFO, "ssldiff_jax"):
        assert work.run(**asked) == ["second", "third"]
    assert "first was already rebuilt before this command was interrupted" in caplog.text
    assert work.run(**asked) == list(ALL)


def test_a_job_that_the_cluster_starts_again_makes_nothing_twice(work, monkeypatch):
    work.run()
    asked = {"chosen": ["first"], "force": ["first"]}
    work.cut_off("first", **asked)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert work.run(**asked) == ["first"]
    assert work.done("first")["facts"] == {"length": 2}
    assert work.run(**asked) == []
    monkeypatch.setenv("SLURM_RESTART_COUNT", "0")
    assert work.run(**asked) == ["first"]


class Crash(BaseException):
    """The process ends here."""


def crash_at(monkeypatch, moment):
    """Let the process end before the file system changes for the `moment`-th time; deleting a
    folder is two changes."""
    count = iter(range(10_000))

    def tick():
        if next(count) == moment:
            raise Crash

    def before(original):
        def call(*args, **kwargs):
            tick()
            return original(*args, **kwargs)

        return call

    rmtree = shutil.rmtree

    def delete(folder, *args, **kwargs):
        tick()
        for path in sorted(pathlib.Path(folder).rglob("*.json")):
            path.unlink()
        tick()
        rmtree(folder, *args, **kwargs)

    monkeypatch.setattr(shutil, "rmtree", delete)
    for where, name in ((pathlib.Path, "rename"), (pathlib.Path, "mkdir"), (os, "replace")):
        monkeypatch.setattr(where, name, before(getattr(where, name)))


@pytest.mark.parametrize("has_bucket", [False, True])
def test_a_crash_at_any_moment_leaves_the_old_or_the_new_whole(tmp_path, monkeypatch, has_bucket):
    sizes, moment = [], 0
    asked = {"chosen": ["second"], "force": ["second"], "second": Section(size=9)}
    while True:
        root = tmp_path / str(moment)
        bucket = root / "bucket" if has_bucket else None
        work = Work(root / "run", bucket)
        work.run()
        with monkeypatch.context() as patch:
            crash_at(patch, moment)
            try:
                work.run(**asked)
                crashed = False
            except Crash:
                crashed = True
        anew.recover(work.table, work.context().folders)
        size = work.weights("second")
        sizes.append(size)
        wanted = json.loads((work.workdir / "second" / "stage.json").read_text())["config"]
        assert str(wanted["second.size"]) == size
        assert work.done("second")
        assert (work.workdir / "second" / "part").read_text() == "+"
        assert work.run(["second"], second=Section(size=int(size))) == []
        # The same command brings it to its end, with nothing left beside.
        again = work.run(**asked)
        assert again == (["second"] if size == "3" or not crashed else [])
        assert work.weights("second") == "9"
        assert not list(work.workdir.glob(".second.*"))
        if has_bucket:
            assert len([path for path in bucket.iterdir() if "second" in path.name]) == 1
        if not crashed:
            break
        moment += 1
    assert moment > 8
    assert sizes == sorted(sizes)
    assert set(sizes) == {"3", "9"}


def test_checkpoints_in_a_bucket_are_made_beside(tmp_path):
    work = Work(tmp_path / "run", tmp_path / "bucket")
    work.run()
    assert work.context().folders.checkpoints("second").name == "second"
    work.cut_off("second", chosen=["second"], force=["second"], second=Section(size=9))
    assert work.weights("second") == "3"
    work.run(["second"], force=["second"], second=Section(size=9))
    assert work.weights("second") == "9"
    assert not (tmp_path / "bucket" / "second").exists()


def test_a_linked_folder_is_replaced_and_not_emptied(work, tmp_path):
    work.run()
    elsewhere = tmp_path / "disk"
    (work.workdir / "second").rename(elsewhere)
    (work.workdir / "second").symlink_to(elsewhere)
    before = contents(elsewhere)
    work.run(["second"], force=["second"], second=Section(size=9))
    assert contents(elsewhere) == before
    assert work.weights("second") == "9"


def tool(work, name="third", **settings):
    work.table[name] = dataclasses.replace(work.table[name], tool=True, **settings)


def test_a_tool_keeps_what_it_made_of_another_request(work):
    tool(work, always=True)
    for size in (3, 4, 4, 5):
        assert work.run(third=Section(size=size))[-1] == "third"
    kept = sorted((work.workdir / anew.EARLIER).iterdir())
    assert [(path / "checkpoints" / "weights").read_text() for path in kept] == ["3", "4"]
    assert work.weights("third") == "5"


def test_a_tool_that_fails_leaves_its_last_result(work):
    tool(work, always=True)
    work.run()
    before = contents(work.workdir / "third")
    work.cut_off("third", chosen=["third"])
    assert contents(work.workdir / "third") == before


def test_what_only_tells_writes_nothing(work):
    work.run()
    before = contents(work.workdir)
    told = []

    def run(context):
        (context.folder("third") / "grid.npy").write_text("made on the way")
        told.append(context.config.third.size)

    tool(work, run=run, is_dry_run=lambda config: config.third.rate == 0)
    for force in ((), ("third",)):
        work.run(["third"], force=force, third=Section(size=7, rate=0))
    assert told == [7, 7]
    assert contents(work.workdir) == before


def test_what_is_found_to_be_wrong_is_kept_and_raised(work):
    def run(context):
        (context.folder("third") / "results.json").write_text("2 are damaged")
        raise stage.FoundError("2 are damaged", {"damaged": 2})

    tool(work, run=run, always=True)
    with pytest.raises(stage.FoundError, match="2 are damaged"):
        work.run()
    assert work.done("third")["facts"] == {"damaged": 2}
    assert (work.workdir / "third" / "results.json").exists()
