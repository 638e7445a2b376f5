"""Convolutions that can be trained: against PyTorch's in float64, and where the training tasks take them."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from serving import device_of
from torch import nn
from torch.utils.checkpoint import checkpoint

from fastllie.ops import convolution_training
from fastllie.ops.convolution_training import (
    TrainableConvolutions,
    checkpoint_contexts,
    convolve_trainable,
)
from fastllie.training import recipes
from fastllie.training.data import Batch
from fastllie.training.enlightengan import EnlightenGANTask
from fastllie.training.nerco import NeRCoTask

# inputs, outputs, batch, height, width
SHAPES = {
    "first": (3, 32, 1, 13, 17),
    "odd": (17, 19, 2, 9, 6),
    "square": (32, 40, 1, 37, 61),
    "batch": (64, 48, 3, 21, 30),
    "pixel": (24, 16, 1, 3, 3),
    # so large weights that small images take the smaller tiles
    "deep": (320, 352, 2, 6, 5),
}
# of the largest element. The sums are float32's own: PyTorch's are off by up to 6e-7, and these by 3e-6,
# which their transforms make of it; a wrong tap or tile is off by more than 1e-2
TOLERANCE = 1e-5


@pytest.fixture(autouse=True)
def native():
    device_of("cpu")


def draw(*size, seed=0):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def leaves(inputs, outputs, batch, height, width, dtype=torch.float32):
    weight = draw(outputs, inputs, 3, 3, seed=1) / (3 * inputs**0.5)
    given = draw(batch, inputs, height, width), weight, draw(outputs, seed=2)
    return [tensor.to(dtype).requires_grad_() for tensor in given]


def gradients(call, given, padding):
    out = call(*given, padding=padding)
    grad = draw(*out.shape, seed=3).to(out.dtype)
    return out, *torch.autograd.grad(out, given, grad)


def expect(found, exact, tolerance=TOLERANCE):
    assert found.shape == exact.shape
    largest = float(exact.detach().abs().max())
    torch.testing.assert_close(found.double(), exact.double(), rtol=0, atol=tolerance * largest)


@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512", "avx512_bf16"], indirect=True)
@pytest.mark.parametrize("shape", SHAPES)
def test_result_and_gradients(isa, shape):
    for padding in (0, 1, 2):
        given = leaves(*SHAPES[shape])
        exact = gradients(F.conv2d, leaves(*SHAPES[shape], dtype=torch.float64), padding)
        for mine, wanted in zip(gradients(convolve_trainable, given, padding), exact, strict=True):
            expect(mine, wanted)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=["last", "first"])
def test_layouts(layout):
    size = (32, 40, 2, 11, 14)
    exact = gradients(F.conv2d, leaves(*size, dtype=torch.float64), 1)
    given = [t.detach().contiguous(memory_format=layout).requires_grad_() for t in leaves(*size)[:2]]
    given.append(leaves(*size)[2])
    found = gradients(convolve_trainable, given, 1)
    assert found[0].is_contiguous(memory_format=torch.channels_last)
    assert found[2].stride() == given[1].stride()
    for mine, wanted in zip(found, exact, strict=True):
        expect(mine, wanted)
    # channels of a wider tensor, and a gradient of one value
    wide = draw(2, 48, 11, 14).contiguous(memory_format=layout)
    part = wide[:, 8:40].requires_grad_()
    weight = given[1].detach()
    (grad,) = torch.autograd.grad(convolve_trainable(part, weight).sum(), part)
    wanted = part.detach().double().requires_grad_()
    expect(grad, torch.autograd.grad(F.conv2d(wanted, weight.double(), padding=1).sum(), wanted)[0])


def test_what_needs_no_gradient():
    x, weight, bias = leaves(32, 32, 1, 8, 9)
    y = convolve_trainable(x.detach(), weight, bias)
    assert torch.autograd.grad(y.sum(), [weight, bias], retain_graph=True)[0].shape == weight.shape
    expect(convolve_trainable(x.detach(), weight.detach()), F.conv2d(x, weight, padding=1).detach())
    with torch.no_grad():
        assert not convolve_trainable(x, weight, bias).requires_grad
    empty = convolve_trainable(x[:0], weight, bias)
    assert empty.shape == (0, 32, 8, 9)
    assert not torch.autograd.grad(empty.sum(), weight)[0].any()


def test_threads_do_not_change_the_bits():
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(gradients(convolve_trainable, leaves(70, 48, 2, 45, 50), 1)[:3])
    finally:
        torch.set_num_threads(before)
    for one, three in zip(*found, strict=True):
        assert torch.equal(one, three)


def test_gradcheck():
    """In float64, which runs on PyTorch's: that the derivatives are put together as they should be."""
    given = leaves(2, 3, 1, 4, 5, dtype=torch.float64)
    assert torch.autograd.gradcheck(convolve_trainable, given)
    assert torch.autograd.gradgradcheck(lambda *given: convolve_trainable(*given, padding=0), given)


