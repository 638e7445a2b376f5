"""Time every method for the record: ours beside eager, torch.compile, ONNX Runtime and OpenVINO, in one run.

    python benchmarks/methods.py                        # everything, about forty minutes on two cores
    python benchmarks/methods.py --methods sci --sizes 600x400 --batches 1
    python benchmarks/page.py                           # then: docs/performance.md

What `fastllie benchmark` does, at four sizes and two batches, with the allocator settings of
benchmarks/ops.py for all. The file is written after each size and batch, so that the same command goes on
after an interruption; figures of another commit or machine are thrown away. A contender that would
take too long or too much memory is named with the reason, in the file and on the page.
"""

import argparse
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ops

SIZES = ("600x400", "1280x720", "1920x1080", "3840x2160")
METHODS: dict[str, tuple[str, dict[str, Any], Sequence[str]]] = {
    "zerodce": ("zerodce", {}, SIZES),
    "zerodce++": ("zerodce++", {}, SIZES),
    "zerodce++,scale=12": ("zerodce++", {"scale": 12}, SIZES),
    "sci": ("sci", {}, SIZES),
    "enlightengan": ("enlightengan", {}, SIZES),
    # at the published width nobody else has time for more than this
    "nerco": ("nerco", {}, ("320x240", *SIZES)),
}
BATCHES = (1, 8)
# of each contender at each size and batch
ROUNDS, SECONDS = 5, 5.0


def open_record(path: Path, about: dict[str, Any]) -> dict[str, Any]:
    """What was recorded with the same machine, versions and settings, or a new record."""
    new = {"machine": about, "absent": {}, "cases": []}
    if not path.exists():
        return new
    found = json.loads(path.read_text(encoding="utf-8"))
    other = [
        name
        for name in {**about, **found["machine"]}
        if name != "date" and about.get(name) != found["machine"].get(name)
    ]
    if other:
        print(f"{path.name} is begun anew: {', '.join(other)} differ")
        return new
    return found


def write(path: Path, record: dict[str, Any]) -> None:
    from fastllie.images.files import replacing

    with replacing(path) as temporary:
        temporary.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def key_of(case: dict[str, Any]) -> tuple[Any, ...]:
    options = tuple(sorted(case["options"].items()))
    return case["method"], options, case["dtype"], case["size"], case["batch"]


def record_all(
    path: Path,
    record: dict[str, Any],
    names: Sequence[str],
    sizes: Sequence[str] | None,
    batches: Sequence[int],
    *,
    dtype: str,
    device: str,
    against: Sequence[str] | None = None,
    rounds: int = ROUNDS,
    seconds: float = SECONDS,
) -> Iterator[Any]:
    """Time what the record lacks, without `sizes` at those of each method.

    Each case is in the file when it comes from here.
    """
    import torch

    from fastllie.benchmarking import baselines
    from fastllie.benchmarking.contest import check_rivals, parse_size, time_method

    place = torch.device(device)
    chosen = check_rivals(against, place, dtype)
    absent = {label: baselines.why_absent(name, place, dtype) for name, label in baselines.RIVALS.items()}
    record["absent"] = {label: reason for label, reason in absent.items() if reason}
    known = {key_of(case) for case in record["cases"]}
    for name in names:
        method, options, own = METHODS[name]
        wanted = [
            (*parse_size(size), batch)
            for size in sizes or own
            for batch in batches
            if (method, tuple(options.items()), dtype, size, batch) not in known
        ]
        if not wanted:
            continue
        for case in time_method(
            method,
            wanted,
            dtype=dtype,
            device=place,
            against=chosen,
            rounds=rounds,
            seconds=seconds,
            options=options,
        ):
            record["cases"].append(asdict(case))
            write(path, record)
            yield case


def main() -> int:
    import torch

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--sizes", nargs="+", metavar="WxH", help=f"default: {' '.join(SIZES)}")
    parser.add_argument("--batches", nargs="+", type=int, default=list(BATCHES))
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--name", help="file name under benchmarks/results; default: methods--DEVICE")
    options = parser.parse_args()
    if any(os.environ.get(key) != value for key, value in ops.KEEP_HEAP.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | ops.KEEP_HEAP)

    from fastllie.benchmarking.machine import in_words

    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    about = ops.machine(device)
    print(in_words(about), flush=True)
    slug = re.sub(r"[^a-z0-9]+", "-", about["device"].lower()).strip("-")
    name = options.name or f"methods--{slug}"
    ops.RESULTS.mkdir(exist_ok=True)
    path = ops.RESULTS / f"{name}.json"
    wrong = []
    for case in record_all(
        path,
        open_record(path, about),
        options.methods,
        options.sizes,
        options.batches,
        dtype=options.dtype,
        device=device,
        rounds=options.rounds,
        seconds=options.seconds,
    ):
        print(f"\n{case.table()}", flush=True)
        wrong += [f"{case.title}: {one.contender}: {one.reason}" for one in case.left_out if one.wrong]
    print(f"\nwritten: benchmarks/results/{name}.json; python benchmarks/page.py makes the page of it")
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
