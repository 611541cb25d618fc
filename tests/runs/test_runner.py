import dataclasses
import json
import types

import pytest

from ssldiff_jax.core import blas
from ssldiff_jax.runs import runner, stage


@dataclasses.dataclass(frozen=True)
class Section:
    size: int = 3
    rate: float = 0.5


def make_config(**sections):
    stages = {"first": Section(), "second": Section(), "third": Section()}
    runtime = types.SimpleNamespace(checkpoints="")
    denoiser = types.SimpleNamespace(is_published=False)
    plain = {"seed": 0, "models": "", "runtime": runtime, "denoiser": denoiser}
    return types.SimpleNamespace(**(plain | stages | sections))


class Work:
    """A table of three stages, each of which reads the one before; notes what was run."""

    def __init__(self, workdir):
        self.workdir, self.ran, self.broken, self.inputs = workdir, [], set(), "a.svs"
        self.table = {
            "first": stage.Stage(self.work("first"), ("first",), inputs=lambda c: self.inputs),
            "second": stage.Stage(self.work("second"), ("second.size",), ("first",)),
            "third": stage.Stage(self.work("third"), ("third",), ("second",)),
        }

    def work(self, name):
        def run(context):
            self.ran.append(name)
            part = context.folder(name) / "part"
            part.write_text(part.read_text() + "+" if part.exists() else "+")
            if name in self.broken:
                raise KeyboardInterrupt
            return {"length": len(part.read_text())}

        return run

    def context(self, **sections):
        return stage.Context(make_config(**sections), self.workdir, None)

    def run(self, chosen=("first", "second", "third"), force=(), **sections):
        self.ran.clear()
        context = self.context(**sections)
        runner.run_stages(self.table, context, list(chosen), set(force))
        return list(self.ran)

    def done(self, name):
        path = self.workdir / name / "done.json"
        return json.loads(path.read_text()) if path.exists() else None


@pytest.fixture
def work(tmp_path):
    return Work(tmp_path)


def test_stages_run_in_the_order_of_the_table(work):
    assert work.run(chosen=["third", "first", "second"]) == ["first", "second", "third"]


def test_done_stages_are_skipped(work):
    work.run()
    before = work.done("second")
    assert work.run() == []
    assert work.done("second") == before
    assert before["facts"] == {"length": 1}
    assert before["seconds"] >= 0
    assert before["peak_rss_mb"] > 0
    assert {"jax", "numpy", "git", "python"} <= before["versions"].keys()


def test_cut_off_stage_goes_on_with_what_it_has(work):
    work.broken = {"second"}
    with pytest.raises(KeyboardInterrupt):
        work.run()
    assert (work.workdir / "second" / "stage.json").exists()
    assert work.done("second") is None
    work.broken = set()
    assert work.run() == ["second", "third"]
    assert work.done("second")["facts"] == {"length": 2}


@pytest.mark.parametrize("broken", [set(), {"first"}])
def test_other_config_is_refused_and_the_key_named(work, broken):
    """Whether the stage is done or was cut off."""
    work.broken = broken
    try:
        work.run()
    except KeyboardInterrupt:
        work.broken = set()
    with pytest.raises(stage.WorkdirError, match=r"first\.size: 3 → 4") as caught:
        work.run(first=Section(size=4))
    message = str(caught.value)
    assert "--config.force=first" in message
    assert str(work.workdir) in message
    assert "rate" not in message
    assert work.ran == []


@pytest.mark.parametrize("wrote", [False, True])
def test_what_failed_before_it_wrote_anything_may_be_asked_for_otherwise(work, wrote):
    first = work.table["first"]

    def fail(context):
        if wrote:
            (context.folder("first") / "part").write_text("+")
        raise ValueError("expected another size")

    work.table["first"] = dataclasses.replace(first, run=fail)
    with pytest.raises(ValueError, match="another size"):
        work.run()
    work.table["first"] = first
    assert (work.workdir / "first").exists() == wrote
    if wrote:
        with pytest.raises(stage.WorkdirError, match=r"first\.size: 3 → 4"):
            work.run(first=Section(size=4))
    else:
        assert work.run(first=Section(size=4)) == ["first", "second", "third"]


def test_only_the_sections_of_a_stage_count(work):
    work.run()
    assert work.run(second=Section(rate=0.9)) == []  # the table names second.size alone
    with pytest.raises(stage.WorkdirError, match=r"second\.size: 3 → 5"):
        work.run(second=Section(size=5))


def test_other_inputs_are_refused(work):
    work.run()
    work.inputs = "b.svs"
    with pytest.raises(stage.WorkdirError, match=r"inputs: 'a\.svs' → 'b\.svs'"):
        work.run()


def test_force_makes_anew_from_nothing(work):
    work.run()
    assert work.run(force=["second"]) == ["second"]
    assert work.done("second")["facts"] == {"length": 1}
    assert work.run(chosen=["third"], force=["second"]) == []  # not chosen, so not touched


