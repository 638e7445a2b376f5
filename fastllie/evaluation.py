"""`evaluate`: score the images of folders, or of methods run on them, and say by which protocol."""

import csv
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastllie import markup
from fastllie.api import Enhancer
from fastllie.images.batches import to_batch
from fastllie.images.files import replacing
from fastllie.images.pairs import Key, naming
from fastllie.images.walk import images_below
from fastllie.methods import list_methods
from fastllie.metrics import METRICS, Metric, choose
from fastllie.metrics.planes import FilePath
from fastllie.terminal import Count, Counting, aligned, on_terminal

Method = str | Sequence[str] | Mapping[str, Callable[[Tensor], Tensor]]
INPUT = "input"  # the row of the images as they came


@dataclass(frozen=True)
class Row:
    """The values of one image.

    Attributes:
        method: What made it: a method, "input", or the path of the outputs.
        image: Its path below the folder, without suffix.
        values: Name of the metric -> value; one that could not be computed is absent.
    """

    method: str
    image: str
    values: dict[str, float]


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    Attributes:
        metrics: Those that were computed, with their labels.
        rows: One for each image and method, in order of the images.
        unmatched: Files that had no partner of the same name, each with what is missing; they are in no mean.
        failures: What could not be read or computed, each with the file and the reason.
        passed_over: What folders hold and was not read (unknown kinds, hidden files), counted by kind.
    """

    metrics: tuple[Metric, ...]
    rows: tuple[Row, ...]
    unmatched: tuple[str, ...]
    failures: tuple[str, ...]
    passed_over: tuple[str, ...] = ()

    @property
    def labels(self) -> dict[str, str]:
        """Name of each metric -> the protocol that its values hold for."""
        return {metric.name: metric.protocol for metric in self.metrics}

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Method -> metric -> number of images in the mean."""
        return {method: {name: len(found) for name, found in row.items()} for method, row in self._values()}

    @property
    def means(self) -> dict[str, dict[str, float]]:
        """Method -> metric -> mean over the images that have a value; without one the metric is absent."""
        return {
            method: {name: sum(found) / len(found) for name, found in row.items() if found}
            for method, row in self._values()
        }

    def _values(self) -> Iterable[tuple[str, dict[str, list[float]]]]:
        for method in dict.fromkeys(row.method for row in self.rows):
            rows = [row.values for row in self.rows if row.method == method]
            yield (
                method,
                {m.name: [row[m.name] for row in rows if m.name in row] for m in self.metrics},
            )

    def table(self) -> str:
        """The means, a row for each method, and below them what each column means."""
        meanings = aligned([(metric.name, metric.protocol) for metric in self.metrics])
        return "\n".join([*aligned(self._cells(), numbers=True), "", *meanings])

    def _repr_html_(self) -> str:
        meanings = [f"{metric.name}: {metric.protocol}" for metric in self.metrics]
        return markup.table(self._cells(), notes=[*meanings, *self.unmatched, *self.failures])

    def _cells(self) -> list[list[str]]:
        lines = [["method", "images", *(metric.name for metric in self.metrics)]]
        counts = self.counts
        for method, means in self.means.items():
            cells = [f"{means[m.name]:.{m.decimals}f}" if m.name in means else "-" for m in self.metrics]
            least, most = min(counts[method].values()), max(counts[method].values())
            lines.append([method, str(most) if least == most else f"{least} to {most}", *cells])
        return lines

    def write_csv(self, path: FilePath) -> None:
        """Write a line for each image, then the means (image "mean"); the labels head the columns. Atomic."""
        with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["method", "image", *(f"{m.name}: {m.protocol}" for m in self.metrics)])
            means = [Row(method, "mean", values) for method, values in self.means.items()]
            for row in (*self.rows, *means):
                values = (repr(row.values[m.name]) if m.name in row.values else "" for m in self.metrics)
                writer.writerow([row.method, row.image, *values])

    def write_json(self, path: FilePath) -> None:
        """Write labels, means, counts, values of each image, what was unmatched and what failed. Atomic.

        An infinite value (PSNR of equal images) is the string "inf": JSON has no number for it.
        """
        content = {
            "labels": self.labels,
            "means": {method: _plain(values) for method, values in self.means.items()},
            "counts": self.counts,
            "images": [
                {"method": row.method, "image": row.image, "values": _plain(row.values)} for row in self.rows
            ],
            "unmatched": self.unmatched,
            "passed_over": self.passed_over,
            "failures": self.failures,
        }
        with replacing(path) as temporary:
            temporary.write_text(
                json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
            )


def _plain(values: Mapping[str, float]) -> dict[str, float | str]:
    return {name: "inf" if value == float("inf") else value for name, value in values.items()}


