"""Memory that is freed serves the next array, in a process of its own."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_FAULTS = """
import resource, sys
import numpy as np
from klaus_runtime import memory
if sys.argv[1] == "kept":
    assert memory.keep_freed()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(1 << 23)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc, whose allocator has these settings")
def test_freed_memory_stays() -> None:
    def faults(how: str) -> int:
        done = subprocess.run(
            [sys.executable, "-c", _FAULTS, how], capture_output=True, text=True, check=True, timeout=60
        )
        return int(done.stdout)

    assert faults("kept") < 5
    assert faults("plain") >= 20
