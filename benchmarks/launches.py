"""Count what a training step launches, and time what an operator costs the host, without a GPU.

    python benchmarks/launches.py                    # results/launches.json, as "now"
    PYTHONPATH=OTHER python benchmarks/launches.py --name before    # of another checkout of fastllie

A step runs on the CPU under torch's profiler. Each operator that computes counts as one launch, however many
kernels a GPU's library takes for it: a convolution's gradients count once, and so does an optimizer's step
over a list of tensors. Views, allocations and what waits for a value count nothing. Our own operators are
counted by their CUDA kernels, in whose place nothing is computed: what their results lie in is whatever lay
in that memory.

The host's time is that of operators on the CPU on images of 4 x 4 (Zero-DCE's losses: 16 x 16), whose
arithmetic takes next to none: the best of all runs that were kept under a name, so that runs of two names can
take turns.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import record
import torch
from torch import Tensor, nn

import training

# Of each function of fastllie._cuda how many kernels it launches, where that is not one; the emulator's tests
# hold it to that
LAUNCHES = {"zero_reference_losses": 3}
# What launches nothing although it is an operator of its own
FREE = {
    "alias", "as_strided", "as_strided_", "broadcast_tensors", "chunk", "conj", "contiguous", "detach",
    "detach_", "empty", "empty_like", "empty_strided", "expand", "expand_as", "flatten", "is_nonzero",
    "item", "lift_fresh", "_local_scalar_dense", "movedim", "narrow", "new_empty", "new_empty_strided",
    "_nnpack_available", "numel", "permute", "promote_types", "_reshape_alias", "reshape", "resize_",
    "resize_as_", "resolve_conj", "resolve_neg", "result_type", "select", "set_", "slice", "split",
    "split_with_sizes", "squeeze", "squeeze_", "t", "to", "transpose", "type_as", "unbind", "unflatten",
    "unfold", "_unsafe_view", "unsqueeze", "unsqueeze_", "view", "view_as",
}  # fmt: skip
# What counts once whatever the CPU makes it of
ONE = {
    "cat", "stack", "convolution", "convolution_backward", "native_batch_norm", "native_batch_norm_backward",
    "native_group_norm", "native_group_norm_backward", "native_layer_norm", "native_layer_norm_backward",
}  # fmt: skip


class StandIn:
    """In the place of fastllie._cuda: counts, and computes nothing."""

    def __init__(self) -> None:
        self.launched: dict[str, int] = {}

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        if name.endswith("_parts"):
            return lambda *given: (1, 1)
        # how much room sums need: any will do
        if name.endswith(("_blocks", "_doubles")):
            return lambda sizes: sizes[0]

        def launch(*given: object) -> None:
            self.launched[name] = self.launched.get(name, 0) + LAUNCHES.get(name, 1)

        return launch


@contextmanager
def as_on_a_gpu() -> Iterator[StandIn]:
    """Our operators launch what they do on a GPU, and convolutions are PyTorch's."""
    from fastllie import _native
    from fastllie.ops import backend, launch
    from fastllie.training import task

    stand_in = StandIn()
    with (
        mock.patch.object(_native, "cuda", stand_in),
        mock.patch.object(backend, "choose", return_value="cuda"),
        mock.patch.object(launch, "cuda_place", return_value=(0, 0)),
        mock.patch.object(task, "TrainableConvolutions", nullcontext),
    ):
        yield stand_in


def computed(event: Any) -> int:
    """How many operators that compute an event of the profiler stands for."""
    name = event.name.removeprefix("aten::")
    # of lists the CPU alone takes the tensors one by one
    if name in ONE or name.startswith(("_foreach_", "_fused_")):
        return 1
    below = sum(computed(child) for child in event.cpu_children)
    return below or (event.name.startswith("aten::") and name not in FREE)


def launched(step: Callable[[], object], stand_in: StandIn) -> int:
    """Launches of the second call: the first one makes what lasts."""
    step()
    stand_in.launched.clear()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as run:
        step()
    top = [event for event in run.events() if event.cpu_parent is None]
    return sum(computed(event) for event in top) + sum(stand_in.launched.values())


@contextmanager
def for_each() -> Iterator[None]:
    """Optimizers and clipping go over all tensors at once, as PyTorch does on a GPU by itself."""
    adam, clip = torch.optim.Adam, nn.utils.clip_grad_norm_

    def made(*given: Any, **settings: Any) -> torch.optim.Optimizer:
        return adam(*given, **({"foreach": True} | settings if "fused" not in settings else settings))

    def clipped(*given: Any, **settings: Any) -> Tensor:
        return clip(*given, **({"foreach": True} | settings))

    with (
        mock.patch.object(torch.optim, "Adam", made),
        mock.patch.object(nn.utils, "clip_grad_norm_", clipped),
    ):
        yield


