"""Seconds over processes, by a clock that is set by hand."""

import json
import time

import pytest

from ssldiff_jax.train import stopwatch


class Clock:
    def __init__(self):
        self.time = 1000.0

    def __call__(self):
        return self.time


@pytest.fixture
def clock():
    return Clock()


def test_seconds_add_up_over_processes_and_not_over_the_time_between(tmp_path, clock):
    path = tmp_path / "seconds.json"
    for total, seconds in ((30, 30), (75.5, 45.5), (76, 0.5)):
        with stopwatch.Stopwatch(path, now=clock) as watch:
            clock.time += seconds
            assert watch.seconds == total
        clock.time += 10_000
        assert watch.seconds == total
        assert json.loads(path.read_text())["seconds"] == total


def test_the_largest_value_of_any_process_is_kept(tmp_path, clock):
    for value, largest in ((300, 300), (200, 300), (450, 450), (1, 450)):
        peak = lambda value=value: value
        with stopwatch.Stopwatch(tmp_path / "s.json", now=clock, peak=peak) as watch:
            assert watch.peak == largest
        assert watch.peak == largest


def test_a_killed_process_leaves_what_it_wrote_last(tmp_path, clock):
    watch = stopwatch.Stopwatch(tmp_path / "seconds.json", now=clock)
    with watch:
        clock.time += 20
        watch.save()
        left = (tmp_path / "seconds.json").read_bytes()
        clock.time += 5
    (tmp_path / "seconds.json").write_bytes(left)
    assert stopwatch.Stopwatch(tmp_path / "seconds.json", now=clock).seconds == 20


def test_it_writes_itself_down_while_it_runs(tmp_path, clock, monkeypatch):
    monkeypatch.setattr(stopwatch, "_EVERY", 0.0)
    path, until = tmp_path / "seconds.json", time.monotonic() + 600
    with stopwatch.Stopwatch(path, now=clock):
        clock.time += 3
        while not path.exists() or json.loads(path.read_text())["seconds"] != 3:
            assert time.monotonic() < until


def test_an_error_passes_and_counts(tmp_path, clock):
    def fail():
        with stopwatch.Stopwatch(tmp_path / "s.json", now=clock):
            clock.time += 7
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert stopwatch.Stopwatch(tmp_path / "s.json", now=clock).seconds == 7


def test_a_folder_that_is_gone_or_none_is_no_error(tmp_path, clock):
    for path in (None, tmp_path / "gone" / "seconds.json"):
        with stopwatch.Stopwatch(path, now=clock) as watch:
            clock.time += 2
        assert watch.seconds == 2
    assert not (tmp_path / "gone").exists()
