"""The smoothness loss against the reference: every backend, dtype, layout and odd size, both ways."""

from pathlib import Path

import numpy as np
import pytest
import torch
from cases import LAYOUTS, TOLERANCES, images
from serving import EVERY, device_of

from fastllie.ops import reference, smoothness_loss

GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "golden" / "sci" / "smoothness.npz"
needs_golden = pytest.mark.skipif(
    not GOLDEN.is_file(), reason="the golden data of the published code is not here"
)

# name -> (sigma, color, norm): today's published code, the one behind its weights, and what the paper says
KINDS = {
    "published": (10.0, "memory", "pixel"),
    "legacy": (10.0, "rgb", "scalar"),
    "paper": (0.1, "ycbcr", "pixel"),
    "memory": (0.1, "memory", "pixel"),
    "scalar": (0.2, "ycbcr", "scalar"),
    "rgb": (0.3, "rgb", "pixel"),
}
each_kind = pytest.mark.parametrize("kind", KINDS)


def call(kind, illum, guide, backend="auto"):
    sigma, color, norm = KINDS[kind]
    return smoothness_loss(illum, guide, sigma=sigma, color=color, norm=norm, backend=backend)


def compare(kind, backend, *size, dtype=torch.float32, layout="contiguous", seed=0):
    ranges = [(0, 1), (-0.2, 1.2)]
    illum, guide = images(ranges, *size, dtype=dtype, layout=layout, device=device_of(backend), seed=seed)
    leaves = [tensor.detach().requires_grad_() for tensor in (illum, guide)]
    loss = call(kind, *leaves, backend)
    got = [loss.detach(), *torch.autograd.grad(-0.7 * loss, leaves)]
    exact = [tensor.double().cpu() for tensor in (illum, guide)]
    wanted = [reference.smoothness(*exact, *KINDS[kind])]
    wanted += reference.smoothness_backward(torch.tensor(-0.7, dtype=torch.float64), *exact, *KINDS[kind])
    assert got[0].dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert got[0].shape == ()
    # the loss itself is never stored in 16 bits
    torch.testing.assert_close(
        got[0].double().cpu(), wanted[0], rtol=1e-12 if dtype == torch.float64 else 2e-6, atol=0
    )
    for index, (value, expected) in enumerate(zip(got[1:], wanted[1:], strict=True)):
        assert value.dtype == dtype
        assert value.shape == expected.shape
        error = (value.double().cpu() - expected).abs().max() / expected.abs().max()
        assert error <= 2 * TOLERANCES[dtype].gradient, index
    return got, leaves


def skip_most_in_the_interpreter(kind, backend):
    """Two kinds have every branch of the kernels between them."""
    if backend == "triton" and device_of(backend) == "cpu" and kind not in ("published", "scalar"):
        pytest.skip("Triton's interpreter is slow: two kinds of six")


@pytest.mark.parametrize("dtype", TOLERANCES, ids=lambda d: str(d).removeprefix("torch."))
@pytest.mark.parametrize("backend", EVERY)
@each_kind
def test_dtypes(kind, backend, dtype):
    compare(kind, backend, 2, 7, 19, dtype=dtype)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("backend", EVERY)
@each_kind
def test_layouts(kind, backend, layout):
    skip_most_in_the_interpreter(kind, backend)
    compare(kind, backend, 2, 6, 11, layout=layout)


# the smallest, sizes of all remainders by three, one row of vectors and one more, several tiles each way
@pytest.mark.parametrize("size", [(1, 3, 3), (3, 4, 5), (2, 3, 50), (1, 19, 3), (1, 17, 18), (1, 66, 35)])
@pytest.mark.parametrize("backend", EVERY)
@each_kind
def test_sizes(kind, backend, size):
    skip_most_in_the_interpreter(kind, backend)
    compare(kind, backend, *size)


@each_kind
def test_every_instruction_set(kind, isa):
    for dtype in TOLERANCES:
        compare(kind, "cpu", 1, 9, 41, dtype=dtype, layout="mixed")
    # widths around those of tiles and vectors, more rows than a tile has
    for width in (207, 208, 209, 212, 417, 640):
        compare(kind, "cpu", 1, 5, width, seed=width)
    compare(kind, "cpu", 2, 131, 33)


