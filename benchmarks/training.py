"""Time training steps beside the published code's steps, written out in plain PyTorch, in one run.

    python benchmarks/training.py [--device cuda]    # SCI, Zero-DCE, EnlightenGAN, NeRCo

The steps of a method take turns, so that all see the same machine. They start from the same weights and see
the same images; a first loss that differs by more than 1e-4 of itself (1e-2 in bfloat16) is an error. CPU
seconds are those of the process, all threads together. `--keep-heap` gives all of them an allocator that
keeps freed memory, as `fastllie train` does itself. "data" is what making a batch from the cache takes,
beside our step with the default settings.
"""

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import record
import torch
import torch.nn.functional as F
from PIL import Image
from published import EnlightenGANStep, NeRCoStep, sci_smoothness, zero_reference
from torch import Tensor, nn

if TYPE_CHECKING:
    from fastllie.training.recipes import Loop
    from fastllie.training.task import NetworkTask

STAGES = 3
PHOTOGRAPHS = 32  # for the time that the data takes
PUBLISHED = "published step in plain PyTorch"


class PublishedSCIStep:
    """The step of SCI's train.py @9d28a3f: every neighbour by itself, every stage calibrated."""

    def __init__(self, network: nn.Module):
        self.network = network.train()
        self.optimizer = torch.optim.Adam(
            network.parameters(), lr=3e-4, betas=(0.9, 0.999), weight_decay=3e-4
        )

    def __call__(self, y: Tensor) -> float:
        enhance, calibrate = self.network.enhance, self.network.calibrate
        self.optimizer.zero_grad()
        loss, v = y.new_zeros(()), y
        for _ in range(STAGES):
            features = enhance.in_conv(v)
            features = features + enhance.conv(features)
            illum = torch.clamp(torch.sigmoid(enhance.out_conv(features)) + v, 0.0001, 1)
            enhanced = torch.clamp(y / illum, 0, 1)
            correction = calibrate(enhanced)
            loss = loss + 1.5 * F.mse_loss(illum, v) + sci_smoothness(illum, v)
            v = y + correction
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 5)
        self.optimizer.step()
        return loss.item()


class PublishedCurveStep:
    """The step of Zero-DCE's lowlight_train.py @e0f4adc: every step of the curve and every loss by itself."""

    def __init__(self, network: nn.Module):
        self.network = network.train()
        self.optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, weight_decay=1e-4)

    def __call__(self, x: Tensor) -> float:
        n = self.network
        x1 = F.relu(n.conv1(x))
        x2 = F.relu(n.conv2(x1))
        x3 = F.relu(n.conv3(x2))
        x4 = F.relu(n.conv4(x3))
        x5 = F.relu(n.conv5(torch.cat([x3, x4], 1)))
        x6 = F.relu(n.conv6(torch.cat([x2, x5], 1)))
        # the published network gives -alpha; its weights would be ours with the sign turned
        maps = -torch.tanh(n.conv7(torch.cat([x1, x6], 1)))
        y = x
        for r in torch.split(maps, 3, dim=1):
            y = y + r * (torch.pow(y, 2) - y)
        loss = zero_reference(y, x, maps)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(n.parameters(), 0.1)
        self.optimizer.step()
        return loss.item()


@dataclass(frozen=True)
class Case:
    """A method to time: each of its steps by name, and the making of one batch."""

    title: str
    calls: dict[str, Callable[[], float]]
    data: Callable[[], None]


def sci(images: Tensor, cache: Path) -> Case:
    from fastllie.training.parallel import Parallel
    from fastllie.training.recipes import SCI_OFFICIAL
    from fastllie.training.sci import SCITask, build

    torch.manual_seed(0)
    published = PublishedSCIStep(build(SCI_OFFICIAL).to(images.device))
    torch.manual_seed(0)
    ours = SCITask(SCI_OFFICIAL, 1, 1, parallel=Parallel(device=images.device))
    calls = {PUBLISHED: lambda: published(images), "fastllie (default)": step_of(ours, images)}
    return Case("SCI step, 600x400, batch 1", calls, data_of(SCI_OFFICIAL, cache, images.device))