def evaluate(
    output: FilePath | None = None,
    reference: FilePath | None = None,
    *,
    data: FilePath | None = None,
    method: Method | None = None,
    weights: FilePath | None = None,
    metrics: Sequence[str] | None = None,
    device: str | torch.device | None = None,
    niqe_model: FilePath | None = None,
    lpips_weights: tuple[FilePath, FilePath] | None = None,
    names: str | None = None,
    progress: Count | None = None,
    **options: Any,
) -> Evaluation:
    r"""Score images that are there, or what methods make of images, one by one and on average.

        evaluate("results/", "truth/")  # files of the same name, whatever their suffix
        evaluate("results/", "truth/", names=r"\d+")  # that share their first number
        evaluate("results/", data="low/")  # no references: by the metrics that need none
        evaluate(method=["zerodce", "sci.mild"], data="low/", reference="truth/")

    Files are read at their own depth. What a method makes is rounded to 8 bits before it is scored, as it
    would be in a file; the inputs are scored too, as a method called "input".

    Args:
        output: A folder of results (with the folders in it) or one file; not together with `method`.
        reference: What they should be: a folder with files of the same names (see `names`), or one file.
        data: What they are made from, likewise: needed by `method`, and by the metrics against the input.
        method: One of `list_methods()`, with a variant of weights after a dot where another than the default
            is meant; several of them; or names and callables, which get a float batch `[1, 3, H, W]` in
            [0, 1] on the device and give one of the same shape, say `{"mine": network}`.
        weights: As for `enhance`; for a single method.
        metrics: Names of `fastllie.metrics.METRICS`; None measures all usual ones that the images allow
            (LPIPS where its weights are given).
        device: Where to compute; None is CUDA if there is one, else the CPU.
        niqe_model: A pristine model for NIQE in place of the one that ships.
        lpips_weights: The two files that LPIPS needs, see `fastllie.metrics.lpips`.
        names: A rule for names that differ: a regular expression, whose first group (or all that it finds)
            the files of one image share. None pairs as `fastllie.train` does: by the names, or by the names
            without the words low, input, high, normal, gt and target at their ends.
        progress: Called with the number of images done and of all, before the first and after each; None
            shows a bar on a terminal and in a notebook.
        **options: The methods' own, as for `enhance`.

    Raises:
        TypeError: an option that a method does not have, arguments of the wrong type.
        ValueError: arguments that do not go together, an unknown method, variant or metric, a metric that
            needs images which are not given, a folder without images, two images of one name, no two of the
            same name, a device that is not there.
        FileNotFoundError: no such file or folder.
    """
    if (output is None) == (method is None):
        raise ValueError("evaluate wants either outputs or a method that makes them, not both and not none")
    if method is not None and data is None:
        raise ValueError("evaluate wants data, the images that the method is run on")
    if method is None and (weights is not None or options):
        extra = ", ".join(["weights"] * (weights is not None) + list(options))
        raise ValueError(f"{extra}: these go with a method, and outputs were given")
    device = _device(device)
    given = [name for name, images in (("reference", reference), ("input", data)) if images is not None]
    chosen = choose(metrics, given=given, niqe_model=niqe_model, lpips_weights=lpips_weights)
    if not chosen:
        raise ValueError(f"no metrics: name some of {', '.join(METRICS)}")
    makers = _makers(method, weights, device, options) if method is not None else {}
    folders = {"output": output, "input": data, "reference": reference}
    there = {role: Path(path) for role, path in folders.items() if path is not None}
    passed_over: list[str] = []
    jobs, unmatched = _jobs(there, names, passed_over)
    rows: list[Row] = []
    failures: list[str] = []
    with Counting("evaluating images", bar=progress is None and on_terminal()) as bar:
        count = bar if progress is None else progress
        count(0, len(jobs))
        for done, (image, paths) in enumerate(jobs.items(), 1):
            rows += _scored(image, paths, chosen, makers, str(output), device, failures)
            count(done, len(jobs))
    return Evaluation(tuple(chosen), tuple(rows), tuple(unmatched), tuple(failures), tuple(passed_over))


def _scored(
    image: str,
    paths: Mapping[str, Path],
    chosen: Sequence[Metric],
    makers: Mapping[str, Callable[[Tensor], Tensor]],
    given: str,
    device: torch.device,
    failures: list[str],
) -> list[Row]:
    """The rows of one image; none, and a failure, where it cannot be read."""
    try:
        planes = {role: _read(path, device) for role, path in paths.items()}
        _check_sizes(planes, paths)
    except (ImportError, OSError, TypeError, ValueError, RuntimeError, MemoryError) as error:
        failures.append(f"{image}: {error}")
        return []
    outputs = _outputs(planes, makers, given, image, device, failures)
    return [
        Row(name, image, _measure(chosen, y, planes, f"{image}: {name}", failures))
        for name, y in outputs.items()
    ]


def _outputs(
    planes: Mapping[str, Tensor],
    makers: Mapping[str, Callable[[Tensor], Tensor]],
    given: str,
    image: str,
    device: torch.device,
    failures: list[str],
) -> dict[str, Tensor]:
    """What is scored of one image: the output that is there, or the input and what each method makes."""
    if not makers:
        return {given: planes["output"]}
    x = planes["input"]
    outputs = {INPUT: x}
    for name, make in makers.items():
        try:
            with torch.no_grad():
                y = make(x.to(device, torch.float32)).to(x)
            if y.shape != x.shape:
                raise ValueError(f"made {tuple(y.shape)} of a batch {tuple(x.shape)}; wanted the same shape")
            if not y.isfinite().all():
                raise ValueError("made NaN or infinite values")
            # as a file would hold it
            outputs[name] = (y * 255 + 0.5).floor().clamp(0, 255).to(torch.uint8)
        except (TypeError, ValueError, RuntimeError, MemoryError) as error:
            failures.append(f"{image}: {name}: {error}")
    return outputs


