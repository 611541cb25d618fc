"""What is measured of a call's memory, in a process where nothing else allocates."""

import subprocess
import sys

import psutil
import pytest

from ssldiff_jax.core import memory

_CALL = """
import numpy as np
from ssldiff_jax.core import memory

{before}
print(memory.peak_mb_beyond(lambda: np.ones(2**23).sum()))
"""
_KEPT = """
memory.keep_freed()
kept = [np.ones(2**20) for _ in range(16)]
del kept
"""
"""The C library has 128 MB to serve the call from."""
_PEAK_BEFORE = "np.ones(2**25).sum()"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the peak of a while")
@pytest.mark.parametrize("before", ["", _KEPT, _PEAK_BEFORE], ids=["", "kept", "larger before"])
def test_peak_beyond_is_that_of_the_call(before):
    code = _CALL.format(before=before)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) == pytest.approx(64, abs=8)


def test_memory_of_the_machine_and_of_the_process_are_those_of_another_library():
    machine, own = psutil.virtual_memory(), psutil.Process().memory_info().rss
    assert memory.total_bytes() == machine.total
    assert memory.total_gb() == pytest.approx(machine.total / 1e9)
    assert 0 < memory.available_bytes() <= machine.total
    # Read at other moments, of a machine that others use.
    assert memory.available_bytes() == pytest.approx(machine.available, abs=0.1 * machine.total)
    assert memory.rss_mb() == pytest.approx(own / 2**20, rel=0.05)
    assert memory.peak_rss_mb() >= 0.95 * memory.rss_mb()
