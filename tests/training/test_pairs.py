"""EnlightenGAN and NeRCo taught by pairs of synthetic scenes beside their adversarial losses."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import picture, refused

import fastllie
from fastllie.training.adversarial import COMPARED, PAIRED, signed
from fastllie.training.data import Batch
from fastllie.training.enlightengan import EnlightenGANTask
from fastllie.training.nerco import NeRCoTask
from fastllie.training.recipes import (
    ENLIGHTENGAN,
    NERCO_LOGITS,
    EnlightenGANRecipe,
    NeRCoRecipe,
    PairWeights,
    Scenes,
)

PAIRS = PairWeights(1.0, 0.5, 0.25, 0.5, 1.0, 2.0, 0.5, 3.0)
COMMON = {
    "width": 2,
    "discriminator_width": 2,
    "size": 64,
    "batch": 2,
    "steps": 4,
    "precision": "float32",
    "synthesis": Scenes(size=(64, 96)),
    "pairs": PAIRS,
    "judged_from": 0.5,
    "stored_as": "float32",
}
TINY = {
    # a sum leaves [0, 1] with these weights, and the losses see it before it is clamped
    "enlightengan": replace(ENLIGHTENGAN, **COMMON, in_logits=True, patch=16, patches=2, vgg="random"),
    "nerco": replace(
        NERCO_LOGITS,
        **COMMON,
        blocks=1,
        pre_blocks=1,
        mask_blocks=1,
        discriminator_layers=1,
        pool=2,
        squeeze=None,
    ),
}
TASKS = {"enlightengan": EnlightenGANTask, "nerco": NeRCoTask}


def batch(seed=0, size=64):
    generator = torch.Generator().manual_seed(seed)
    x, target = (torch.rand(2, 3, size, size, generator=generator) for _ in range(2))
    for image, tone in ((x, 0.3), (target, 0.6)):
        image[..., :32, :32] = tone
    return Batch(x * 0.2, target)


def task_of(method, **changes):
    torch.manual_seed(0)
    return TASKS[method](replace(TINY[method], **changes), 4, 2)


@pytest.mark.parametrize("method", TINY)
def test_before_the_judges_the_pairs_alone_teach(method):
    task = task_of(method)
    judges = {name: value.clone() for name, value in task.judges.state_dict().items()}
    network = {name: value.clone() for name, value in task.network.state_dict().items()}
    values = [{name: float(value) for name, value in task.step([batch(step)]).items()} for step in range(4)]
    pairs = {*PAIRED, *COMPARED}
    others = set(task.loss_names()) - pairs
    assert others, "a method of its own losses"
    for step, told in enumerate(values):
        assert told["total"] > 0
        assert all(told[name] >= 0 for name in pairs)
        silent = all(told[name] == 0 for name in others)
        assert silent == (step < 2)
    assert any(not torch.equal(value, network[name]) for name, value in task.network.state_dict().items())
    assert any(not torch.equal(value, judges[name]) for name, value in task.judges.state_dict().items())

    fresh = task_of(method)
    for step in range(2):
        fresh.step([batch(step)])
    kept = fresh.judges.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in judges.items()), "judges moved too early"


@pytest.mark.parametrize("method", TINY)
def test_each_loss_is_that_of_result_and_target(method):
    task = task_of(method)
    task.network.eval()
    shown = batch()
    with torch.no_grad():
        found = task.losses_of(shown)
        y = task.network(shown.x)
    expected = {name: loss(y, shown.target) for name, loss in PAIRED.items()}
    expected |= {name: loss(y, shown.target, shown.x) for name, loss in COMPARED.items()}
    assert expected.keys() == vars(PAIRS).keys()
    assert expected["flatness"] > 0
    for name, value in expected.items():
        wanted = getattr(PAIRS, name) * value
        torch.testing.assert_close(found[name], wanted, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("method", TINY)
def test_a_step_in_parts_is_the_whole_step(method):
    # a batch norm sees each part by itself: only instance norms are free of that
    whole, parts = task_of(method, average=0.0), task_of(method, average=0.0)
    shown = batch()
    told = whole.step([shown])
    pieces = [Batch(shown.x[i : i + 1], shown.target[i : i + 1]) for i in range(2)]
    again = parts.step(pieces, 2)
    tolerance = {"atol": 1e-5, "rtol": 1e-4} if method == "nerco" else {"atol": 0.1, "rtol": 0.2}
    torch.testing.assert_close(told["difference"], again["difference"], **tolerance)


def test_the_normal_side_of_scenes_is_another_frames_target():
    shown = batch()
    dark, normal = signed(shown, "EnlightenGAN")
    torch.testing.assert_close(dark, 2 * shown.x - 1)
    torch.testing.assert_close(normal, 2 * shown.target.flip(0) - 1)
    with refused(ValueError, "EnlightenGAN needs photographs of normal light"):
        signed(Batch(shown.x, shown.x), "EnlightenGAN")


@pytest.mark.parametrize("method", TINY)
def test_from_photographs_to_weights(tmp_path, method):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        picture(number, (80, 64)).save(folder / f"{number}.png")
    fields = {name: getattr(TINY[method], name) for name in COMMON} | {
        name: getattr(TINY[method], name)
        for name in ("patch", "patches", "vgg", "blocks", "pre_blocks", "mask_blocks", "discriminator_layers")
        if hasattr(TINY[method], name)
    }
    made = fastllie.train(
        method, folder, output=tmp_path / "run", recipe="fastllie", cache=tmp_path / "cache", **fields
    )
    y = fastllie.enhance(np.full((40, 52, 3), 20, np.uint8), method, weights=made.weights)
    assert y.shape == (40, 52, 3)


def test_recipes_refuse_what_no_run_can_have():
    with refused(ValueError, "pairs need a synthesis"):
        EnlightenGANRecipe(pairs=PAIRS)
    with refused(ValueError, "judged_from=0.5 leaves steps without a loss"):
        NeRCoRecipe(judged_from=0.5)
    with refused(ValueError, "judged_from must be in [0, 1], got 1.5"):
        replace(TINY["nerco"], judged_from=1.5)
