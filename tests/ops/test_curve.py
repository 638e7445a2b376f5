"""The operators against the reference: every backend, dtype, layout and odd size, forward and gradients."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from cases import DTYPES, LAYOUTS, SHAPES, TOLERANCES, curve_inputs
from serving import EVERY, HOME, device_of

import fastllie
from fastllie import _native
from fastllie.ops import apply_curve, reference

GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "golden" / "zerodce"
needs_golden = pytest.mark.skipif(
    not GOLDEN.is_dir(), reason="the golden data of the published code is not here"
)


def differentiate(inputs, *, steps, tanh, backend):
    x, alpha = inputs.x.detach().requires_grad_(), inputs.alpha.detach().requires_grad_()
    out = apply_curve(x, alpha, steps=steps, tanh=tanh, backend=backend)
    return out.detach(), *torch.autograd.grad(out, (x, alpha), inputs.grad)


def expect_curve(inputs, got, *, steps, tanh):
    x, alpha, grad = (tensor.double().cpu() for tensor in (inputs.x, inputs.alpha, inputs.grad))
    expected = (
        reference.curve(x, alpha, steps, tanh),
        *reference.curve_backward(grad, x, alpha, steps, tanh),
    )
    likes = (inputs.x, inputs.x, inputs.alpha)
    for name, value, exact, like in zip(("out", "grad_x", "grad_alpha"), got, expected, likes, strict=True):
        assert value.dtype == like.dtype, name
        assert value.shape == like.shape, name
        assert value.device == like.device, name
        tolerance = TOLERANCES[like.dtype]
        atol = tolerance.value if name == "out" else tolerance.gradient * max(1.0, float(exact.abs().max()))
        torch.testing.assert_close(
            value.double().cpu(), exact, rtol=0, atol=atol, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("tanh", [False, True], ids=["alpha", "raw"])
@pytest.mark.parametrize("shared", [False, True], ids=["per_step", "shared"])
@pytest.mark.parametrize(
    "dtypes", DTYPES, ids=lambda pair: "-".join(str(d).removeprefix("torch.") for d in pair)
)
@pytest.mark.parametrize("backend", EVERY)
def test_curve_dtypes(backend, dtypes, shared, tanh):
    inputs = curve_inputs(2, 5, 37, shared=shared, dtypes=dtypes, device=device_of(backend))
    expect_curve(inputs, differentiate(inputs, steps=8, tanh=tanh, backend=backend), steps=8, tanh=tanh)


@pytest.mark.parametrize("shared", [False, True], ids=["per_step", "shared"])
@pytest.mark.parametrize("dtypes", [DTYPES[1], DTYPES[4]], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("backend", EVERY)
def test_curve_layouts(backend, layout, dtypes, shared):
    inputs = curve_inputs(2, 6, 11, shared=shared, dtypes=dtypes, layout=layout, device=device_of(backend))
    got = differentiate(inputs, steps=8, tanh=True, backend=backend)
    expect_curve(inputs, got, steps=8, tanh=True)
    assert got[0].stride() == torch.empty_like(inputs.x).stride()


@pytest.mark.parametrize("steps", [1, 4, 7, 9, 16, 21])
@pytest.mark.parametrize("backend", EVERY)
def test_curve_any_number_of_steps(backend, steps):
    for shared in (False, True):
        inputs = curve_inputs(
            1, 3, 19, steps=steps, shared=shared, dtypes=DTYPES[0], device=device_of(backend)
        )
        got = differentiate(inputs, steps=steps, tanh=True, backend=backend)
        expect_curve(inputs, got, steps=steps, tanh=True)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("backend", EVERY)
def test_curve_sizes(backend, shape):
    inputs = curve_inputs(*shape, device=device_of(backend))
    expect_curve(inputs, differentiate(inputs, steps=8, tanh=False, backend=backend), steps=8, tanh=False)


@pytest.mark.parametrize("backend", EVERY)
def test_curve_of_nothing(backend):
    for batch, height, width in ((0, 4, 5), (2, 0, 5), (2, 4, 0)):
        inputs = curve_inputs(batch, height, width, device=device_of(backend))
        got = differentiate(inputs, steps=8, tanh=True, backend=backend)
        assert [tuple(g.shape) for g in got] == [
            (batch, 3, height, width), (batch, 3, height, width), (batch, 24, height, width)
        ]  # fmt: skip


def test_every_instruction_set(isa):
    for dtypes in DTYPES:
        for layout in ("contiguous", "mixed"):
            for shared in (False, True):
                inputs = curve_inputs(2, 6, 37, shared=shared, dtypes=dtypes, layout=layout)
                got = differentiate(inputs, steps=8, tanh=True, backend="cpu")
                expect_curve(inputs, got, steps=8, tanh=True)


def test_unknown_instruction_set():
    device_of("cpu")
    with pytest.raises(ValueError, match=r"cannot run the instruction set 'sse9'"):
        _native.cpu.set_isa("sse9")


def test_large_tensors_on_several_threads():
    device_of("cpu")
    # whole and ragged rows
    for width in (1024, 1021):
        inputs = curve_inputs(1, 1024, width, steps=2)
        got = differentiate(inputs, steps=2, tanh=False, backend="cpu")
        expect_curve(inputs, got, steps=2, tanh=False)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
def test_half_conversions_are_exact(dtype):
    device_of("cpu")
    # every bit pattern through the identity (alpha = 0), in every instruction set
    every = torch.arange(-32768, 32768, dtype=torch.int32).to(torch.int16).view(dtype)
    finite = torch.where(every.isfinite(), every, torch.zeros_like(every))
    # a square that overflows float32 would leave inf * 0: keep to magnitudes that the curve can carry
    finite = torch.where(finite.float().abs() < 1e18, finite, torch.zeros_like(finite)).view(1, 1, 256, 256)
    nothing = torch.zeros_like(finite)
    rounding = torch.linspace(-2, 2, 65536).view(1, 1, 256, 256)
    before = _native.cpu.isa()
    try:
        for isa in _native.cpu.isas():
            _native.cpu.set_isa(isa)
            assert torch.equal(apply_curve(finite, nothing, steps=1, backend="cpu"), finite)
            got = apply_curve(torch.full_like(finite, 0.5), (rounding * 4).to(dtype), steps=1, backend="cpu")
            exact = 0.5 + (rounding * 4).to(dtype).float() * 0.25
            assert torch.equal(got, exact.to(dtype))
    finally:
        _native.cpu.set_isa(before)


@pytest.mark.parametrize("backend", EVERY)
def test_nan_and_infinity_are_not_hidden(backend):
    device = device_of(backend)
    x = torch.tensor([0.5, float("nan"), 0.25, 0.5], device=device).view(1, 1, 1, 4)
    alpha = torch.tensor([float("nan"), 0.5, float("inf"), -float("inf")], device=device).view(1, 1, 1, 4)
    out = apply_curve(x, alpha, steps=1, tanh=True, backend=backend).flatten().tolist()
    assert np.isnan(out[:2]).all()
    assert out[2:] == pytest.approx([0.25 + 0.1875, 0.5 - 0.25], abs=1e-6)


@pytest.mark.parametrize("wanted", ["x", "alpha"])
@pytest.mark.parametrize("backend", EVERY)
def test_one_gradient_alone(backend, wanted):
    for shared in (False, True):
        inputs = curve_inputs(1, 4, 9, shared=shared, device=device_of(backend))
        both = differentiate(inputs, steps=8, tanh=True, backend=backend)
        x, alpha = inputs.x.requires_grad_(wanted == "x"), inputs.alpha.requires_grad_(wanted == "alpha")
        out = apply_curve(x, alpha, tanh=True, backend=backend)
        (got,) = torch.autograd.grad(out, x if wanted == "x" else alpha, inputs.grad)
        assert torch.equal(got, both[1 if wanted == "x" else 2])


@pytest.mark.parametrize("tanh", [False, True], ids=["alpha", "raw"])
@pytest.mark.parametrize("shared", [False, True], ids=["per_step", "shared"])
@pytest.mark.parametrize("backend", EVERY)
def test_gradcheck(backend, shared, tanh):
    # few pixels: each is several calls, and Triton's interpreter takes its time
    inputs = curve_inputs(1, 1, 2, steps=3, shared=shared, dtypes=DTYPES[0], device=device_of(backend))
    arguments = (inputs.x.requires_grad_(), inputs.alpha.requires_grad_())

    def curve(x, alpha):
        return apply_curve(x, alpha, steps=3, tanh=tanh, backend=backend)

    assert torch.autograd.gradcheck(curve, arguments)
    assert torch.autograd.gradgradcheck(curve, arguments)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("backend", EVERY)
def test_opcheck(backend, layout):
    for shared, (need_x, need_alpha) in (
        (False, (True, True)),
        (True, (True, False)),
        (False, (False, True)),
    ):
        inputs = curve_inputs(2, 3, 5, shared=shared, layout=layout, device=device_of(backend))
        x, alpha = inputs.x.detach().requires_grad_(), inputs.alpha.detach().requires_grad_()
        torch.library.opcheck(torch.ops.fastllie.curve_forward.default, (x, alpha, 8, True, backend))
        torch.library.opcheck(
            torch.ops.fastllie.curve_backward.default,
            (inputs.grad, x.detach(), alpha.detach(), 8, True, need_x, need_alpha, backend),
        )


@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
def test_compile_in_one_graph(compiler):
    inputs = curve_inputs(2, 6, 10)

    def loss(x, alpha):
        return (apply_curve(torch.relu(x), alpha * 0.5, tanh=True) ** 2).sum()

    def gradients(function):
        x, alpha = inputs.x.detach().requires_grad_(), inputs.alpha.detach().requires_grad_()
        value = function(x, alpha)
        return value.detach(), *torch.autograd.grad(value, (x, alpha))

    compiled = torch.compile(loss, fullgraph=True, backend=compiler)
    torch.testing.assert_close(gradients(compiled), gradients(loss))


def test_export():
    inputs = curve_inputs(1, 6, 10)

    class Curve(torch.nn.Module):
        def forward(self, x, alpha):
            return apply_curve(x, alpha)

    program = torch.export.export(Curve(), (inputs.x, inputs.alpha))
    assert "fastllie.curve_forward" in str(program.graph)
    assert torch.equal(program.module()(inputs.x, inputs.alpha), apply_curve(inputs.x, inputs.alpha))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
def test_autocast_reads_narrow_maps_in_place(dtype):
    torch.manual_seed(0)
    network = torch.nn.Conv2d(3, 24, 3, padding=1)
    x = torch.rand(2, 3, 9, 12)
    with torch.autocast("cpu", dtype):
        raw = network(x)
        assert raw.dtype == dtype
        out = apply_curve(x, raw, tanh=True)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, reference.curve(x, raw.float(), 8, True), rtol=0, atol=2e-6)
    out.sum().backward()
    assert network.weight.grad is not None
    assert network.weight.grad.isfinite().all()


def test_other_pairs_of_dtypes_are_promoted():
    for pair in (
        (torch.float16, torch.float32),
        (torch.float32, torch.float64),
        (torch.bfloat16, torch.float16),
    ):
        inputs = curve_inputs(1, 4, 5, dtypes=pair)
        out = apply_curve(inputs.x, inputs.alpha)
        assert out.dtype == torch.promote_types(*pair)
        torch.testing.assert_close(
            out.double(), reference.curve(inputs.x.double(), inputs.alpha.double(), 8), rtol=0, atol=2e-6
        )


def test_nothing_is_allocated_but_the_outputs():
    inputs = curve_inputs(1, 64, 80)
    x, alpha = inputs.x.requires_grad_(), inputs.alpha.requires_grad_()
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        out = apply_curve(x, alpha, tanh=True, backend="cpu" if _native.cpu else "auto")
        grads = torch.autograd.grad(out, (x, alpha), inputs.grad)
    allocated = sum(
        event.self_cpu_memory_usage for event in profile.events() if event.self_cpu_memory_usage > 0
    )
    assert allocated == sum(t.numel() * t.element_size() for t in (out, *grads))


def test_threads_do_not_change_the_bits():
    inputs = curve_inputs(2, 257, 509)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(differentiate(inputs, steps=8, tanh=True, backend="auto"))
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))


FORK = """
import os, signal, sys, torch
from fastllie import _native
from fastllie.ops.launch import views

