"""What a process keeps: of the memory that it has freed, and of what is there when it is ready."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping

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
    default, kept = faults({})
    assert kept < default / 20


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc is not glibc's")
def test_what_the_environment_says_of_malloc_stays() -> None:
    default, kept = faults({"MALLOC_MMAP_THRESHOLD_": "131072"})
    assert kept > default / 2


def faults(environment: Mapping[str, str]) -> tuple[int, int]:
    """Of five steps, before malloc keeps memory and with it."""
    command, own = [sys.executable, "-c", STEPS], {**os.environ, **environment}
    found = subprocess.run(command, capture_output=True, text=True, check=True, env=own)
    default, kept = map(int, found.stdout.split())
    return default, kept


SETTLED = """
import gc
from robust_synthesis.memory import settle

class Ring:
    def __init__(self):
        self.ring = self

def rings():
    return sum(isinstance(each, Ring) for each in gc.get_objects(generation=None))

Ring()
stays = Ring()
settle()
looked_at = rings()
Ring()
found = rings()
gc.collect()
print(looked_at, found, rings(), stays is not None)
"""


def test_a_process_that_is_ready_looks_at_nothing_that_stays_and_goes_on_collecting_the_rest() -> None:
    found = subprocess.run([sys.executable, "-c", SETTLED], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["0", "1", "0", "True"]
