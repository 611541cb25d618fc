"""Which stages can start: random tables against every way to run them."""

import itertools

import numpy as np
import pytest

from configs import tiny
from ssldiff_jax.core import schema
from ssldiff_jax.runs import schedule, stage
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import folders as folders_lib
from ssldiff_jax.stages import table as stage_table

CONFIG = schema.build(run_config.RunConfig, tiny.get_config().to_dict())


def row(**reads):
    return stage.Stage(lambda context: None, (), **reads)


def random_table(draw, count):
    """Rows that read, follow, watch or come after earlier ones; every fifth is a tool."""
    table = {}
    for i in range(count):
        kinds = ("needs", "follows", "watches", "after")
        reads = {kind: tuple(n for n in table if draw.random() < 0.15) for kind in kinds}
        table[f"s{i}"] = row(**reads, tool=bool(draw.random() < 0.2))
    return table


def reaches(table, one, other, chosen):
    """Whether `one` reads `other`, or anything that does; a chosen tool parts all before it from
    all after it."""
    earlier = list(table)[: list(table).index(one)]
    read = table[one]
    direct = {*read.needs, *read.follows, *read.watches, *read.after} & set(earlier)
    direct |= set(earlier) if read.tool else set()
    direct |= {name for name in earlier if table[name].tool and name in chosen}
    return other in direct or any(reaches(table, each, other, chosen) for each in direct)


def of(table, chosen, tmp_path):
    return schedule.Schedule.of(table, folders_lib.Folders(tmp_path), chosen, CONFIG)


@pytest.mark.parametrize("seed", range(30))
def test_before_is_all_that_a_stage_reads_however_far(seed, tmp_path):
    draw = np.random.default_rng(seed)
    table = random_table(draw, 8)
    chosen = [name for name in table if draw.random() < 0.7]
    plan = of(table, set(chosen), tmp_path)
    assert list(plan.before) == chosen
    for name in chosen:
        assert plan.before[name] == {n for n in chosen if reaches(table, name, n, chosen)}


@pytest.mark.parametrize("seed", range(30))
def test_every_stage_runs_once_and_after_what_it_reads(seed, tmp_path):
    draw = np.random.default_rng(seed)
    table = random_table(draw, 9)
    plan = of(table, list(table), tmp_path)
    running, ended, order = [], [], []
    while len(ended) < len(table):
        ready = plan.ready(ended, running)
        assert running or ready
        for name in ready[: draw.integers(0 if running else 1, 3)]:
            assert not any(
                reaches(table, name, other, table) for other in table if other not in ended
            )
            running.append(name)
            order.append(name)
        ended.append(running.pop(draw.integers(len(running))))
    assert sorted(order) == sorted(table)


@pytest.mark.parametrize("seed", range(20))
def test_after_a_failure_the_stages_that_read_it_alone_never_start(seed, tmp_path):
    draw = np.random.default_rng(seed)
    table = random_table(draw, 8)
    plan = of(table, list(table), tmp_path)
    (failed,) = draw.choice(list(table), 1)
    ended = []
    while ready := [name for name in plan.ready(ended, []) if name != failed]:
        ended.append(ready[draw.integers(len(ready))])
    assert set(table) - set(ended) == {failed} | {
        n for n in table if reaches(table, n, failed, table)
    }


@pytest.mark.parametrize("seed", range(20))
def test_branches_where_some_order_has_two_at_once(seed, tmp_path):
    """Against all sets of stages that can have ended at one time."""
    draw = np.random.default_rng(seed)
    table = random_table(draw, 6)
    plan = of(table, list(table), tmp_path)
    work = {name for name in table if draw.random() < 0.6}
    subsets = itertools.chain(*(itertools.combinations(table, n) for n in range(len(table))))
    closed = [e for e in subsets if all(plan.before[name] <= set(e) for name in e)]
    at_once = max(len(work.intersection(plan.ready(ended, []))) for ended in closed)
    assert plan.branches(work) == (at_once > 1)


def test_a_chain_has_no_branches(tmp_path):
    chain = {"a": row(), "b": row(needs=("a",)), "c": row(needs=("b",)), "d": row(needs=("a",))}
    plan = of(chain, list(chain), tmp_path)
    assert not plan.branches(["a", "b", "c"])
    assert plan.branches(["b", "d"])