def test_a_tool_runs_whenever_it_is_named_and_only_then(work):
    work.table["tool"] = stage.Stage(work.work("tool"), (), tool=True, always=True)
    assert stage.parse_names("all", work.table, "stages") == ["first", "second", "third"]
    for _ in range(2):
        assert work.run(chosen=["tool"]) == ["tool"]
        assert work.done("tool")["facts"] == {"length": 1}


def test_products_of_a_step_are_added_up_alike_on_any_number_of_cores(work):
    """OpenBLAS rounds them by its threads; a tool, which runs alone, has them all."""
    seen = {}
    look = lambda name: lambda context: seen.update({name: blas.threads()})
    for name in ("step", "tool"):
        work.table[name] = stage.Stage(look(name), (), tool=name == "tool", always=True)
    before = blas.threads()
    blas._set([2] * len(before))
    try:
        work.run(chosen=["step", "tool"])
    finally:
        blas._set(before)
    assert seen == {"step": [1] * len(before), "tool": [2] * len(before)}


def test_files_that_are_missing_are_missed_before_anything_runs(work):
    def missing(config):
        raise ValueError("no such file of weights: w.ckpt")

    work.table["third"] = dataclasses.replace(work.table["third"], inputs=missing)
    context = stage.Context(make_config(), work.workdir, None)
    with pytest.raises(ValueError, match=r"no such file of weights: w\.ckpt"):
        runner.check(work.table, context, ["first", "second", "third"], set())


def test_changed_upstream_invalidates_what_is_downstream(work):
    work.run()
    with pytest.raises(stage.WorkdirError, match=r"'second'.*an earlier stage was rebuilt"):
        work.run(force=["first"], first=Section(size=4))
    assert work.ran == ["first"]
    again = work.run(force=["second", "third"], first=Section(size=4))
    assert again == ["second", "third"]


def test_upstream_of_another_config_is_refused(work):
    """What `second` would read is not what its config says."""
    work.run(chosen=["first"])
    with pytest.raises(stage.WorkdirError, match="first"):
        work.run(chosen=["second"], first=Section(size=4))


def test_missing_upstream_is_named(work):
    with pytest.raises(stage.WorkdirError, match=r"'second' reads what stage 'first' writes") as e:
        work.run(chosen=["second"])
    assert "--config.stages=first" in str(e.value)
    assert not (work.workdir / "second").exists()


def test_cut_off_upstream_counts_as_missing(work):
    work.broken = {"first"}
    with pytest.raises(KeyboardInterrupt):
        work.run()
    with pytest.raises(stage.WorkdirError, match="'first'"):
        work.run(chosen=["second"])


def test_force_must_name_chosen_stages(work):
    context = stage.Context(make_config(), work.workdir, None)
    with pytest.raises(stage.WorkdirError, match="of the stages third, got second"):
        runner.check(work.table, context, ["third"], {"second"})


def test_checkpoints_of_another_run_are_not_gone_on_with(work, tmp_path):
    bucket = tmp_path / "bucket"
    (bucket / "first" / "4").mkdir(parents=True)
    runtime = types.SimpleNamespace(checkpoints=str(bucket))
    with pytest.raises(stage.WorkdirError, match="must hold no checkpoints before stage 'first'"):
        work.run(runtime=runtime)
    assert work.run(runtime=runtime, force=["first"]) == ["first", "second", "third"]
    # They are that run's: what is made here has a folder of its own.
    assert (bucket / "first" / "4").exists()


def test_what_a_forced_stage_would_outdate_is_refused_before_anything_runs(work):
    work.run()
    context = stage.Context(make_config(first=Section(size=9)), work.workdir, None)
    chosen = ["first", "second", "third"]
    with pytest.raises(stage.WorkdirError, match=r"'second' .*\(stage 'first'\): add second"):
        runner.check(work.table, context, chosen, {"first"})
    # All of them anew is fine, and so is the forced stage alone, or as it was.
    runner.check(work.table, context, chosen, set(chosen))
    runner.check(work.table, context, ["first"], {"first"})
    same = stage.Context(make_config(), work.workdir, None)
    runner.check(work.table, same, chosen, {"first"})


def test_a_record_that_said_less_of_the_same_things_goes_on(work):
    name, size, content = "a.svs", 12, "c0ffee"
    work.inputs = {"slides": [[name, size], ["b.svs", 3]]}
    assert work.run() == ["first", "second", "third"]
    work.inputs = {"slides": [[name, size, content], ["b.svs", 3, content]]}
    assert work.run() == []
    for other in ([[name, 13, content], ["b.svs", 3, content]], [[name, size, content]], []):
        work.inputs = {"slides": other}
        with pytest.raises(stage.WorkdirError, match=r"inputs\.slides"):
            runner.check(work.table, work.context(), list(work.table), set())
