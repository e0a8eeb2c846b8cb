"""malloc keeps what is freed, by the page faults of allocating again, and gives it back, by the resident set."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import resource
from flax_resnets.training.memory import keep_freed_memory
if {keep}:
    keep_freed_memory()
def touch():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    bytearray(b'x') * 2**26
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
touch()
print(touch())
"""


def faults(keep: bool, **environment: str) -> int:
    command = [sys.executable, "-W", "error", "-c", PROGRAM.format(keep=keep)]
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=120)
    assert result.returncode == 0, result.stderr
    return int(result.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_memory_allocated_again_is_not_faulted_in_again():
    pages = 2**26 // 2**12
    assert faults(keep=False) > pages / 2
    assert faults(keep=True) < pages / 10


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_what_the_environment_says_of_malloc_stays():
    assert faults(keep=True, MALLOC_TOP_PAD_="4096") > 2**26 // 2**12 / 2


GIVING_BACK = """
from pathlib import Path
from flax_resnets.training.memory import give_back_freed_memory, keep_freed_memory
def pages():
    return int(Path('/proc/self/statm').read_text().split()[1])
keep_freed_memory()
before, large = pages(), bytearray(b'x') * 2**26
behind = bytearray(b'x') * 2**20  # on the heap's end, so that what is freed lies within
del large
kept = pages()
give_back_freed_memory()
print(kept - before, pages() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_memory_that_was_kept_is_given_back():
    command = [sys.executable, "-W", "error", "-c", GIVING_BACK]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    kept, after = map(int, result.stdout.split())
    pages = 2**26 // 2**12
    assert kept > 0.9 * pages
    assert after < 0.2 * pages
