"""What may change about a training that has begun, what becomes of the stages after it, and what
the record tells."""

import dataclasses
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import small_configs

from ssldiff_jax.core import tasks
from ssldiff_jax.data import loader, store
from ssldiff_jax.runs import runner, stage, training_tasks
from ssldiff_jax.runs.workdir import record
from ssldiff_jax.train import checkpoint, hosts, loop
from ssldiff_jax.train import mesh as mesh_lib
from ssldiff_jax.train import optimizer as optimizer_lib
from ssldiff_jax.train import step as step_lib

MESH = mesh_lib.MeshConfig(-1, 1, 1, ())
OPTIMIZER = optimizer_lib.OptimizerConfig("adamw", 0.1, 2, "constant", 0, (), 0.99, 1.0, 0.9)
COMPUTE = step_lib.ComputeConfig("float32", "none", 1)
TRAIN = loop.TrainConfig(6, 4, OPTIMIZER, COMPUTE, 1, 2, 0, "jit", profile_steps=0)


class Regression(tasks.Task):
    """A slope, and the last example that was seen."""

    def batch_spec(self):
        return {"x": jax.ShapeDtypeStruct((1, 1), jnp.float32)}

    def init(self, key, batch):
        return {"slope": jnp.zeros(())}, jnp.zeros(())

    def loss(self, params, batch, key, *, ema_params, extra):
        error = params["slope"] * batch["x"] - 3 * batch["x"] - 1
        return tasks.LossOutput(jnp.mean(error**2), {}, 0 * extra + jnp.max(batch["index"]))


@dataclasses.dataclass(frozen=True)
class Section:
    train: loop.TrainConfig
    width: int = 1


class Work:
    """A training, a stage that reads it, and a tool that judges it as it goes."""

    def __init__(self, folder):
        self.workdir, self.ran, self.stop_at = folder / "run", [], None
        writer = store.StoreWriter(folder / "x", (store.Field("x", (1,), "float32"),))
        writer.append(x=np.random.default_rng(0).normal(size=(32, 1)))
        writer.close()
        self.store = store.Store(folder / "x")
        self.table = {
            "model": stage.Stage(self.train, ("model",), on="all"),
            "reader": stage.Stage(self.note("reader"), (), ("model",)),
            "after": stage.Stage(self.note("after"), (), ("reader",)),
            "watch": stage.Stage(self.note("watch"), ("model",), watches=("model",), tool=True),
        }

    def note(self, name):
        def run(context):
            self.ran.append(name)
            return {}

        return run

    def train(self, context):
        self.ran.append("model")
        train, run = context.config.model.train, training_tasks.training_run(context, "model")
        batches = loader.cached_batches(
            self.store, batch_size=train.batch_size, seed=1, config=context.config.data.loader
        )
        if self.stop_at is not None:
            # As a process that is killed after the checkpoint of that step.
            planned = dataclasses.replace(train, num_steps=self.stop_at)
            loop.fit(Regression(), batches, planned, run)
            raise hosts.StoppedError("stopped")
        loop.fit(Regression(), batches, train, run)
        return {}

    def context(self, train, mesh=MESH, **section):
        data = types.SimpleNamespace(loader=loader.LoaderConfig(1, 1))
        runtime = types.SimpleNamespace(checkpoints="")
        config = types.SimpleNamespace(
            seed=0,
            models="",
            denoiser=types.SimpleNamespace(is_published=False),
            runtime=runtime,
            mesh=mesh,
            data=data,
            logging=small_configs.section("logging"),
            model=Section(train, **section),
        )  # fmt: skip
        return stage.Context(config, self.workdir, mesh_lib.make_mesh(MESH))

    def run(self, train=TRAIN, chosen=("model", "reader", "after"), force=(), **config):
        self.ran.clear()
        context = self.context(train, **config)
        runner.check(self.table, context, list(chosen), set(force))
        runner.run_stages(self.table, context, list(chosen), set(force))
        return list(self.ran)

    def cut_off(self, at, train=TRAIN):
        """Train until a step and stop there."""
        self.stop_at = at
        with pytest.raises(hosts.StoppedError):
            self.run(train, chosen=["model"])
        self.stop_at = None

    def record(self, name="model"):
        return json.loads((self.workdir / name / "stage.json").read_text())

    def state(self, *, ema=False):
        return checkpoint.load_params(self.workdir / "model" / "checkpoints", ema=ema)


