"""On a machine with a GPU: build, test and measure everything there is for it, in eight minutes at most.

    make gpu                            # or: python benchmarks/gpu.py
    python benchmarks/gpu.py --keep     # "auto" takes the faster backend on such a GPU from then on

Builds both native modules in place, runs the tests marked gpu, compute-sanitizer on small images where it is
installed, and the measurements of benchmarks/gpu_figures.py: each in a process of its own with a limit of its
own. What they find is in benchmarks/results/gpu--DEVICE.json, also where a step failed or ran out of time;
then the exit status is 1. It is 2 where nothing could be run: no GPU, or something to build with is missing.
"""

import argparse
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import record
from record import RESULTS, ROOT

FIGURES = ROOT / "benchmarks" / "gpu_figures.py"
MEASURED = ROOT / "fastllie" / "ops" / "measured.json"
BUDGET = 480.0  # seconds
# A step that starts with less than this would be stopped before it has imported torch
LEAST = 10.0
NEEDED = ("numpy", "PIL", "safetensors", "setuptools", "pybind11", "pytest")
# CUDA C++ alone: Triton would compile for longer than there is time
SANITIZED = "import sys, fastllie; rows = fastllie.ops.self_test('cuda'); print(*rows, sep='\\n'); "
SANITIZED += "sys.exit(not rows or not all(row.ok for row in rows))"
SANITIZERS = ("memcheck", "racecheck")


@dataclass(frozen=True)
class Step:
    """A process with a limit in seconds; `figures` is the file that it writes, `vital`: others rest on it."""

    name: str
    command: Sequence[str]
    limit: float
    environment: dict[str, str] = field(default_factory=dict)
    figures: Path | None = None
    vital: bool = False


@dataclass(frozen=True)
class Outcome:
    """How a step went: "ok", "failed", "timed out" or "skipped", its seconds, and why or the last it said."""

    name: str
    status: str
    seconds: float
    detail: str


Execute = Callable[[Step, float], tuple[str, str]]


def refusal() -> str | None:
    """Why this machine cannot run it, or None."""
    if importlib.util.find_spec("torch") is None:
        return f"torch is not installed for {sys.executable}; wanted one built for CUDA"
    import torch

    if not torch.cuda.is_available():
        return f"this needs a machine with an NVIDIA GPU: torch {torch.__version__} sees no CUDA device here"
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        return f"{', '.join(missing)} not installed for {sys.executable}; pip install them there"
    if nvcc() is None:
        return "nvcc is neither on PATH nor in $CUDA_HOME/bin: the CUDA module cannot be built"
    return None


def nvcc() -> str | None:
    return tool("nvcc")


def tool(name: str) -> str | None:
    """A program of the CUDA toolkit, from $CUDA_HOME if that is set, as setup.py looks for it."""
    home = os.environ.get("CUDA_HOME")
    return shutil.which(name, path=str(Path(home) / "bin")) if home else shutil.which(name)


