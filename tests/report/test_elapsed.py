"""Whole seconds and memory of stages against a count of every moment."""

import numpy as np
import pytest

from ssldiff_jax.report import elapsed


def random_spans(seed, count):
    draw = np.random.default_rng(seed)
    begins, lengths = draw.integers(0, 30, count), draw.integers(1, 9, count)
    peaks = draw.integers(1, 50, count)
    return [
        elapsed.Span(float(b), float(b + n), float(p))
        for b, n, p in zip(begins, lengths, peaks, strict=True)
    ]


@pytest.mark.parametrize(("seed", "count"), [(0, 0), (1, 1), (2, 4), (3, 9), (4, 30)])
def test_seconds_and_peak_are_those_of_every_moment(seed, count):
    spans = random_spans(seed, count)
    held = [sum(s.peak for s in spans if s.begin <= t < s.end) for t in range(40)]
    assert elapsed.seconds(spans) == sum(held_now > 0 for held_now in held)
    assert elapsed.peak(spans) == max(held)


def test_seconds_of_stages_one_after_another_are_their_sum():
    spans = [elapsed.Span(t, t + 5.0, 7.0) for t in (0.0, 5.0, 12.0)]
    assert elapsed.seconds(spans) == 15
    assert elapsed.peak(spans) == 7


@pytest.mark.parametrize("zone", ["+00:00", "+0000", "+05:30"])
def test_a_span_ends_when_its_stage_finished(zone):
    done = {"finished": f"2026-11-28T12:00:10{zone}", "seconds": 4.5, "peak_rss_mb": 3}
    later = done | {"finished": f"2026-11-28T12:00:11.250{zone}"}
    one, other = elapsed.Span.of(done), elapsed.Span.of(later)
    assert (one.end - one.begin, one.peak) == (4.5, 3)
    assert other.end - one.end == 1.25
