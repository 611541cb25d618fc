"""Chunks of windows: every window once, all chunks of one size."""

import itertools

import numpy as np
import pytest

from ssldiff_jax.sampler import chunks, field, windows

WINDOW = 8


@pytest.mark.parametrize("most", [1, 7, 28, 32])
def test_a_half_is_taken_only_where_it_is_enough(most):
    halves = [most]
    while halves[-1] > 1:
        halves.append(-(-halves[-1] // 2))
    for count in range(1, 2 * most + 2):
        enough = [size for size in halves if size >= min(count, most)]
        assert chunks.fitting(most, count) == min(enough)


def chunks_of(canvas, most, mode="overlap", steps=3):
    config = windows.WindowConfig(mode, 5, 3, "tapered", "margin", windows.LastSteps(1, 0.25))
    plan = windows.plan_windows(config, canvas, WINDOW, steps)
    layout = field.Layout(*(size // WINDOW for size in plan.field), WINDOW, field.CanvasConfig(2))
    return chunks.Chunks(plan, layout, most)


@pytest.mark.parametrize("mode", ["overlap", "offset"])
@pytest.mark.parametrize(("canvas", "most"), [((8, 8), 32), ((13, 21), 3), ((40, 29), 7)])
def test_chunks_hold_every_window_of_every_step_once(canvas, most, mode):
    made = chunks_of(canvas, most, mode)
    listed = list(made.after(chunks.START))
    assert len(listed) == made.count
    assert {len(c.numbers) for c in listed} == {made.size}
    for step, of_step in itertools.groupby(listed, key=lambda c: c.step):
        of_step = list(of_step)
        numbers = np.concatenate([c.numbers for c in of_step])
        assert sorted(numbers[numbers >= 0]) == list(range(made.plan.steps[step].count))
        assert [c.ends_step for c in of_step] == [False] * (len(of_step) - 1) + [True]
        assert of_step[-1].reached == (step + 1, 0)


def test_what_is_left_begins_where_a_run_stands():
    made = chunks_of((40, 29), 7)
    listed = list(made.after(chunks.START))
    for done, chunk in enumerate(listed, start=1):
        assert made.before(chunk.reached) == done
        left = list(made.after(chunk.reached))
        assert [c.reached for c in left] == [c.reached for c in listed[done:]]
