"""Ctrl-C, as a terminal sends it: to the command and to every process that it started.

This file is also the command.
"""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from ssldiff_jax.core import interrupt

ROOT = pathlib.Path(__file__).parents[2]


def compute():
    """As a compiler that works for minutes: the main thread runs no Python meanwhile."""
    print("ready", flush=True)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # the signal comes to another thread
    os.read(os.pipe()[0], 1)


def save():
    """Takes until a second Ctrl-C, or 0.1 s."""
    asked = []
    with interrupt.saving(lambda: asked.append(1)):
        print("ready", flush=True)
        while not asked or sys.argv[1] == "save_for_ever":
            time.sleep(0.01)
    print("saved", flush=True)
    sys.exit(interrupt.STATUS if interrupt.came() else 0)


def work(seconds):
    print("ready", flush=True)
    time.sleep(seconds)


def tile():
    from ssldiff_jax.data import engine

    config = engine.EngineConfig("processes", 2, ())
    for _ in engine.for_each(work, [600, 600, 600], config, died=print):
        pass


WAYS = {"compute": compute, "save": save, "save_for_ever": save, "tile": tile}


def begin(way, count=1):
    process = subprocess.Popen(
        [sys.executable, __file__, way],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    for _ in range(count):
        assert process.stdout.readline() == "ready\n"
    return process


def press(process):
    os.killpg(process.pid, signal.SIGINT)


@pytest.mark.parametrize(("way", "processes"), [("compute", 1), ("tile", 2)])
def test_what_saves_nothing_ends_at_once_in_one_line(way, processes):
    process = begin(way, processes)
    press(process)
    _, told = process.communicate()  # all of them hold its pipes open until they end
    assert process.returncode == interrupt.STATUS == 130
    (line,) = told.strip().splitlines()
    assert line.startswith("stopped by Ctrl-C")


def test_what_can_save_itself_does():
    process = begin("save")
    press(process)
    written, told = process.communicate()
    assert written == "saved\n"
    assert process.returncode == 130
    assert len(told.strip().splitlines()) == 1


def test_a_second_one_ends_at_once():
    process = begin("save_for_ever")
    press(process)
    assert process.stderr.readline() == "\n"
    assert "Ctrl-C again stops at once" in process.stderr.readline()
    press(process)
    written, told = process.communicate()
    assert written == ""
    assert process.returncode == 130
    assert "Traceback" not in told


def test_ignored_stays_ignored():
    """As of what a shell starts in the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        interrupt.install()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


if __name__ == "__main__":
    interrupt.install()
    WAYS[sys.argv[1]]()
