"""Hosts that differ, hosts that are stopped, and a run that goes on with fewer of them.

This file is also the script those hosts run.
"""

import os
import pathlib
import signal
import socket
import subprocess
import sys

import jax
import numpy as np
import patience
import pytest
import test_resume
from test_resume import final_state, lines

from ssldiff_jax.runs import host_arrays
from ssldiff_jax.stages.evaluate import regenerated
from ssldiff_jax.train import checkpoint, hosts
from ssldiff_jax.train import mesh as mesh_lib

ROOT = pathlib.Path(__file__).parents[2]
NUM_STEPS, STOPPED_AT = 60, 7


def fit_until_stopped(folder, number):
    """Host 1 alone gets the signal."""
    to_global, seen = mesh_lib.to_global, []

    def signal_later(batch, mesh):
        seen.append(batch)
        if len(seen) == STOPPED_AT and number == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return to_global(batch, mesh)

    mesh_lib.to_global = signal_later
    try:
        test_resume.fit(folder, folder / "moved", NUM_STEPS)
    except hosts.StoppedError as error:
        print(error)


def tell_apart(number):
    """Hosts 0 and 2 have one config, host 1 another; then host 0 fails alone."""
    hosts.require_same("config", {"seed": 0})
    try:
        hosts.require_same("config", {"seed": number % 2})
    except ValueError as error:
        print(error)

    def fail():
        raise OSError("disk full")

    try:
        hosts.on_first_host("stage x", fail)
    except (OSError, hosts.ElsewhereError) as error:
        print(type(error).__name__, error)
    print(hosts.on_first_host("stage y", lambda: 5))


def divide(folder, number):
    """Seven items, then arrays of which one is there before, then items of which one fails."""

    def note(item):
        # Alone, so that what one host writes is written by it, and it waits for no other.
        assert hosts.is_first()
        assert not hosts.together()
        hosts.barrier("nobody else comes here")
        (folder / f"item_{item}").write_text(str(number))

    hosts.divide("items", range(7), note)
    # Each sees another file late: the first one's view counts.
    view = [number != 1, number != 0, False, True]
    print(hosts.missing(4, view.__getitem__), hosts.missing(0, view.__getitem__))
    print(hosts.of_first(np.arange(3) == number).tolist())
    arrays = host_arrays.HostArrays(folder / "arrays", 5)
    if number == 0:
        (folder / "arrays").mkdir()
        np.save(folder / "arrays" / "000001.npy", np.array([-1, -1]))
    hosts.barrier("one is there")
    arrays.make("arrays", lambda i: np.array([i, number]))
    print([array.tolist() for array in arrays])

    def fail(item):
        if item == 1:
            raise OSError("disk full")
        (folder / f"kept_{item}").write_text("")

    try:
        hosts.divide("items", range(6), fail)
    except (OSError, hosts.ElsewhereError) as error:
        print(type(error).__name__, error)
    print(hosts.each_alone("a thing", lambda: number))


def canvases(folder, number, shift):
    """Four canvases, each saved by one host alone, or restored by it and saved twice again."""
    mesh = jax.sharding.Mesh(np.array(jax.local_devices()), ("data",))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))

    def canvas(value):
        x = jax.device_put(np.arange(32, dtype=np.float32).reshape(8, 4) + value, rows)
        return {"x": x, "history": {"0": x.astype(jax.numpy.bfloat16)}}

    def save_or_resume(item):
        saves = checkpoint.CanvasCheckpoints(folder / f"canvas_{item}", 128)
        step = saves.latest
        if step is None:
            saves.save(item, canvas(item), {"step": item, "chunk": 1})
        else:
            restored, place = saves.restore(canvas(0))
            jax.tree.map(np.testing.assert_array_equal, restored, canvas(step))
            assert all(leaf.sharding == rows for leaf in jax.tree.leaves(restored))
            assert place == {"step": step, "chunk": 1}
            print(f"canvas {item} of step {step} on host {number}")
            for later in (step + 4, step + 8):
                saves.save(later, canvas(later), {"step": later, "chunk": 1})
        saves.close()

    items = list(range(4))
    hosts.divide("canvases", items[shift:] + items[:shift], save_or_resume)


class Means:
    """Mean colours as features."""

    name, digest, dim = "means", "0", 3

    def __call__(self, patches):
        return patches.mean((1, 2)).astype(np.float32)


def features(folder, number):
    """Of 1100 images, in three blocks. Host 1 sees what the hosts exchange, and not yet what the
    first writes at the end."""
    parts = folder / "view_0" / "means-0-1100.parts"
    if number == 0:
        parts.mkdir(parents=True)
    else:
        (folder / "view_1").mkdir()
        (folder / "view_1" / parts.name).symlink_to(parts)
    hosts.barrier("the folders are there")
    read = lambda first, stop: np.arange(first, stop).reshape(-1, 1, 1, 1) + np.ones((8, 8, 3))
    for _ in range(2):
        made = regenerated.extract(Means(), read, 1100, folder / f"view_{number}")
        print(made if made is None else np.array_equal(made, np.arange(1100)[:, None] + np.ones(3)))
        if number == 0:
            print(parts.exists())
            # Killed before it could tidy up.
            parts.mkdir()
    print(sorted(path.name for path in (folder / f"view_{number}").iterdir()))


