"""The threads of the C++ kernels: what a Python without the GIL asks of them, watched by ThreadSanitizer."""

import os
import shutil
import subprocess
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from fastllie import _native
from fastllie.ops import apply_curve

CSRC = Path(__file__).resolve().parents[2] / "csrc"

# several callers at once, on the pool of our own: this process has not loaded torch's
CALLERS = r"""
#include <atomic>
#include <cstdio>
#include <thread>
#include <vector>
#include "cpu/isa.h"
#include "cpu/parallel.h"

int main() {
  std::atomic<int64_t> wrong{0};
  std::vector<std::thread> callers;
  for (int c = 0; c < 4; ++c)
    callers.emplace_back([c, &wrong] {
      for (int round = 1; round <= 30; ++round) {
        std::vector<int64_t> taken(round * 7 + c);  // every unit once, seen when the call returns
        fastllie::parallel(int64_t(taken.size()), 1 + (round + c) % 4, [&](int64_t from, int64_t to) {
          for (int64_t i = from; i < to; ++i) ++taken[i];
        });
        for (const int64_t times : taken) wrong += times != 1;
        fastllie::set_isa(fastllie::isa_names()[0]);
        wrong += fastllie::isa_name() != fastllie::isa_names()[0];
      }
    });
  for (auto& caller : callers) caller.join();
  std::printf("%d wrong\n", int(wrong));
}
"""


def test_no_race_between_callers_of_the_pool(tmp_path):
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None or not CSRC.is_dir():
        pytest.skip("needs a C++ compiler and the sources")
    (tmp_path / "callers.cpp").write_text(CALLERS)
    sources = [tmp_path / "callers.cpp", CSRC / "cpu" / "parallel.cpp", CSRC / "cpu" / "isa.cpp"]
    command = [compiler, "-std=c++17", "-O1", "-g", "-fsanitize=thread", "-pthread", f"-I{CSRC}"]
    built = subprocess.run([*command, *sources, "-o", tmp_path / "callers"], capture_output=True, text=True)
    if "cannot find" in built.stderr:
        pytest.skip("this compiler comes without ThreadSanitizer")
    assert built.returncode == 0, built.stderr
    # without address space randomization, which some kernels have more of than the sanitizer expects
    still = [shutil.which("setarch"), "-R"] if shutil.which("setarch") else []
    done = subprocess.run([*still, tmp_path / "callers"], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "0 wrong\n"), textwrap.shorten(done.stderr, 2000)


@pytest.mark.skipif(_native.cpu is None, reason="the C++ kernels are not built")
def test_kernels_share_nothing_between_threads():
    """The kernels release the GIL: sizes of all kinds at once give the bits that they give one by one."""
    torch.manual_seed(0)
    sizes = [(33, 470), (64, 64), (7, 1900), (200, 90), (1, 1), (128, 257)]
    images = [(torch.rand(1, 3, *size), torch.rand(1, 24, *size) - 0.5) for size in sizes]
    alone = [apply_curve(x, alpha, backend="cpu") for x, alpha in images]
    with ThreadPoolExecutor(len(images)) as threads:
        for _ in range(20):
            together = list(threads.map(lambda pair: apply_curve(*pair, backend="cpu"), images))
            assert all(map(torch.equal, together, alone))


@pytest.mark.skipif(_native.cpu is None, reason="the C++ kernels are not built")
def test_the_modules_leave_the_gil_off():
    if not (CSRC / "cpu" / "bind.cpp").is_file():
        pytest.skip("the sources are not here")
    for native in ("cpu", "cuda"):
        source = (CSRC / native / "bind.cpp").read_text(encoding="utf-8")
        assert f"PYBIND11_MODULE(_{native}, m, " in source
        assert "mod_gil_not_used()" in source
