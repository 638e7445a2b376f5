"""The fused zero-reference losses against the reference: every backend, dtype, layout and odd size."""

from pathlib import Path

import numpy as np
import pytest
import torch
from cases import DTYPES, LAYOUTS, LOSS_SHAPES, TOLERANCES, curve_inputs
from serving import EVERY, device_of

from fastllie.ops import ZeroReferenceLosses, apply_curve, reference, zero_reference_losses
from fastllie.training import losses as plain

GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "golden" / "zerodce"
needs_golden = pytest.mark.skipif(
    not GOLDEN.is_dir(), reason="the golden data of the published code is not here"
)
NAMES = ZeroReferenceLosses._fields
# of different sizes and signs, so that each loss has its share of the gradients
GRADS = (0.7, -30.0, 5.0, -2.0)
LEVEL = 0.45

each_backend = pytest.mark.parametrize("backend", EVERY)
each_kind = pytest.mark.parametrize(
    ("shared", "tanh"), [(False, True), (True, False), (False, False), (True, True)],
    ids=["per_step-raw", "shared-alpha", "per_step-alpha", "shared-raw"],
)  # fmt: skip


def skip_in_the_interpreter(backend, but):
    """Triton's interpreter is slow: a few cases have every branch of the kernels between them."""
    if backend == "triton" and device_of(backend) == "cpu" and not but:
        pytest.skip("Triton's interpreter is slow: some cases of many")


def differentiate(x, alpha, *, grads=GRADS, backend="auto", **options):
    leaves = [tensor.detach().requires_grad_() for tensor in (x, alpha)]
    losses = zero_reference_losses(*leaves, backend=backend, **options)
    grads = torch.tensor(grads, dtype=losses[0].dtype, device=x.device)
    return losses, torch.autograd.grad(torch.stack(losses), leaves, grads)


def compare(x, alpha, *, steps=8, tanh=False, grads=GRADS, backend="auto"):
    losses, got = differentiate(x, alpha, steps=steps, tanh=tanh, level=LEVEL, grads=grads, backend=backend)
    exact = [tensor.double().cpu() for tensor in (x, alpha)]
    expected = reference.zero_reference(*exact, steps, tanh, LEVEL)
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    for name, value, wanted in zip(NAMES, losses, expected, strict=True):
        assert value.dtype == wide, name
        assert value.shape == (), name
        # squares of differences of means that nearly agree, as the golden values' tolerance has it
        rtol, atol = (1e-12, 1e-14) if wide == torch.float64 else (1e-5, 1e-9)
        torch.testing.assert_close(
            value.detach().double().cpu(), wanted, rtol=rtol, atol=atol, msg=lambda m, n=name: f"{n}: {m}"
        )
    grads = torch.tensor(grads, dtype=torch.float64)
    wanted = reference.zero_reference_backward(grads, *exact, steps, tanh, LEVEL)
    for name, value, exact_grad, like in zip(("x", "alpha"), got, wanted, (x, alpha), strict=True):
        assert value.dtype == like.dtype, name
        assert value.shape == like.shape, name
        allowed = TOLERANCES[like.dtype].gradient * exact_grad.abs().max()
        assert (value.double().cpu() - exact_grad).abs().max() <= allowed, name
    return got


def check(size, *, steps=8, shared=False, tanh=False, backend="auto", grads=GRADS, **options):
    inputs = curve_inputs(*size, steps=steps, shared=shared, device=device_of(backend), **options)
    return compare(inputs.x, inputs.alpha, steps=steps, tanh=tanh, backend=backend, grads=grads)


@pytest.mark.parametrize(
    "dtypes", DTYPES, ids=lambda pair: "-".join(str(d).removeprefix("torch.") for d in pair)
)
@each_kind
@each_backend
def test_dtypes(backend, shared, tanh, dtypes):
    skip_in_the_interpreter(backend, but=shared != tanh)
    check((2, 18, 37), shared=shared, tanh=tanh, dtypes=dtypes, backend=backend)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtypes", [DTYPES[1], DTYPES[2]], ids=["float32", "bfloat16_maps"])
@pytest.mark.parametrize("shared", [False, True], ids=["per_step", "shared"])
@each_backend
def test_layouts(backend, shared, dtypes, layout):
    skip_in_the_interpreter(backend, but=layout == "mixed" and dtypes is DTYPES[1])
    got = check((2, 17, 35), shared=shared, tanh=True, dtypes=dtypes, layout=layout, backend=backend)
    inputs = curve_inputs(2, 17, 35, shared=shared, layout=layout, dtypes=dtypes, device=device_of(backend))
    assert got[1].stride() == torch.empty_like(inputs.alpha).stride()