def zerodce(images: Tensor, cache: Path) -> Case:
    from fastllie.training.parallel import Parallel
    from fastllie.training.recipes import ZERODCE_PUBLISHED
    from fastllie.training.task import resolve_precision
    from fastllie.training.zerodce import CurveTask, build

    torch.manual_seed(0)
    published = PublishedCurveStep(build(ZERODCE_PUBLISHED).to(images.device))
    calls = {PUBLISHED: lambda: published(images)}
    default = resolve_precision("auto", images.device)
    settings = {f"fastllie, {precision}": {"precision": precision} for precision in ("float32", default)}
    if images.device.type == "cuda":
        settings[f"fastllie, {default}, CUDA graph"] = {"precision": default, "cuda_graph": True}
    for name, changes in settings.items():
        torch.manual_seed(0)
        recipe = replace(ZERODCE_PUBLISHED, **changes)
        ours = CurveTask(recipe, 1, Parallel(device=images.device))
        calls[name + " (default)" * (changes == {"precision": default})] = step_of(ours, images)
    return Case("Zero-DCE step, 256x256, batch 8", calls, data_of(ZERODCE_PUBLISHED, cache, images.device))


def enlightengan(images: Tensor, cache: Path) -> Case:
    from fastllie.training.data import Batch
    from fastllie.training.enlightengan import EnlightenGANTask
    from fastllie.training.parallel import Parallel
    from fastllie.training.recipes import ENLIGHTENGAN_PUBLISHED
    from fastllie.training.task import resolve_precision

    device = images.device
    normal = images.flip(0, 2).mul(3).clamp(0, 1)
    recipe = replace(ENLIGHTENGAN_PUBLISHED, vgg="random", size=images.shape[-1])

    def task(precision: str) -> EnlightenGANTask:
        torch.manual_seed(0)
        made = EnlightenGANTask(replace(recipe, precision=precision), 1, 1, parallel=Parallel(device=device))
        return made

    plain = task("float32")
    for network in (*plain.networks(), plain.vgg):
        network.to(memory_format=torch.contiguous_format).train()
    published = EnlightenGANStep(plain.networks(), plain.vgg, plain.offsets)
    published.beyond.to(device)
    calls = {PUBLISHED: lambda: published(images, normal)}
    default = resolve_precision("auto", device)
    x, other = (image.contiguous(memory_format=torch.channels_last) for image in (images, normal))
    for precision in dict.fromkeys(("float32", default)):
        ours = task(precision)
        name = f"fastllie, {precision}" + " (default)" * (precision == default)
        calls[name] = lambda ours=ours: ours.step([Batch(x, x, other)])["total"].item()
    size = images.shape[-1]
    return Case(
        f"EnlightenGAN step, {size}x{size}, batch {len(images)}", calls, data_of(recipe, cache, device)
    )


def nerco(images: Tensor, cache: Path) -> Case:
    from fastllie.training.data import Batch
    from fastllie.training.nerco import NeRCoTask
    from fastllie.training.parallel import Parallel
    from fastllie.training.recipes import NERCO_PUBLISHED
    from fastllie.training.task import resolve_precision

    published_nerco = record.of_tests("published_nerco")
    device, size = images.device, images.shape[-1]
    normal = images.flip(3).mul(3).clamp(0, 1)
    recipe = replace(NERCO_PUBLISHED, size=size)

    def task(precision: str) -> NeRCoTask:
        torch.manual_seed(0)
        return NeRCoTask(replace(recipe, precision=precision), 300, 1, parallel=Parallel(device=device))

    plain = task("float32")
    makers = [published_nerco.Pre(), published_nerco.H(), *map(published_nerco.generator, (6, 3))]
    judges = [published_nerco.discriminator() for _ in plain.judges]
    ours = [plain.network.Pre, plain.network.H, plain.network.G_A, plain.darkener, *plain.judges.values()]
    for network, given in zip((*makers, *judges), ours, strict=True):
        network.load_state_dict(given.state_dict())
        network.to(device)
    published = NeRCoStep(makers, judges)
    del plain, ours
    calls = {PUBLISHED: lambda: published(images, normal)}
    default = resolve_precision("auto", device)
    x, other = (image.contiguous(memory_format=torch.channels_last) for image in (images, normal))
    for precision in dict.fromkeys(("float32", default)):
        made = task(precision)
        name = f"fastllie, {precision}" + " (default)" * (precision == default)
        calls[name] = lambda made=made: made.step([Batch(x, x, other)])["total"].item()
    return Case(f"NeRCo step, {size}x{size}, batch {len(images)}", calls, data_of(recipe, cache, device))


