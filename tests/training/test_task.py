"""A task: parts of a batch, precisions, schedules, optimizers, averages, recorded steps."""

import os
import shutil
from dataclasses import replace

import pytest
import torch
from test_trainer import TINY, Batches, Log, fresh

from fastllie.training import recipes
from fastllie.training.data import Batch
from fastllie.training.parallel import Parallel
from fastllie.training.sci import SCITask
from fastllie.training.task import resolve_precision
from fastllie.training.trainer import Hooks, Pace, fit
from fastllie.training.zerodce import CurveTask


@pytest.mark.parametrize("parts", [2, 3, 5])
def test_parts_of_a_batch_give_the_gradient_of_the_whole(parts):
    whole, split = fresh(), fresh()
    batches = Batches()
    expected = whole.step([batches.batch(0)])
    got = split.step([batches.batch(0, part, parts) for part in range(parts)], 4)
    for name, value in expected.items():
        assert got[name].item() == pytest.approx(value.item(), rel=1e-5), name
    for mine, other in zip(whole.network.parameters(), split.network.parameters(), strict=True):
        # Adam's first step is the sign of a gradient: where that is rounding noise, it may differ
        different = (mine - other).abs() > 1e-6
        assert different.float().mean() < 0.01
        assert torch.allclose(mine.grad, other.grad, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("method", ["zerodce", "zerodce++", "sci"])
def test_bfloat16_is_close_to_float32(method):
    def step(precision):
        torch.manual_seed(0)
        if method == "sci":
            recipe = recipes.SCIRecipe(steps=1, size=32, batch=4, precision=precision)
            task = SCITask(recipe, 1, 1)
        else:
            task = CurveTask(replace(TINY, method=method, precision=precision), 1)
        return task, task.step([Batches().batch(0)])

    (narrow, values), (_, expected) = step("bfloat16"), step("float32")
    assert values["total"].dtype == torch.float32
    assert values["total"].item() == pytest.approx(expected["total"].item(), rel=0.02)
    assert values["total"].item() != expected["total"].item()
    assert {value.dtype for value in narrow.network.parameters()} == {torch.float32}


def test_a_compiled_step_equals_the_step():
    if shutil.which(os.environ.get("CXX", "c++")) is None:
        pytest.skip("torch.compile needs a C++ compiler")
    totals = []
    for compiled in (False, True):
        task = fresh(replace(TINY, compile=compiled))
        totals.append([task.step([Batches().batch(step)])["total"].item() for step in range(2)])
    assert totals[1] == pytest.approx(totals[0], rel=1e-5)


def test_precision_is_resolved():
    cpu = torch.device("cpu")
    assert resolve_precision("float32", cpu) == "float32"
    assert resolve_precision("bfloat16", cpu) == "bfloat16"
    assert resolve_precision("auto", cpu) in ("float32", "bfloat16")
    with pytest.raises(ValueError, match="float16 needs a GPU"):
        resolve_precision("float16", cpu)


def test_the_linear_schedule_holds_and_falls():
    task = fresh(replace(TINY, schedule="linear", hold=0.5, warmup=0, steps=8))
    rates = []
    for step in range(8):
        task.steps_done = step
        rates.append(task.learning_rate())
    assert rates == pytest.approx([1e-3 * factor for factor in (1, 1, 1, 1, 1, 0.75, 0.5, 0.25)])


def test_adamw_decays_beside_the_gradient():
    decayed, plain = (
        fresh(replace(TINY, optimizer="adamw", weight_decay=decay, warmup=0)) for decay in (0.1, 0.0)
    )
    before = {name: value.clone() for name, value in plain.network.named_parameters()}
    for task in (decayed, plain):
        task.step([Batches().batch(0)])
    for name, value in decayed.network.named_parameters():
        expected = dict(plain.network.named_parameters())[name] - 1e-3 * 0.1 * before[name]
        assert torch.allclose(value, expected, atol=1e-7), name


def test_no_clip_leaves_the_gradient():
    clipped, free = fresh(replace(TINY, clip=1e-3)), fresh(replace(TINY, clip=None))
    norms = [task.step([Batches().batch(0)])["gradient"].item() for task in (clipped, free)]
    assert norms[0] == pytest.approx(norms[1])
    grads = [
        torch.cat([value.grad.flatten() for value in task.network.parameters()]).norm().item()
        for task in (clipped, free)
    ]
    assert grads == pytest.approx([1e-3, norms[1]], rel=1e-3)


def test_the_averaged_network_is_the_result(tmp_path):
    task = fresh()
    fit(task, Batches(), 3)
    weights = {name: value.clone() for name, value in task.network.state_dict().items()}
    with task.averaged() as network:
        assert not network.training
        assert not torch.is_grad_enabled()
        for name, value in task.result().items():
            assert torch.equal(network.state_dict()[name], value)
    assert task.network.training
    for name, value in weights.items():
        assert torch.equal(task.network.state_dict()[name], value)
    assert any(not torch.equal(weights[name], value) for name, value in task.result().items())


def test_cuda_graphs_are_refused_where_they_cannot_be():
    with pytest.raises(ValueError, match="the device is cpu"):
        fresh(replace(TINY, cuda_graph=True))


def _on_gpu(recipe, steps):
    task, log = fresh(recipe, Parallel(device=torch.device("cuda", 0))), Log()

    class OnGpu(Batches):
        def batch(self, step, part=0, parts=1):
            return Batch(*(value.cuda() for value in super().batch(step, part, parts)[:2]))

    fit(task, OnGpu(), steps, pace=Pace(log_every=1), hooks=Hooks(log))
    return task, [values["total"] for _, values, _ in log.lines]


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_gpu_trains_as_the_cpu_does(precision):
    recipe = replace(TINY, precision=precision)
    _, totals = _on_gpu(recipe, 6)
    log = Log()
    fit(fresh(), Batches(), 6, pace=Pace(log_every=1), hooks=Hooks(log))
    tolerance = 1e-3 if precision == "float32" else 0.03
    assert totals == pytest.approx([values["total"] for _, values, _ in log.lines], rel=tolerance)


@pytest.mark.gpu
def test_a_recorded_step_equals_the_step():
    recipe = replace(TINY, steps=12)
    plain, expected = _on_gpu(recipe, 12)
    recorded, totals = _on_gpu(replace(recipe, cuda_graph=True), 12)
    assert totals == pytest.approx(expected, rel=1e-4)
    for name, value in plain.result().items():
        assert torch.allclose(recorded.result()[name], value, atol=1e-4), name