def test_twice():
    """A gradient penalty, of our sums."""
    found = []
    for call in (convolve_trainable, F.conv2d):
        x, weight, bias = leaves(32, 33, 1, 9, 10)
        y = call(x, weight, bias, padding=1)
        (grad,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        found.append(torch.autograd.grad(grad.square().sum(), [x, weight, bias]))
    for mine, wanted in zip(*found, strict=True):
        expect(mine, wanted, 1e-4)


def test_opcheck():
    for dtype in (torch.float32, torch.float64):
        x, weight, bias = leaves(4, 5, 2, 6, 7, dtype=dtype)
        torch.library.opcheck(torch.ops.fastllie.convolution_trainable.default, (x, weight, bias, 1))
        torch.library.opcheck(torch.ops.fastllie.convolution_trainable.default, (x, weight, None, 0))
        grad = draw(2, 5, 6, 7).to(dtype)
        for needs in ((True, True), (False, True)):
            torch.library.opcheck(
                torch.ops.fastllie.convolution_trainable_backward.default,
                (grad, x.detach(), weight.detach(), 1, *needs),
            )


def test_frozen_weights_are_packed_once(monkeypatch):
    packings = []
    pack = convolution_training._pack
    monkeypatch.setattr(
        convolution_training, "_pack", lambda *given: packings.append(given[1:]) or pack(*given)
    )
    x, weight, _ = leaves(32, 32, 1, 8, 9)
    frozen = weight.detach()
    for _ in range(2):
        convolve_trainable(x, frozen).sum().backward()
    assert packings == [("winograd4", False), ("winograd4", True)]
    frozen.mul_(2)
    expect(convolve_trainable(x, frozen), F.conv2d(x, frozen, padding=1))
    assert len(packings) == 3
    # an optimizer that is fused tells nobody that it has changed them
    for count in (4, 5):
        convolve_trainable(x.detach(), weight)
        assert len(packings) == count


def calls_of(monkeypatch):
    """Where each call of ours comes to be counted."""
    calls = []
    into = convolution_training._into
    monkeypatch.setattr(
        convolution_training, "_into", lambda *given: calls.append(given[0].shape) or into(*given)
    )
    return calls


def test_a_checkpoint_runs_no_last_convolution_again(monkeypatch):
    calls = calls_of(monkeypatch)
    second = draw(32, 32, 3, 3, seed=5).requires_grad_()

    def step(x, first, bias):
        y = F.conv2d(x, first, bias, padding=1)
        # PyTorch's backward leaves the mode, and columns are padded for it alone
        return F.conv2d(F.relu(y), second, None, 1, (0, 1))

    def run(call):
        x, first, bias = leaves(32, 32, 1, 8, 9)
        y = call(x.contiguous(memory_format=torch.channels_last), first, bias)
        y.sum().backward()
        found = [y.detach(), x.grad, first.grad, bias.grad, second.grad]
        second.grad = None
        return found

    def checkpointed(*given):
        options = {"preserve_rng_state": False, "context_fn": checkpoint_contexts}
        y = checkpoint(step, *given, use_reentrant=False, **options)
        assert len(calls) == 2
        return y

    with TrainableConvolutions():
        found = run(checkpointed)
    assert len(calls) == 3
    for mine, wanted in zip(found, run(step), strict=True):
        expect(mine, wanted)
    assert len(calls) == 3


OURS = {
    "padded": ({"padding": 1}, True),
    "unpadded": ({}, True),
    "columns": ({"padding": (0, 1)}, True),
    "rows": ({"padding": (1, 0)}, False),
    "same": ({"padding": "same"}, False),
    "strided": ({"stride": 2}, False),
    "dilated": ({"dilation": (2, 2)}, False),
}


@pytest.mark.parametrize("case", OURS)
def test_within(monkeypatch, case):
    calls = calls_of(monkeypatch)
    options, ours = OURS[case]
    x, weight, bias = leaves(32, 36, 2, 9, 12)
    x = x.detach().contiguous(memory_format=torch.channels_last)
    wanted = F.conv2d(x, weight, bias, **options)
    with TrainableConvolutions(), TrainableConvolutions():
        expect(F.conv2d(x, weight, bias, **options), wanted)
    assert len(calls) == ours
    F.conv2d(x, weight, bias, **options)
    assert len(calls) == ours


def test_what_stays_with_torch(monkeypatch):
    calls = calls_of(monkeypatch)
    last = torch.channels_last
    with TrainableConvolutions():
        for layer, x in (
            (nn.Conv2d(32, 32, 3, groups=2), draw(1, 32, 9, 9)),
            (nn.Conv2d(32, 32, 1), draw(1, 32, 9, 9)),
            (nn.Conv2d(32, 16, 3), draw(1, 32, 9, 9)),
            (nn.Conv2d(32, 32, 3).double(), draw(1, 32, 9, 9).double()),
            (nn.Conv2d(32, 32, 3, padding=1), draw(1, 32, 2, 9)),
        ):
            layer(x.contiguous(memory_format=last))
        layer, x = nn.Conv2d(32, 32, 3), draw(1, 32, 9, 9)
        layer(x)
        x = x.contiguous(memory_format=last)
        with torch.autocast("cpu", torch.bfloat16):
            layer(x)
        monkeypatch.setenv("FASTLLIE_BACKEND", "torch")
        layer(x)
        assert not calls
        monkeypatch.delenv("FASTLLIE_BACKEND")
        layer(x)
        assert len(calls) == 1


def nerco():
    recipe = replace(
        recipes.NERCO_PUBLISHED,
        width=8,
        blocks=1,
        pre_blocks=1,
        hidden=32,
        discriminator_width=4,
        precision="float32",
    )
    return NeRCoTask(recipe, 4, 1)


def enlightengan():
    recipe = replace(
        recipes.ENLIGHTENGAN_PUBLISHED, width=32, discriminator_width=4, vgg="random", precision="float32"
    )
    return EnlightenGANTask(replace(recipe, patch=16, patches=1), 4, 1)


@pytest.mark.parametrize("make", [nerco, enlightengan])
def test_training_step(monkeypatch, make):
    """Losses and gradients of a step are PyTorch's, and ours have made them."""
    calls = calls_of(monkeypatch)
    batch = Batch(*(t.contiguous(memory_format=torch.channels_last) for t in _images()))
    found = []
    for backend in ("auto", "torch"):
        monkeypatch.setenv("FASTLLIE_BACKEND", backend)
        torch.manual_seed(0)
        task = make()
        values = task.compute([batch])
        grads = {name: p.grad for net in task.networks() for name, p in net.named_parameters()}
        found.append((copy.copy(values), grads))
        count = len(calls)
    assert count == len(calls) > 0
    (mine, ours), (wanted, theirs) = found
    for name, value in wanted.items():
        torch.testing.assert_close(mine[name], value, rtol=1e-4, atol=1e-6)
    largest = max(float(grad.abs().max()) for grad in theirs.values() if grad is not None)
    for name, grad in theirs.items():
        if grad is not None:
            torch.testing.assert_close(ours[name], grad, rtol=1e-3, atol=1e-4 * largest)


def _images():
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(2, 1, 3, 4, 4, generator=generator)
    dark, normal = (F.interpolate(images, (32, 32), mode="bicubic").clamp(0, 1) for images in coarse)
    return 0.3 * dark, 0.3 * dark, normal


def test_where_the_task_takes_them():
    task = enlightengan()
    assert isinstance(task.convolutions(), TrainableConvolutions)
    task.precision = "bfloat16"
    assert not isinstance(task.convolutions(), TrainableConvolutions)


def test_bad_arguments():
    x, weight, bias = leaves(4, 5, 1, 6, 7)
    with pytest.raises(TypeError, match=r"x must be float64 or float32, got torch\.bfloat16"):
        convolve_trainable(x.bfloat16(), weight)
    with pytest.raises(TypeError, match=r"must be of one dtype, got \[torch\.float32, torch\.float64\]"):
        convolve_trainable(x, weight.double())
    with pytest.raises(ValueError, match=r"weight must be \[outputs, 4, 3, 3\], got shape \(5, 3, 3, 3\)"):
        convolve_trainable(x, weight[:, :3])
    with pytest.raises(ValueError, match=r"bias must be \[5\], got shape \(4,\)"):
        convolve_trainable(x, weight, bias[:4])
    with pytest.raises(ValueError, match=r"padding must be 0, 1 or 2, got 3"):
        convolve_trainable(x, weight, padding=3)
    with pytest.raises(ValueError, match=r"nothing is left of \(2, 7\) by 3x3 with padding 0"):
        convolve_trainable(x[:, :, :2], weight, padding=0)
    with pytest.raises(RuntimeError, match=r"convolve_trainable needs tensors on 'cpu', got meta"):
        convolve_trainable(x.to("meta"), weight.to("meta"))
