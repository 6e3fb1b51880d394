"""What a process keeps of the memory that it has freed."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

STEPS = """
import resource
import numpy as np
from robust_synthesis.memory import keep_memory

def step():
    activations = [np.ones(2**21) for _ in range(8)]

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

step()
default = faults()
keep_memory()
step()
print(default, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc is not glibc's")
def test_steps_take_the_memory_of_those_before_and_not_new_pages() -> None:
    found = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, check=True)
    default, kept = map(int, found.stdout.split())
    assert kept < default / 20