x, illum = torch.full((1, 3, 512, 512), 0.25), torch.full((1, 3, 512, 512), 0.5)
out = torch.zeros_like(x)

def works():
    # not by torch, whose own threads do not survive a fork
    out.numpy()[:] = 0
    _native.cpu.illumination_forward(*views(x, illum, out), tuple(x.shape), 2)
    return (out.numpy() == 0.5).all()

assert works()
child = os.fork()
if child == 0:
    signal.alarm(60)
    os._exit(0 if works() and works() else 1)
assert os.waitpid(child, 0)[1] == 0, "the kernel fails in a forked process"
assert works()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes fork on POSIX alone")
def test_threads_survive_a_fork():
    device_of("cpu")
    subprocess.run([sys.executable, "-c", FORK], check=True, timeout=120, cwd=HOME)


def test_calls_from_several_threads():
    inputs = [curve_inputs(1, 300, 200, seed=seed) for seed in range(6)]
    expected = [differentiate(i, steps=8, tanh=True, backend="auto") for i in inputs]
    with ThreadPoolExecutor(6) as threads:
        for _ in range(5):
            got = threads.map(lambda i: differentiate(i, steps=8, tanh=True, backend="auto"), inputs)
            for result, wanted in zip(got, expected, strict=True):
                assert all(torch.equal(a, b) for a, b in zip(result, wanted, strict=True))


