"""How launches are counted without a GPU, and how many the losses of Zero-DCE take."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from fastllie.ops import zero_reference_losses

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
if not (BENCHMARKS / "launches.py").exists():
    pytest.skip("benchmarks/ is not here", allow_module_level=True)
if str(BENCHMARKS) not in sys.path:
    sys.path.insert(0, str(BENCHMARKS))

import launches  # noqa: E402


def counted(step):
    with launches.as_on_a_gpu() as stand_in:
        return launches.launched(step, stand_in)


def test_what_counts():
    x = torch.rand(1, 3, 8, 8)
    layer = nn.Conv2d(3, 4, 3)
    assert counted(lambda: x.view(3, 64).t()[1:]) == 0
    assert counted(lambda: torch.empty(()).item()) == 0
    assert counted(lambda: x + x.view(3, 64).view_as(x)) == 1
    assert counted(lambda: layer(x)) == 1
    assert counted(lambda: torch.relu(x).contiguous().contiguous(memory_format=torch.channels_last)) == 2
    assert counted(lambda: torch._foreach_add([x, x], 1)) == 1


@pytest.mark.parametrize("tanh", [False, True])
def test_the_losses_take_few_launches(tanh):
    x, alpha = torch.rand(2, 3, 32, 48), torch.rand(2, 24, 32, 48) - 0.5
    leaves = [x.requires_grad_(), alpha.requires_grad_()]
    seen = []

    def step():
        seen.append(zero_reference_losses(x, alpha, tanh=tanh))

    assert counted(step) == 3
    # what gathers the gradients of the four is PyTorch's
    grads = [torch.ones(())] * 4
    assert counted(lambda: torch.autograd.grad(seen[-1], leaves, grads, retain_graph=True)) == 2
    # a loss that nobody asks for is a zero
    assert counted(lambda: torch.autograd.grad(seen[-1].exposure, leaves, retain_graph=True)) <= 6


@pytest.mark.emulated
@pytest.mark.parametrize("name", ["zero_reference_losses", "zero_reference_slopes"])
def test_the_numbers_are_the_kernels(cuda_on_cpu, name):
    x, alpha = torch.rand(1, 3, 16, 16), torch.rand(1, 24, 16, 16).requires_grad_()
    cuda_on_cpu.launches()
    losses = torch.stack(zero_reference_losses(x, alpha, backend="cuda"))
    forward = len(cuda_on_cpu.launches())
    losses.sum().backward()
    found = {"zero_reference_losses": forward, "zero_reference_slopes": len(cuda_on_cpu.launches())}
    assert found[name] == launches.LAUNCHES.get(name, 1)
