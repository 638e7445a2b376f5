"""A gradient has two operators: one to be differentiated again, and one that autograd does not know."""

import pytest
import torch
from cases import grid_curve_inputs

from fastllie.ops import apply_curve, apply_grid_curve, divide_illumination


def _division():
    x = torch.rand(1, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    illum = (x * 0.5 + 0.6).requires_grad_()
    return divide_illumination(x * 0.5, illum), illum


def _curve():
    maps = torch.full((1, 24, 4, 5), 0.25, requires_grad=True)
    return apply_curve(torch.full((1, 3, 4, 5), 0.5), maps), maps


def _grid_curve():
    inputs = grid_curve_inputs(1, 4, 5)
    grid = inputs.grid.requires_grad_()
    return apply_grid_curve(inputs.x, grid, inputs.guide), grid


CALLS = {"illumination": _division, "curve": _curve, "gridcurve": _grid_curve}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("again", [False, True])
def test_which_one_serves(name, again):
    out, leaf = CALLS[name]()
    with torch.profiler.profile() as profile:
        (grad,) = torch.autograd.grad(out.sum(), leaf, create_graph=again)
    called = {event.key for event in profile.key_averages() if event.key.startswith("fastllie::")}
    assert called == {f"fastllie::{name}_backward" + ("" if again else "_once")}
    assert grad.requires_grad == again
    out, leaf = CALLS[name]()
    (other,) = torch.autograd.grad(out.sum(), leaf, create_graph=not again)
    assert torch.equal(grad, other)
