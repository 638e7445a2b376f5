"""A backend that loads and does not compute: found out by a tiny launch, and why is kept."""

from types import SimpleNamespace

import pytest
import torch
from serving import on

import fastllie
from fastllie import _native
from fastllie.ops import backend as backends
from fastllie.ops import launch, trial
from fastllie.ops.zerodce import pack_zerodce

CPU = torch.device("cpu")
X = SimpleNamespace(is_cuda=True, device=torch.device("cuda", 1))


@pytest.fixture
def machine(monkeypatch):
    """Two GPUs, whose memory is the CPU's, and a stand-in for fastllie._cuda that divides; no Triton."""
    monkeypatch.delenv("FASTLLIE_BACKEND", raising=False)
    seen = SimpleNamespace(launches=[], capturing=False, error=None, value=0.5, network=True)

    def divide(x, illum, out, sizes, device, stream):
        seen.launches.append(("illumination", device))
        if seen.error is not None:
            raise seen.error
        out.fill_(seen.value)

    def enhance(x, out, *rest):
        seen.launches.append(("zerodce", rest[-2]))
        if seen.network:
            out.copy_(x)

    monkeypatch.setattr(
        _native, "cuda", SimpleNamespace(illumination_forward=divide, zerodce_forward=enhance)
    )
    monkeypatch.setattr(launch, "views", lambda *tensors: tensors)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: seen.capturing)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"GPU {index}")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (9, 0))
    monkeypatch.setattr(backends, "_has_triton", lambda: False)
    monkeypatch.setattr(backends, "_triton_version", lambda: None)
    tried = trial._tried

    def on_cpu(backend, device, network):
        monkeypatch.setattr(launch, "cuda_place", lambda x: (device.index, 0))
        return tried(backend, CPU, network)

    monkeypatch.setattr(trial, "_tried", on_cpu)
    trial.forget()
    yield seen
    trial.forget()


def test_one_launch_a_device(machine):
    for _ in range(3):
        assert backends.choose("auto", X, "curve_forward") == "cuda"
        assert backends.choose("cuda", X, "sci_forward") == "cuda"
    assert machine.launches == [("illumination", 1)]
    assert fastllie.backends()["cuda"]
    assert machine.launches == [("illumination", 1), ("illumination", 0)]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            RuntimeError("CUDA: CUDA driver version is insufficient\nfor CUDA runtime version"),
            "is insufficient",
        ),
        (OSError("gcc is not here"), "gcc is not here"),
        (AssertionError(), "AssertionError"),
    ],
    ids=["driver", "compiler", "without words"],
)
def test_a_launch_that_fails(machine, error, reason):
    machine.error = error
    assert backends.choose("auto", X, "curve_forward") == "torch"
    with pytest.raises(
        RuntimeError, match=rf"'cuda' cannot serve: a tiny launch failed: .*{reason} \(GPU 1\)"
    ):
        backends.choose("cuda", X, "curve_forward")
    assert len(machine.launches) == 1
    found = fastllie.backends()["cuda"]
    assert not found
    assert reason in found.detail
    assert "\n" not in found.detail


@pytest.mark.parametrize("value", [float("nan"), 0.25])
def test_a_launch_that_computes_something_else(machine, value):
    machine.value = value
    assert backends.choose("auto", X, "curve_forward") == "torch"
    assert "computed nothing or wrong values" in fastllie.backends()["cuda"].detail


def test_a_kernel_whose_body_is_empty(machine):
    """As Zero-DCE's is where the module was built for a GPU without such tensor cores."""
    machine.network = False
    assert backends.choose("auto", X, "zerodce_forward") == "torch"
    assert backends.choose("auto", X, "curve_forward") == "cuda"
    with pytest.raises(RuntimeError, match="computed nothing or wrong values"):
        backends.choose("cuda", X, "zerodce_forward")
    machine.network = True
    trial.forget()
    assert backends.choose("auto", X, "zerodce_forward") == "cuda"


def test_nothing_is_tried_within_a_recording(machine):
    machine.capturing, machine.error = True, RuntimeError("no kernel image is available")
    assert backends.choose("auto", X, "curve_forward") == "cuda"
    assert not machine.launches
    machine.capturing = False
    assert backends.choose("auto", X, "curve_forward") == "torch"


@pytest.mark.parametrize("network", [False, True], ids=["illumination", "zerodce"])
@pytest.mark.parametrize("backend", [on("cuda"), "triton"])
def test_the_kernels_pass(backend, network):
    if backend == "triton":
        pytest.importorskip("triton")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu", 0)
    assert trial._tried(backend, device, network) is None


@pytest.mark.parametrize("backend", [on("cuda")])
def test_interpreting_triton_leaves_cuda_its_bfloat16(backend, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    weights = [torch.zeros(n, m, 3, 3) for m, n in ((3, 32), *[(32, 32)] * 3, *[(64, 32)] * 2, (64, 24))]
    if torch.cuda.is_available():
        weights = [weight.cuda() for weight in weights]
    biases = [weight.new_zeros(len(weight)) for weight in weights]
    packed = pack_zerodce(weights, biases, dtype=torch.bfloat16, backend=backend)
    assert packed.weights[0].dtype == torch.bfloat16
