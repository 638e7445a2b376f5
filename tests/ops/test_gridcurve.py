"""The curve in a bilateral grid against the reference: every backend, dtype, layout, size and grid."""

import pytest
import torch
from cases import DTYPES, LAYOUTS, SHAPES, TOLERANCES, GridCurveInputs, grid_curve_inputs
from serving import EVERY, device_of

from fastllie.ops import apply_grid_curve, reference

PAIRS = [*DTYPES, (torch.bfloat16, torch.float32), (torch.float16, torch.float32)]
NAMES = ("x", "grid", "guide")
# lumas, rows, columns
CELLS = {"one": (1, 1, 1), "row": (4, 1, 3), "column": (2, 3, 1), "flat": (1, 2, 2), "fine": (9, 4, 5)}


def differentiate(inputs, *, steps=8, backend, **place):
    leaves = [getattr(inputs, name).detach().requires_grad_() for name in NAMES]
    out = apply_grid_curve(*leaves, steps=steps, backend=backend, **place)
    return out.detach(), *torch.autograd.grad(out, leaves, inputs.grad)


def expect(inputs, got, *, steps=8, place=(0, 0), size=None):
    x, grid, guide, grad = (
        tensor.double().cpu() for tensor in (inputs.x, inputs.grid, inputs.guide, inputs.grad)
    )
    expected = (
        reference.apply_grid_curve(x, grid, guide, place=place, size=size, steps=steps),
        *reference.grid_curve_backward(grad, x, grid, guide, place, size, steps),
    )
    likes = (inputs.x, inputs.x, inputs.grid, inputs.guide)
    for name, value, exact, like in zip(("out", *NAMES), got, expected, likes, strict=True):
        assert (value.dtype, value.shape, value.device) == (like.dtype, like.shape, like.device), name
        tolerance = TOLERANCES[like.dtype]
        atol = tolerance.value if name == "out" else tolerance.gradient * max(1.0, float(exact.abs().max()))
        torch.testing.assert_close(
            value.double().cpu(), exact, rtol=0, atol=atol, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize(
    "dtypes", PAIRS, ids=lambda pair: "-".join(str(d).removeprefix("torch.") for d in pair)
)
@pytest.mark.parametrize("backend", EVERY)
def test_dtypes(backend, dtypes):
    inputs = grid_curve_inputs(2, 5, 37, dtypes=dtypes, device=device_of(backend))
    expect(inputs, differentiate(inputs, backend=backend))


@pytest.mark.parametrize("dtypes", [DTYPES[1], DTYPES[4]], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("backend", EVERY)
def test_layouts(backend, layout, dtypes):
    inputs = grid_curve_inputs(2, 6, 11, dtypes=dtypes, layout=layout, device=device_of(backend))
    got = differentiate(inputs, backend=backend)
    expect(inputs, got)
    assert got[0].stride() == torch.empty_like(inputs.x).stride()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("backend", EVERY)
def test_sizes(backend, shape):
    inputs = grid_curve_inputs(*shape, device=device_of(backend))
    expect(inputs, differentiate(inputs, backend=backend))


@pytest.mark.parametrize("cells", CELLS.values(), ids=CELLS)
@pytest.mark.parametrize("backend", EVERY)
def test_grids(backend, cells):
    # also of more rows and columns than the image has, and of more lumas than a CUDA block adds up at once
    inputs = grid_curve_inputs(1, 3, 4, cells, dtypes=DTYPES[0], device=device_of(backend))
    expect(inputs, differentiate(inputs, backend=backend))


@pytest.mark.parametrize("steps", [1, 7, 9, 21])
@pytest.mark.parametrize("backend", EVERY)
def test_any_number_of_steps(backend, steps):
    inputs = grid_curve_inputs(1, 3, 19, (2, 2, 2), dtypes=DTYPES[0], device=device_of(backend))
    expect(inputs, differentiate(inputs, steps=steps, backend=backend), steps=steps)


@pytest.mark.parametrize("backend", EVERY)
def test_part_of_a_picture(backend):
    whole = grid_curve_inputs(1, 40, 90, device=device_of(backend))
    parts = (slice(None), slice(None), slice(17, 37), slice(29, 60))
    part = GridCurveInputs(whole.x[parts], whole.grid, whole.guide[parts], whole.grad[parts])
    place = {"place": (17, 29), "size": (40, 90)}
    got = differentiate(part, backend=backend, **place)
    expect(part, got, **place)
    out = apply_grid_curve(whole.x, whole.grid, whole.guide, backend=backend)
    torch.testing.assert_close(got[0], out[parts], rtol=0, atol=1e-6)
    # a corner leaves most of the grid untouched
    corner = GridCurveInputs(whole.x, whole.grid, whole.guide, whole.grad)
    place = {"place": (400, 0), "size": (440, 900)}
    got = differentiate(corner, backend=backend, **place)
    expect(corner, got, **place)
    assert got[2][..., 1, 0].all()
    assert not got[2][..., 0, :].any()
    assert not got[2][..., 1:].any()


@pytest.mark.parametrize("backend", EVERY)
def test_of_nothing(backend):
    for batch, height, width in ((0, 4, 5), (2, 0, 5), (2, 4, 0)):
        inputs = grid_curve_inputs(batch, height, width, device=device_of(backend))
        out, grad_x, grad_grid, grad_guide = differentiate(inputs, backend=backend)
        assert out.shape == grad_x.shape == inputs.x.shape
        assert grad_guide.shape == inputs.guide.shape
        assert torch.equal(grad_grid, torch.zeros_like(inputs.grid))


def test_every_instruction_set(isa):
    for dtypes in PAIRS:
        for layout in ("contiguous", "mixed"):
            inputs = grid_curve_inputs(2, 21, 300, (8, 3, 2), dtypes=dtypes, layout=layout)
            expect(inputs, differentiate(inputs, backend="cpu"))


def test_large_images_on_several_threads():
    device_of("cpu")
    inputs = grid_curve_inputs(2, 257, 509, (8, 8, 12))
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(differentiate(inputs, backend="cpu"))
    finally:
        torch.set_num_threads(before)
    expect(inputs, results[0])
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))