def test_wrong_arguments_are_named():
    x, alpha = torch.rand(2, 3, 4, 5), torch.rand(2, 24, 4, 5)
    with pytest.raises(TypeError, match=r"x must be a torch.Tensor, got list"):
        apply_curve([1], alpha)
    with pytest.raises(TypeError, match=r"alpha must be float64.*got torch.int64"):
        apply_curve(x, alpha.long())
    with pytest.raises(ValueError, match=r"x must be \[B, C, H, W\], got shape \(3, 4, 5\)"):
        apply_curve(x[0], alpha)
    with pytest.raises(ValueError, match=r"got \(2, 23, 4, 5\)"):
        apply_curve(x, alpha[:, 1:])
    with pytest.raises(ValueError, match=r"\(2, 12, 4, 5\) \(a map a step\).*4 steps"):
        apply_curve(x, alpha, steps=4)
    with pytest.raises(ValueError, match=r"got \(2, 24, 4, 4\)"):
        apply_curve(x, alpha[..., 1:])
    with pytest.raises(ValueError, match=r"steps must be at least 1, got 0"):
        apply_curve(x, alpha, steps=0)
    with pytest.raises(TypeError, match=r"steps must be an int, got float"):
        apply_curve(x, alpha, steps=8.0)
    with pytest.raises(ValueError, match=r"backend must be 'auto' or one of"):
        apply_curve(x, alpha, backend="gpu")
    with pytest.raises(ValueError, match=r"on one device, got cpu and meta"):
        apply_curve(x, alpha.to("meta"))


