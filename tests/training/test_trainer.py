"""The training loop: steps in parts and precisions, schedules, exact resume, what stops a run."""

import math
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fastllie.training import recipes
from fastllie.training.data import Batch
from fastllie.training.parallel import Parallel, join
from fastllie.training.recipes import LossWeights, Recipe
from fastllie.training.sci import SCITask
from fastllie.training.task import resolve_precision
from fastllie.training.trainer import Hooks, Interrupted, Pace, ahead, fit
from fastllie.training.zerodce import CurveTask

TINY = Recipe(
    method="zerodce",
    padding="replicate",
    size=32,
    batch=4,
    steps=6,
    learning_rate=1e-3,
    warmup=2,
    schedule="cosine",
    average=0.9,
    clip=1.0,
    precision="float32",
    losses=LossWeights(1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0),
)


class Batches:
    """Random batches, a function of the step alone; `spoil` changes some of them."""

    steps_per_epoch = 3
    photographs = 10

    def __init__(self, batch=4, spoil=None):
        self._batch = batch
        self._spoil = spoil

    def size(self, step):
        return self._batch

    def names(self, step):
        return [f"{step}-{index}.png" for index in range(self._batch)]

    def batch(self, step, part=0, parts=1):
        random = torch.Generator().manual_seed(step)
        x, target = torch.rand(2, self._batch, 3, 32, 32, generator=random)
        if self._spoil:
            x = self._spoil(step, x)
        cut = slice(self._batch * part // parts, self._batch * (part + 1) // parts)
        return Batch(x[cut], target[cut])


class Log:
    """A journal that remembers."""

    def __init__(self):
        self.lines = []
        self.scores = []

    def log(self, step, values, *, images, seconds):
        self.lines.append((step, values, images))

    def validated(self, step, scores, best):
        self.scores.append((step, scores, best))


def fresh(recipe=TINY, parallel=None, seed=0):
    torch.manual_seed(seed)
    return CurveTask(recipe, recipe.steps, *([parallel] if parallel else []))


def assert_same(first, second):
    for name, value in first.result().items():
        assert torch.equal(value, second.result()[name]), name
        assert torch.equal(first.network.state_dict()[name], second.network.state_dict()[name]), name


# --- exact resume


@pytest.mark.parametrize("method", ["zerodce", "zerodce++"])
@pytest.mark.parametrize("every", [1, 2, 5])
def test_a_resumed_run_equals_an_unbroken_one(tmp_path, method, every):
    recipe = replace(TINY, method=method, scales=(1, 2) if method == "zerodce++" else (1,))
    unbroken, whole = fresh(recipe), Log()
    fit(unbroken, Batches(), 6, pace=Pace(log_every=2), hooks=Hooks(whole))
    checkpoint, first, second = tmp_path / "state.ckpt", Log(), Log()
    pace = Pace(every, 2)
    fit(fresh(recipe), Batches(), 3, pace=pace, hooks=Hooks(first, checkpoint))
    resumed = fresh(recipe, seed=99)
    fit(resumed, Batches(), 6, pace=pace, hooks=Hooks(second, checkpoint))
    assert_same(unbroken, resumed)
    assert resumed.steps_done == 6
    # a last line at the end of the first half aside, the logs are those of one run
    assert [step for step, *_ in first.lines + second.lines] == [2, 3, 4, 6]
    assert (whole.lines[0], whole.lines[2]) == (first.lines[0], second.lines[1])
    assert [path.name for path in tmp_path.iterdir()] == ["state.ckpt"]


def test_a_finished_run_stays_as_it_is(tmp_path):
    checkpoint = tmp_path / "state.ckpt"
    task = fresh()
    fit(task, Batches(), 6, hooks=Hooks(checkpoint=checkpoint))
    before = checkpoint.read_bytes()
    again = fresh(seed=1)
    fit(again, Batches(), 6, hooks=Hooks(checkpoint=checkpoint))
    assert_same(task, again)
    assert checkpoint.read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "told"),
    [({"clip": 2.0}, "recipe"), ({"steps": 8}, "recipe"), ({"precision": "bfloat16"}, "recipe")],
)
def test_a_checkpoint_of_another_recipe_is_refused(tmp_path, changes, told):
    hooks = Hooks(checkpoint=tmp_path / "state.ckpt")
    fit(fresh(), Batches(), 1, hooks=hooks)
    with pytest.raises(ValueError, match=f"the checkpoint was made with {told}"):
        fit(fresh(replace(TINY, **changes)), Batches(), 2, hooks=hooks)


