"""The training loop: steps in parts and precisions, schedules, exact resume, what stops a run."""

import math
import os
import signal
import threading
import time
from dataclasses import replace

import pytest
import torch
from helpers import refused
from safetensors.torch import load_file

from fastllie.training.data import Batch
from fastllie.training.recipes import LossWeights, Recipe
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

    due = False

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
    ("changes", "named"),
    [
        ({"clip": 2.0}, "clip 1.0, not 2.0: give"),
        ({"precision": "bfloat16"}, "precision 'float32', not 'bfloat16': give"),
        (
            {"losses": LossWeights(2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)},
            "losses.map_smoothness 1.0, not 2.0: give",
        ),
        ({"batch": 2, "average": 0.5, "steps": 9}, "batch 4, not 2 and average 0.9, not 0.5: give"),
    ],
)
def test_a_checkpoint_of_another_recipe_is_refused_by_what_differs(tmp_path, changes, named):
    hooks = Hooks(checkpoint=tmp_path / "state.ckpt")
    fit(fresh(), Batches(), 1, hooks=hooks)
    with refused(ValueError, f"the run in {tmp_path} does not go on", f"its state was made with {named}"):
        fit(fresh(replace(TINY, **changes)), Batches(), 2, hooks=hooks)


def test_a_finished_run_goes_on_for_more_steps(tmp_path):
    recipe = replace(TINY, schedule="constant")
    whole, hooks = fresh(replace(recipe, steps=7)), Hooks(checkpoint=tmp_path / "state.ckpt")
    fit(whole, Batches(), 7)
    fit(fresh(replace(recipe, steps=3)), Batches(), 3, hooks=hooks)
    more = fresh(replace(recipe, steps=7), seed=1)
    fit(more, Batches(), 7, hooks=hooks)
    assert_same(whole, more)
    with refused(ValueError, "its state has done 7 steps, more than 5: give"):
        fit(fresh(replace(recipe, steps=5)), Batches(), 5, hooks=hooks)


def test_a_checkpoint_of_other_photographs_is_refused(tmp_path):
    checkpoint = tmp_path / "state.ckpt"
    fit(fresh(), Batches(), 1, hooks=Hooks(checkpoint=checkpoint, photographs="these"))
    fit(fresh(), Batches(), 2, hooks=Hooks(checkpoint=checkpoint, photographs="these"))
    with refused(ValueError, "was made with other photographs: give"):
        fit(fresh(), Batches(), 3, hooks=Hooks(checkpoint=checkpoint, photographs="others"))
    with refused(ValueError, "was made with seed 0, not 4: give"):
        fit(fresh(), Batches(), 3, hooks=Hooks(checkpoint=checkpoint, photographs="these", seed=4))


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