def test_a_backend_asked_for_by_name_serves_or_raises(monkeypatch):
    x, alpha = torch.rand(1, 3, 4, 5), torch.rand(1, 24, 4, 5)
    if not fastllie.backends()["cuda"]:
        with pytest.raises(RuntimeError, match=r"backend 'cuda' cannot serve"):
            apply_curve(x, alpha, backend="cuda")
    monkeypatch.setattr(_native, "cpu", None)
    monkeypatch.setitem(_native.reasons, "cpu", "fastllie._cpu was not built: for this test")
    with pytest.raises(
        RuntimeError, match=r"backend 'cpu' cannot serve: fastllie._cpu was not built: for this test"
    ):
        apply_curve(x, alpha, backend="cpu")
    # "auto" may fall back, to the reference
    assert fastllie.ops.default_backend() == "torch"
    torch.testing.assert_close(apply_curve(x, alpha), reference.curve(x, alpha, 8))


def test_the_environment_chooses(monkeypatch):
    x, alpha = torch.rand(1, 3, 4, 5), torch.rand(1, 24, 4, 5)
    monkeypatch.setenv("FASTLLIE_BACKEND", "torch")
    assert fastllie.ops.default_backend() == "torch"
    assert torch.equal(apply_curve(x, alpha), reference.curve(x, alpha, 8))
    monkeypatch.setenv("FASTLLIE_BACKEND", "fast")
    with pytest.raises(ValueError, match=r"FASTLLIE_BACKEND must be 'auto' or one of .* got 'fast'"):
        apply_curve(x, alpha)