def _measure(
    chosen: Sequence[Metric],
    y: Tensor,
    planes: Mapping[str, Tensor],
    where: str,
    failures: list[str],
) -> dict[str, float]:
    values = {}
    for metric in chosen:
        try:
            other = None if metric.against is None else planes[metric.against]
            values[metric.name] = float(metric(y, other))
        except (ValueError, RuntimeError, MemoryError) as error:
            failures.append(f"{where}: {metric.name}: {error}")
    return values


def _device(device: str | torch.device | None) -> torch.device:
    try:
        found = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=found)
    except (TypeError, RuntimeError, AssertionError) as error:
        raise ValueError(f"device {device!r} is not there: {str(error).splitlines()[0]}") from error
    return found


def _makers(
    method: Method, weights: FilePath | None, device: torch.device, options: dict[str, Any]
) -> dict[str, Callable[[Tensor], Tensor]]:
    """Name in the table -> what makes a batch of a batch."""
    if isinstance(method, Mapping):
        if weights is not None or options:
            raise ValueError("weights and options go with methods by name, not with callables")
        makers = dict(method)
    else:
        names = [method] if isinstance(method, str) else list(method)
        if weights is not None and len(names) > 1:
            raise ValueError(f"weights go with one method, and {len(names)} were given: {', '.join(names)}")
        makers = {}
        for name in names:
            stem, dot, variant = name.rpartition(".")
            named = bool(dot) and stem in list_methods()
            if named and weights is not None:
                raise ValueError(f"{name!r} names weights already, and weights={os.fspath(weights)!r} too")
            label = name if weights is None else f"{name} ({Path(weights).name})"
            if label in makers:
                raise ValueError(f"the method {name!r} was given twice")
            makers[label] = Enhancer(
                stem if named else name, weights=variant if named else weights, device=device, **options
            )
    if not makers:
        raise ValueError("no methods were given")
    if INPUT in makers:
        raise ValueError(f"a method may not be called {INPUT!r}: that is the row of the images themselves")
    return makers


def _read(path: Path, device: torch.device) -> Tensor:
    x = to_batch(path, dtype=torch.float64)[0]
    # mps has no float64, so the metrics are computed on the CPU
    return x if device.type == "mps" else x.to(device)


def _check_sizes(planes: Mapping[str, Tensor], paths: Mapping[str, Path]) -> None:
    sizes = {role: f"{x.shape[-1]}x{x.shape[-2]}" for role, x in planes.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(
            "the sizes differ: " + ", ".join(f"{paths[role]} has {size}" for role, size in sizes.items())
        )


def _jobs(
    given: Mapping[str, Path], names: str | None, passed_over: list[str]
) -> tuple[dict[str, dict[str, Path]], list[str]]:
    """Name of each image that every folder has -> role -> file; and the files that have no partner."""
    for path in given.values():
        if not path.exists():
            raise FileNotFoundError(f"no such file or folder: {os.fspath(path)!r}")
    if len({path.is_dir() for path in given.values()}) > 1:
        kinds = (
            f"{os.fspath(path)!r} is a {'folder' if path.is_dir() else 'file'}" for path in given.values()
        )
        raise ValueError(f"wanted all files or all folders, but {', '.join(kinds)}")
    first = next(iter(given.values()))
    if not first.is_dir():
        return {first.stem: dict(given)}, []
    found = {role: images_below(folder, passed_over) for role, folder in given.items()}
    key = naming([list(images) for images in found.values()], names)
    sides = {role: _keyed(images, key) for role, images in found.items()}
    jobs, unmatched = {}, []
    for shared in dict.fromkeys(shared for side in sides.values() for shared in side):
        here = {role: side[shared] for role, side in sides.items() if shared in side}
        if len(here) == len(given):
            jobs[_name(here[next(iter(given))], first)] = here
        else:
            missing = " and ".join(f"no {role} in {given[role]}" for role in given if role not in here)
            unmatched.append(f"{next(iter(here.values()))}: {missing}")
    for path in (path for images in found.values() for name, path in images.items() if key(name) is None):
        unmatched.append(f"{path}: the rule for names finds nothing in its name")
    if not jobs:
        folders = " and ".join(repr(os.fspath(path)) for path in given.values())
        raise ValueError(
            f"no image has the same name in {folders}; names=, --names, is a rule for names that differ"
        )
    return jobs, unmatched


def _keyed(images: Mapping[str, Path], key: Key) -> dict[str, Path]:
    """What a name shares with its partners -> file."""
    keyed: dict[str, Path] = {}
    for name, path in images.items():
        shared = key(name)
        if shared is None:
            continue
        if shared in keyed:
            raise ValueError(f"{keyed[shared]} and {path} have the same name: which of them is meant?")
        keyed[shared] = path
    return keyed


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()