def dawn(images: Tensor) -> Callable[[], object]:
    from fastllie.training.data import Batch
    from fastllie.training.dawn import DawnTask
    from fastllie.training.recipes import DAWN

    torch.manual_seed(0)
    task = DawnTask(DAWN, 1)
    x = images.contiguous(memory_format=torch.channels_last)
    return lambda: task.step([Batch(x, x, clean=x)])


def zerodcepp(images: Tensor) -> Callable[[], object]:
    from fastllie.training.recipes import ZERODCEPP_PUBLISHED
    from fastllie.training.zerodce import CurveTask

    torch.manual_seed(0)
    return training.step_of(CurveTask(ZERODCEPP_PUBLISHED, 1), images)


def steps() -> dict[str, dict[str, int]]:
    """Of each method's step, ours and the published one."""
    cases = {
        "Zero-DCE": (training.zerodce, (2, 64, 64)),
        "SCI": (training.sci, (1, 64, 64)),
        "EnlightenGAN": (training.enlightengan, (1, 96, 96)),
        "NeRCo": (training.nerco, (1, 64, 64)),
    }
    found = {}
    for title, (make, shape) in cases.items():
        with tempfile.TemporaryDirectory() as folder, for_each(), as_on_a_gpu() as stand_in:
            calls = make(training.dark(*shape), Path(folder)).calls
            ours = next(call for name, call in calls.items() if name.startswith("fastllie"))
            found[title] = {"published": launched(calls[training.PUBLISHED], stand_in)}
            found[title]["fastllie"] = launched(ours, stand_in)
        print(title, found[title], flush=True)
    for title, alone, shape in (("Zero-DCE++", zerodcepp, (2, 64, 64)), ("dawn", dawn, (1, 128, 128))):
        with as_on_a_gpu() as stand_in:
            found[title] = {"fastllie": launched(alone(training.dark(*shape)), stand_in)}
        print(title, found[title], flush=True)
    return found


def microseconds(
    calls: dict[str, Callable[[], object]], rounds: int = 15, each: int = 400
) -> dict[str, float]:
    """Of a call, the best of some rounds, which the calls take in turn."""
    best = dict.fromkeys(calls, float("inf"))
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            begin = time.perf_counter()
            for _ in range(each):
                call()
            best[name] = min(best[name], (time.perf_counter() - begin) / each)
    return {name: round(1e6 * taken, 1) for name, taken in best.items()}


def host() -> dict[str, float]:
    """What operators cost besides their kernels."""
    from fastllie import ops

    x, illum = torch.rand(1, 3, 4, 4), torch.rand(1, 3, 4, 4) + 0.5
    maps = torch.rand(1, 24, 4, 4) - 0.5
    leaf, leaf_maps = illum.clone().requires_grad_(), maps.clone().requires_grad_()
    # patches of 16 x 16 pixels have their exposure judged
    patch, patch_maps = torch.rand(1, 3, 16, 16), torch.rand(1, 24, 16, 16) - 0.5
    leaf_patch_maps = patch_maps.clone().requires_grad_()
    one = torch.ones(())

    def both(value: Tensor, of: Tensor) -> None:
        torch.autograd.grad(value, of, x if value.dim() else one)

    def all_losses(of: Tensor) -> None:
        torch.autograd.grad(list(ops.zero_reference_losses(patch, of)), of, [one] * 4)

    calls = {
        "division": lambda: ops.divide_illumination(x, illum),
        "division and its gradient": lambda: both(ops.divide_illumination(x, leaf), leaf),
        "curve": lambda: ops.apply_curve(x, maps),
        "curve and its gradient": lambda: both(ops.apply_curve(x, leaf_maps), leaf_maps),
        "smoothness": lambda: ops.smoothness_loss(illum, x),
        "smoothness and its gradient": lambda: both(ops.smoothness_loss(leaf, x), leaf),
        "Zero-DCE's losses": lambda: ops.zero_reference_losses(patch, patch_maps),
        "Zero-DCE's losses and their gradient": lambda: all_losses(leaf_patch_maps),
        "torch.div and its gradient": lambda: both(torch.div(x, leaf), leaf),
    }
    return microseconds(calls)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--name", default="now", help='what the figures are kept as: "now" or "before"')
    parser.add_argument("--host", action="store_true", help="the host's time alone")
    options = parser.parse_args()
    torch.set_num_threads(1)
    path = record.path_of("launches")
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    found = kept.setdefault(options.name, {"launches": {}, "host_us": {}})
    for name, taken in host().items():
        found["host_us"][name] = min(taken, found["host_us"].get(name, taken))
    if not options.host:
        found["launches"] = steps()
    print(json.dumps(found, indent=1))
    record.write(path, kept)
    return 0


if __name__ == "__main__":
    sys.exit(main())
