"""Time every method for the record: ours beside eager, torch.compile, ONNX Runtime and OpenVINO, in one run.

    python benchmarks/methods.py                        # everything, some twenty minutes on two cores
    python benchmarks/methods.py --methods sci zerodce  # these alone; the file keeps the others
    python benchmarks/page.py                           # then: the pages that show it

What `fastllie benchmark` does, for the weights that ship and for networks of the published width, in float32
and in bfloat16, with an allocator that keeps freed memory for all. There is one file a machine. It is written
after each case, so that the same command goes on after an interruption; figures of another commit or machine
are thrown away. A contender that would take too long or too much memory is named with the reason, in the file
and on the page.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import record

SMALL, LARGE, HUGE = "600x400", "1920x1080", "3840x2160"
# compiling takes longer than all the timing of a case, so it is for the sizes that most people have
WITHOUT_COMPILING = ("eager", "channels_last", "onnxruntime", "openvino")
LOW_PRECISION = ("eager", "channels_last", "openvino")
VARIANTS: Mapping[str, Sequence[Mapping[str, Any]]] = {"zerodce++": ({}, {"scale": 4}, {"scale": 12})}
# Inductor writes out the eight steps of the curve without end: not done with dawn after four minutes
UNCOMPILED = ("dawn",)
# not in batches, nor at 3840x2160: that would be minutes
SLOW = ("nerco",)
PUBLISHED_WIDTH = "random, of the published width"
# of each contender at each size and batch; three turns within 3 % are enough
ROUNDS, SECONDS, STEADY = 5, 6.0, 0.03
MINUTES = 30.0


@dataclass(frozen=True)
class Entry:
    """A method with weights in a precision, at sizes and batches, beside some baselines (None: all).

    `weights` is what the record calls them; "" are those that ship. A `further` contender has its own name.
    """

    method: str
    cases: Sequence[tuple[str, int]]
    options: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = "float32"
    weights: str = ""
    against: Sequence[str] | None = None
    further: Mapping[str, Callable[..., Any]] | None = None


def plan(names: Sequence[str] | None = None, sizes: Sequence[str] | None = None) -> list[Entry]:
    """What is recorded of the methods (None: all); `sizes` in the place of everyone's own are for a trial."""
    import published

    from fastllie import list_methods

    chosen = [
        (method, options) for method in names or list_methods() for options in VARIANTS.get(method, ({},))
    ]
    pair = ((SMALL, 1), (LARGE, 1))
    # what most readers look for comes first, should the time be over
    entries = [
        Entry(method, pair, options, against=WITHOUT_COMPILING if method in UNCOMPILED else None)
        for method, options in chosen
    ]
    entries += [Entry(method, pair, options, "bfloat16", against=LOW_PRECISION) for method, options in chosen]
    for method, size, further in (
        ("enlightengan", SMALL, None),
        # the published code takes eight seconds for 600x400
        ("nerco", "320x240", {"as published": published.nerco}),
    ):
        if names is None or method in names:
            entries += [
                Entry(method, ((size, 1),), {}, dtype, PUBLISHED_WIDTH, LOW_PRECISION[:2], further)
                for dtype in ("float32", "bfloat16")
            ]
    entries += [
        Entry(method, ((SMALL, 8), (HUGE, 1)), options, against=WITHOUT_COMPILING)
        for method, options in chosen
        if method not in SLOW
    ]
    if sizes is not None:
        entries = [
            replace(entry, cases=[(size, batch) for size in sizes for _, batch in entry.cases])
            for entry in entries
        ]
    return entries


def keys_of(entry: Entry) -> list[tuple[Any, ...]]:
    """What tells each case of an entry from all others in the record."""
    return [
        (entry.method, tuple(sorted(entry.options.items())), entry.weights, entry.dtype, size, batch)
        for size, batch in entry.cases
    ]


def key_of(case: Mapping[str, Any]) -> tuple[Any, ...]:
    """The same of a case in the record."""
    weights = case["weights"] if case["weights"] == PUBLISHED_WIDTH else ""
    options = tuple(sorted(case["options"].items()))
    return case["method"], options, weights, case["dtype"], case["size"], case["batch"]


