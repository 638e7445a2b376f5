"""Every loss of images: by hand, their gradients, and against the published code's results where at hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import refused
from test_enlightengan_training import TINY, batch, task

from fastllie.training import losses

GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "golden" / "zerodce"
needs_golden = pytest.mark.skipif(
    not GOLDEN.is_dir(), reason="../shared/golden/zerodce is not beside the checkout"
)
LOSS_CASES = (
    "zerodce_losses_real",
    "zerodce_losses_random",
    "zerodcepp_losses_real",
    "zerodcepp_losses_random",
)


def golden(name):
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def close(got, expected, rtol=0.0, atol=0.0, atol_rel_max=0.0):
    got, expected = got.double(), expected.double()
    allowed = atol + rtol * expected.abs() + atol_rel_max * expected.abs().max()
    excess = ((got - expected).abs() - allowed).max()
    assert excess <= 0, f"off by {excess:.3e} more than allowed"


@needs_golden
@pytest.mark.parametrize("case", LOSS_CASES)
@pytest.mark.parametrize("name", ["spa", "col", "exp", "tv"])
def test_losses_match_the_published(case, name):
    arrays = golden(case)
    y, x = arrays["enh"].requires_grad_(), arrays["org"]
    alpha = (-arrays["A"]).requires_grad_()
    loss = {
        "spa": lambda: losses.spatial_consistency(y, x),
        "col": lambda: losses.colour_constancy(y),
        "exp": lambda: losses.exposure(y),
        "tv": lambda: losses.map_smoothness(alpha),
    }[name]()
    loss.backward()
    close(loss, arrays[name], rtol=1e-5)
    gradient = -alpha.grad if name == "tv" else y.grad
    close(gradient, arrays[f"d_{name}"], rtol=1e-4, atol_rel_max=1e-5)


@needs_golden
def test_colour_loss_of_a_grey_image_matches_the_safe_golden():
    arrays = golden("zerodce_losses_grey")
    y = arrays["enh"].requires_grad_()
    losses.colour_constancy(y).backward()
    assert torch.equal(y.grad, arrays["d_col_safe"])


def test_colour_loss_has_no_nan_where_one_image_is_grey():
    y = torch.rand(2, 3, 8, 8)
    y[0] = 0
    y.requires_grad_()
    loss = losses.colour_constancy(y)
    loss.backward()
    assert loss > 0
    assert torch.equal(y.grad[0], torch.zeros(3, 8, 8))
    assert y.grad[1].isfinite().all()
    assert y.grad[1].abs().max() > 0


def test_losses_by_hand():
    x = torch.zeros(1, 3, 8, 8)
    y = x.clone()
    y[..., :4, :4] = 0.5
    # one of 2x2 cells differs by 0.5: two neighbour pairs count twice, two borders once
    assert losses.spatial_consistency(y, x).item() == pytest.approx((2 * 2 + 2) * 0.25 / 4)
    assert losses.exposure(torch.full((2, 3, 33, 20), 0.4), level=0.6).item() == pytest.approx(0.04, rel=1e-4)
    grey_shift = torch.tensor([0.1, 0.2, 0.4]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    assert losses.colour_constancy(grey_shift).item() == pytest.approx((0.1**4 + 0.3**4 + 0.2**4) ** 0.5)
    ramp = torch.arange(4.0).view(1, 1, 1, 4).expand(2, 5, 3, 4)
    assert losses.map_smoothness(ramp).item() == pytest.approx(2 * 5)


def test_supervised_losses_measure_what_they_say():
    torch.manual_seed(0)
    target = torch.rand(2, 3, 24, 24) * 0.8 + 0.1
    darker = target * 0.5
    roots = (0.25 * target.square().mean((1, 2, 3)) + 1e-4).sqrt()
    assert losses.reconstruction(darker, target).item() == pytest.approx(roots.mean().item(), rel=1e-5)
    assert losses.scaled_reconstruction(darker, target).item() == pytest.approx(0, abs=1e-6)
    assert losses.dissimilarity(target, target).item() == pytest.approx(0, abs=1e-6)
    assert losses.dissimilarity(darker, target).item() > 0.1


def test_a_grey_illumination_costs_nothing():
    grey = torch.rand(2, 1, 4, 4).expand(2, 3, 4, 4)
    assert losses.grey_illumination(grey).item() == pytest.approx(0, abs=1e-12)
    coloured = torch.tensor([0.2, 0.4, 0.6]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    assert losses.grey_illumination(coloured).item() == pytest.approx((0.25 + 0.25) / 3, rel=1e-5)
    assert losses.grey_illumination(0.5 * coloured).item() == pytest.approx((0.25 + 0.25) / 3, rel=1e-5)


@pytest.mark.parametrize(
    ("loss", "size"),
    [("spatial_consistency", 3), ("exposure", 15), ("map_smoothness", 1), ("dissimilarity", 6)],
)
def test_losses_name_a_size_that_is_too_small(loss, size):
    image = torch.rand(1, 3, size, 32)
    arguments = (image, image) if loss in ("spatial_consistency", "dissimilarity") else (image,)
    with pytest.raises(ValueError, match=rf"{loss} needs .*\(1, 3, {size}, 32\)"):
        getattr(losses, loss)(*arguments)


@pytest.mark.parametrize(
    "name", ["spatial_consistency", "reconstruction", "scaled_reconstruction", "dissimilarity"]
)
def test_paired_losses_have_true_gradients(name):
    torch.manual_seed(0)
    y = (torch.rand(1, 3, 8, 8, dtype=torch.float64) * 0.5 + 0.25).requires_grad_()
    other = torch.rand(1, 3, 8, 8, dtype=torch.float64) * 0.5 + 0.25
    if name == "scaled_reconstruction":
        # its factor is held fixed on purpose, so only the sign pattern can be checked
        losses.scaled_reconstruction(y, other).backward()
        factor = other.mean() / y.detach().mean()
        expected = torch.sign(y.detach() * factor - other) * factor / y.numel()
        torch.testing.assert_close(y.grad, expected)
        return
    assert torch.autograd.gradcheck(lambda image: getattr(losses, name)(image, other), y)


def scene(seed=0):
    """A dark picture of smooth colours, with black in it."""
    coarse = torch.rand(2, 3, 6, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.interpolate(coarse.square() * 0.15, (48, 64), mode="bilinear")


def test_a_gain_keeps_colours_and_contrast_and_haze_does_not():
    x = scene()
    haze = 0.4 + x
    blue = 4 * x + torch.tensor([0.0, 0.0, 0.2], dtype=x.dtype).view(3, 1, 1)
    assert losses.contrast_consistency(4 * x, x) < 1e-4
    assert losses.contrast_consistency(haze, x) > 0.01
    gains = torch.where(torch.arange(64) < 32, 2.0, 8.0)
    assert losses.contrast_consistency(gains * x, x) > 0.05
    assert losses.chroma_consistency(4 * x, x) < 1e-7
    assert losses.chroma_consistency(blue, x) > 0.005
    # a gamma is one exponent for the image, within what is allowed
    assert losses.contrast_consistency((x + 1e-3) ** 0.8, x) < 0.3 * losses.contrast_consistency(haze, x)
    assert losses.overshoot(4 * x, x) == 0
    assert losses.overshoot(x + 1, x) > 0.02
    assert losses.overshoot(x + 1, x + 1) == 0
    for loss in (losses.contrast_consistency, losses.chroma_consistency):
        black = torch.zeros_like(x)
        assert loss(black, black) == 0
        assert torch.isfinite(loss(-x, x))


def test_dimness_counts_what_an_image_lacks_of_normal_light():
    x = torch.stack([torch.full((3, 8, 6), level, dtype=torch.float64) for level in (0.13, 0.43, 0.9)])
    x[0, :, :4] += 0.05
    x[0, :, 4:] -= 0.05
    torch.testing.assert_close(losses.dimness(x), torch.tensor(0.3**2 / 3, dtype=torch.float64))
    x.requires_grad_()
    losses.dimness(x).backward()
    assert (x.grad[0] < 0).all()
    assert (x.grad[1:] == 0).all()


def test_one_gain_is_smooth_and_a_chequerboard_is_not():
    x = scene()[:1, :, :12, :10].clamp(0.05, 0.6)
    places = torch.arange(12)[:, None] + torch.arange(10)
    for gain, expected in ((torch.tensor(0.7), 0.0), (0.1 * (-1.0) ** places, 2 * 0.2**2)):
        y = torch.sigmoid(torch.logit(x) + 2 * gain.to(x.dtype))
        torch.testing.assert_close(losses.gain_smoothness(y, x), torch.tensor(expected, dtype=x.dtype))
    y = (0.4 + 0.5 * x).requires_grad_()
    assert torch.autograd.gradcheck(lambda y: losses.gain_smoothness(y, x), y)
    # beyond black and white there is nothing to differ
    assert losses.gain_smoothness(torch.full_like(x, 2.0), torch.ones_like(x)) == 0


def test_the_gradients_of_our_losses_are_right():
    x = scene()[:1, :, :16, :24]
    # a leaf that nothing detached hangs on: ratio and exponent are constants to the gradient
    y = (0.4 + x).requires_grad_()
    grad = torch.autograd.grad(losses.chroma_consistency(y, x), y)[0]
    grey = torch.nn.functional.avg_pool2d(y, 4).mean(1, keepdim=True).detach()
    ratio = (grey / torch.nn.functional.avg_pool2d(x, 4).mean(1, keepdim=True).clamp(min=2 / 255)).clamp(0, 6)

    def fixed(y):
        a, b = (torch.nn.functional.avg_pool2d(image, 4) for image in (y, x))
        return ((a - a.mean(1, keepdim=True)) - ratio * (b - b.mean(1, keepdim=True))).square().mean()

    assert torch.autograd.gradcheck(fixed, y)
    torch.testing.assert_close(grad, torch.autograd.grad(fixed(y), y)[0])
    # haze is to be taken away: less light where it is darkest
    grad = torch.autograd.grad(losses.contrast_consistency(y, x), y)[0].sum(1)
    darkest, brightest = (x.mean(1) < x.mean(1).quantile(0.2)), (x.mean(1) > x.mean(1).quantile(0.8))
    assert grad[darkest].sum() > 0 > grad[brightest].sum()


def test_our_losses_need_cells():
    for loss, size in ((losses.chroma_consistency, 4), (losses.contrast_consistency, 16)):
        x = torch.rand(1, 3, size - 1, 20)
        with refused(ValueError, loss.__name__):
            loss(x, x)
    made = task(replace(TINY, chroma=1.0, contrast=1.0, overshoot=1.0, dimness=1.0, identity=1.0))
    found = made.step([batch()])
    assert {"chroma", "contrast", "overshoot", "dimness", "identity"} <= found.keys() & set(made.loss_names())
