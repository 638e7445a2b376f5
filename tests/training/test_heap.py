"""The heap is kept over the steps of a run."""

import platform
import subprocess
import sys

import pytest


def test_the_heap_is_kept_in_a_process_of_its_own():
    code = (
        "import resource, torch; from fastllie.training.heap import keep_heap; kept = keep_heap()\n"
        "def step():\n"
        "    for _ in range(10): torch.empty(1 << 24).fill_(1)\n"
        "step(); before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt; step()\n"
        "print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)"
    )
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("only glibc is told")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    kept, faults = done.stdout.split()
    assert kept == "True"
    # ten times 64 MiB in pages of 4 KiB would be 163840; a system short of memory takes some pages back
    assert int(faults) < 163840 // 2