def test_self_test_sees_a_wrong_kernel(monkeypatch):
    rows = fastllie.ops.self_test()
    assert {row.backend for row in rows} == {n for n, found in fastllie.backends().items() if found} - {
        "torch"
    }
    assert all(row.ok for row in rows), rows
    # every formula at once: a row sees its own alone, and on one backend, since all are compared alike
    for formula in (
        "curve",
        "apply_grid_curve",
        "divide_illumination",
        "illuminate",
        "sci",
        "zerodce",
        "smoothness",
        "zero_reference",
    ):
        right = getattr(reference, formula)
        monkeypatch.setattr(reference, formula, lambda *args, right=right: _halved(right(*args)))
    wrong = fastllie.ops.self_test("cpu")
    assert {row.op for row in wrong} == {row.op for row in rows}
    assert not any(row.ok for row in wrong), wrong


def _halved(value):
    return tuple(part / 2 for part in value) if isinstance(value, tuple) else value / 2


@needs_golden
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])
@pytest.mark.parametrize("case", ["le_curve_n8", "le_curve_n4", "le_curve_shared_n8"])
@pytest.mark.parametrize("backend", EVERY)
def test_golden_curve(backend, case, dtype):
    """The published code's curve: its maps are -alpha."""
    device = device_of(backend)
    entry = json.loads((GOLDEN / "manifest.json").read_text())["files"][f"{case}.npz"]
    steps = entry["params"]["n"]
    arrays = {
        name: torch.from_numpy(a).to(device, dtype) for name, a in np.load(GOLDEN / f"{case}.npz").items()
    }
    x, alpha = arrays["x"].requires_grad_(), (-arrays["A"]).requires_grad_()

    out = apply_curve(x, alpha, steps=steps, backend=backend)
    dx, dalpha = torch.autograd.grad(out, (x, alpha), arrays["g"])
    got = {"out": out, "dx": dx, "dA": -dalpha}
    if "mid" in arrays:
        mid = apply_curve(x, alpha[:, :12], steps=4, backend=backend)
        both = apply_curve(mid, alpha[:, 12:], steps=4, backend=backend)
        dx, dalpha = torch.autograd.grad((both, mid), (x, alpha), (arrays["g"], arrays["g4"]))
        got |= {"mid": mid, "dx_both": dx, "dA_both": -dalpha}
    for name, value in got.items():
        tolerance = entry["tol"][name]["f64" if dtype == torch.float64 else "f32"]
        expected = arrays[name]
        largest = float(expected.abs().max())
        atol = tolerance.get("atol", 0) + tolerance.get("atol_rel_max", 0) * largest
        torch.testing.assert_close(value, expected, rtol=tolerance.get("rtol", 0), atol=atol)


@needs_golden
def test_golden_curve_with_an_enlarged_map():
    arrays = {name: torch.from_numpy(a) for name, a in np.load(GOLDEN / "le_curve_shared_up4.npz").items()}
    x, low = arrays["x"].requires_grad_(), (-arrays["A_low"]).requires_grad_()
    alpha = torch.nn.functional.interpolate(low, scale_factor=4, mode="bilinear", align_corners=True)
    out = apply_curve(x, alpha)
    dx, dlow = torch.autograd.grad(out, (x, low), arrays["g"])
    torch.testing.assert_close(out, arrays["out"], rtol=0, atol=1e-12)
    torch.testing.assert_close(dx, arrays["dx"], rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(-dlow, arrays["dA_low"], rtol=1e-10, atol=1e-13)
