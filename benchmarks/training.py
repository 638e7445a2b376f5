"""Time a training step beside the published code's step, written out in plain PyTorch, in one run.

    python benchmarks/training.py            # SCI at 600x400, batch 1: recipe "official"

The steps take turns, so that both see the same machine. Both start from the same weights and see the same
image; a first loss that differs by more than 1e-4 of itself is an error. CPU seconds are those of the
process, all threads together. Both run with the allocator settings of benchmarks/ops.py.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from ops import KEEP_HEAP, RESULTS, machine
from published import sci_smoothness
from torch import Tensor, nn

SIZE = (400, 600)
STAGES = 3


class PublishedStep:
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


def contenders(y: Tensor) -> dict[str, Callable[[], float]]:
    """Each step as a function that takes it and returns its loss; all from the same weights."""
    from fastllie.training.data import Batch
    from fastllie.training.recipes import SCI_OFFICIAL
    from fastllie.training.sci import SCITask, build

    def fresh() -> nn.Module:
        torch.manual_seed(0)
        return build(SCI_OFFICIAL)

    published = PublishedStep(fresh())
    task = SCITask(SCI_OFFICIAL, total_steps=1, steps_per_epoch=1)
    task.start_from(fresh().state_dict())
    return {
        "published step in plain PyTorch": lambda: published(y),
        "fastllie": lambda: task.step(Batch(y, y))["total"],
    }


def measure(calls: dict[str, Callable[[], float]], rounds: int) -> dict[str, dict[str, float]]:
    """Best wall and CPU seconds and the first loss of each.

    Raises:
        ValueError: the first losses differ.
    """
    first = {name: call() for name, call in calls.items()}
    expected = next(iter(first.values()))
    for name, loss in first.items():
        if abs(loss - expected) > 1e-4 * abs(expected):
            raise ValueError(f"the first loss of {name} is {loss}, of the published step {expected}")
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
            "first_loss": first[name],
        }
        for name, taken in times.items()
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--name", default="training", help="file name under benchmarks/results")
    options = parser.parse_args()
    if any(os.environ.get(name) != value for name, value in KEEP_HEAP.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | KEEP_HEAP)
    about = machine("cpu")
    print(json.dumps(about, indent=1))
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 25, 38, generator=generator) * 0.3
    y = F.interpolate(coarse, SIZE, mode="bicubic").clamp(0, 1)
    y = (y + 0.01 * torch.randn(y.shape, generator=generator)).clamp(0, 1)
    rows = measure(contenders(y), options.rounds)
    published = rows["published step in plain PyTorch"]
    lines = ["| SCI step, 600x400, batch 1 | ms | median ms | CPU ms | times faster | in CPU time |"]
    lines.append("|---" * 6 + "|")
    for name, row in rows.items():
        faster = published["wall_ms"] / row["wall_ms"], published["cpu_ms"] / row["cpu_ms"]
        lines.append(
            f"| {name} | {row['wall_ms']:.0f} | {row['median_wall_ms']:.0f} | {row['cpu_ms']:.0f} "
            f"| {faster[0]:.2f} | {faster[1]:.2f} |"
        )
    table = "\n".join(lines)
    print(table)
    (RESULTS / f"{options.name}.json").write_text(
        json.dumps({"machine": about, "rows": rows}, indent=1) + "\n"
    )
    about_lines = "".join(f"- {key}: {value}\n" for key, value in about.items())
    (RESULTS / f"{options.name}.md").write_text(f"# A training step\n\n{about_lines}\n{table}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