@pytest.mark.parametrize("size", LOSS_SHAPES.values(), ids=LOSS_SHAPES)
@each_backend
def test_sizes(backend, size):
    skip_in_the_interpreter(backend, but=size in (LOSS_SHAPES["patch"], LOSS_SHAPES["odd"]))
    check(size, tanh=True, backend=backend)


@pytest.mark.parametrize("steps", [1, 4, 9, 21])
@each_backend
def test_any_number_of_steps(backend, steps):
    skip_in_the_interpreter(backend, but=steps in (4, 9))
    for shared in (False, True):
        for layout in ("contiguous", "channels_last"):
            skip_in_the_interpreter(backend, but=layout == "contiguous" or shared)
            check((1, 17, 19), steps=steps, shared=shared, layout=layout, dtypes=DTYPES[0], backend=backend)


@pytest.mark.parametrize("name", NAMES)
@each_backend
def test_each_loss_has_its_own_gradient(backend, name):
    grads = [float(name == other) for other in NAMES]
    check((2, 22, 37), tanh=True, grads=grads, backend=backend)


def test_every_instruction_set(isa):
    for dtypes in DTYPES:
        for layout in LAYOUTS:
            for shared in (False, True):
                check((2, 18, 37), shared=shared, tanh=True, dtypes=dtypes, layout=layout, backend="cpu")
    # widths and heights around those of strips
    for size in ((1, 63, 127), (1, 64, 128), (1, 65, 129), (1, 130, 273)):
        check(size, layout="channels_last", backend="cpu")
    # squares of vectors that overlap, and fewer maps than a vector has lanes
    for steps in (2, 4, 7, 11):
        check((1, 20, 45), steps=steps, layout="channels_last", backend="cpu")


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_same_bits_at_every_thread_count(layout):
    device_of("cpu")
    inputs = curve_inputs(3, 150, 431, layout=layout)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 1):
            torch.set_num_threads(threads)
            losses, grads = differentiate(inputs.x, inputs.alpha, tanh=True, backend="cpu")
            results.append([*losses, *grads])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_large_gradients_past_the_caches():
    device_of("cpu")
    for layout in ("contiguous", "channels_last"):
        check((1, 256, 640), tanh=True, layout=layout, backend="cpu")


@pytest.mark.parametrize("shared", [False, True], ids=["per_step", "shared"])
@each_backend
def test_one_gradient_alone(backend, shared):
    inputs = curve_inputs(1, 16, 21, shared=shared, device=device_of(backend))
    _, both = differentiate(inputs.x, inputs.alpha, tanh=True, backend=backend)
    for wanted in range(2):
        tensors = [inputs.x.detach(), inputs.alpha.detach()]
        leaf = tensors[wanted].requires_grad_()
        losses = torch.stack(zero_reference_losses(*tensors, tanh=True, backend=backend))
        (got,) = torch.autograd.grad(losses, leaf, torch.tensor(GRADS, device=leaf.device))
        assert torch.equal(got, both[wanted])


@each_backend
def test_the_plain_losses_are_the_same(backend):
    """The functions of fastllie.training.losses on what the curve returns, each with its gradients."""
    inputs = curve_inputs(1, 21, 18, dtypes=DTYPES[0], device=device_of(backend))
    leaves = [tensor.requires_grad_() for tensor in (inputs.x, inputs.alpha)]
    maps = torch.tanh(inputs.alpha)
    y = apply_curve(inputs.x, maps, backend="torch")
    wanted = (
        plain.map_smoothness(maps),
        plain.spatial_consistency(y, inputs.x),
        plain.colour_constancy(y),
        plain.exposure(y, LEVEL),
    )
    got = zero_reference_losses(inputs.x, inputs.alpha, tanh=True, level=LEVEL, backend=backend)
    for name, value, expected in zip(NAMES, got, wanted, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-15)
        found = torch.autograd.grad(value, leaves, retain_graph=True)
        exact = torch.autograd.grad(expected, leaves, retain_graph=True, allow_unused=True)
        for grad, like in zip(found, exact, strict=True):
            like = torch.zeros_like(grad) if like is None else like
            scale = float(like.abs().max())
            torch.testing.assert_close(grad, like, rtol=0, atol=1e-12 * scale, msg=name)


@each_backend
def test_equal_channels_have_no_colour_gradient(backend):
    """The published code returns NaN there: a black image in a batch ends the training."""
    inputs = curve_inputs(3, 16, 19, device=device_of(backend))
    x, alpha = inputs.x.clone(), inputs.alpha.clone()
    x[0] = 0
    x[1] = x[1, :1]
    alpha[1] = alpha[1, :1]
    losses, grads = differentiate(x, alpha, grads=(0, 0, 1, 0), backend=backend)
    assert losses.colour_constancy > 0
    for grad in grads:
        assert not grad[:2].any()
        assert grad[2].isfinite().all()
        assert grad[2].any()


