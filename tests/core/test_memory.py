"""What is measured of a call's memory, in a process where nothing else allocates."""

import subprocess
import sys

import pytest

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
