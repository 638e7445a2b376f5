"""Check the C++ kernels of an unpacked wheel without torch or anything else: in an emulator too.

    PYTHONPATH=unpacked python release/selftest.py

It compares with the formulas in Python's own float64, for every instruction set that is here, and prints a
digest of all results of the widest: machines with fused multiplication and addition agree in all bits.
"""

import hashlib
import platform
import sys
from array import array
from collections.abc import Iterator, Sequence

from fastllie import _native

HEIGHT, WIDTH, STEPS = 13, 37, 8
CODES = {"float32": "f", "float64": "d"}
TOLERANCE = {"float32": 2e-6, "float64": 1e-14}


def randoms(seed: int) -> Iterator[float]:
    """Numbers in [0, 1), the same everywhere."""
    while True:
        seed = (seed * 1103515245 + 12345) % 2**31
        yield (seed >> 7) / 2**24


def planes(dtype: str, channels: int, seed: int, low: float, high: float) -> array:
    values = randoms(seed)
    count = channels * HEIGHT * WIDTH
    return array(CODES[dtype], (low + (high - low) * next(values) for _ in range(count)))


def handle(dtype: str, values: array, channels: int) -> tuple[int, str, tuple[int, ...]]:
    strides = channels * HEIGHT * WIDTH, HEIGHT * WIDTH, WIDTH, 1
    return values.buffer_info()[0], dtype, strides


def brightened(x: Sequence[float], alpha: Sequence[float]) -> list[float]:
    """The curve of Zero-DCE, eq. 3."""
    pixels = 3 * HEIGHT * WIDTH
    result = list(x)
    for step in range(STEPS):
        result = [y + alpha[step * pixels + i] * y * (1 - y) for i, y in enumerate(result)]
    return result


def results_of(dtype: str) -> list[tuple[str, array, list[float]]]:
    """Each operator's name, what its kernel computes, and what its formula says."""
    native = _native.cpu
    sizes = [1, 3, HEIGHT, WIDTH]
    x, alpha = planes(dtype, 3, 1, 0.0, 1.0), planes(dtype, 3 * STEPS, 2, -1.0, 1.0)
    illum, out, divided = planes(dtype, 3, 3, 0.2, 1.0), array(x.typecode, x), array(x.typecode, x)
    native.curve_forward(
        handle(dtype, x, 3),
        handle(dtype, alpha, 3 * STEPS),
        handle(dtype, out, 3),
        sizes,
        False,
        STEPS,
        False,
        2,
    )
    native.illumination_forward(
        handle(dtype, x, 3), handle(dtype, illum, 3), handle(dtype, divided, 3), sizes, 2
    )
    quotients = [min(max(a / b, 0.0), 1.0) for a, b in zip(x, illum, strict=True)]
    return [("curve", out, brightened(x, alpha)), ("illumination", divided, quotients)]


def main() -> int:
    if _native.cpu is None:
        print(_native.reasons["cpu"])
        return 1
    wrong = 0
    for isa in _native.cpu.isas():
        _native.cpu.set_isa(isa)
        digest = hashlib.blake2b(digest_size=8)
        for dtype in CODES:
            for name, got, wanted in results_of(dtype):
                off = max(abs(a - b) for a, b in zip(got, wanted, strict=True))
                fine = off <= TOLERANCE[dtype]
                wrong += not fine
                digest.update(got.tobytes())
                print(f"{isa:<12}{name:<14}{dtype:<9}{'ok' if fine else 'WRONG'}  off by {off:.1e}")
    print(f"{platform.machine()} {isa}: digest {digest.hexdigest()}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