@each_backend
def test_a_nan_shows_in_the_losses(backend):
    inputs = curve_inputs(1, 19, 37, device=device_of(backend))
    inputs.alpha[0, 5, 3, 2] = float("nan")
    assert all(torch.isnan(loss) for loss in zero_reference_losses(inputs.x, inputs.alpha, backend=backend))
    # beyond the last whole cell and patch
    inputs = curve_inputs(1, 19, 37, device=device_of(backend))
    inputs.x[0, 1, 18, 36] = float("nan")
    losses = zero_reference_losses(inputs.x, inputs.alpha, backend=backend)
    assert [bool(torch.isnan(loss)) for loss in losses] == [False, False, True, False]


@each_kind
@each_backend
def test_gradcheck(backend, shared, tanh):
    skip_in_the_interpreter(backend, but=not shared and tanh)
    inputs = curve_inputs(1, 17, 18, steps=2, shared=shared, dtypes=DTYPES[0], device=device_of(backend))
    leaves = (inputs.x.requires_grad_(), inputs.alpha.requires_grad_())

    def run(x, alpha):
        return zero_reference_losses(x, alpha, steps=2, tanh=tanh, backend=backend)

    # along random directions: an element of a mean moves it by less than rounding
    assert torch.autograd.gradcheck(run, leaves, fast_mode=True, eps=1e-4)
    assert torch.autograd.gradgradcheck(run, leaves, fast_mode=True, eps=1e-4)


@pytest.mark.parametrize("layout", ["channels_last", "mixed"])
@each_backend
def test_opcheck(backend, layout):
    skip_in_the_interpreter(backend, but=layout == "mixed")
    inputs = curve_inputs(2, 17, 18, steps=2, layout=layout, device=device_of(backend))
    ops = torch.ops.fastllie
    settings = (2, True, LEVEL)
    leaves = [tensor.detach().requires_grad_() for tensor in (inputs.x, inputs.alpha)]
    torch.library.opcheck(ops.zero_reference_forward.default, (*leaves, *settings, backend))
    losses, *means = ops.zero_reference_forward(inputs.x, inputs.alpha, *settings, backend)
    assert [tuple(mean.shape) for mean in means] == [(2, 4, 4), (2, 1, 1), (2, 3)]
    arguments = (torch.ones_like(losses), inputs.x, inputs.alpha, *means, *settings)
    for needs in ((True, False), (False, True)):
        torch.library.opcheck(ops.zero_reference_backward.default, (*arguments, *needs, backend))


@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
def test_compile_in_one_graph(compiler):
    inputs = curve_inputs(2, 20, 18)

    def loss(x, alpha):
        losses = zero_reference_losses(x, alpha * 0.5, tanh=True)
        return 2 * losses.map_smoothness + losses.spatial_consistency + losses.exposure

    def gradients(function):
        leaves = [tensor.detach().requires_grad_() for tensor in (inputs.x, inputs.alpha)]
        value = function(*leaves)
        return value.detach(), *torch.autograd.grad(value, leaves)

    compiled = torch.compile(loss, fullgraph=True, backend=compiler)
    torch.testing.assert_close(gradients(compiled), gradients(loss))


def test_dtypes_are_promoted():
    inputs = curve_inputs(1, 16, 17)
    half = inputs.x.to(torch.bfloat16)
    got = zero_reference_losses(half, inputs.alpha)
    torch.testing.assert_close(got, zero_reference_losses(half.float(), inputs.alpha))
    assert zero_reference_losses(inputs.x, inputs.alpha.double()).exposure.dtype == torch.float64


def test_autocast_reads_narrow_maps_in_place():
    torch.manual_seed(0)
    network = torch.nn.Conv2d(3, 24, 3, padding=1).to(memory_format=torch.channels_last)
    x = torch.rand(2, 3, 19, 22).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        raw = network(x)
        losses = zero_reference_losses(x, raw, tanh=True)
    assert raw.dtype == torch.bfloat16
    assert raw.is_contiguous(memory_format=torch.channels_last)
    compare(x, raw, tanh=True)
    sum(losses).backward()
    assert network.weight.grad is not None
    assert network.weight.grad.isfinite().all()


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_memory_of_a_step(layout):
    """Nothing of the size of a channel of an image is allocated but the gradients."""
    device_of("cpu")
    inputs = curve_inputs(1, 200, 300, layout=layout)
    leaves = [tensor.requires_grad_() for tensor in (inputs.x, inputs.alpha)]
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as run:
        losses = zero_reference_losses(*leaves, tanh=True, backend="cpu")
        torch.autograd.grad(sum(losses), leaves)
    taken = [event.self_cpu_memory_usage for event in run.events()]
    assert [size for size in taken if size > 100_000] == [inputs.x.nbytes, inputs.alpha.nbytes]


