"""Rate and time left, by a clock that is set by hand."""

import logging
import re

import pytest

from ssldiff_jax.train import logs


class Run:
    """A progress whose every step takes as long as it is told."""

    def __init__(self, caplog, total, **kwargs):
        caplog.set_level(logging.INFO, "ssldiff_jax")
        self.now, self._log = 0.0, caplog
        self.progress = logs.Progress("x", total, clock=lambda: self.now, interval=0, **kwargs)

    def steps(self, count, seconds):
        for _ in range(count):
            self.now += seconds
            self.progress.update()
        return self._log.messages[-1]


@pytest.fixture
def run(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("ssldiff_jax"), "propagate", True)
    return lambda total, **kwargs: Run(caplog, total, **kwargs)


def test_what_the_first_step_takes_to_compile_is_left_out(run):
    training = run(1_000)
    assert training.steps(1, 900.0) == "x 1/1000  "
    assert training.steps(10, 2.0) == "x 11/1000  0.5/s  00:32:58 left"


def test_steps_before_a_resume_are_left_out(run):
    training = run(1_000, start=800)
    training.steps(1, 60.0)
    assert training.steps(5, 4.0) == "x 806/1000  0.25/s  00:12:56 left"


def test_weeks_are_shown_as_days(run):
    training = run(500_001)
    training.steps(1, 60.0)
    line = training.steps(100, 3.0)
    assert line.endswith("17 d 08:35:00 left")
    # 499,900 steps of 3 s.
    assert 17 * 86_400 + 8 * 3600 + 35 * 60 == 3 * 499_900


def test_the_rate_is_of_the_last_ten_minutes(run):
    training = run(100_000)
    training.steps(1_000, 1.0)
    line = training.steps(200, 5.0)
    assert "  0.2/s  " in line
    half = training.steps(300, 1.0)  # of ten minutes, five at either rate
    rate = float(re.search(r"([\d.]+)/s", half)[1])
    assert rate == pytest.approx((300 + 60) / 600, rel=0.02)


def test_steps_that_come_at_once_count_over_the_time_between(run):
    """Devices work behind: hundred steps are given out in an instant, then waited for."""
    training = run(10_000)
    training.steps(1, 30.0)
    for _ in range(20):
        training.steps(99, 0.0)
        line = training.steps(1, 50.0)
    assert "  2/s  " in line


def test_the_last_note_is_kept(run):
    training = run(10)
    training.progress.update(0, "loss 3")
    training.steps(1, 1.0)
    assert training.steps(1, 1.0) == "x 2/10  1/s  00:00:08 left  loss 3"


def test_a_line_that_was_cut_off_is_not_gone_on_with(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    writer = logs.MetricsWriter(tmp_path)
    writer.write(2, {"loss": 1.5})
    writer.close()
    assert path.read_text() == '{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.5}\n'