def step_of(task: "NetworkTask", images: Tensor) -> Callable[[], float]:
    from fastllie.training.data import Batch

    x = images.contiguous(memory_format=torch.channels_last)
    return lambda: task.step([Batch(x, x)])["total"].item()


def data_of(recipe: "Loop", folder: Path, device: torch.device) -> Callable[[], None]:
    """Making one batch after the other from photographs of 600x400 in the cache."""
    from fastllie.training.data import collect, open_source

    photographs = folder / "photographs"
    photographs.mkdir()
    random = np.random.default_rng(0)
    for index in range(PHOTOGRAPHS):
        coarse = Image.fromarray(random.integers(0, 200, (8, 12, 3), dtype=np.uint8))
        coarse.resize((600, 400), Image.Resampling.BICUBIC).save(photographs / f"{index}.jpg")
    unpaired = recipe.method in ("enlightengan", "nerco")
    sides = (photographs, photographs) if unpaired else photographs
    paired = False if unpaired else None
    collection = collect(sides, paired=paired, cache=folder / "cache")
    source = open_source(collection, recipe, 0, cache=folder / "cache", device=device)
    steps = itertools.count()

    def make() -> None:
        source.batch(next(steps))
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return make


def measure(case: Case, rounds: int) -> dict[str, dict[str, float]]:
    """Best wall and CPU seconds and the first loss of each, and the time of the data.

    Raises:
        ValueError: the first losses differ.
    """
    first = {name: call() for name, call in case.calls.items()}
    expected = first[PUBLISHED]
    for name, loss in first.items():
        if abs(loss - expected) > (1e-2 if "bfloat16" in name else 1e-4) * abs(expected):
            raise ValueError(f"the first loss of {name} is {loss}, of the published step {expected}")
    calls = {**case.calls, "data": case.data}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {
        name: {
            "wall_ms": 1e3 * min(wall for wall, _ in taken),
            "median_wall_ms": 1e3 * sorted(wall for wall, _ in taken)[rounds // 2],
            "cpu_ms": 1e3 * min(cpu for _, cpu in taken),
            **({"first_loss": first[name]} if name in first else {}),
        }
        for name, taken in times.items()
    }


def table(title: str, rows: dict[str, dict[str, float]]) -> str:
    published = rows[PUBLISHED]
    default = next(row for name, row in rows.items() if name.endswith("(default)"))
    lines = [f"| {title} | ms | median ms | CPU ms | times faster | in CPU time |", "|---" * 6 + "|"]
    for name, row in rows.items():
        faster = published["wall_ms"] / row["wall_ms"], published["cpu_ms"] / row["cpu_ms"]
        last = f"| {faster[0]:.2f} | {faster[1]:.2f} |"
        if name == "data":
            last = f"| {100 * row['median_wall_ms'] / default['median_wall_ms']:.2f} % of the step | |"
        lines.append(
            f"| {name} | {row['wall_ms']:.1f} | {row['median_wall_ms']:.1f} | {row['cpu_ms']:.1f} {last}"
        )
    return "\n".join(lines)


def dark(batch: int, height: int, width: int) -> Tensor:
    """Smooth dark images with a little noise, `[B, 3, H, W]` in [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(batch, 3, height // 16, width // 16, generator=generator) * 0.3
    x = F.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    return (x + 0.01 * torch.randn(x.shape, generator=generator)).clamp(0, 1)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--keep-heap", action="store_true", help="keep freed memory, in all contenders")
    parser.add_argument(
        "--only", nargs="+", choices=("sci", "zerodce", "enlightengan", "nerco"), default=None
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--name", default="training", help="file name under benchmarks/results")
    options = parser.parse_args()
    if options.keep_heap:
        record.keep_heap()
    about = record.machine(options.device)
    print(json.dumps(about, indent=1))
    rows = {}
    cases = {"sci": (sci, (1, 400, 600)), "zerodce": (zerodce, (8, 256, 256))}
    cases["enlightengan"] = (enlightengan, (2, 160, 160))
    cases["nerco"] = (nerco, (1, 256, 256))
    for make, shape in (cases[name] for name in options.only or cases):
        with tempfile.TemporaryDirectory() as folder:
            case = make(dark(*shape).to(options.device), Path(folder))
            rows[case.title] = measure(case, options.rounds)
        print(table(case.title, rows[case.title]), flush=True)
    record.write(record.RESULTS / f"{options.name}.json", {"machine": about, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
