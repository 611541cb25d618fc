"""Memory and disks that are full end in one line that says what to change, and nothing is lost."""

import dataclasses
import errno
import re
import resource

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import tiny
from ssldiff_jax.core import schema
from ssldiff_jax.data import tiling
from ssldiff_jax.runs import launch, stage
from ssldiff_jax.runs.command import shortage
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.stages import table
from tests.runs.workdir import test_trainings

LARGE = 100_000


class LargeRegression(test_trainings.Regression):
    """With parameters that fill a file."""

    def init(self, key, batch):
        return {"slope": jax.random.normal(key, (LARGE,))}, jnp.zeros(())


class EndlessRegression(test_trainings.Regression):
    """With parameters that no memory holds."""

    def init(self, key, batch):
        return {"slope": jnp.zeros(1 << 44)}, jnp.zeros(())


class HungryRegression(test_trainings.Regression):
    """With a step that no memory holds: 550 GB or more."""

    def loss(self, params, batch, key, *, ema_params, extra):
        output = super().loss(params, batch, key, ema_params=ema_params, extra=extra)
        many = jnp.broadcast_to(params["slope"] * batch["x"], (len(batch["x"]), 1 << 37))
        # Else only what is looked at would be computed.
        many = jax.lax.optimization_barrier(many)
        return output._replace(loss=output.loss + many[:, 3].sum())


class SmallDisk:
    """Files of at most 100 kB in this process."""

    def __enter__(self):
        self._before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, self._before[1]))

    def __exit__(self, *_):
        resource.setrlimit(resource.RLIMIT_FSIZE, self._before)


def test_a_checkpoint_that_does_not_fit_is_one_line_and_the_one_before_is_gone_on_from(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(test_trainings, "Regression", LargeRegression)
    (tmp_path / "whole").mkdir()
    whole = test_trainings.Work(tmp_path / "whole")
    whole.run(chosen=["model"])

    work = test_trainings.Work(tmp_path)
    work.cut_off(2)
    before = work.state()["slope"]
    with SmallDisk(), pytest.raises(launch.USER_ERRORS) as caught:
        work.run(chosen=["model"])
    line = str(caught.value)
    assert len(line.splitlines()) == 1
    # Parameters, their average and two moments; step, counts and what the task keeps.
    wanted = rf"must hold the {LARGE * 4 * 4 / 1e6:.1f} MB it writes next of stage 'model', got "
    wanted += r"[\d,.]+ GB free \(.*no room for a checkpoint in .*\); free some space and the same "
    assert re.search(wanted + "command resumes", line)
    assert "runtime.checkpoints" in line
    np.testing.assert_array_equal(work.state()["slope"], before)
    assert not (work.workdir / "model" / "done.json").exists()

    assert work.run(chosen=["model"]) == ["model"]
    np.testing.assert_array_equal(work.state()["slope"], whole.state()["slope"])
    left = [path.name for path in (work.workdir / "model" / "checkpoints").iterdir()]
    assert sorted(left) == ["4", "6"]


def test_memory_that_is_not_there_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(test_trainings, "Regression", EndlessRegression)
    work = test_trainings.Work(tmp_path)
    with pytest.raises(launch.USER_ERRORS) as caught:
        work.run(chosen=["model"])
    line = str(caught.value)
    assert len(line.splitlines()) == 1
    assert re.search(r"another [\d,]+\.\d GB for stage 'model', got [\d,.]+ GB free of", line)
    for key in ("compute.accumulate=1", "remat=none", "dtype=float32", "batch_size=4"):
        assert key in line


def test_a_step_that_does_not_fit_says_what_it_takes_and_what_would_save_how_much(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(test_trainings, "Regression", HungryRegression)
    work = test_trainings.Work(tmp_path)
    with pytest.raises(launch.USER_ERRORS) as caught:
        work.run(chosen=["model"])
    line = str(caught.value)
    assert len(line.splitlines()) == 1
    sizes = re.search(
        r"a step of 4 examples on a device takes ([\d,.]+) GB beside a state of (\d+) bytes: "
        r"compute.accumulate twice as large or batch_size half as large saves about ([\d,.]+) GB",
        line,
    )
    beside, state, saved = (float(text.replace(",", "")) for text in sizes.groups())
    assert beside >= 549  # 2³⁷ numbers
    assert saved == pytest.approx(beside / 2, abs=0.1)
    # A slope, its average and two moments; counters.
    assert 16 <= state <= 48


@pytest.fixture(scope="module")
def config():
    return schema.build(run_config.RunConfig, tiny.get_config().to_dict())


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("patches", "data.engine.processes"),
        ("encoder", "encoder.train.compute.accumulate"),
        ("judge", "judge.train.compute.accumulate"),
        ("denoiser", "denoiser.train.compute.accumulate"),
        ("prior", "prior.train.compute.accumulate"),
        ("tokens", "tokens.train.compute.accumulate"),
        ("embeddings", "data.loader.prefetch"),
        ("latents", "data.loader.prefetch"),
        ("sample", "sample.window_batch"),
        ("generate", "sample.split"),
        ("imagine", "sample.decode.tile"),
        ("evaluate", "sample.canvas_dtype"),
    ],
)
def test_every_stage_names_keys_that_are_there(tmp_path, config, name, key):
    lines = []
    for error in (MemoryError(), OSError(errno.ENOSPC, "No space left on device")):
        with (
            pytest.raises(shortage.ShortageError) as caught,
            shortage.reported(name, table.STAGES[name], config, tmp_path / name),
        ):
            raise error
        lines.append(str(caught.value))
    memory, disk = lines
    assert f"config.{key}" in memory
    assert f"stage {name!r}" in memory
    assert f"stage {name!r}" in disk
    flat = schema.flatten(tiny.get_config().to_dict())
    named = re.findall(r"config\.([\w.]+\w)", " ".join(lines))
    assert named
    assert set(named) <= flat.keys()


def test_other_errors_pass(tmp_path, config):
    with (
        pytest.raises(KeyError),
        shortage.reported("sample", table.STAGES["sample"], config, tmp_path / "sample"),
    ):
        raise KeyError("x")


def test_a_full_disk_is_no_fault_of_the_slide(tmp_path):
    @dataclasses.dataclass
    class Task:
        error: Exception
        reasons: list

        def open(self):
            raise self.error

        def fail(self, reason):
            self.reasons.append(reason)

    full = Task(OSError(errno.ENOSPC, "No space left on device"), [])
    with pytest.raises(OSError, match="No space left"):
        tiling.tile(full)
    assert full.reasons == []
    harmed = Task(OSError("not a slide"), [])
    tiling.tile(harmed)
    assert harmed.reasons == ["not a slide"]


def test_what_does_not_fit_on_devices_that_are_not_here_is_no_shortage(tmp_path):
    said = "denoiser on v5e:16x16: RESOURCE_EXHAUSTED: Ran out of memory on HBM"
    config = schema.build(run_config.RunConfig, tiny.get_config().to_dict())
    with (
        pytest.raises(stage.FoundError, match=said),
        shortage.reported("compile", table.STAGES["compile"], config, tmp_path),
    ):
        raise stage.FoundError(said, {"rows": 1})
