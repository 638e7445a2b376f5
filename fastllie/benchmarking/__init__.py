"""How long methods take here, beside what would be run without us."""

from fastllie.benchmarking.contest import benchmark
from fastllie.benchmarking.timing import Benchmark

__all__ = ["Benchmark", "benchmark"]
