"""Every CUDA kernel over types, layouts and sizes, in random orders: against the formulas, and for races.

    python tests/cuda_on_cpu/sweep.py [--kind sanitized] [--seeds 1 2] [--every 7] [--only curve]

Exits with 1 if anything is wrong. `make cuda-on-cpu` runs it under the sanitizers too.
"""

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cuda_on_cpu import emulated
from fastllie.ops import enhance_sci, reference
from fastllie.ops.zerodce import CHANNELS, enhance_zerodce, pack_zerodce

ops = torch.ops.fastllie
F64, F32, BF16, F16, U8 = torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.uint8
FLOATS = (F64, F32, BF16, F16)
PAIRS = ((F64, F64), (F32, F32), (F32, BF16), (F32, F16), (BF16, BF16), (F16, F16))
# of results, as a share of the largest or of 1; gradients twice
TOLERANCE = {F64: 1e-12, F32: 4e-6, BF16: 5e-3, F16: 7e-4, U8: 0.51 / 255}
SIZES = ((1, 1, 1), (2, 5, 7), (1, 1, 37), (3, 19, 1), (1, 4, 160), (2, 33, 64), (1, 67, 41))
STEPS = (1, 2, 7, 8, 9, 16, 19)


def _planar(x: Tensor) -> Tensor:
    return x.contiguous()


