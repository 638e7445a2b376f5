"""SCI's network in one kernel against the reference: every backend, dtype, layout, padding and odd size."""

from pathlib import Path

import numpy as np
import pytest
import torch
from cases import LAYOUTS, SHAPES, TOLERANCES, images
from safetensors.torch import load_file
from serving import EVERY, device_of

from fastllie.ops import enhance_sci, reference

SHARED = Path(__file__).resolve().parents[3] / "shared"
GOLDEN, WEIGHTS = SHARED / "golden" / "sci" / "sci_infer.npz", SHARED / "weights" / "sci"
needs_golden = pytest.mark.skipif(
    not (GOLDEN.is_file() and WEIGHTS.is_dir()), reason="the published weights and golden data are not here"
)
PADDINGS = ("zeros", "reflect")
DTYPES = (*TOLERANCES, torch.uint8)
each_backend = pytest.mark.parametrize("backend", EVERY)
each_padding = pytest.mark.parametrize("padding", PADDINGS)


def random_network(dtype=torch.float32, device="cpu", seed=0):
    """Weights and biases under which no layer is dead and every clamp is met."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(3, 3, 3, 3, 3, generator=generator) * 0.3
    biases = torch.randn(3, 3, generator=generator) * 0.2
    return weights.to(device, dtype), biases.to(device, dtype)


def frames(batch, height, width, *, dtype=torch.float32, layout="contiguous", device="cpu"):
    if dtype != torch.uint8:
        return images([(0, 1)], batch, height, width, dtype=dtype, layout=layout, device=device)[0]
    (values,) = images([(0, 255)], batch, height, width, layout=layout, device=device)
    # to() keeps the layout of a crop only in kind: its margin is cut after the conversion
    whole = values if values._base is None else values._base
    return whole.round().to(dtype).as_strided(values.shape, values.stride(), values.storage_offset())


def expect(x, got, network, *, residual=True, padding="zeros"):
    assert got.dtype == x.dtype
    assert got.shape == x.shape
    assert got.device == x.device
    exact = x.double().cpu() / (255 if x.dtype == torch.uint8 else 1)
    weights, biases = (tensor.double().cpu() for tensor in network)
    expected = reference.sci(exact, weights, biases, residual, padding)
    if x.dtype == torch.uint8:
        expected = expected * 255
        # rounded to nearest: only within rounding of a tie may either neighbour stand
        tie = ((expected - expected.floor()) - 0.5).abs() < 2e-3
        off = (got.double().cpu() - expected.round()).abs()
        assert bool(((off == 0) | (tie & (off == 1))).all())
        return
    # an illumination near 1e-4 would multiply rounding; with these weights none is below 0.02
    torch.testing.assert_close(got.double().cpu(), expected, rtol=0, atol=TOLERANCES[x.dtype].value * 2)


def compare(backend, *size, dtype=torch.float32, layout="contiguous", residual=True, padding="zeros"):
    device = device_of(backend)
    x = frames(*size, dtype=dtype, layout=layout, device=device)
    network = random_network(torch.float64 if dtype == torch.float64 else torch.float32, device)
    got = enhance_sci(x, *network, residual=residual, padding=padding, backend=backend)
    expect(x, got, network, residual=residual, padding=padding)
    return x, got


@each_padding
@pytest.mark.parametrize("residual", [True, False], ids=["residual", "chain"])
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))
@each_backend
def test_dtypes(backend, dtype, residual, padding):
    compare(backend, 2, 9, 37, dtype=dtype, residual=residual, padding=padding)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8], ids=["f32", "bf16", "u8"])
@pytest.mark.parametrize("layout", LAYOUTS[:3])
@each_backend
def test_layouts(backend, layout, dtype):
    x, got = compare(backend, 2, 7, 35, dtype=dtype, layout=layout)
    assert got.stride() == torch.empty_like(x).stride()


@each_backend
def test_an_interleaved_frame_is_read_and_written_in_place(backend):
    device = device_of(backend)
    frame = torch.randint(0, 256, (20, 33, 3), dtype=torch.uint8, device=device)
    network = random_network(device=device)
    x = frame.permute(2, 0, 1)[None]
    got = enhance_sci(x, *network, backend=backend)
    expect(x, got, network)
    assert got[0].permute(1, 2, 0).is_contiguous()
    # four bytes a pixel, of which the kernel takes three
    padded = torch.cat([frame, frame[..., :1]], 2)[..., :3].permute(2, 0, 1)[None]
    assert torch.equal(enhance_sci(padded, *network, backend=backend), got)


TINY = {f"{h}x{w}": (1, h, w) for h in (1, 2, 3, 4) for w in (1, 2, 3, 4)}


@each_padding
@pytest.mark.parametrize("shape", [*SHAPES.values(), *TINY.values()], ids=[*SHAPES, *TINY])
@each_backend
def test_sizes(backend, shape, padding):
    compare(backend, *shape, padding=padding)


@each_padding
@pytest.mark.parametrize("backend", [name for name in EVERY if name != "triton"])
def test_several_strips_and_bands(backend, padding):
    # each way that a strip or a tile can end near the edge of the image
    for width in (1007, 1008, 1009, 1011, 1024, 1031, 2017):
        compare(backend, 1, 19, width, padding=padding)
    for height in (31, 127, 129, 515, 4099):
        compare(backend, 1, height, 21, padding=padding)
    compare(backend, 3, 70, 70, padding=padding, dtype=torch.uint8)


@each_backend
def test_nothing(backend):
    device = device_of(backend)
    network = random_network(device=device)
    for size in ((0, 3, 4, 5), (2, 3, 0, 5), (2, 3, 4, 0)):
        for dtype in (torch.float32, torch.uint8):
            x = torch.empty(size, dtype=dtype, device=device)
            assert enhance_sci(x, *network, backend=backend).shape == size


def test_every_instruction_set(isa):
    for dtype in DTYPES:
        for layout in LAYOUTS[:3]:
            for width in (3, 37, 150):
                compare("cpu", 2, 9, width, dtype=dtype, layout=layout)
    # stored past the caches
    for layout in LAYOUTS[:3]:
        compare("cpu", 1, 900, 1040, layout=layout)


def test_threads_do_not_change_the_bits():
    x = frames(2, 150, 1100)
    network = random_network()
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(enhance_sci(x, *network))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(result, results[0]) for result in results)


@each_backend
def test_values_outside_the_range_and_nan(backend):
    device = device_of(backend)
    network = random_network(device=device)
    x = frames(1, 12, 40, device=device) * 3 - 1
    expect(x, enhance_sci(x, *network, backend=backend), network)
    x = frames(1, 12, 40, device=device)
    x[0, 1, 5, 20] = float("nan")
    nan = torch.zeros(12, 40, dtype=torch.bool, device=device)
    nan[2:9, 17:24] = True
    got = enhance_sci(x, *network, backend=backend)
    # all that the pixel reaches, and nothing else
    assert torch.equal(got.isnan(), nan.expand_as(got))


@each_backend
def test_an_extreme_illumination(backend):
    """A sigmoid of 0 or 1 to the last bit: illuminations at both bounds of the clamp."""
    device = device_of(backend)
    weights, biases = torch.zeros(3, 3, 3, 3, 3, device=device), torch.zeros(3, 3, device=device)
    x = torch.tensor([0.0, 5e-5, 0.25, 1.0], device=device).expand(1, 3, 2, 4)
    for dtype in (torch.float32, torch.float64):
        for value in (-1000.0, -90.0, 90.0, 1000.0):
            biases[2] = value
            got = enhance_sci(x.to(dtype), weights, biases, backend=backend)
            # 1e-4 below, x itself above
            expected = (x / x.clamp(1e-4, 1) if value < 0 else x).to(dtype)
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)


def test_the_reflected_frame_is_not_coloured():
    """On a constant image reflection leaves every pixel alike; zeros leave a frame."""
    network = random_network()
    x = torch.full((1, 3, 20, 30), 0.2)
    even = enhance_sci(x, *network, padding="reflect")
    assert float((even - even[..., :1, :1]).abs().max()) < 1e-6
    framed = enhance_sci(x, *network, padding="zeros")
    assert float((framed - framed[..., 10:11, 15:16]).abs().max()) > 1e-2
    torch.testing.assert_close(framed[..., 3:-3, 3:-3], even[..., 3:-3, 3:-3])


@pytest.mark.parametrize("layout", LAYOUTS[:3])
@each_backend
def test_opcheck(backend, layout):
    device = device_of(backend)
    for dtype in (torch.float32, torch.uint8):
        x = frames(2, 5, 6, dtype=dtype, layout=layout, device=device)
        torch.library.opcheck(
            torch.ops.fastllie.sci_forward.default,
            (x, *random_network(device=device), True, "reflect", backend),
        )


@each_backend
def test_a_result_goes_where_it_is_asked_for(backend):
    device = device_of(backend)
    network = random_network(device=device)
    for dtype in (torch.float32, torch.uint8):
        x = frames(2, 7, 9, dtype=dtype, device=device)
        want = enhance_sci(x, *network, backend=backend)
        for layout in LAYOUTS[:3]:
            out = frames(2, 7, 9, dtype=dtype, layout=layout, device=device).clone(
                memory_format=torch.preserve_format
            )
            before = x.clone()
            assert enhance_sci(x, *network, backend=backend, out=out) is out
            assert torch.equal(out, want)
            assert torch.equal(x, before)
        arguments = (x, *network, True, "zeros", backend, torch.empty_like(x))
        torch.library.opcheck(torch.ops.fastllie.sci_forward_into.default, arguments)


def test_a_place_that_does_not_fit():
    x, network = frames(1, 5, 6), random_network()
    with pytest.raises(TypeError, match=r"out must be a torch\.Tensor, got list"):
        enhance_sci(x, *network, out=[])
    with pytest.raises(
        ValueError, match=r"out must be \[1, 3, 5, 6\] on cpu, as x, got \[1, 3, 5, 5\] on cpu"
    ):
        enhance_sci(x, *network, out=torch.empty(1, 3, 5, 5))
    with pytest.raises(TypeError, match=r"out must be torch\.float32, as x, got torch\.float64"):
        enhance_sci(x, *network, out=x.double())
    with pytest.raises(ValueError, match="out is the memory of x"):
        enhance_sci(x, *network, out=x)


@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
def test_compile_in_one_graph(compiler):
    network = random_network()

    def call(x):
        return enhance_sci(x * 0.5, *network, padding="reflect") + 1

    compiled = torch.compile(call, fullgraph=True, backend=compiler)
    for size in ((2, 3, 6, 10), (1, 3, 9, 4)):
        x = torch.rand(size)
        torch.testing.assert_close(compiled(x), call(x))


def test_export():
    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            weights, biases = random_network()
            self.register_buffer("weights", weights)
            self.register_buffer("biases", biases)

        def forward(self, x):
            return enhance_sci(x, self.weights, self.biases)

    x = torch.rand(1, 3, 6, 10)
    program = torch.export.export(Network(), (x,))
    assert "fastllie.sci_forward" in str(program.graph)
    assert torch.equal(program.module()(x), Network()(x))


def test_a_gradient_is_refused():
    x = torch.rand(1, 3, 6, 7)
    network = random_network()
    for index in range(3):
        arguments = [x, *network]
        arguments[index] = arguments[index].clone().requires_grad_()
        with pytest.raises(RuntimeError, match=r"enhance_sci is for inference and has no gradient"):
            enhance_sci(*arguments)
        with torch.no_grad():
            assert torch.equal(enhance_sci(*arguments), enhance_sci(x, *network))


def test_other_dtypes_of_weights_are_converted():
    weights, biases = random_network(torch.float64)
    x = torch.rand(1, 3, 6, 7)
    expected = enhance_sci(x, weights.float(), biases.float())
    assert torch.equal(enhance_sci(x, weights, biases), expected)
    turned = weights.transpose(0, 1).contiguous().transpose(0, 1)
    assert not turned.is_contiguous()
    assert torch.equal(enhance_sci(x, turned, biases), expected)


def test_wrong_arguments_are_named():
    x = torch.rand(1, 3, 4, 5)
    weights, biases = random_network()
    with pytest.raises(TypeError, match=r"x must be a torch.Tensor, got ndarray"):
        enhance_sci(x.numpy(), weights, biases)
    with pytest.raises(TypeError, match=r"x must be float64, .*float16 or uint8, got torch.int64"):
        enhance_sci(x.long(), weights, biases)
    with pytest.raises(ValueError, match=r"x must be \[B, C, H, W\], got shape \(3, 4, 5\)"):
        enhance_sci(x[0], weights, biases)
    with pytest.raises(ValueError, match=r"x must have 3 channels, got shape \(1, 1, 4, 5\)"):
        enhance_sci(x[:, :1], weights, biases)
    with pytest.raises(TypeError, match=r"weights must be a torch.Tensor, got list"):
        enhance_sci(x, [weights], biases)
    with pytest.raises(TypeError, match=r"biases must be float64.*got torch.int64"):
        enhance_sci(x, weights, biases.long())
    with pytest.raises(ValueError, match=r"weights must be \[3, 3, 3, 3, 3\], got shape \(2, 3, 3, 3, 3\)"):
        enhance_sci(x, weights[1:], biases)
    with pytest.raises(ValueError, match=r"biases must be \[3, 3\], got shape \(9,\)"):
        enhance_sci(x, weights, biases.flatten())
    with pytest.raises(ValueError, match=r"x and weights must be on one device, got cpu and meta"):
        enhance_sci(x, weights.to("meta"), biases)
    with pytest.raises(ValueError, match=r"padding must be one of \('zeros', 'reflect'\), got 'same'"):
        enhance_sci(x, weights, biases, padding="same")
    with pytest.raises(ValueError, match=r"backend must be 'auto' or one of"):
        enhance_sci(x, weights, biases, backend="gpu")


def published(name):
    """A published checkpoint, its batch norm folded: weights, biases, and whether it adds f0."""
    if name == "mit_demo":
        state = load_file(WEIGHTS / "mit_demo_2022_03.safetensors")
        layers = [f"enhance.out_conv.{index}" for index in (0, 2, 4)]
        pairs = [(state[f"{layer}.weight"], state[f"{layer}.bias"]) for layer in layers]
    else:
        state = load_file(WEIGHTS / f"{name}.safetensors")
        layers = [f"enhance.{layer}.0" for layer in ("in_conv", "conv", "out_conv")]
        pairs = [(state[f"{layer}.weight"].double(), state[f"{layer}.bias"].double()) for layer in layers]
        norm = {key: state[f"enhance.conv.1.{key}"].double() for key in ("weight", "bias")}
        mean, var = (state[f"enhance.conv.1.running_{key}"].double() for key in ("mean", "var"))
        scale = norm["weight"] / (var + 1e-5).sqrt()
        weight, bias = pairs[1]
        pairs[1] = (weight * scale[:, None, None, None], (bias - mean) * scale + norm["bias"])
    weights, biases = (torch.stack(tensors).float() for tensors in zip(*pairs, strict=True))
    return weights, biases, name != "mit_demo"


@needs_golden
@pytest.mark.parametrize(
    "case",
    [*(f"{image}.{name}" for image in "abs" for name in ("easy", "medium", "difficult")), "s.mit_demo"],
)
@each_backend
def test_golden(backend, case):
    """The published code's results with its own weights."""
    device = device_of(backend)
    image, name = case.split(".")
    arrays = np.load(GOLDEN)
    weights, biases, residual = published(name)
    bytes_ = torch.from_numpy(arrays[f"{image}.u8"]).permute(2, 0, 1)[None].to(device)
    expected = torch.from_numpy(arrays[f"{case}.out"])[None]
    options = {"residual": residual, "backend": backend}
    network = weights.to(device), biases.to(device)
    x = bytes_.float() / 255
    for form in (torch.contiguous_format, torch.channels_last):
        got = enhance_sci(x.contiguous(memory_format=form), *network, **options)
        torch.testing.assert_close(got.cpu(), expected, rtol=0, atol=5e-6)
    rounded = enhance_sci(bytes_, *network, **options).cpu()
    off = (rounded.int() - (expected * 255).round().int()).abs()
    assert int(off.max()) <= 1
    assert float((off > 0).float().mean()) < 1e-3
    for dtype, least in ((torch.bfloat16, 50), (torch.float16, 60)):
        got = enhance_sci(x.to(dtype), *network, **options).cpu().double()
        psnr = float(-10 * (got - expected).square().mean().log10())
        assert psnr >= least, (dtype, psnr)
