"""`make gpu` where there is no GPU: it refuses; its budget, its files, and that its measurements run."""

import importlib.util
import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import refused

from fastllie.ops import backend as backends
from fastllie.ops import measured as measurements

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
if not BENCHMARKS.is_dir():
    pytest.skip("the benchmarks are not here", allow_module_level=True)
sys.path.insert(0, str(BENCHMARKS))

import gpu  # noqa: E402
import record  # noqa: E402

ABOUT = {
    "device": "NVIDIA H200",
    "capability": [9, 0],
    "torch": "2.13",
    "commit": "abc",
    "date": "2026-11-20",
}


class Clock:
    """Time that passes only when a step runs."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def steps_of(*limits, **changes):
    steps = [gpu.Step(f"step{place}", [], limit) for place, limit in enumerate(limits)]
    return [replace(step, **changes.get(step.name, {})) for step in steps]


def run(steps, takes, budget=gpu.BUDGET):
    """Run steps of which each takes so many seconds if it may; returns the outcomes and their limits."""
    clock, limits = Clock(), []

    def execute(step, limit):
        limits.append(limit)
        wanted, status = takes[step.name]
        clock.now += min(wanted, limit)
        return ("timed out" if wanted > limit else status), "said"

    return gpu.run_steps(steps, budget, execute=execute, clock=clock), limits


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_it_refuses_without_a_gpu():
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "gpu.py")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "needs a machine with an NVIDIA GPU" in done.stderr
    assert torch.__version__ in done.stderr


def test_it_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu, "nvcc", lambda: "/usr/local/cuda/bin/nvcc")
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pybind11" else found(name))
    assert gpu.refusal() == f"pybind11 not installed for {sys.executable}; pip install them there"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    assert gpu.refusal() is None
    monkeypatch.setattr(gpu, "nvcc", lambda: None)
    assert "nvcc is neither on PATH" in gpu.refusal()


def test_arguments(capsys):
    with pytest.raises(SystemExit) as error:
        gpu.main(["--budget", "0"])
    assert error.value.code == 2
    assert "--budget must be positive, got 0.0" in capsys.readouterr().err


@pytest.mark.parametrize("sanitizer", [None, "/opt/compute-sanitizer"])
def test_the_plan_fits_the_budget(tmp_path, sanitizer):
    steps = gpu.plan(tmp_path, sanitizer)
    assert sum(step.limit for step in steps) <= gpu.BUDGET
    names = [step.name for step in steps]
    assert names[0] == "build"
    assert steps[0].vital
    assert steps[0].environment == {"FASTLLIE_CUDA": "1", "FASTLLIE_CUDA_ARCH": "native"}
    assert ("memcheck" in names) == ("racecheck" in names) == (sanitizer is not None)
    for step in steps:
        if step.figures is not None:
            # a measurement knows its own limit
            assert float(step.command[step.command.index("--seconds") + 1]) < step.limit


def test_a_step_has_its_limit_and_no_more_than_is_left():
    steps = steps_of(50, 50, 50)
    takes = {"step0": (20, "ok"), "step1": (60, "ok"), "step2": (30, "ok")}
    outcomes, limits = run(steps, takes, budget=90)
    assert [outcome.status for outcome in outcomes] == ["ok", "timed out", "timed out"]
    assert limits == [50, 50, 20]
    assert [outcome.seconds for outcome in outcomes] == [20, 50, 20]


def test_without_time_a_step_is_not_begun():
    outcomes, limits = run(steps_of(50, 50), {"step0": (45, "ok"), "step1": (1, "ok")}, budget=50)
    assert limits == [50]
    assert (outcomes[1].status, outcomes[1].detail) == ("skipped", "only 5 s were left")


def test_after_a_failed_build_nothing_runs():
    steps = steps_of(50, 50, step0={"vital": True})
    outcomes, _ = run(steps, {"step0": (1, "failed"), "step1": (1, "ok")})
    assert [outcome.status for outcome in outcomes] == ["failed", "skipped"]
    assert outcomes[1].detail == "step0 did not succeed"
    # a failed test hides no figures
    outcomes, _ = run(steps_of(50, 50), {"step0": (1, "failed"), "step1": (1, "ok")})
    assert [outcome.status for outcome in outcomes] == ["failed", "ok"]


def test_processes_and_their_limit():
    def step(code):
        return gpu.Step("step", [sys.executable, "-c", code], 10)

    assert gpu.execute(step("print('said')"), 10) == ("ok", "said")
    status, said = gpu.execute(step("import sys; sys.exit('broken')"), 10)
    assert (status, said) == ("failed", "broken")
    begin = time.monotonic()
    # its child holds the output open
    child = "import subprocess, sys, time; print('begun', flush=True);"
    child += "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); time.sleep(60)"
    assert gpu.execute(step(child), 2) == ("timed out", "begun")
    assert time.monotonic() - begin < 20


def test_what_is_written(tmp_path, monkeypatch, capsys):
    """All of it with fake steps: the figures of one that was stopped, and what "auto" reads from then on."""
    measured = tmp_path / "measured.json"
    measured.write_text('{"devices": {"NVIDIA A100": {"capability": [8, 0], "ms": {}}}}')
    times = {"cuda": 2.0, "triton": 1.0}

    def execute(step, limit):
        if step.name == "sci":
            record.write(step.figures, {"rows": {}, "operators": {"sci_forward": times}})
            return "timed out", "tuning"
        return "ok", ""

    monkeypatch.setattr(gpu, "refusal", lambda: None)
    monkeypatch.setattr(gpu, "machine", lambda: ABOUT)
    monkeypatch.setattr(gpu, "ROOT", tmp_path)
    monkeypatch.setattr(record, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(gpu, "MEASURED", measured)
    run_steps, keep = gpu.run_steps, gpu.keep
    monkeypatch.setattr(gpu, "run_steps", lambda steps, budget: run_steps(steps, budget, execute=execute))
    monkeypatch.setattr(gpu, "keep", lambda about, times: keep(about, times, measured))
    assert gpu.main(["--keep"]) == 1
    assert "== sci: timed out" in capsys.readouterr().out
    written = json.loads((tmp_path / "results" / "gpu--nvidia-h200.json").read_text())
    assert written["machine"] == ABOUT
    assert {step["name"]: step["status"] for step in written["steps"]}["sci"] == "timed out"
    assert written["figures"]["sci"]["operators"] == {"sci_forward": times}

    monkeypatch.setattr(measurements, "MEASURED", measured)
    measurements._measured.cache_clear()
    try:
        assert measurements.measured_faster("sci_forward", "NVIDIA H200", (9, 0)) == "triton"
        assert measurements.measured_faster("sci_forward", "NVIDIA A100", (8, 0)) is None
    finally:
        measurements._measured.cache_clear()


def test_the_measurements_run():
    """On the CPU and tiny frames, so that a machine with a GPU does not find them broken."""
    figures = pytest.importorskip("gpu_figures")
    if not backends.backends()["cpu"]:
        pytest.skip("fastllie._cpu was not built")
    *_, found = figures.operator_figures("cpu", 0, (24, 32))
    assert set(found["rows"]) == set(figures.OPERATORS)
    assert {"curve_forward", "smoothness_backward"} <= set(found["operators"])
    assert all(times["cpu"] > 0 for times in found["operators"].values())
    (found,) = figures.sci_figures("cpu", 0, (24, 32), None)
    assert found["wrong"] == {}
    assert found["rows"]["cpu, uint8"]["times_eager"] > 0
    (found,) = figures.zerodce_figures("cpu", 0, (24, 32), None)
    assert found["wrong"] == {}
    assert set(found["operators"]["zerodce_forward"]) == {"cpu"}
    first = next(figures.training_figures("cpu", 0))
    assert set(first["operators"]) == {"zero_reference_forward", "zero_reference_backward"}


def test_make_runs_it():
    makefile = BENCHMARKS.parent / "Makefile"
    if shutil.which("make") is None or not makefile.exists():
        pytest.skip("make is not here")
    done = subprocess.run(
        ["make", "--no-print-directory", "-n", "gpu", "PYTHON=python9"],
        cwd=BENCHMARKS.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["python9", "benchmarks/gpu.py"]


def test_a_file_is_whole_or_not_there(tmp_path):
    path = tmp_path / "figures.json"
    record.write(path, {"a": 1})
    with refused(TypeError, "not JSON serializable"):
        record.write(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["figures.json"]
