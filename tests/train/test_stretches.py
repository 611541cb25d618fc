"""The learning rate and the examples of a training whose config changed on the way."""

import dataclasses
import itertools
import math

import numpy as np
import pytest

from ssldiff_jax.core import changes
from ssldiff_jax.data import loader, store
from ssldiff_jax.train import loop, optimizer, step, stretches

PLAN = stretches.Plan(0.2, 10, "cosine", 110)
CONSTANT = dataclasses.replace(PLAN, decay="constant")


def cosine(part):
    return 0.1 * (1 + math.cos(math.pi * part))


def rates(past, plan, steps):
    """The rate of every step, that of a changed training from what was planned while it was
    done."""
    until = [0, *(p.until for p in past), steps]
    found = []
    for i, (begin, end) in enumerate(itertools.pairwise(until)):
        schedule = stretches.rate(past[:i], past[i].plan if i < len(past) else plan)
        found += [float(schedule(n)) for n in range(begin, end)]
    return found


def stretch(until, plan, batch_size=4):
    return stretches.Stretch(until, batch_size, plan)


def test_what_is_left_of_a_cosine_runs_over_the_steps_that_are_left():
    longer = dataclasses.replace(PLAN, num_steps=260)
    found = rates((stretch(60, PLAN),), longer, 260)
    wanted = [0.2 * n / 10 for n in range(10)]
    wanted += [cosine((n - 10) / 100) for n in range(10, 60)]
    # Half of the cosine was left after 60 steps; 200 were left to go.
    wanted += [cosine(0.5 + 0.5 * (n - 60) / 200) for n in range(60, 260)]
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_a_cosine_that_is_lengthened_twice_and_cut_stays_continuous():
    ends = (110, 300, 200, 90)
    plans = [dataclasses.replace(PLAN, num_steps=end) for end in ends]
    past = tuple(stretch(until, p) for until, p in zip((30, 50, 70), plans, strict=False))
    found = rates(past, plans[-1], 91)
    part, wanted = 0.2, [cosine((n - 10) / 100) for n in range(10, 30)]
    for (begin, until), end in zip(((30, 50), (50, 70), (70, 91)), ends[1:], strict=True):
        left = 1 - part
        wanted += [cosine(part + left * (n - begin) / (end - begin)) for n in range(begin, until)]
        part += left * (until - begin) / (end - begin)
    np.testing.assert_allclose(found[10:], wanted, atol=1e-6)
    assert found[90] == pytest.approx(0, abs=1e-7)
    assert np.abs(np.diff(found)).max() < 0.2 / 10 + 1e-6


def test_a_warm_up_goes_on_towards_the_new_end():
    found = rates((stretch(5, PLAN),), dataclasses.replace(PLAN, num_steps=50), 50)
    wanted = [0.2 * n / 10 for n in range(10)] + [cosine((n - 10) / 40) for n in range(10, 50)]
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_a_constant_rate_stays_whatever_the_end():
    found = rates((stretch(40, CONSTANT),), dataclasses.replace(CONSTANT, num_steps=500), 500)
    np.testing.assert_allclose(found, [min(0.02 * n, 0.2) for n in range(500)], rtol=1e-6)


def test_a_constant_rate_can_be_turned_into_a_decay_at_once():
    found = rates((stretch(40, CONSTANT),), PLAN, 110)
    wanted = [min(0.02 * n, 0.2) for n in range(40)] + [cosine(n / 70) for n in range(70)]
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("warmup", [0, 8])
def test_another_rate_begins_anew_from_the_rate_that_was_reached(warmup):
    other = stretches.Plan(0.15, warmup, "cosine", 210)
    found = rates((stretch(60, PLAN),), other, 210)[60:]
    reached = cosine(0.5)
    wanted = [reached + (0.15 - reached) * n / 8 for n in range(warmup)]
    wanted += [0.75 * cosine(n / (150 - warmup)) for n in range(150 - warmup)]
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_a_constant_rate_changes_in_a_line_or_at_once():
    for warmup in (0, 5):
        other = dataclasses.replace(CONSTANT, learning_rate=0.1, warmup_steps=warmup)
        found = rates((stretch(40, CONSTANT),), other, 60)[40:]
        wanted = [0.2 - 0.1 * n / 5 for n in range(warmup)] + [0.1] * (20 - warmup)
        np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_more_steps_after_a_decay_that_is_over_are_refused_unless_it_is_warmed_up():
    past = (stretch(110, PLAN),)
    with pytest.raises(ValueError, match=r"rate of 0 at step 110 of num_steps=200; another"):
        stretches.rate(past, dataclasses.replace(PLAN, num_steps=200))
    again = stretches.rate(past, stretches.Plan(0.1, 20, "cosine", 210))
    np.testing.assert_allclose([again(110), again(120), again(130)], [0, 0.05, 0.1], atol=1e-7)