def open_record(path: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """What was recorded with the same machine, versions and settings, or a new record."""
    new = {"machine": about, "complete": False, "absent": {}, "cases": []}
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


def record_all(
    path: Path,
    found: dict[str, Any],
    entries: Sequence[Entry],
    *,
    device: str,
    until: float,
    rounds: int = ROUNDS,
    seconds: float = SECONDS,
) -> Iterator[Any]:
    """Time what the record lacks of the entries; each case is in the file when it comes from here.

    Nothing is begun after `until`, by `time.monotonic`.
    """
    import torch

    from fastllie.benchmarking.bench import Effort
    from fastllie.benchmarking.contest import absent, check_baselines, parse_size, time_method

    place = torch.device(device)
    found["absent"] = absent(place, "float32")
    known = {key_of(case) for case in found["cases"]}
    with tempfile.TemporaryDirectory() as folder:
        for entry in entries:
            lacking = [
                case for case, key in zip(entry.cases, keys_of(entry), strict=True) if key not in known
            ]
            if not lacking or time.monotonic() > until:
                continue
            against = check_baselines(None, place, entry.dtype)
            if entry.against is not None:
                against = [name for name in against if name in entry.against]
            for case in time_method(
                entry.method,
                [(*parse_size(size), batch) for size, batch in lacking],
                dtype=entry.dtype,
                device=place,
                weights=published_width(entry.method, Path(folder)) if entry.weights else None,
                against=against,
                further=entry.further,
                effort=Effort(rounds, seconds, STEADY),
                options=entry.options,
                folder=exports_of(entry, Path(folder)),
            ):
                named = replace(case, weights=entry.weights or case.weights)
                found["cases"].append(asdict(named))
                record.write(path, found)
                yield named
                if time.monotonic() > until:
                    break


def exports_of(entry: Entry, folder: Path) -> Path:
    """A folder for the exported network, the same for all entries that have it."""
    path = folder / record.slug(entry.method, *map(str, entry.options.values()), entry.weights)
    path.mkdir(exist_ok=True)
    return path


def published_width(method: str, folder: Path) -> Path:
    """A file of random weights of the published width: no layer is dead, and the image has some contrast."""
    import torch
    from safetensors.torch import save_file

    from fastllie.methods import model_class

    path = folder / f"{method}.safetensors"
    if path.exists():
        return path
    torch.manual_seed(0)
    network = model_class(method)().eval().requires_grad_(False)
    metadata = {"format": "fastllie", "method": method}
    if method == "enlightengan":
        metadata["align_corners"] = "False"
        for name, tensor in network.state_dict().items():
            if tensor.dim() == 4:
                torch.nn.init.kaiming_normal_(tensor)
            elif name.startswith("bn") and tensor.is_floating_point():
                tensor.copy_(0.2 * torch.rand_like(tensor) + ("weight" in name or "var" in name))
        # the residual stays within the range of an image
        network.conv10.weight.mul_(0.05)
        network.conv10.bias.fill_(0.3)
    else:
        # it draws the image anew: with more contrast than photographs have, bfloat16 would miss its decibels
        network.G_A.model[network.G_A.last].weight.mul_(0.5)
    save_file(network.state_dict(), path, metadata)
    return path


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", nargs="+", help="default: all")
    parser.add_argument("--sizes", nargs="+", metavar="WxH", help="for a trial: in the place of all sizes")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="nothing is begun later (%(default)g)")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="turns at most (%(default)s)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for a contender (%(default)g)")
    parser.add_argument("--name", default="methods", help="of the file, before the machine (%(default)s)")
    options = parser.parse_args()
    record.keep_heap()
    begin = time.monotonic()

    import torch

    from fastllie.benchmarking.machine import in_words

    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    about = record.machine(device)
    print(in_words(about), flush=True)
    path = record.path_of(options.name, about["device"])
    found = open_record(path, about)
    wrong = []
    for case in record_all(
        path,
        found,
        plan(options.methods, options.sizes),
        device=device,
        until=begin + 60 * options.minutes,
        rounds=options.rounds,
        seconds=options.seconds,
    ):
        print(f"\n{case.table()}\n  {time.monotonic() - begin:.0f} s have passed", flush=True)
        wrong += [f"{case.title}: {one.contender}: {one.reason}" for one in case.left_out if one.wrong]
    known = {key_of(case) for case in found["cases"]}
    lacking = [key for entry in plan() for key in keys_of(entry) if key not in known]
    found["complete"] = not lacking
    record.write(path, found)
    print(f"\nwritten: {path.relative_to(record.ROOT)}; python benchmarks/page.py makes the pages of it")
    if lacking:
        print(f"{len(lacking)} cases are still to be recorded: the same command goes on")
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