def start(count, devices, *args):
    """Processes of this script that know of one another."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "PYTHONPATH": f"{ROOT}:{ROOT}/tests:{pathlib.Path(__file__).parent}",
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "NPROC": "16",
    }
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    told = [str(arg) for arg in args]
    return [
        subprocess.Popen(
            [sys.executable, __file__, str(number), str(count), str(port), *told],
            env=environment,
            **pipes,
        )
        for number in range(count)
    ]


def finish(processes):
    try:
        found = [patience.communicate(process) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, errors) in zip(processes, found, strict=True):
        assert process.returncode == 0, errors[-3000:]
    # Gloo tells on stdout that it is there, sometimes in halves of lines.
    return [
        [line for line in out.strip().splitlines() if "peer ranks" not in line] for out, _ in found
    ]


def test_hosts_that_differ_are_named_on_every_host():
    told = finish(start(3, 1, "differ"))
    for host in told:
        assert host[0] == (
            "all hosts must have the same config, got another than host 0's on host 1 of 3"
        )
    assert told[0][1:] == ["OSError disk full", "5"]
    for host in told[1:]:
        assert host[1:] == [
            "ElsewhereError stage x failed on host 0: the log of host 0 has the error",
            "None",
        ]


def test_hosts_divide_items_and_hear_of_a_failure(tmp_path):
    said = finish(start(3, 1, "divide", tmp_path))
    by = [int((tmp_path / f"item_{i}").read_text()) for i in range(7)]
    assert by == [0, 1, 2, 0, 1, 2, 0]
    # Of 0, 2, 3 and 4, the missing ones, every third.
    arrays = str([[0, 0], [-1, -1], [2, 1], [3, 2], [4, 0]])
    failed = "ElsewhereError items failed on host 1: the log of host 1 has the error"
    first = str([True, False, False])
    assert said == [
        ["[1, 2] []", first, arrays, failed, "0"],
        ["[1, 2] []", first, arrays, "OSError disk full", "1"],
        ["[1, 2] []", first, arrays, failed, "2"],
    ]
    # A host stops at its failure, which the others do not share.
    assert sorted(path.name for path in tmp_path.glob("kept_*")) == [
        f"kept_{i}" for i in (0, 2, 3, 5)
    ]


def test_features_that_hosts_share_are_read_by_the_first(tmp_path):
    parts = "means-0-1100.parts"
    assert finish(start(2, 1, "features", tmp_path)) == [
        ["True", "False", "True", "False", f"['means-0-1100.npy', '{parts}']"],
        ["None", "None", f"['{parts}']"],
    ]


def test_a_canvas_that_one_host_saves_is_resumed_by_another_and_by_one_process(tmp_path):
    assert finish(start(2, 2, "canvas", tmp_path, 0)) == [[], []]
    said = finish(start(2, 2, "canvas", tmp_path, 1))
    assert said == [
        [f"canvas {item} of step {item} on host {host}" for item in items]
        for host, items in ((0, (1, 3)), (1, (2, 0)))
    ]
    # What one process of one saved is read by one of several too.
    for count, step in ((1, 8), (2, 16)):
        said = finish(start(count, 2, "canvas", tmp_path, 0))
        steps = sorted(line.partition(" on ")[0] for host in said for line in host)
        assert steps == [f"canvas {item} of step {item + step}" for item in range(4)]
    assert len(list((tmp_path / "canvas_3").rglob("*.npz"))) == 1


@pytest.fixture(scope="module")
def moved(tmp_path_factory):
    """A run of 2 hosts × 2 devices that was stopped, went on with 8 devices of one host and then
    with 2 for a few steps each, and ended on one device; beside one that never moved."""
    folder = tmp_path_factory.mktemp("moved")
    test_resume.write_stores(folder)
    test_resume.fit(folder, folder / "whole", NUM_STEPS)
    told = finish(start(2, 2, "stop", folder))
    between = [finish(start(1, devices, "between", folder))[0][-1] for devices in (8, 2)]
    test_resume.fit(folder, folder / "moved", NUM_STEPS)
    return folder, told, between


def test_a_signal_to_one_host_stops_all_at_one_step(moved):
    _, told, _ = moved
    assert told[0] == told[1]
    words = told[0][-1].split()
    assert told[0][-1].endswith(f"of {NUM_STEPS} and saved; the same command resumes")
    assert STOPPED_AT - 1 <= int(words[words.index("step") + 1]) < NUM_STEPS - 20


def test_the_curve_goes_on_with_other_hosts_and_devices(moved):
    folder, told, between = moved
    stopped = [int(line.split(" at step ")[1].split()[0]) for line in (told[0][-1], *between)]
    assert stopped == sorted(set(stopped))
    assert stopped[-1] < NUM_STEPS
    wanted = {line["step"]: line["loss"] for line in lines(folder / "whole")}
    found = {line["step"]: line["loss"] for line in lines(folder / "moved")}
    assert found.keys() == wanted.keys()
    np.testing.assert_allclose(list(found.values()), list(wanted.values()), rtol=1e-4)
    states = [final_state(folder / name, NUM_STEPS) for name in ("whole", "moved")]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *states)


def main():
    number, count, port, what = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
    if count > 1:
        jax.distributed.initialize(f"127.0.0.1:{port}", count, number)
    if what == "differ":
        tell_apart(number)
    elif what == "divide":
        divide(pathlib.Path(sys.argv[5]), number)
    elif what == "features":
        features(pathlib.Path(sys.argv[5]), number)
    elif what == "canvas":
        canvases(pathlib.Path(sys.argv[5]), number, int(sys.argv[6]))
    else:
        fit_until_stopped(pathlib.Path(sys.argv[5]), 1 if what == "between" else number)
    if count > 1:
        hosts.leave_together()
        jax.distributed.shutdown()


if __name__ == "__main__":
    main()