@pytest.mark.parametrize("backend", EVERY)
def test_bounds_of_the_clamps(backend):
    """Below black, at it, between, at one and above; guides beyond, at and in the middle of lumas."""
    device = device_of(backend)
    x = torch.tensor([0.05, 0.25, 0.5, 1.0, 1.2], dtype=torch.float64, device=device)
    guide = torch.tensor([-0.5, 0.0, 0.5, 1.0, 1.5], dtype=torch.float64, device=device)
    x = x[:, None].expand(5, 5)[None, None].repeat(1, 3, 1, 1)
    guide = guide[None].expand(5, 5)[None, None].contiguous()
    lumas = torch.tensor([0.2, 0.6, 0.3], dtype=torch.float64, device=device)
    grid = torch.cat([lumas.expand(3, 3), torch.full_like(lumas, 0.25).expand(3, 3)])[None, ..., None, None]
    leaves = [tensor.clone().requires_grad_() for tensor in (x, grid, guide)]
    out = apply_grid_curve(*leaves, steps=1, backend=backend)
    grad_x, _, grad_guide = torch.autograd.grad(out.sum(), leaves)
    alpha = torch.tensor([0.2, 0.2, 0.6, 0.3, 0.3], dtype=torch.float64, device=device)[None]
    y = ((x[0, 0] - 0.25) / 0.75).clamp(0, 1)
    torch.testing.assert_close(out[0, 0], y + alpha * y * (1 - y), rtol=0, atol=1e-12)
    passes = torch.tensor([[0.0], [1.0], [1.0], [1.0], [0.0]], dtype=torch.float64, device=device)
    torch.testing.assert_close(grad_x[0, 0], passes * (1 + alpha * (1 - 2 * y)) / 0.75, rtol=0, atol=1e-12)
    # of alpha from luma to luma; at the middle one the brighter side counts
    slope = 2 * torch.tensor([0.0, 0.4, -0.3, -0.3, 0.0], dtype=torch.float64, device=device)[None]
    torch.testing.assert_close(grad_guide[0, 0], 3 * slope * y * (1 - y), rtol=0, atol=1e-12)


