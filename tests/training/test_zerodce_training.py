"""The task of Zero-DCE and Zero-DCE++: its steps beside the published ones."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_losses import close, golden, needs_golden

from fastllie.training import recipes
from fastllie.training.data import Batch
from fastllie.training.recipes import LossWeights, Recipe, Synthesis
from fastllie.training.zerodce import CurveTask

TINY = Recipe(
    method="zerodce",
    padding="replicate",
    size=32,
    batch=2,
    steps=4,
    learning_rate=1e-3,
    warmup=2,
    schedule="cosine",
    precision="float32",
    average=0.9,
    clip=1.0,
    losses=LossWeights(1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0),
    synthesis=Synthesis(),
)


def published_layout(method, arrays, prefix):
    """A published state dict in our names and sign: the published network emits -alpha."""
    last = "conv7" if method == "zerodce" else "conv7.point"
    state = {}
    for key, value in arrays.items():
        if key.startswith(prefix):
            name = key.removeprefix(prefix).replace("e_conv", "conv").replace("_conv", "")
            state[name] = -value if name.startswith(last + ".") else value
    return state


@needs_golden
@pytest.mark.parametrize("method", ["zerodce", "zerodce++"])
def test_ten_steps_match_the_published(method):
    arrays = golden("zerodce_train10" if method == "zerodce" else "zerodcepp_train10")
    task = CurveTask(replace(recipes.RECIPES[method]["official"], precision="float32"), total_steps=10)
    task.network.load_state_dict(published_layout(method, arrays, "init."))
    x = arrays["batch_u8"].permute(0, 3, 1, 2).float() / 255
    columns = ("total", "map_smoothness", "spatial_consistency", "colour_constancy", "exposure", "gradient")
    for expected in arrays["log"]:
        values = task.step([Batch(x, x)])
        close(torch.tensor([values[name] for name in columns]), expected, rtol=1e-4)
    for name, expected in published_layout(method, arrays, "final.").items():
        close(task.network.state_dict()[name], expected, atol=2e-6)
        assert torch.equal(task.result()[name], task.network.state_dict()[name])


def test_normal_init_spreads_weights_as_asked():
    torch.manual_seed(0)
    network = CurveTask(recipes.ZERODCE_PUBLISHED, 1).network
    assert network.conv5.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert network.conv5.bias.abs().max().item() <= (64 * 9) ** -0.5


def test_task_follows_warmup_cosine_and_scales():
    task = CurveTask(replace(TINY, method="zerodce++", scales=(1, 2)), total_steps=4)
    batch = Batch(torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32))
    rates, scales = [], []
    for _ in range(4):
        task.step([batch])
        rates.append(task.optimizer.param_groups[0]["lr"])
        scales.append(task.network.scale)
    cosine = [0.5 * (1 + np.cos(np.pi * step / 4)) for step in range(4)]
    warm = [1 / 3, 2 / 3, 1, 1]
    assert rates == pytest.approx([1e-3 * a * b for a, b in zip(cosine, warm, strict=True)])
    assert scales == [1, 2, 1, 2]


def test_unknown_method_is_named():
    with pytest.raises(ValueError, match="'retinex'"):
        CurveTask(replace(TINY, method="retinex"), 1)