def test_a_checkpoint_of_other_photographs_is_refused(tmp_path):
    checkpoint = tmp_path / "state.ckpt"
    fit(fresh(), Batches(), 1, hooks=Hooks(checkpoint=checkpoint, photographs="these"))
    fit(fresh(), Batches(), 2, hooks=Hooks(checkpoint=checkpoint, photographs="these"))
    with pytest.raises(ValueError, match="was made with other photographs"):
        fit(fresh(), Batches(), 3, hooks=Hooks(checkpoint=checkpoint, photographs="others"))


@pytest.mark.parametrize("content", [b"", b"nonsense", "old", "half"])
def test_a_state_that_cannot_be_gone_on_from_is_refused(tmp_path, content):
    hooks = Hooks(checkpoint=tmp_path / "state.ckpt")
    if content == "old":
        torch.save({"steps_done": 3}, hooks.checkpoint)
    elif content == "half":
        fit(fresh(), Batches(), 1, hooks=hooks)
        whole = hooks.checkpoint.read_bytes()
        hooks.checkpoint.write_bytes(whole[: len(whole) // 2])
    else:
        hooks.checkpoint.write_bytes(content)
    before = hooks.checkpoint.read_bytes()
    with pytest.raises(ValueError, match=r"state\.ckpt is .*give another output, or take"):
        fit(fresh(), Batches(), 2, hooks=hooks)
    assert hooks.checkpoint.read_bytes() == before


# --- what stops a run


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, value):
    batches = Batches(spoil=lambda step, x: torch.full_like(x, value) if step == 2 else x)
    hooks = Hooks(checkpoint=tmp_path / "state.ckpt", failed=tmp_path)
    with pytest.raises(RuntimeError, match=r"step 3: total and .* are not finite") as error:
        fit(fresh(), batches, 6, pace=Pace(every=1), hooks=hooks)
    saved = tmp_path / "failed-step-0000003.safetensors"
    assert "2-0.png" in str(error.value)
    assert str(saved) in str(error.value)
    tensors = load_file(saved)
    assert torch.equal(tensors["target"], batches.batch(2).target)
    assert not torch.isfinite(tensors["x"]).any()
    assert torch.load(tmp_path / "state.ckpt", weights_only=True)["task"]["steps_done"] == 2


def test_a_gradient_that_is_not_finite_stops_the_run():
    class Steep(CurveTask):
        def losses_of(self, batch):
            found = super().losses_of(batch)
            if self.steps_done == 1:
                # finite itself, and steeper than any number
                root = (self.network.conv7.bias.sum() * 0).sqrt()
                found["exposure"] = found["exposure"] + root
            return found

    torch.manual_seed(0)
    with pytest.raises(RuntimeError, match="step 2: gradient is not finite"):
        fit(Steep(TINY, 4), Batches(), 4)


def test_a_loss_that_explodes_stops_the_run(tmp_path):
    class Growing(CurveTask):
        def losses_of(self, batch):
            factor = 1e5 if self.steps_done == 30 else 1.0
            return {name: value * factor for name, value in super().losses_of(batch).items()}

    recipe = replace(TINY, steps=40, losses=LossWeights(reconstruction=1.0))
    torch.manual_seed(0)
    with pytest.raises(RuntimeError, match="step 31: the loss has exploded"):
        fit(Growing(recipe, 40), Batches(), 40)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_run_with_a_checkpoint(tmp_path, number):
    class Signalled(Batches):
        def batch(self, step, part=0, parts=1):
            if step == 2:
                os.kill(os.getpid(), number)
            return super().batch(step, part, parts)

    before = signal.getsignal(number)
    hooks = Hooks(checkpoint=tmp_path / "state.ckpt")
    with pytest.raises(Interrupted, match=number.name) as stop:
        fit(fresh(), Signalled(), 6, hooks=hooks)
    assert stop.value.signal == number
    assert isinstance(stop.value, KeyboardInterrupt)
    assert signal.getsignal(number) is before
    assert torch.load(hooks.checkpoint, weights_only=True)["task"]["steps_done"] == 3
    resumed, unbroken = fresh(seed=1), fresh()
    fit(resumed, Batches(), 6, hooks=hooks)
    fit(unbroken, Batches(), 6)
    assert_same(resumed, unbroken)


def test_a_run_in_another_thread_needs_no_signals():
    task = fresh()
    worker = threading.Thread(target=fit, args=(task, Batches(), 2))
    worker.start()
    worker.join()
    assert task.steps_done == 2


# --- logs and validation


def test_the_log_has_means_over_its_windows():
    log, single = Log(), Log()
    fit(fresh(), Batches(), 6, pace=Pace(log_every=4), hooks=Hooks(log))
    fit(fresh(), Batches(), 6, pace=Pace(log_every=1), hooks=Hooks(single))
    assert [(step, images) for step, _, images in log.lines] == [(4, 16), (6, 8)]
    each = [values for _, values, _ in single.lines]
    for name, value in log.lines[0][1].items():
        assert value == pytest.approx(sum(values[name] for values in each[:4]) / 4)
    parts = {"map_smoothness", "spatial_consistency", "colour_constancy", "exposure"}
    parts |= {"reconstruction", "scaled_reconstruction", "dissimilarity"}
    assert set(each[0]) == {"total", "gradient", "learning_rate", *parts}
    assert each[0]["total"] == pytest.approx(sum(each[0][name] for name in parts))
    assert each[0]["learning_rate"] == pytest.approx(1e-3 / 3)


def test_the_best_weights_are_told_and_remembered(tmp_path):
    scores = iter([1.0, 3.0, 2.0, 2.5, 4.0])
    told, log = [], Log()
    hooks = Hooks(
        log,
        tmp_path / "state.ckpt",
        validate=lambda step: ({"PSNR": (value := next(scores))}, value),
        best=lambda: told.append("best"),
    )
    fit(fresh(), Batches(), 3, pace=Pace(every=1), hooks=hooks)
    fit(fresh(), Batches(), 5, pace=Pace(every=1), hooks=hooks)
    assert [best for _, _, best in log.scores] == [True, True, False, False, True]
    assert len(told) == 3


def test_nothing_is_scored_where_nothing_is_held_out():
    log = Log()
    hooks = Hooks(log, validate=lambda step: ({}, None), best=lambda: pytest.fail("nothing is best"))
    fit(fresh(), Batches(), 2, hooks=hooks)
    assert log.scores == []


@pytest.mark.parametrize("name", ["every", "log_every", "validate_every"])
@pytest.mark.parametrize("value", [0, -1, 2.5, True])
def test_a_pace_is_a_number_of_steps(name, value):
    with pytest.raises(ValueError, match=f"{name} must be a positive number of steps"):
        Pace(**{name: value})


# --- parts, precision, schedules


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


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"precision": "half"}, "precision must be one of"),
        ({"optimizer": "sgd"}, "optimizer must be one of"),
        ({"schedule": "step"}, "schedule must be one of"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"accumulate": 0}, "accumulate must be at least 1"),
        ({"clip": 0.0}, "clip must be positive"),
        ({"average": 1.0}, "average must be in"),
        ({"hold": 1.5}, "hold in"),
        ({"betas": (0.9,)}, "betas must be two numbers"),
        ({"learning_rate": -1.0}, "learning_rate must be at least 0"),
    ],
)
def test_recipes_refuse_values_that_no_run_can_have(changes, told):
    with pytest.raises(ValueError, match=told):
        replace(TINY, **changes)