def plan(folder: Path, sanitizer: str | None) -> list[Step]:
    """What is run in which order; figures go to the folder. The limits add up to the budget at most."""
    python = sys.executable
    build = {"FASTLLIE_CUDA": "1", "FASTLLIE_CUDA_ARCH": "native"}
    tests = [python, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider"]
    if importlib.util.find_spec("xdist") is not None:
        tests += ["-n", "4"]
    steps = [
        Step("build", [python, "setup.py", "-q", "build_ext", "--inplace"], 110, build, vital=True),
        Step("tests", tests, 100),
    ]
    if sanitizer is not None:
        command = [sanitizer, "--error-exitcode=1", python, "-c", SANITIZED]
        steps += [Step(tool, [*command[:1], f"--tool={tool}", *command[1:]], 20) for tool in SANITIZERS]
    # the tuning of torch.compile comes last in each, and takes longest for seven convolutions
    for name, limit in (("ops", 45.0), ("sci", 45.0), ("zerodce", 95.0), ("training", 45.0)):
        path = folder / f"{name}.json"
        command = [python, str(FIGURES), name, "--out", str(path), "--seconds", str(limit / 2)]
        steps.append(Step(name, command, limit, figures=path))
    return steps


def execute(step: Step, limit: float) -> tuple[str, str]:
    """Run a step, with everything that it starts, for `limit` seconds at most; its status and last words."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"} | step.environment
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            step.command, cwd=ROOT, env=environment, stdout=said, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            status = "ok" if process.wait(limit) == 0 else "failed"
        except subprocess.TimeoutExpired:
            status = "timed out"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        said.seek(0)
        return status, said.read().decode(errors="replace")[-3000:].strip()


def run_steps(
    steps: Sequence[Step],
    budget: float = BUDGET,
    *,
    execute: Execute = execute,
    clock: Callable[[], float] = time.monotonic,
) -> list[Outcome]:
    """Run the steps one after the other within the budget; after a vital one that fails, none."""
    begin, broken = clock(), ""
    outcomes = []
    for step in steps:
        left = budget - (clock() - begin)
        if broken or left < LEAST:
            reason = f"{broken} did not succeed" if broken else f"only {max(0.0, left):.0f} s were left"
            outcomes.append(Outcome(step.name, "skipped", 0.0, reason))
        else:
            started = clock()
            status, detail = execute(step, min(step.limit, left))
            outcomes.append(Outcome(step.name, status, round(clock() - started, 1), detail))
            if step.vital and status != "ok":
                broken = step.name
        last = outcomes[-1]
        print(f"== {last.name}: {last.status}, {last.seconds:.0f} s", flush=True)
        if last.status != "ok":
            print(last.detail, flush=True)
    return outcomes


def collected(steps: Sequence[Step]) -> dict[str, Any]:
    """What the steps have written, by step; a step that was stopped has written what it had by then."""
    found = {}
    for step in steps:
        if step.figures is not None and step.figures.exists():
            found[step.name] = json.loads(step.figures.read_text(encoding="utf-8"))
    return found


def operators(figures: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Milliseconds of each operator by backend, from all steps."""
    found: dict[str, dict[str, float]] = {}
    for part in figures.values():
        found |= part.get("operators", {})
    return found


def keep(about: dict[str, Any], times: dict[str, dict[str, float]], path: Path = MEASURED) -> None:
    """Add what was measured on this GPU to the file that "auto" reads; see fastllie.ops.backend."""
    content = json.loads(path.read_text(encoding="utf-8"))
    row = {key: about[key] for key in ("capability", "torch", "commit", "date")}
    content["devices"][about["device"]] = row | {"ms": times}
    record.write(path, content)


def machine() -> dict[str, Any]:
    import torch

    about = record.machine("cuda")
    del about["allocator"]
    about["capability"] = list(torch.cuda.get_device_capability())
    about["multiprocessors"] = torch.cuda.get_device_properties(0).multi_processor_count
    about["memory_gib"] = round(torch.cuda.get_device_properties(0).total_memory / 2**30)
    return about | {"cuda": torch.version.cuda}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keep", action="store_true", help="let 'auto' choose by what is measured here")
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds, %(default)s")
    parser.add_argument("--name", help="file name under benchmarks/results; default: gpu--DEVICE")
    options = parser.parse_args(arguments)
    if options.budget <= 0:
        parser.error(f"--budget must be positive, got {options.budget}")
    reason = refusal()
    if reason is not None:
        print(f"make gpu: {reason}", file=sys.stderr)
        return 2
    sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
    with tempfile.TemporaryDirectory() as folder:
        sanitizer = tool("compute-sanitizer")
        if sanitizer is None:
            print("== compute-sanitizer is not installed: not run", flush=True)
        steps = plan(Path(folder), sanitizer)
        outcomes = run_steps(steps, options.budget)
        figures = collected(steps)
    # not before: what is built is found when fastllie is imported
    about = machine()
    path = RESULTS / f"{options.name}.json" if options.name else record.path_of("gpu", about["device"])
    steps_run = [asdict(outcome) for outcome in outcomes]
    record.write(path, {"machine": about, "steps": steps_run, "figures": figures})
    print(f"written: {path.relative_to(ROOT)}")
    times = operators(figures)
    if options.keep and times:
        keep(about, times)
        print(f"written: {MEASURED.relative_to(ROOT)}")
    return 0 if all(outcome.status == "ok" for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
