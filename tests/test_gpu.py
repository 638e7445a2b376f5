"""What only a GPU shows: streams, graphs, indices beyond 32 bits, and images that never leave the device."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from cases import curve_inputs

import fastllie
from fastllie.models import ZeroDCE
from fastllie.ops import (
    apply_curve,
    divide_illumination,
    enhance_sci,
    reference,
    smoothness_loss,
    zero_reference_losses,
)
from fastllie.ops.zerodce import enhance_zerodce, pack_zerodce

pytestmark = pytest.mark.gpu
BACKENDS = ("cuda", "triton")


def serving(backend):
    found = fastllie.backends()[backend]
    if not found:
        pytest.skip(found.detail)
    return backend


@pytest.mark.parametrize("backend", BACKENDS)
def test_curve_runs_on_the_current_stream(backend):
    inputs = curve_inputs(2, 256, 256, device="cuda")
    expected = reference.curve(inputs.x, inputs.alpha, 8)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        # the kernel has to wait for what is before it on this stream alone
        torch.cuda._sleep(50_000_000)
        x = inputs.x * 1
        out = apply_curve(x, inputs.alpha, backend=serving(backend))
    stream.synchronize()
    torch.testing.assert_close(out, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_curve_is_captured_in_a_graph(backend):
    inputs = curve_inputs(1, 64, 64, device="cuda")
    apply_curve(inputs.x, inputs.alpha, backend=serving(backend))
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = apply_curve(inputs.x, inputs.alpha, backend=backend)
    inputs.x.mul_(0.5)
    graph.replay()
    torch.testing.assert_close(out, reference.curve(inputs.x, inputs.alpha, 8), rtol=0, atol=2e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_curve_indexes_beyond_32_bits(backend):
    if torch.cuda.mem_get_info()[0] < 24 << 30:
        pytest.skip("needs 24 GiB of free GPU memory")
    x = torch.rand(1, 3, 13000, 8192, device="cuda", dtype=torch.float16)
    alpha = torch.zeros(1, 24, 13000, 8192, device="cuda", dtype=torch.float16)
    assert alpha.numel() > 2**31
    alpha[:, -3:, -1] = 0.5
    out = apply_curve(x, alpha, backend=serving(backend))
    assert torch.equal(out[:, :, :-1], x[:, :, :-1])
    last = x[:, :, -1].float()
    torch.testing.assert_close(out[:, :, -1].float(), last + 0.5 * last * (1 - last), rtol=0, atol=1e-3)


LOSS_GRADS = (200.0, 1.0, 5.0, 10.0)


def loss_gradients(x, alpha, backend):
    leaves = [tensor.detach().requires_grad_() for tensor in (x, alpha)]
    losses = torch.stack(zero_reference_losses(*leaves, tanh=True, backend=backend))
    grads = torch.ones_like(losses)
    for index, grad in enumerate(LOSS_GRADS):
        # a fill on the device: a copy from the host would not be captured
        grads[index].fill_(grad)
    return losses.detach(), *torch.autograd.grad(losses, leaves, grads)


def expect_losses(inputs, got):
    x, alpha = inputs.x.double(), inputs.alpha.double()
    grads = torch.tensor(LOSS_GRADS, dtype=torch.float64, device="cuda")
    losses = torch.stack(reference.zero_reference(x, alpha, 8, True, 0.6))
    exact = (losses, *reference.zero_reference_backward(grads, x, alpha, 8, True, 0.6))
    torch.testing.assert_close(got[0].double(), exact[0], rtol=1e-5, atol=1e-9)
    for value, wanted in zip(got[1:], exact[1:], strict=True):
        torch.testing.assert_close(value.double(), wanted, rtol=0, atol=5e-6 * float(wanted.abs().max()))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_losses_of_a_training_batch(backend, layout):
    inputs = curve_inputs(8, 256, 256, layout=layout, device="cuda")
    got = loss_gradients(inputs.x, inputs.alpha, serving(backend))
    expect_losses(inputs, got)
    # sums of a fixed order
    again = loss_gradients(inputs.x, inputs.alpha, backend)
    assert all(torch.equal(a, b) for a, b in zip(got, again, strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
def test_losses_are_captured_in_a_graph(backend):
    inputs = curve_inputs(1, 64, 80, device="cuda")
    # on a side stream, as autograd wants it before a capture
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        loss_gradients(inputs.x, inputs.alpha, serving(backend))
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = loss_gradients(inputs.x, inputs.alpha, backend)
    inputs.alpha.mul_(0.5)
    graph.replay()
    expect_losses(inputs, got)


def sci_network():
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(3, 3, 3, 3, 3, generator=generator) * 0.3
    return weights.cuda(), (torch.randn(3, 3, generator=generator) * 0.2).cuda()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.uint8], ids=["f32", "f16", "u8"])
@pytest.mark.parametrize("padding", ["zeros", "reflect"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_sci_on_a_whole_frame(backend, padding, dtype):
    frame = torch.rand(1080, 1920, 3, device="cuda", generator=torch.Generator("cuda").manual_seed(0))
    frame = (frame * 255).to(dtype) if dtype == torch.uint8 else frame.to(dtype)
    for x in (frame.permute(2, 0, 1)[None], frame.permute(2, 0, 1)[None].contiguous()):
        exact = x.double() / (255 if dtype == torch.uint8 else 1)
        network = sci_network()
        expected = reference.sci(exact, *(tensor.double() for tensor in network), True, padding)
        got = enhance_sci(x, *network, padding=padding, backend=serving(backend))
        got = got.double() / (255 if dtype == torch.uint8 else 1)
        atol = {torch.float32: 5e-6, torch.float16: 1e-3, torch.uint8: 0.501 / 255}[dtype]
        torch.testing.assert_close(got, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("backend", BACKENDS)
def test_sci_is_captured_in_a_graph(backend):
    x, network = torch.rand(1, 3, 64, 80, device="cuda"), sci_network()
    enhance_sci(x, *network, backend=serving(backend))
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = enhance_sci(x, *network, backend=backend)
    x.mul_(0.5)
    graph.replay()
    expected = reference.sci(x.double(), *(tensor.double() for tensor in network), True, "zeros")
    torch.testing.assert_close(out.double(), expected, rtol=0, atol=5e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_sci_indexes_beyond_32_bits(backend):
    if torch.cuda.mem_get_info()[0] < 8 << 30:
        pytest.skip("needs 8 GiB of free GPU memory")
    x = torch.zeros(1, 3, 30000, 26000, device="cuda", dtype=torch.uint8)
    assert x.numel() > 2**31
    x[..., -50:, -50:] = torch.randint(0, 256, (3, 50, 50), device="cuda", dtype=torch.uint8)
    network = sci_network()
    out = enhance_sci(x, *network, backend=serving(backend))
    corner = reference.sci(
        x[..., -60:, -60:].double() / 255, *(tensor.double() for tensor in network), True, "zeros"
    )
    got = out[..., -50:, -50:].double() / 255
    torch.testing.assert_close(got, corner[..., -50:, -50:], rtol=0, atol=0.501 / 255)


@pytest.mark.parametrize("method", ["zerodce", "zerodce++"])
def test_enhance_stays_on_the_gpu(method):
    image = torch.rand(3, 120, 90, generator=torch.Generator().manual_seed(0)) * 0.3
    expected = fastllie.enhance(image, method)
    for dtype, atol in ((torch.float32, 5e-3), (torch.float16, 1e-2)):
        got = fastllie.enhance(image.cuda(), method, dtype=dtype)
        assert got.device.type == "cuda"
        assert got.dtype == torch.float32
        # convolutions of float32 run in TF32 there
        torch.testing.assert_close(got.cpu(), expected, rtol=0, atol=atol)


def zerodce_network(backend, device="cuda"):
    torch.manual_seed(0)
    net = ZeroDCE().requires_grad_(False)
    for name, parameter in net.named_parameters():
        parameter.normal_(0, 0.1 if name.endswith("bias") else (2 / parameter[0].numel()) ** 0.5)
    weights = [parameter.to(device) for parameter in net.parameters()]
    return net, pack_zerodce(weights[::2], weights[1::2], dtype=torch.float16, backend=backend)


def expect_dce(net, x, got):
    expected = copy.deepcopy(net).double().to(x.device)(x.double())
    error = (got.double() - expected).square().mean()
    assert float(-10 * error.log10()) > 55
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=1e-2)


@pytest.mark.parametrize(
    "layout", [torch.contiguous_format, torch.channels_last], ids=["planar", "interleaved"]
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_zerodce_on_a_whole_frame(backend, layout):
    net, packed = zerodce_network(serving(backend))
    x = torch.rand(1, 3, 1080, 1920, generator=torch.Generator().manual_seed(0)).half().cuda()
    expect_dce(net, x, enhance_zerodce(x.contiguous(memory_format=layout), packed, backend=backend))


@pytest.mark.parametrize("backend", BACKENDS)
def test_zerodce_runs_on_the_current_stream(backend):
    net, packed = zerodce_network(serving(backend))
    given = torch.rand(2, 3, 120, 150, device="cuda").half()
    enhance_zerodce(given, packed, backend=backend)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        x = given * 1
        out = enhance_zerodce(x, packed, backend=backend)
    stream.synchronize()
    expect_dce(net, given, out)


@pytest.mark.parametrize("backend", BACKENDS)
def test_zerodce_is_captured_in_a_graph(backend):
    net, packed = zerodce_network(serving(backend))
    x = torch.rand(1, 3, 64, 80, device="cuda").half()
    enhance_zerodce(x, packed, backend=backend)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = enhance_zerodce(x, packed, backend=backend)
    x.mul_(0.5)
    graph.replay()
    expect_dce(net, x, out)


@pytest.mark.parametrize("backend", BACKENDS)
def test_zerodce_indexes_beyond_32_bits(backend):
    if torch.cuda.mem_get_info()[0] < 32 << 30:
        pytest.skip("needs 32 GiB of free GPU memory")
    net, packed = zerodce_network(serving(backend))
    x = torch.rand(1, 3, 8300, 8200, device="cuda", dtype=torch.float16)
    assert 32 * x[0, 0].numel() > 2**31
    out = enhance_zerodce(x, packed, backend=backend)
    corner = copy.deepcopy(net).double().cuda()(x[..., -100:, -100:].double())
    torch.testing.assert_close(out[..., -80:, -80:].double(), corner[..., -80:, -80:], rtol=0, atol=1e-2)


@pytest.mark.parametrize("current", [0, 1])
@pytest.mark.parametrize("backend", BACKENDS)
def test_operators_on_another_device(backend, current):
    """The current device is after every call, and in its backward, what it was."""
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    device = f"cuda:{1 - current}"
    with torch.cuda.device(current):
        net, packed = zerodce_network(serving(backend), device)
        x = torch.rand(1, 3, 40, 50, device=device).half()
        expect_dce(net, x, enhance_zerodce(x, packed, backend=backend))
        assert torch.cuda.current_device() == current
        inputs = curve_inputs(1, 40, 50, device=device)
        got = apply_curve(inputs.x, inputs.alpha, backend=backend)
        assert torch.cuda.current_device() == current
        torch.testing.assert_close(got, reference.curve(inputs.x, inputs.alpha, 8), rtol=0, atol=2e-6)
        network = [tensor.to(device) for tensor in sci_network()]
        enhance_sci(inputs.x, *network, backend=backend)
        assert torch.cuda.current_device() == current
        x, illum = (torch.rand(1, 3, 40, 50, device=device).requires_grad_() for _ in range(2))
        total = divide_illumination(x, illum, backend=backend).sum()
        total = total + smoothness_loss(illum, x, backend=backend)
        total = total + sum(zero_reference_losses(x, inputs.alpha, backend=backend))
        assert torch.cuda.current_device() == current
        total.backward()
        assert torch.cuda.current_device() == current
        fastllie.enhance(torch.rand(3, 40, 50, device=device), "sci")
        assert torch.cuda.current_device() == current


def graphed(method="zerodce", **settings):
    """An enhancer that records, and the same one that does not."""
    return fastllie.Enhancer(method, **settings), fastllie.Enhancer(method, cuda_graph=False, **settings)


def frames(count, *size, device="cuda"):
    generator = torch.Generator().manual_seed(0)
    return [(torch.rand(3, *size, generator=generator) * 0.4).to(device) for _ in range(count)]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=["f16", "f32"])
@pytest.mark.parametrize("method", ["zerodce", "zerodce++"])
def test_enhancers_replay_graphs(method, dtype):
    recording, plain = graphed(method, dtype=dtype)
    images = frames(5, 90, 120)
    expected = [plain(image) for image in images]
    got = [recording(image) for image in images]
    assert len(recording._run.graphs._graphs) == 1
    # results stay as they came
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-3 if dtype == torch.float16 else 1e-5)
    assert len({one.data_ptr() for one in got}) == len(got)


def test_graphs_of_several_shapes_and_streams():
    """Recordings share the memory that they work in: what is under way on another stream is waited for."""
    recording, plain = graphed(dtype=torch.float16)
    sizes = [(60, 80), (200, 300), (61, 80)]
    images = [image for size in sizes for image in frames(4, *size)]
    expected = [plain(image) for image in images]
    streams = [torch.cuda.Stream() for _ in range(3)]
    for stream in streams:
        stream.wait_stream(torch.cuda.current_stream())
    for _ in range(3):
        got = []
        for place, image in enumerate(images):
            with torch.cuda.stream(streams[place % 3]):
                got.append(recording(image))
        torch.cuda.synchronize()
        for one, other in zip(got, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-3)
    assert len(recording._run.graphs._graphs) == 3


def test_graphs_from_several_threads():
    recording, plain = graphed(dtype=torch.float16)
    images = frames(40, 90, 120)
    expected = [plain(image) for image in images]
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(recording, images))
    torch.cuda.synchronize()
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-3)


def test_graphs_on_another_device():
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    recording, plain = graphed(dtype=torch.float16)
    for device in ("cuda:1", "cuda:0", "cuda:1"):
        for image in frames(3, 60, 80, device=device):
            got = recording(image)
            assert got.device == image.device
            torch.testing.assert_close(got, plain(image), rtol=0, atol=1e-3)
    assert len(recording._run.graphs._graphs) == 2


def test_a_network_in_a_recording_of_the_caller():
    _, plain = graphed(dtype=torch.float16)
    (image,) = frames(1, 60, 80)
    image = image.half()
    graph = torch.cuda.CUDAGraph()
    model = fastllie.load("zerodce", device="cuda", dtype=torch.float16).requires_grad_(False)
    with torch.no_grad():
        model(image[None])
        torch.cuda.synchronize()
        with torch.cuda.graph(graph):
            out = model(image[None])
    graph.replay()
    torch.testing.assert_close(out[0], plain(image), rtol=0, atol=1e-3)