def test_the_heap_is_kept_in_a_process_of_its_own():
    code = (
        "import resource, torch; from fastllie.training.heap import keep_heap; kept = keep_heap()\n"
        "def step():\n"
        "    for _ in range(10): torch.empty(1 << 24).fill_(1)\n"
        "step(); before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt; step()\n"
        "print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)"
    )
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("only glibc is told")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    kept, faults = done.stdout.split()
    assert kept == "True"
    # ten times 64 MiB in pages of 4 KiB would be 163840; a system short of memory takes some pages back
    assert int(faults) < 163840 // 2


# --- batches made ahead


def test_batches_are_made_ahead_in_order_and_bounded():
    made = []

    def batches():
        for index in range(10):
            made.append(index)
            yield index

    found = []
    for item in ahead(batches(), 2):
        time.sleep(0.01)
        assert len(made) <= item + 3
        found.append(item)
    assert found == list(range(10))


def test_an_error_in_the_thread_reaches_the_loop():
    def batches():
        yield 1
        raise OSError("the disk is gone")

    stream = ahead(batches())
    assert next(stream) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        next(stream)


def test_the_thread_ends_with_the_loop():
    def batches():
        while True:
            yield 1

    stream = ahead(batches())
    next(stream)
    stream.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "fastllie batches"]