@pytest.mark.parametrize("backend", EVERY)
def test_nan_is_not_hidden(backend):
    inputs = grid_curve_inputs(1, 2, 3, device=device_of(backend))
    for name in ("x", "guide"):
        tensors = {n: getattr(inputs, n).clone() for n in NAMES}
        tensors[name][0, 0, 1, 1] = float("nan")
        out = apply_grid_curve(*tensors.values(), backend=backend)
        assert out[0, 0, 1, 1].isnan()
        assert int(out.isnan().sum()) == (1 if name == "x" else 3)


@pytest.mark.parametrize("wanted", NAMES)
@pytest.mark.parametrize("backend", EVERY)
def test_one_gradient_alone(backend, wanted):
    inputs = grid_curve_inputs(1, 4, 9, (2, 2, 2), device=device_of(backend))
    every = dict(zip(NAMES, differentiate(inputs, backend=backend)[1:], strict=True))
    leaves = {name: getattr(inputs, name).detach().requires_grad_(name == wanted) for name in NAMES}
    out = apply_grid_curve(*leaves.values(), backend=backend)
    (got,) = torch.autograd.grad(out, leaves[wanted], inputs.grad)
    assert torch.equal(got, every[wanted])


@pytest.mark.parametrize("backend", EVERY)
def test_gradcheck(backend):
    # few pixels: each is several calls, and Triton's interpreter takes its time
    inputs = grid_curve_inputs(1, 1, 2, (2, 1, 1), dtypes=DTYPES[0], device=device_of(backend))
    leaves = [getattr(inputs, name).requires_grad_() for name in NAMES]

    def curve(x, grid, guide):
        return apply_grid_curve(x, grid, guide, steps=2, backend=backend)

    # and along random directions there
    fast = backend == "triton"
    assert torch.autograd.gradcheck(curve, leaves, fast_mode=fast)
    assert torch.autograd.gradgradcheck(curve, leaves, fast_mode=fast)


