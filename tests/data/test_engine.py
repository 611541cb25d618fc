import os
import pathlib

import numpy as np
import pytest

from ssldiff_jax.data import engine
from ssldiff_jax.slides import pyramid, slide, warn


def work(task):
    """Writes its square; -1 ends the process, -2 raises."""
    folder, number = task
    if number == -1:
        os._exit(9)
    if number == -2:
        raise ValueError("expected numbers, got -2")
    (pathlib.Path(folder) / str(number)).write_text(str(number**2))


def config(kind="processes", processes=2, beam=()):
    return engine.EngineConfig(kind, processes, beam)


def run(folder, numbers, how):
    died = []
    tasks = [(str(folder), n) for n in numbers]
    done = list(engine.for_each(work, tasks, how, died=lambda task: died.append(task[1])))
    return len(done), died, {int(p.name): int(p.read_text()) for p in folder.iterdir()}


@pytest.mark.parametrize("processes", [1, 2])
def test_every_task_is_done(tmp_path, processes):
    done, died, found = run(tmp_path, range(7), config(processes=processes))
    assert (done, died, found) == (7, [], {n: n**2 for n in range(7)})


def test_a_task_that_ends_its_process_costs_itself_alone(tmp_path):
    done, died, found = run(tmp_path, [3, -1, 4, 5, -1, 6], config())
    assert (done, died, found) == (6, [-1, -1], {n: n**2 for n in (3, 4, 5, 6)})


def warn_of_file(task):
    warn.once(f"{task}: a file of two workers")


def test_workers_leave_warnings_to_their_parent_which_says_each_once(tmp_path, caplog, capfd):
    tasks = [f"{tmp_path}/a", f"{tmp_path}/b"] * 4
    list(engine.for_each(warn_of_file, tasks, config(), died=tasks.remove))
    assert sorted(caplog.messages) == [f"{task}: a file of two workers" for task in tasks[:2]]
    assert "a file of two workers" not in capfd.readouterr().err


def open_by_another_scale(task):
    slide.open_slide(task[0], mpp=0.8).close()


def test_a_scale_that_the_file_contradicts_is_said_once_for_all_workers(tmp_path, caplog, capfd):
    path = tmp_path / "a.tiff"
    pyramid.write_pyramid(path, np.zeros((64, 64, 3), np.uint8), pyramid.Scale(0.5))
    tasks = [(str(path), number) for number in range(8)]
    list(engine.for_each(open_by_another_scale, tasks, config(), died=tasks.remove))
    assert caplog.messages == [f"{path} has 0.8 µm/px as asked for; its file says 0.5 µm/px"]
    assert "as asked for" not in capfd.readouterr().err


def test_what_the_work_raises_comes_back(tmp_path):
    with pytest.raises(ValueError, match="got -2"):
        run(tmp_path, [1, -2, 3], config())


def test_beam_does_the_same(tmp_path):
    pytest.importorskip("apache_beam")
    options = ("--runner=DirectRunner", "--direct_num_workers=2",
               "--direct_running_mode=multi_threading")  # fmt: skip
    done, died, found = run(tmp_path, range(7), config("beam", beam=options))
    assert (done, died, found) == (7, [], {n: n**2 for n in range(7)})


def test_a_failure_in_beam_is_one_line(tmp_path):
    pytest.importorskip("apache_beam")
    with pytest.raises(engine.EngineError, match="got -2") as caught:
        run(tmp_path, [-2], config("beam", beam=("--runner=DirectRunner",)))
    assert len(str(caught.value).splitlines()) == 1


def test_beam_that_is_not_installed_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "apache_beam", None)
    with pytest.raises(engine.EngineError, match="pip install apache-beam"):
        run(tmp_path, [1], config("beam"))