def _interleaved(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _framed(margin: int) -> Callable[[Tensor], Tensor]:
    def frame(x: Tensor) -> Tensor:
        wide = torch.nn.functional.pad(x, (margin,) * 4, value=0.25)
        return wide[..., margin:-margin, margin:-margin]

    return frame


def _spaced(x: Tensor) -> Tensor:
    return torch.stack((x, x + 1), -1)[..., 0]


def _upright(x: Tensor) -> Tensor:
    return x.transpose(2, 3).contiguous().transpose(2, 3)


def _shifted(x: Tensor) -> Tensor:
    return torch.cat((x.new_zeros(1), x.flatten()))[1:].view(x.shape)


def _broadcast(x: Tensor) -> Tensor:
    return x[:1, :1].expand_as(x)


LAYOUTS = (_planar, _interleaved, _framed(3), _framed(8), _spaced, _upright, _shifted, _broadcast)


class Sweep:
    """Cases so far, and what was wrong."""

    def __init__(self, emulator: emulated.Emulator, seed: int, every: int):
        self.emulator, self.every = emulator, every
        self.random = torch.Generator().manual_seed(seed)
        self.cases, self.faults = 0, 0

    def over(self, *choices: object) -> Iterator[tuple]:
        """Each so-manieth combination, with its number."""
        for number, chosen in enumerate(itertools.product(*choices)):
            if number % self.every == 0:
                yield number, *chosen

    def draw(
        self,
        size: tuple[int, int, int],
        channels: int,
        low: float,
        high: float,
        dtype: torch.dtype,
        layout: Callable[[Tensor], Tensor],
    ) -> Tensor:
        shape = size[0], channels, *size[1:]
        values = torch.rand(shape, generator=self.random, dtype=F64) * (high - low) + low
        return layout(values.to(dtype))

    def check(self, expected: "Expected", function: Callable, *arguments: Any, **options: Any) -> Any:
        """Call, and return what comes back, compared with what should; look at what the emulator saw."""
        self.cases += 1
        try:
            returned = function(*arguments, **options)
        except RuntimeError as error:
            return self.fault(expected.told, str(error))
        for launch in self.emulator.launches():
            if launch.races or launch.misaligned:
                self.fault(expected.told, f"races {launch.races}, misaligned {launch.misaligned}")
        got = returned if isinstance(returned, (tuple, list)) else (returned,)
        for value, right, wanted, dtype in zip(
            got, expected.exact, expected.needed, expected.dtypes, strict=False
        ):
            if not wanted:
                continue
            unit = 255 if dtype == U8 else 1
            largest = float(right.abs().max())
            scale = max(1.0, largest) if expected.slack < 2 else max(1e-6, largest)
            off = float((value.double() / unit - right).abs().nan_to_num(torch.inf).max()) / scale
            allowed = TOLERANCE[dtype] * expected.slack
            if off > allowed:
                self.fault(expected.told, f"off by {off:.2e} of the largest, allowed {allowed:.1e}")
        return returned

    def fault(self, told: str, what: str) -> None:
        self.faults += 1
        print(f"WRONG {told}: {what}", flush=True)


@dataclass
class Expected:
    """What a call should return: `slack` times the tolerance, from 2 on as a share of the largest alone."""

    told: str
    exact: Sequence[Tensor]
    needed: Sequence[bool]
    dtypes: Sequence[torch.dtype]
    slack: float = 1


NEEDS = ((True, True), (True, False), (False, True))
BOTH = (False, True)


def _layouts(number: int, count: int) -> list[Callable[[Tensor], Tensor]]:
    """Different ones, or all of a kind."""
    apart = 0 if number % 3 == 0 else 3
    return [LAYOUTS[(number // 3 + apart * i) % len(LAYOUTS)] for i in range(count)]


def curve(sweep: Sweep) -> None:
    for number, pair, size, steps, shared, tanh in sweep.over(PAIRS, SIZES, STEPS, BOTH, BOTH):
        layouts, most = _layouts(number, 3), 0.5 if steps <= 9 else 0.2
        x = sweep.draw(size, 3, 0, 1, pair[0], layouts[0])
        alpha = sweep.draw(size, 3 if shared else 3 * steps, -most, most, pair[1], layouts[1])
        grad = sweep.draw(size, 3, -1, 1, pair[0], layouts[2])
        needs, told = NEEDS[number % 3], f"curve {pair} {size} {steps} {shared} {tanh} {number}"
        wide = x.double(), alpha.double()
        right = Expected(told, [reference.curve(*wide, steps, tanh)], [True], pair)
        sweep.check(right, ops.curve_forward, x, alpha, steps, tanh, "cuda")
        right = Expected(told, reference.curve_backward(grad.double(), *wide, steps, tanh), needs, pair, 2)
        sweep.check(right, ops.curve_backward, grad, x, alpha, steps, tanh, *needs, "cuda")


def illumination(sweep: Sweep) -> None:
    for number, dtype, size, _ in sweep.over(FLOATS, SIZES, range(3 * len(LAYOUTS))):
        layouts, dtypes = _layouts(number, 5), (dtype,) * 3
        # away from the bounds of the clamps, where rounding decides whether a gradient passes
        x, grad, other = (sweep.draw(size, 3, 0.1, 0.4, dtype, layout) for layout in layouts[:3])
        illum = sweep.draw(size, 3, 0.5, 1, dtype, layouts[3])
        raw, half = sweep.draw(size, 3, -2, 0, dtype, layouts[4]), other * 0.5
        needs, told = NEEDS[number % 3], f"illumination {dtype} {size} {number}"
        wide = {"grad": grad, "other": other, "raw": raw, "x": x, "illum": illum, "half": half}
        wide = {name: tensor.double() for name, tensor in wide.items()}
        exact = [reference.divide_illumination(wide["x"], wide["illum"])]
        sweep.check(Expected(told, exact, [True], dtypes), ops.illumination_forward, x, illum, "cuda")
        exact = reference.divide_backward(wide["grad"], wide["x"], wide["illum"])
        right = Expected(told, exact, needs, dtypes, 2)
        sweep.check(right, ops.illumination_backward, grad, x, illum, *needs, "cuda")
        exact = reference.illuminate(wide["raw"], wide["x"], wide["other"])
        sweep.check(
            Expected(told, exact, (True, True), dtypes), ops.illuminate_forward, raw, x, other, "cuda"
        )
        exact = reference.illuminate_backward(*(wide[n] for n in ("grad", "other", "raw", "x", "half")))
        right = Expected(told, exact, (True, *needs), dtypes, 4)
        sweep.check(right, ops.illuminate_backward, grad, other, raw, x, half, True, *needs, "cuda")


def gridcurve(sweep: Sweep) -> None:
    pairs, cells = (*PAIRS, (F16, F32)), ((1, 1, 1), (8, 2, 3), (9, 3, 2), (17, 1, 2))
    for number, pair, size, grid_cells, steps in sweep.over(pairs, SIZES, cells, (1, 8, 9)):
        layouts, place = _layouts(number, 3), (number % 4, number % 3 * 7)
        # away from the bounds of the clamps, where rounding decides whether a gradient passes
        x = sweep.draw(size, 3, 0.2, 0.9, pair[0], layouts[0])
        guide = sweep.draw(size, 1, 0, 1, pair[0], layouts[1])
        grad = sweep.draw(size, 3, -1, 1, pair[0], layouts[2])
        grid = torch.rand(size[0], 6, *grid_cells, generator=sweep.random, dtype=F64) * 0.5
        grid = (grid - torch.tensor([0.25] * 3 + [0.4] * 3)[:, None, None, None]).to(pair[1])
        where = place, (place[0] + size[1] + number % 5, place[1] + size[2] + number % 2 * 30)
        needs = ((True, True, True), (True, False, True), (False, True, False))[number % 3]
        told = f"gridcurve {pair} {size} {grid_cells} {steps} {where} {number}"
        wide = x.double(), grid.double(), guide.double()
        exact = reference.apply_grid_curve(*wide, place=where[0], size=where[1], steps=steps)
        right = Expected(told, [exact], [True], pair)
        sweep.check(right, ops.gridcurve_forward, x, grid, guide, *where, steps, "cuda")
        exact = reference.grid_curve_backward(grad.double(), *wide, *where, steps)
        right = Expected(told, exact, needs, (pair[0], pair[1], pair[0]), 4)
        sweep.check(right, ops.gridcurve_backward, grad, x, grid, guide, *where, steps, *needs, "cuda")


def smoothness(sweep: Sweep) -> None:
    sizes = ((1, 3, 3), (2, 3, 40), (1, 9, 33), (2, 17, 31), (1, 40, 3), (1, 25, 66))
    kinds = ("ycbcr", "memory", "rgb"), ("pixel", "scalar")
    for number, dtype, size, color, norm in sweep.over(FLOATS, sizes, *kinds):
        layouts = [LAYOUTS[(number + 3 * i) % 7] for i in range(2)]  # equal colours are all rounding
        illum, guide = (sweep.draw(size, 3, 0, 1 - 0.6 * i, dtype, layouts[i]) for i in range(2))
        needs, told = NEEDS[number % 3], f"smoothness {dtype} {size} {color} {norm} {number}"
        wide, stored, how = (illum.double(), guide.double()), F64 if dtype == F64 else F32, (0.1, color, norm)
        right = Expected(told, [reference.smoothness(*wide, *how)], [True], [stored])
        made = sweep.check(right, ops.smoothness_forward, illum, guide, *how, "cuda")
        if made is None:
            continue
        grad = torch.tensor(0.7, dtype=stored)
        exact = reference.smoothness_backward(grad.double(), *wide, *how)
        right = Expected(told, exact, needs, (dtype, dtype), 4)
        sweep.check(right, ops.smoothness_backward, grad, illum, guide, made[1], *how, *needs, "cuda")


def zero_reference(sweep: Sweep) -> None:
    sizes = ((1, 16, 16), (3, 19, 33), (1, 16, 210), (2, 33, 17))
    for number, pair, size, steps, shared, tanh in sweep.over(PAIRS, sizes, (1, 8, 9), BOTH, BOTH):
        layouts = _layouts(number, 2)
        x = sweep.draw(size, 3, 0, 1, pair[0], layouts[0])
        alpha = sweep.draw(size, 3 if shared else 3 * steps, -0.5, 0.5, pair[1], layouts[1])
        needs, told = NEEDS[number % 3], f"zero_reference {pair} {size} {steps} {shared} {tanh} {number}"
        wide, stored, how = (x.double(), alpha.double()), F64 if pair[0] == F64 else F32, (steps, tanh, 0.6)
        right = Expected(told, [torch.stack(reference.zero_reference(*wide, *how))], [True], [stored], 1.9)
        made = sweep.check(right, ops.zero_reference_forward, x, alpha, *how, "cuda")
        if made is None:
            continue
        grad = torch.tensor([200.0, 1.0, 5.0, 10.0], dtype=stored)
        right = Expected(told, reference.zero_reference_backward(grad.double(), *wide, *how), needs, pair, 4)
        sweep.check(right, ops.zero_reference_backward, grad, x, alpha, *made[1:], *how, *needs, "cuda")


def sci(sweep: Sweep) -> None:
    sizes = ((1, 1, 1), (2, 40, 1), (1, 2, 2), (1, 32, 32), (1, 33, 64), (2, 34, 35))
    for number, dtype, size, padding, residual in sweep.over(
        (*FLOATS, U8), sizes, ("zeros", "reflect"), BOTH
    ):
        unit, held = 255 if dtype == U8 else 1, F64 if dtype == F64 else F32
        x = sweep.draw(size, 3, 0, unit, dtype, LAYOUTS[number % len(LAYOUTS)])
        weights = sweep.draw((3, 3, 9), 3, -0.35, 0.35, held, _planar).reshape(3, 3, 3, 3, 3)
        biases = sweep.draw((1, 3, 3), 1, -0.2, 0.3, held, _planar)[0, 0]
        exact = reference.sci(x.double() / unit, weights.double(), biases.double(), residual, padding)
        right = Expected(f"sci {dtype} {size} {padding} {residual} {number}", [exact], [True], [dtype], 1.9)
        sweep.check(
            right, enhance_sci, x, weights, biases, residual=residual, padding=padding, backend="cuda"
        )


def zerodce(sweep: Sweep) -> None:
    for number, dtype, size, how in sweep.over((F16, BF16), SIZES[:5], ("replicate", "zeros", "cropped")):
        cropped = how == "cropped"
        extra, padding = (14, "replicate") if cropped else (0, how)
        larger = size[0], size[1] + extra, size[2] + extra
        x = sweep.draw(larger, 3, 0, 1, dtype, LAYOUTS[number % len(LAYOUTS)])
        weights, biases = [], []
        for given, outputs in CHANNELS:
            values = sweep.draw((outputs, 3, 3), given, -1, 1, F64, _planar)
            weights.append((values * (6 / (9 * given)) ** 0.5).to(dtype))
            biases.append(sweep.draw((1, 1, outputs), 1, -0.1, 0.1, dtype, _planar)[0, 0, 0])
        packed = pack_zerodce(weights, biases, dtype=dtype, backend="cuda")
        wide = [w.double() for w in weights], [b.double() for b in biases]
        exact = reference.zerodce(x.double(), *wide, padding, cropped=cropped)
        # features are rounded between the layers
        right = Expected(f"zerodce {dtype} {size} {how} {number}", [exact], [True], [dtype], 15)
        sweep.check(right, enhance_zerodce, x, packed, padding=padding, cropped=cropped, backend="cuda")


OPERATORS = {
    f.__name__: f for f in (curve, illumination, gridcurve, smoothness, zero_reference, sci, zerodce)
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kind", choices=["metered", "sanitized"], default="metered")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="of the order; 0: as numbered")
    parser.add_argument("--every", type=int, default=1, help="only each so-manieth case; a prime mixes best")
    parser.add_argument("--only", nargs="+", choices=OPERATORS, default=list(OPERATORS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    # empty tensors are NaN: what nobody writes is seen
    torch.use_deterministic_algorithms(True)
    emulator, faults = emulated.emulator(arguments.kind), 0
    with pytest.MonkeyPatch.context() as patch:
        emulator.install(patch)
        emulator.meter(arguments.kind == "metered")
        for seed, name in itertools.product(arguments.seeds, arguments.only):
            emulator.seed(seed)
            sweep, start = Sweep(emulator, seed, arguments.every), time.perf_counter()
            OPERATORS[name](sweep)
            faults += sweep.faults
            took = time.perf_counter() - start
            print(f"{name}, seed {seed}: {sweep.cases} cases, {sweep.faults} wrong, {took:.0f} s", flush=True)
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