SECONDS = {
    "patches": 1, "encoder": 99, "embeddings": 8, "autoencoder": 84, "latents": 14, "denoiser": 360,
    "distill": 120, "sample": 77, "judge": 65, "evaluate": 21, "grids": 55, "prior": 111,
    "tokens": 1, "imagine": 78, "report": 1,
}  # fmt: skip
"""Of the demo, one stage after another."""


def test_the_steps_of_a_run_by_two_at_a_time(tmp_path):
    """Whatever each takes, what is side by side is the longest way through the table."""
    steps = [name for name, each in stage_table.STAGES.items() if not each.tool]
    plan = of(stage_table.STAGES, steps, tmp_path)
    begin, end, now = {}, {}, 0
    while len(end) < len(steps):
        over = [name for name in end if end[name] <= now]
        running = [name for name in end if end[name] > now]
        for name in plan.ready(over, running)[: 2 - len(running)]:
            begin[name], end[name] = now, now + SECONDS[name]
        now = min(t for t in end.values() if t > now)
    overlap = lambda a, b: begin[a] < end[b] and begin[b] < end[a]
    assert overlap("encoder", "judge")
    assert overlap("autoencoder", "grids")
    assert overlap("denoiser", "prior")
    assert overlap("sample", "distill")
    # Beside these three is a student trained.
    images = ("sample", "evaluate", "imagine")
    chain = ("patches", "encoder", "autoencoder", "latents", "denoiser", *images)
    assert begin["report"] == max(end[name] for name in steps if name != "report")
    assert end["report"] - sum(SECONDS[name] for name in (*chain, "report")) < 10


def test_images_wait_for_a_student_that_they_are_made_by(tmp_path):
    values = tiny.get_config()
    values.distill.visits = values.sample.visits = 2
    values.sample.student = "strides"
    config = schema.build(run_config.RunConfig, values.to_dict())
    folders, chosen = folders_lib.Folders(tmp_path), ["distill", "sample", "imagine"]
    waits = schedule.Schedule.of(stage_table.STAGES, folders, chosen, config).before
    assert waits["sample"] == waits["imagine"] == {"distill"}
    plain = of(stage_table.STAGES, chosen, tmp_path).before
    assert plain["sample"] == plain["imagine"] == frozenset()


@pytest.mark.parametrize("tool", ["bench", "verify", "export"])
def test_tools_come_after_all_steps_of_their_command(tool, tmp_path):
    """They measure the machine, or read what any step wrote."""
    chosen = ["encoder", "judge", "prior", tool]
    assert of(stage_table.STAGES, chosen, tmp_path).before[tool] == {"encoder", "judge", "prior"}


def test_a_tool_before_all_steps_is_over_before_they_start(tmp_path):
    """It refuses what cannot end well."""
    plan = of(stage_table.STAGES, ["plan", "patches", "encoder", "judge"], tmp_path)
    assert plan.ready([], []) == ["plan"]
    assert plan.ready(["plan"], []) == ["patches"]
    assert plan.ready(["plan", "patches"], []) == ["encoder", "judge"]


_PRIOR = frozenset({"prior", "grids", "imagine"})
TAKEN_ALONG = {"sample": _PRIOR, "evaluate": _PRIOR}
"""A generator has the prior where that is done, and what was measured of it, whoever asks for these
or not."""


def test_a_stage_reads_folders_of_stages_before_it(opened_folders, tmp_path):
    """What it opened while it ran: others may have run beside it."""
    steps = [name for name, each in stage_table.STAGES.items() if not each.tool]
    plan = of(stage_table.STAGES, steps, tmp_path)
    assert opened_folders.keys() >= set(steps)
    for name in steps:
        read = opened_folders[name].intersection(steps)
        assert read <= {name, *plan.before[name], *TAKEN_ALONG.get(name, ())}, name
    assert {"patches", "encoder", "judge", "sample"} <= opened_folders["evaluate"]
    assert {"prior", "imagine", "judge"} <= opened_folders["report"]