@each_kind
def test_same_bits_at_every_thread_count(kind):
    device_of("cpu")
    illum, guide = (t.requires_grad_() for t in images([(0, 1), (0, 1)], 2, 150, 431))
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 1):
            torch.set_num_threads(threads)
            loss = call(kind, illum, guide, "cpu")
            results.append([loss.detach(), *torch.autograd.grad(loss, (illum, guide))])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("backend", EVERY)
@each_kind
def test_only_the_gradient_asked_for(kind, backend):
    tensors = images([(0, 1), (0, 1)], 1, 6, 9, device=device_of(backend))
    illum, guide = (tensor.clone().requires_grad_() for tensor in tensors)
    both = torch.autograd.grad(call(kind, illum, guide, backend), (illum, guide))
    torch.testing.assert_close(
        torch.autograd.grad(call(kind, illum, guide.detach(), backend), illum)[0], both[0], rtol=0, atol=0
    )
    torch.testing.assert_close(
        torch.autograd.grad(call(kind, illum.detach(), guide, backend), guide)[0], both[1], rtol=0, atol=0
    )


@pytest.mark.parametrize("backend", EVERY)
def test_ties_and_constants(backend):
    """sgn(0) = 0, and an illumination that is flat costs nothing, whatever the guide."""
    device = device_of(backend)
    guide = images([(0, 1)], 1, 8, 9, device=device)[0].requires_grad_()
    flat = torch.full_like(guide, 0.3).requires_grad_()
    for kind in KINDS:
        loss = call(kind, flat, guide, backend)
        grads = torch.autograd.grad(loss, (flat, guide))
        assert loss.item() == 0
        assert not any(grad.any() for grad in grads)


@pytest.mark.parametrize("backend", EVERY)
def test_a_nan_shows_in_the_loss(backend):
    illum, guide = images([(0, 1), (0, 1)], 1, 6, 40, device=device_of(backend))
    illum[0, 1, 5, 39] = float("nan")
    assert torch.isnan(smoothness_loss(illum, guide, backend=backend))
    # and none is left behind for the next image
    assert torch.isfinite(
        smoothness_loss(torch.nan_to_num(illum)[..., :23], guide[..., :23], backend=backend)
    )


@pytest.mark.parametrize("backend", EVERY)
@each_kind
def test_gradcheck(kind, backend):
    skip_most_in_the_interpreter(kind, backend)
    tensors = images([(0, 1), (0, 1)], 1, 3, 4, dtype=torch.float64, device=device_of(backend))
    inputs = [tensor.detach().clone().requires_grad_() for tensor in tensors]

    def run(illum, guide):
        return call(kind, illum, guide, backend)

    # Triton's interpreter is slow: along random directions there, not each element
    assert torch.autograd.gradcheck(run, inputs, fast_mode=backend == "triton")
    assert torch.autograd.gradgradcheck(run, inputs, fast_mode=True)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("backend", EVERY)
@pytest.mark.parametrize("kind", ["published", "legacy", "paper"])
def test_opcheck(kind, backend, layout):
    if backend == "triton" and device_of(backend) == "cpu" and (kind, layout) != ("published", "mixed"):
        pytest.skip("Triton's interpreter is slow: one kind in one layout")
    illum, guide = images([(0, 1), (0, 1)], 2, 4, 5, layout=layout, device=device_of(backend))
    leaves = [tensor.detach().requires_grad_() for tensor in (illum, guide)]
    ops = torch.ops.fastllie
    torch.library.opcheck(ops.smoothness_forward.default, (*leaves, *KINDS[kind], backend))
    _, means = ops.smoothness_forward(illum, guide, *KINDS[kind], backend)
    grad = torch.tensor(0.5, device=illum.device)
    torch.library.opcheck(
        ops.smoothness_backward.default, (grad, illum, guide, means, *KINDS[kind], True, False, backend)
    )


@each_kind
def test_compile_in_one_graph(kind):
    inputs = images([(0, 1), (0, 1)], 2, 6, 10)

    def gradients(function):
        leaves = [tensor.detach().requires_grad_() for tensor in inputs]
        value = function(*leaves)
        return value.detach(), *torch.autograd.grad(value, leaves)

    def loss(illum, guide):
        return 2 * call(kind, illum * illum, guide)

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(gradients(compiled), gradients(loss))