def test_without_changes_the_schedule_is_the_one_of_optax():
    config = optimizer.OptimizerConfig("adamw", 0.2, 10, "cosine", 0, (), 0.9, 1.0, 0.9)
    found = config.rate(110)
    wanted = [0.02 * n for n in range(10)] + [cosine((n - 10) / 100) for n in range(10, 111)]
    np.testing.assert_allclose([found(n) for n in range(111)], wanted, atol=1e-6)


@pytest.fixture
def numbers(tmp_path):
    """A store whose examples are their numbers."""
    writer = store.StoreWriter(tmp_path / "numbers", (store.Field("number", (1,), "float32"),))
    writer.append(number=np.arange(13.0)[:, None])
    writer.close()
    return store.Store(tmp_path / "numbers")


@pytest.mark.parametrize("sizes", [(4, 6), (6, 4), (5, 5, 2)])
def test_another_batch_size_goes_on_in_the_stream_where_the_last_batch_ended(numbers, sizes):
    untils = (3, 5, 9)[: len(sizes)]
    batches = lambda size: loader.cached_batches(
        numbers, batch_size=size, seed=2, config=loader.LoaderConfig(1, 1)
    )
    seen, begin, past = [], 0, ()
    for size, until in zip(sizes, untils, strict=True):
        iterator = batches(size).shifted(stretches.shift(past, size)).since(begin)
        seen += [next(iterator) for _ in range(begin, until)]
        past, begin = (*past, stretch(until, PLAN, size)), until
    told = {name: np.concatenate([b[name] for b in seen]) for name in ("index", "number")}
    np.testing.assert_array_equal(told["index"], np.arange(len(told["index"])))
    whole = next(iter(batches(len(told["index"]))))
    np.testing.assert_array_equal(told["number"], whole["number"])


def test_every_field_of_a_training_says_whether_it_may_change():
    for section in (loop.TrainConfig, optimizer.OptimizerConfig, step.ComputeConfig):
        for field in dataclasses.fields(section):
            if field.name not in ("optimizer", "compute"):
                assert field.metadata["kind"] in ("free", "onward", "fixed"), field.name
                assert len(field.metadata["why"].split()) > 2, field.name


def test_kinds_of_nested_fields_are_found_by_their_dotted_keys():
    compute = step.ComputeConfig("float32", "none", 1)
    rate = optimizer.OptimizerConfig("adamw", 0.2, 10, "cosine", 0, (), 0.9, 1.0, 0.9)
    train = loop.TrainConfig(5, 6, rate, compute, 1, 100, 2, "jit", profile_steps=0)
    found = changes.kinds(train, "denoiser.train.")
    assert found["denoiser.train.log_every"] == "free"
    assert found["denoiser.train.optimizer.learning_rate"] == "onward"
    assert found["denoiser.train.optimizer.b2"] == "fixed"
    assert found["denoiser.train.compute.remat"] == "free"


@pytest.mark.parametrize("decay", ["constant", "cosine"])
def test_without_a_warm_up_the_first_update_has_the_whole_rate(decay):
    plan = stretches.Plan(0.2, 0, decay, 10)
    wanted = [0.2 if decay == "constant" else cosine(n / 10) for n in range(10)]
    np.testing.assert_allclose(rates((), plan, 10), wanted, atol=1e-6)