def test_wrong_arguments_are_named():
    x, alpha = torch.rand(2, 3, 16, 17), torch.rand(2, 24, 16, 17)
    with pytest.raises(TypeError, match=r"alpha must be a torch.Tensor, got NoneType"):
        zero_reference_losses(x, None)
    with pytest.raises(TypeError, match=r"x must be float64.*got torch.uint8"):
        zero_reference_losses(x.byte(), alpha)
    with pytest.raises(ValueError, match=r"alpha must be \(2, 24, 16, 17\).*got \(2, 24, 16, 16\)"):
        zero_reference_losses(x, alpha[..., 1:])
    with pytest.raises(TypeError, match=r"steps must be an int, got float"):
        zero_reference_losses(x, alpha, steps=8.0)
    for bad in (x[:0], x[:, :1], x[:, :, :15], x[..., :15]):
        with pytest.raises(ValueError, match=r"H and W at least 16, got \(\d, \d, \d+, \d+\)"):
            zero_reference_losses(bad, bad)
    for level in ("0.6", None, True):
        with pytest.raises(TypeError, match=f"level must be a number, got {type(level).__name__}"):
            zero_reference_losses(x, alpha, level=level)
    with pytest.raises(ValueError, match=r"backend must be 'auto' or one of"):
        zero_reference_losses(x, alpha, backend="gpu")


# the published code's names
GOLDEN_NAMES = {
    "spatial_consistency": "spa", "colour_constancy": "col", "exposure": "exp", "map_smoothness": "tv"
}  # fmt: skip
GOLDEN_CASES = ("zerodce_losses_real", "zerodce_losses_random", "zerodcepp_losses_real")


def golden(case, device):
    with np.load(GOLDEN / f"{case}.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]).to(device) for name in arrays.files}


def expect(got, wanted, rtol, atol_rel_max=0.0):
    torch.testing.assert_close(got, wanted, rtol=rtol, atol=atol_rel_max * float(wanted.abs().max()))


@needs_golden
@pytest.mark.parametrize("case", GOLDEN_CASES)
@each_backend
def test_golden(backend, case):
    """The published code's losses and gradients; its maps are -alpha."""
    skip_in_the_interpreter(backend, but=case == "zerodce_losses_random")
    arrays = golden(case, device_of(backend))
    enhanced, given = arrays["enh"], arrays["org"]
    # one step from 0.5 reaches any image: y = 0.5 + alpha / 4, and dy / dalpha = 1 / 4
    middle = torch.full_like(enhanced, 0.5)
    inputs = {
        "spatial_consistency": (middle, 4 * (enhanced - given), 1),
        "colour_constancy": (middle, 4 * (enhanced - middle), 1),
        "exposure": (middle, 4 * (enhanced - middle), 1),
        "map_smoothness": (given, -arrays["A"], 8),
    }
    for index, name in enumerate(NAMES):
        x, alpha, steps = inputs[name]
        grads = [float(index == i) for i in range(4)]
        losses, (_, grad) = differentiate(x, alpha, steps=steps, grads=grads, backend=backend)
        short = GOLDEN_NAMES[name]
        expect(losses[index].detach(), arrays[short], rtol=1e-5)
        expect(grad * (-1 if short == "tv" else 4), arrays[f"d_{short}"], rtol=1e-4, atol_rel_max=1e-5)


@needs_golden
@pytest.mark.parametrize(
    ("case", "smoothness"), [("zerodce_losses_real", 200.0), ("zerodcepp_losses_real", 1600.0)]
)
@each_backend
def test_golden_total(backend, case, smoothness):
    """The whole loss of a training step, through the curve to the maps."""
    arrays = golden(case, device_of(backend))
    x, alpha = arrays["org"], -arrays["A"]
    weights = (smoothness, 1.0, 5.0, 10.0)
    losses, (_, grad) = differentiate(x, alpha, grads=weights, backend=backend)
    total = sum(weight * loss.detach() for weight, loss in zip(weights, losses, strict=True))
    expect(total, arrays["total"], rtol=1e-5)
    _, through = reference.curve_backward(arrays["d_total_enh"], x, alpha, 8)
    expect(grad, through - smoothness * arrays["d_tv"], rtol=1e-4, atol_rel_max=1e-5)


@needs_golden
@each_backend
def test_golden_of_a_grey_image(backend):
    enhanced = golden("zerodce_losses_grey", device_of(backend))["enh"]
    nothing = torch.zeros_like(enhanced)
    losses, (_, grad) = differentiate(enhanced, nothing, grads=(0, 0, 1, 0), backend=backend)
    assert losses.colour_constancy == 0
    assert not grad.any()