def test_dtypes_are_promoted():
    illum, guide = images([(0, 1), (0, 1)], 1, 4, 5)
    half = illum.to(torch.bfloat16)
    loss = smoothness_loss(half, guide)
    torch.testing.assert_close(loss, smoothness_loss(half.float(), guide))
    assert torch.autograd.grad(smoothness_loss(half.requires_grad_(), guide), half)[0].dtype == torch.bfloat16


def test_memory_of_a_step():
    """Nothing of the size of an image is allocated but the two gradients."""
    device_of("cpu")
    illum, guide = (t.requires_grad_() for t in images([(0, 1), (0, 1)], 1, 200, 300))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as run:
        torch.autograd.grad(smoothness_loss(illum, guide, color="memory", backend="cpu"), (illum, guide))
    taken = [event.self_cpu_memory_usage for event in run.events()]
    assert [size for size in taken if size > 10_000] == [illum.nbytes, guide.nbytes]


def test_wrong_arguments_are_named():
    x = torch.rand(2, 3, 4, 5)
    with pytest.raises(TypeError, match=r"guide must be a torch.Tensor, got NoneType"):
        smoothness_loss(x, None)
    with pytest.raises(TypeError, match=r"illum must be float64.*got torch.uint8"):
        smoothness_loss(x.byte(), x)
    with pytest.raises(ValueError, match=r"one shape, got \(2, 3, 4, 5\) and \(2, 3, 4, 4\)"):
        smoothness_loss(x, x[..., :4])
    for bad in (x[:, :, :2], x[..., :2], x[:0], x[:, :1]):
        with pytest.raises(ValueError, match=r"H and W at least 3, got \(\d, \d, \d, \d\)"):
            smoothness_loss(bad, bad)
    for sigma in (-1.0, 0.0, float("nan")):
        with pytest.raises(ValueError, match=f"sigma must be positive, at least 1e-06, got {sigma}"):
            smoothness_loss(x, x, sigma=sigma)
    with pytest.raises(TypeError, match=r"sigma must be a number, got str"):
        smoothness_loss(x, x, sigma="10")
    with pytest.raises(ValueError, match=r"color must be one of .*got 'yuv'"):
        smoothness_loss(x, x, color="yuv")
    with pytest.raises(ValueError, match=r"norm must be one of .*got 'l2'"):
        smoothness_loss(x, x, norm="l2")
    with pytest.raises(ValueError, match=r"backend must be 'auto' or one of"):
        smoothness_loss(x, x, backend="gpu")


VARIANTS = {
    "mem_s10": (10.0, "memory", "pixel"),
    "pix_s10": (10.0, "ycbcr", "pixel"),
    "pix_s0.1": (0.1, "ycbcr", "pixel"),
    "mem_s0.1": (0.1, "memory", "pixel"),
    "legacy": (10.0, "rgb", "scalar"),
}


@needs_golden
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("backend", EVERY)
def test_golden(backend, variant):
    """The published code's losses and gradients, in float64: today's, with both orders, and the older one."""
    device = device_of(backend)
    arrays = np.load(GOLDEN)
    sigma, color, norm = VARIANTS[variant]
    cases = sorted({name.split("/")[0] for name in arrays})
    if backend == "triton" and device == "cpu":
        cases = [case for case in cases if arrays[f"{case}/input"].size <= 1200]  # in the interpreter
    for case in cases:
        illum, guide = (
            torch.from_numpy(arrays[f"{case}/{name}"]).to(device).requires_grad_()
            for name in ("output", "input")
        )
        loss = smoothness_loss(illum, guide, sigma=sigma, color=color, norm=norm, backend=backend)
        grads = torch.autograd.grad(loss, (illum, guide))
        assert abs(loss.item() - arrays[f"{case}/{variant}/loss"]) <= 1e-12 * abs(loss.item())
        for name, grad in zip(("grad_output", "grad_input"), grads, strict=True):
            wanted = torch.from_numpy(arrays[f"{case}/{variant}/{name}"])
            atol = 1e-13 + 1e-10 * float(wanted.abs().max())
            torch.testing.assert_close(grad.cpu(), wanted, rtol=0, atol=atol, msg=f"{case} {name}")
    assert len(cases) >= 6
