"""Cores in parts, processes that are moved to some of them, and accelerators that are left to
others."""

import os
import subprocess
import sys

import psutil
import pytest

from ssldiff_jax.core import machine

FAMILY = """
import subprocess, sys, threading, time
if len(sys.argv) > 1:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
for _ in range(3):
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
print("ready", flush=True)
sys.stdin.readline()
threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
print("ready", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("cores", [range(2), range(7), (3, 5, 9, 11, 40), range(64)])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_parts_are_even_and_share_no_core(monkeypatch, cores, count):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(cores), raising=False)
    parts = machine.parts(count)
    assert len(parts) == count
    if len(cores) < count:
        assert parts == [tuple(cores)] * count
        return
    assert [core for part in parts for core in part] == list(cores)
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.skipif(machine.cores() < 2, reason="one core")
def test_a_process_is_moved_with_its_threads_and_children():
    own = sorted(os.sched_getaffinity(0))
    process = subprocess.Popen(
        [sys.executable, "-c", FAMILY, "child"], text=True, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout.readline() == "ready\n"
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children()]
        assert len(family) == 2
        threads = lambda: {t.id for each in family for t in each.threads()}
        assert {frozenset(os.sched_getaffinity(t)) for t in threads()} == {frozenset(own)}
        machine.move(process.pid, own[1:2])
        print(file=process.stdin, flush=True)
        assert process.stdout.readline() == "ready\n"
        # Also the one that was started since.
        assert len(threads()) >= 6
        assert {tuple(os.sched_getaffinity(t)) for t in threads()} == {tuple(own[1:2])}
        machine.move(process.pid, own)
        assert {frozenset(os.sched_getaffinity(t)) for t in threads()} == {frozenset(own)}
    finally:
        for each in family:
            each.kill()
        process.wait()
    machine.move(process.pid, own)  # of one that has ended: nothing


def test_this_process_stays_where_it_is():
    assert machine.cores() == machine.cores_at_start() == len(machine.parts(1)[0])


def test_a_process_that_leaves_accelerators_does_not_look_at_them_and_its_children_may():
    code = """
import os
from ssldiff_jax.core import machine
machine.leave_accelerators()
import jax
print(jax.devices()[0].platform, os.environ["JAX_PLATFORMS"])
"""
    # A platform that is not here: to look at it would be an error.
    env = os.environ | {"JAX_PLATFORMS": "nowhere"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout == "cpu nowhere\n", done.stderr[-500:]