def test_gradient_of_the_formula():
    """What autograd makes of the formula is what is written out, at the middles of lumas too."""
    inputs = grid_curve_inputs(2, 9, 14, (3, 4, 5), dtypes=DTYPES[0])
    inputs.guide[..., :5] = torch.tensor([0.0, 0.5, 1.0, -0.1, 1.1], dtype=torch.float64)
    leaves = [getattr(inputs, name).requires_grad_() for name in NAMES]
    place, size = (3, 8), (20, 30)
    out = reference.apply_grid_curve(*leaves, place=place, size=size, steps=3)
    automatic = torch.autograd.grad(out, leaves, inputs.grad)
    with torch.no_grad():
        written = reference.grid_curve_backward(inputs.grad, *leaves, place, size, 3)
    for a, b in zip(automatic, written, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("layout", ["contiguous", "mixed"])
@pytest.mark.parametrize("backend", EVERY)
def test_opcheck(backend, layout):
    inputs = grid_curve_inputs(2, 3, 5, (2, 2, 2), layout=layout, device=device_of(backend))
    leaves = [getattr(inputs, name).detach().requires_grad_() for name in NAMES]
    settings = ((1, 2), (5, 9), 8)
    torch.library.opcheck(torch.ops.fastllie.gridcurve_forward.default, (*leaves, *settings, backend))
    plain = [leaf.detach() for leaf in leaves]
    for needs in ((True, True, True), (False, True, False)):
        torch.library.opcheck(
            torch.ops.fastllie.gridcurve_backward.default, (inputs.grad, *plain, *settings, *needs, backend)
        )


@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
def test_compile_in_one_graph(compiler):
    inputs = grid_curve_inputs(2, 6, 10)

    def loss(x, grid, guide):
        return (apply_grid_curve(torch.relu(x), grid * 0.5, guide) ** 2).sum()

    def gradients(function):
        leaves = [getattr(inputs, name).detach().requires_grad_() for name in NAMES]
        value = function(*leaves)
        return value.detach(), *torch.autograd.grad(value, leaves)

    compiled = torch.compile(loss, fullgraph=True, backend=compiler)
    torch.testing.assert_close(gradients(compiled), gradients(loss))


def test_compile_for_any_size():
    compiled = torch.compile(apply_grid_curve, fullgraph=True, dynamic=True, backend="aot_eager")
    for height, width in ((6, 10), (7, 15), (9, 4)):
        inputs = grid_curve_inputs(1, height, width)
        tensors = [getattr(inputs, name) for name in NAMES]
        assert torch.equal(compiled(*tensors), apply_grid_curve(*tensors))


def test_other_dtypes_are_promoted():
    inputs = grid_curve_inputs(1, 4, 5, dtypes=DTYPES[0])
    for x, grid, guide, promoted in (
        (torch.float16, torch.float32, torch.float32, torch.float32),
        (torch.bfloat16, torch.float32, torch.float16, torch.float32),
        (torch.float32, torch.float64, torch.float32, torch.float64),
        (torch.bfloat16, torch.float16, torch.bfloat16, torch.bfloat16),
    ):
        tensors = inputs.x.to(x), inputs.grid.to(grid), inputs.guide.to(guide)
        out = apply_grid_curve(*tensors)
        assert out.dtype == promoted
        exact = reference.apply_grid_curve(*(tensor.double() for tensor in tensors))
        torch.testing.assert_close(out.double(), exact, rtol=0, atol=TOLERANCES[promoted].value)


def test_wrong_arguments_are_named():
    x, grid, guide = torch.rand(2, 3, 4, 5), torch.rand(2, 6, 3, 2, 2), torch.rand(2, 1, 4, 5)
    with pytest.raises(TypeError, match=r"x must be a torch.Tensor, got list"):
        apply_grid_curve([1], grid, guide)
    with pytest.raises(TypeError, match=r"grid must be float64.*got torch.int64"):
        apply_grid_curve(x, grid.long(), guide)
    with pytest.raises(ValueError, match=r"x must have 3 channels, got shape \(2, 1, 4, 5\)"):
        apply_grid_curve(x[:, :1], grid, guide)
    with pytest.raises(ValueError, match=r"guide must be \(2, 1, 4, 5\) .*got \(2, 3, 4, 5\)"):
        apply_grid_curve(x, grid, x)
    for bad in (grid[:1], grid[:, :5], grid[:, :, 0], grid[:, :, :0]):
        with pytest.raises(ValueError, match=r"grid must be \[2, 6, lumas, rows, columns\] .*got shape \(\d"):
            apply_grid_curve(x, bad, guide)
    with pytest.raises(ValueError, match=r"place must be two integers >= 0, got \(-1, 0\)"):
        apply_grid_curve(x, grid, guide, place=(-1, 0))
    with pytest.raises(ValueError, match=r"size must be two integers >= 0, got \(8.0, 8\)"):
        apply_grid_curve(x, grid, guide, size=(8.0, 8))
    with pytest.raises(ValueError, match=r"around 4 x 5 pixels at \(0, 4\), got \(8, 8\)"):
        apply_grid_curve(x, grid, guide, place=(0, 4), size=(8, 8))
    with pytest.raises(ValueError, match=r"steps must be at least 1, got 0"):
        apply_grid_curve(x, grid, guide, steps=0)
    with pytest.raises(ValueError, match=r"backend must be 'auto' or one of"):
        apply_grid_curve(x, grid, guide, backend="gpu")
    with pytest.raises(ValueError, match=r"on one device, got cpu and meta and cpu"):
        apply_grid_curve(x, grid.to("meta"), guide)
