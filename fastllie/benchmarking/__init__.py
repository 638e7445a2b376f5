"""How long methods take here, beside what would be run without us."""

from fastllie.benchmarking.contest import benchmark
from fastllie.benchmarking.timing import Benchmark, Case

__all__ = ["Benchmark", "Case", "benchmark"]
