"""What no machine here can run is compiled at least: the Triton kernels for sm_80 and sm_90."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from serving import HOME

PROGRAM = Path(__file__).with_name("triton_compiled.py")


# by architecture and groups of kernels: how many there are
@pytest.mark.parametrize(
    ("architecture", "groups", "count"),
    [
        (90, ["curve"], 27),
        (90, ["images"], 44),
        (90, ["losses"], 36),
        (80, ["curve", "images", "losses"], 23),
    ],
    ids=["90-curve", "90-images", "90-losses", "80"],
)
def test_triton_kernels_compile(architecture, groups, count, tmp_path):
    pytest.importorskip("triton")
    path = os.pathsep.join([str(HOME), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {
        "TRITON_INTERPRET": "0",
        "TRITON_CACHE_DIR": str(tmp_path),
        "PYTHONPATH": path,
    }
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(architecture), *groups],
        env=environment, cwd=HOME, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) == count