# --- processes


def test_alone_without_torchrun(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    parallel = join("cpu")
    assert (parallel.rank, parallel.world, parallel.device.type) == (0, 1, "cpu")
    value = torch.ones(3)
    parallel.sum_([value])
    assert value.tolist() == [1, 1, 1]
    assert parallel.any(True)
    assert not parallel.any(False)


@pytest.mark.parametrize(("device", "told"), [("cpuu", "unknown device"), ("meta", "cpu or cuda")])
def test_devices_that_cannot_train_are_named(device, told):
    with pytest.raises(ValueError, match=told):
        join(device)


def test_a_missing_gpu_is_named():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ValueError, match="there is no device cuda:0"):
        join("cuda")


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def _rank(rank, world, place, output):
    torch.set_num_threads(1)
    os.environ.update(
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=place,
        RANK=str(rank),
        WORLD_SIZE=str(world),
        LOCAL_RANK=str(rank),
    )
    parallel = join("cpu")
    try:
        task = fresh(parallel=parallel)
        log = Log()
        fit(task, Batches(3), 4, pace=Pace(log_every=1), hooks=Hooks(log))
    finally:
        parallel.close()
    torch.save({"result": task.result(), "log": log.lines, "left": _gloo_threads()}, output / f"{rank}.pt")


def _gloo_threads():
    """Threads of the process group, which would abort the process at its end now and then."""
    tasks = Path("/proc/self/task")
    names = [(task / "comm").read_text() for task in tasks.iterdir()] if tasks.is_dir() else []
    return [name for name in names if "gloo" in name]


def test_two_processes_equal_one_that_takes_two_parts(tmp_path):
    threads = torch.get_num_threads()
    torch.multiprocessing.spawn(_rank, (2, str(free_port()), tmp_path), 2)
    torch.set_num_threads(1)
    try:
        alone, log = fresh(), Log()
        fit(alone, Batches(3), 4, pace=Pace(log_every=1), hooks=Hooks(log), accumulate=2)
    finally:
        torch.set_num_threads(threads)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert second["log"] == []
    assert first["left"] == second["left"] == []
    for name, value in alone.result().items():
        assert torch.equal(first["result"][name], value), name
        assert torch.equal(second["result"][name], value), name
    assert first["log"] == [(step, values, images) for step, values, images in log.lines]


# --- on a GPU


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
