"""Tests wait for what computes, and for nothing that hangs."""

import subprocess
import sys
import time

import patience
import pytest


def start(code):
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def test_a_busy_process_is_waited_for():
    busy = start("import time; e = time.time() + 3\nwhile time.time() < e: pass\nprint('done')")
    assert patience.communicate(busy, idle_s=1)[0] == "done\n"


def test_a_hanging_process_is_killed_with_its_children():
    code = (
        "import subprocess, sys, time; "
        "c = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(999)']); "
        "print(c.pid, flush=True); time.sleep(999)"
    )
    hangs = start(code)
    child = patience.psutil.Process(int(hangs.stdout.readline()))
    with pytest.raises(patience.HangsError, match="computed nothing of late"):
        patience.communicate(hangs, idle_s=1)
    assert hangs.returncode
    # Killed, and where cores are busy not yet gone.
    end = time.monotonic() + 60
    while child.is_running() and child.status() != patience.psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end
        time.sleep(0.02)


def test_what_computes_forever_ends_too():
    with pytest.raises(patience.HangsError):
        patience.communicate(start("while True: pass"), most_s=1)


def test_a_process_that_ended_is_no_reason_to_wait():
    with pytest.raises(AssertionError, match="ended with status 3 before"):
        patience.until(lambda: False, start("import sys; sys.exit(3)"))


def test_a_child_that_ends_takes_its_seconds_along_and_is_no_rest():
    """What is left has computed less than both had, and goes on computing."""
    code = (
        "import subprocess, sys, time\n"
        "busy = 'import time; e = time.time() + 4\\nwhile time.time() < e: pass'\n"
        "subprocess.run([sys.executable, '-c', busy])\n"
        "for i in range(40):\n"
        "    e = time.time() + 0.03\n"
        "    while time.time() < e: pass\n"
        "    time.sleep(0.07)\n"
        "print('done')"
    )
    assert patience.communicate(start(code), idle_s=1.5)[0] == "done\n"