@pytest.fixture
def work(tmp_path):
    return Work(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What trainings of six and of ten steps that were never changed end with."""
    found = {}
    for steps in (6, 10):
        work = Work(tmp_path_factory.mktemp(f"whole_{steps}"))
        work.run(replaced(num_steps=steps), chosen=["model"])
        found[steps] = {ema: work.state(ema=ema) for ema in (False, True)}
    return found


def replaced(train=TRAIN, **values):
    """A training with other values, of whichever section has them."""
    sections = {"optimizer": train.optimizer, "compute": train.compute}
    for name, section in sections.items():
        own = {f.name for f in dataclasses.fields(section)} & values.keys()
        sections[name] = dataclasses.replace(section, **{key: values.pop(key) for key in own})
    return dataclasses.replace(train, **sections, **values)


def same(found, wanted):
    for ema, params in wanted.items():
        jax.tree.map(np.testing.assert_array_equal, found.state(ema=ema), params)


FREE = {
    "log_every": 3, "checkpoint_every": 1, "max_skipped": 7, "remat": "blocks",
    "method": "pmap",
}  # fmt: skip


def test_what_changes_no_result_may_change_and_outdates_nothing(work, whole):
    changed = replaced(**FREE)
    work.cut_off(4)
    mesh = dataclasses.replace(MESH, rules=("slope = 0:fsdp",))
    assert work.run(changed, mesh=mesh) == ["model", "reader", "after"]
    same(work, whole[6])
    assert work.run() == work.run(changed) == []
    assert "changes" not in work.record()
    told = {c["key"]: (c["step"], c["was"], c["now"]) for c in work.record()["aside"]["changes"]}
    assert told.pop("mesh.rules") == (4, [], ["slope = 0:fsdp"])
    assert told.pop("model.train.compute.remat") == (4, "none", "blocks")
    assert {key.removeprefix("model.train."): now for key, (_, _, now) in told.items()} == {
        key: FREE[key] for key in ("log_every", "checkpoint_every", "max_skipped", "method")
    }


def test_finished_training_is_trained_on_to_the_bits_of_one_that_was_planned_so(work, whole):
    """At a constant rate."""
    work.run(chosen=["model"])
    longer = replaced(num_steps=10)
    assert work.run(longer, chosen=["model"]) == ["model"]
    same(work, whole[10])
    assert work.record()["changes"] == [
        {"step": 6, "key": "model.train.num_steps", "was": 6, "now": 10}
    ]
    steps = [
        json.loads(line)["step"]
        for line in (work.workdir / "model" / "metrics.jsonl").read_text().splitlines()
    ]
    assert steps == list(range(1, 11))
    assert work.run(longer, chosen=["model"]) == []


def test_stages_after_a_longer_training_are_refused_before_it_begins_or_made_anew(work):
    work.run()
    longer = replaced(num_steps=8)
    with pytest.raises(stage.WorkdirError, match=r"'reader'.*further training.*'model'") as e:
        work.run(longer)
    assert "add reader,after to config.force" in str(e.value)
    assert work.ran == []
    assert work.run(longer, force=["reader", "after"]) == ["model", "reader", "after"]
    assert work.run(longer) == []


def test_a_training_that_is_needed_but_not_chosen_is_not_trained_on(work):
    work.run()
    with pytest.raises(stage.WorkdirError, match=r"num_steps: 6 → 8.*--config\.stages=model"):
        work.run(replaced(num_steps=8), chosen=["reader"])
    assert work.run(chosen=["reader"]) == []


def test_fewer_steps_than_were_done_are_refused_in_one_line(work):
    work.cut_off(4)
    with pytest.raises(stage.WorkdirError, match=r"must be at least the 4 steps.*got 3") as caught:
        work.run(replaced(num_steps=3))
    assert "config.model.train.num_steps" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert work.run(replaced(num_steps=4)) == ["model", "reader", "after"]


def test_a_finished_training_stays_what_it_was_made_as(work):
    work.run()
    with pytest.raises(stage.WorkdirError, match=r"learning_rate: 0\.1 → 0\.2.*above 6"):
        work.run(replaced(learning_rate=0.2))
    assert work.run() == []


def test_going_back_before_a_further_step_leaves_nothing_outdated(work):
    work.run()
    digest = lambda: json.loads((work.workdir / "model" / "done.json").read_text())["digest"]
    before = digest()
    work.stop_at = 6
    with pytest.raises(hosts.StoppedError):
        work.run(replaced(num_steps=9), chosen=["model"])
    work.stop_at = None
    assert work.run() == ["model"]
    assert digest() == before
    assert work.record()["changes"] == []


ONWARD = {
    "learning_rate": 0.05, "warmup_steps": 1, "weight_decay": 0.3, "groups": ("slope = 0.5, 1",),
    "clip_norm": 0.01, "ema_decay": 0.5, "batch_size": 8, "accumulate": 2, "dtype": "bfloat16",
    "decay": "cosine",
}  # fmt: skip


@pytest.mark.parametrize("key", ["learning_rate", "batch_size"])
def test_what_changes_from_a_step_on_is_recorded_and_is_another_training(work, whole, key):
    work.cut_off(4)
    changed = replaced(**{key: ONWARD[key]})
    work.run(changed)
    (told,) = work.record()["changes"]
    assert (told["step"], told["now"]) == (4, ONWARD[key])
    assert told["key"].startswith("model.train.")
    assert told["key"].endswith(key)
    assert work.run(changed) == []
    assert work.state() != whole[6][False]
    digest = json.loads((work.workdir / "model" / "done.json").read_text())["digest"]
    work.run(changed, force=["model", "reader", "after"])
    assert json.loads((work.workdir / "model" / "done.json").read_text())["digest"] != digest


def test_another_batch_goes_on_in_the_data_where_the_last_one_ended(work):
    work.cut_off(4)
    work.run(replaced(batch_size=8, accumulate=2), chosen=["model"])
    saved = work.workdir / "model" / "checkpoints" / "6" / "state"
    with ocp.StandardCheckpointer() as checkpointer:
        # Four batches of 4, then two of 8: the last ends with 31, its other part with 30.
        assert float(checkpointer.restore(saved)["extra"]) == (30 + 31) / 2


def test_every_key_that_may_change_from_a_step_on_is_accepted(work):
    work.cut_off(2)
    for key, value in ONWARD.items():
        context = work.context(replaced(**{key: value}))
        runner.check(work.table, context, ["model"], set())
        (found,) = record.changes(work.table, "model", context.config, context.folders)
        assert (found.step, found.key.rpartition(".")[2]) == (2, key)


@pytest.mark.parametrize(("key", "value"), [("name", "muon"), ("b2", 0.9), ("width", 2)])
def test_what_the_state_would_not_fit_is_refused(work, key, value):
    work.cut_off(2)
    asked = {"width": value} if key == "width" else {"train": replaced(**{key: value})}
    with pytest.raises(stage.WorkdirError, match=rf"{key}: .* → {value!r}.*--config\.force=model"):
        work.run(**asked)


def test_before_the_first_checkpoint_all_of_the_training_may_be_another(work):
    work.table["model"] = dataclasses.replace(work.table["model"], run=lambda c: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        work.run()
    work.table["model"] = dataclasses.replace(work.table["model"], run=work.train)
    other = replaced(name="muon", b2=0.9, batch_size=2, num_steps=3)
    assert work.run(other) == ["model", "reader", "after"]
    # Nothing was written that the new settings could differ from.
    assert work.record().get("changes", []) == []


def test_a_decay_that_is_over_needs_a_warm_up(work):
    planned = replaced(decay="cosine")
    work.run(planned, chosen=["model"])
    longer = replaced(planned, num_steps=9)
    with pytest.raises(stage.WorkdirError, match=r"decay=cosine must not be over.*step 6"):
        work.run(longer, chosen=["model"])
    before = work.state()
    assert work.run(replaced(longer, learning_rate=0.05), chosen=["model"]) == ["model"]
    assert work.state() != before


def test_the_tool_that_judges_a_training_follows_it(work):
    work.run(chosen=["model", "watch"])
    longer = replaced(num_steps=8)
    with pytest.raises(stage.WorkdirError, match="num_steps: 6 → 8"):
        work.run(longer, chosen=["watch"])
    work.run(longer, chosen=["model"])
    assert work.run(longer, chosen=["watch"]) == ["watch"]
    assert work.run(longer, chosen=["watch"]) == []
    # Of a training that was made anew it holds nothing.
    other = replaced(learning_rate=0.3)
    work.run(other, chosen=["model"], force=["model"])
    with pytest.raises(stage.WorkdirError, match="stage 'watch' of another config"):
        work.run(other, chosen=["watch"])


def test_seconds_are_of_all_processes_that_worked(work):
    done = lambda: json.loads((work.workdir / "model" / "done.json").read_text())["seconds"]
    lines = lambda: (work.workdir / "model" / "metrics.jsonl").read_text().splitlines()
    work.cut_off(4)
    folder = work.workdir / "model"
    for name, seconds in ((record.STOPWATCH, 5000), (".training_seconds.json", 3000)):
        assert 0 < json.loads((folder / name).read_text())["seconds"] < 1000
        (folder / name).write_text(json.dumps({"seconds": seconds}))
    work.run(chosen=["model"])
    assert 5000 < done() < 6000
    seconds = [json.loads(line)["seconds"] for line in lines()]
    assert seconds[3] < 1000 < 3000 < seconds[4] < seconds[5] < 4000
    # A run that was made without a stopwatch goes on from what it noted when it was done.
    (folder / record.STOPWATCH).unlink()
    work.run(replaced(num_steps=7), chosen=["model"])
    assert 5000 < done() < 7000


def test_a_record_from_when_intervals_were_part_of_it_is_still_good(work):
    work.run()
    path = work.workdir / "model" / "stage.json"
    record = work.record()
    record["config"]["model"]["train"] |= {"log_every": 100, "compute": {"remat": "none"} | {
        "dtype": "float32", "accumulate": 1}}  # fmt: skip
    del record["aside"]
    path.write_text(json.dumps(record))
    assert work.run(replaced(log_every=5), chosen=["model"]) == []


def test_more_steps_done_than_asked_for_is_refused_by_the_loop_too(work):
    work.run(chosen=["model"])
    run = training_tasks.training_run(work.context(TRAIN), "model")
    batches = loader.cached_batches(
        work.store, batch_size=4, seed=1, config=loader.LoaderConfig(1, 1)
    )
    with pytest.raises(ValueError, match="at least the 6 steps that were done, got 5"):
        loop.fit(Regression(), batches, replaced(num_steps=5), run)
