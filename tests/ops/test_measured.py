"""Which of Triton and CUDA "auto" takes: by what was measured, else by estimates, and never a broken one."""

import json
from types import SimpleNamespace

import pytest
import torch

from fastllie import _native
from fastllie.ops import backend as backends
from fastllie.ops import measured

H200 = {
    "capability": [9, 0],
    "ms": {"curve_forward": {"cuda": 2.0, "triton": 1.0}, "sci_forward": {"cuda": 1.0}},
}
H200["ms"]["curve_backward"] = {"cuda": 3.0, "triton": 4.0}
A100 = {"capability": [8, 0], "ms": {"curve_forward": {"cuda": 1.0, "triton": 2.0}}}
# what choose asks of a tensor
X = SimpleNamespace(is_cuda=True, device=torch.device("cuda", 0))


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine with a GPU, both backends, and these figures."""
    monkeypatch.delenv("FASTLLIE_BACKEND", raising=False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    path = tmp_path / "measured.json"
    path.write_text(json.dumps({"devices": {"NVIDIA H200": H200, "NVIDIA A100": A100}}))
    monkeypatch.setattr(measured, "MEASURED", path)
    monkeypatch.setattr(_native, "cuda", object())
    monkeypatch.setattr(backends, "_has_triton", lambda: True)
    seen = {"name": "NVIDIA H200", "capability": (9, 0), "broken": ()}
    monkeypatch.setattr(
        backends, "failure", lambda name, op, index: "broken" * (name in seen["broken"]) or None
    )
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: seen["name"])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: seen["capability"])
    caches = (measured._measured, backends._preferred)
    for cache in caches:
        cache.cache_clear()
    yield seen
    for cache in caches:
        cache.cache_clear()


def test_the_faster_one_serves(machine):
    assert backends.choose("auto", X, "curve_forward") == "triton"
    # what was measured counts more than the estimate
    assert measured.ESTIMATED["curve_backward"] == "triton"
    assert backends.choose("auto", X, "curve_backward") == "cuda"


def test_another_gpu_of_the_same_capability(machine):
    machine["name"] = "NVIDIA H100 PCIe"
    assert backends.choose("auto", X, "curve_forward") == "triton"


@pytest.mark.parametrize(("name", "capability"), [("NVIDIA L4", (8, 9)), ("NVIDIA B200", (10, 0))])
def test_nobody_measured_this_gpu(machine, name, capability):
    machine |= {"name": name, "capability": capability}
    assert backends.choose("auto", X, "curve_forward") == "cuda"
    assert backends.choose("auto", X, "curve_backward") == "triton"


def test_nobody_measured_this_operator(machine):
    # one backend alone is no comparison
    for op in ("sci_forward", "smoothness_forward", None):
        assert backends.choose("auto", X, op) == "cuda"
    assert backends.choose("auto", X, "illumination_backward") == "triton"


def test_the_faster_one_is_not_here(machine, monkeypatch):
    monkeypatch.setattr(backends, "_has_triton", lambda: False)
    assert backends.choose("auto", X, "curve_forward") == "cuda"
    monkeypatch.setattr(_native, "cuda", None)
    assert backends.choose("auto", X, "curve_forward") == "torch"


def test_the_faster_one_does_not_compute(machine):
    for broken, serving in ((("triton",), "cuda"), (("cuda", "triton"), "torch"), (("cuda",), "triton")):
        machine["broken"] = broken
        assert backends.choose("auto", X, "curve_forward") == serving
    # CUDA is the better one for this, and broken
    assert backends.choose("auto", X, "sci_forward") == "triton"


def test_the_interpreter_serves_nobody_who_has_kernels(machine, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert backends.choose("auto", X, "curve_forward") == "cuda"


def test_the_file_that_ships():
    devices = json.loads(measured.MEASURED.read_text(encoding="utf-8"))["devices"]
    for row in devices.values():
        assert len(row["capability"]) == 2
        for times in row["ms"].values():
            assert set(times) <= {"cuda", "triton"}
            assert all(value > 0 for value in times.values())
