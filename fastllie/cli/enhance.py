"""`fastllie enhance`."""

import argparse
import glob
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fastllie
from fastllie.cli.common import (
    FAILED,
    OK,
    Progress,
    UsageError,
    add_device,
    add_json,
    add_options,
    add_weights,
    check_method,
    complain,
    given,
    options,
    print_json,
)
from fastllie.defaults import METHOD, MOST_PIXELS, PNG_LEVEL, QUALITY

if TYPE_CHECKING:
    from fastllie import FolderResult
    from fastllie.folders import Failure


DTYPES = ("float32", "bfloat16", "float16", "float64")  # the first is what is computed in without a flag


def register(verbs: Any) -> None:
    enhance = verbs.add_parser("enhance", help="brighten images, videos, folders and globs")
    add = enhance.add_argument
    add("inputs", nargs="+", metavar="IN", help="files, folders (recursive) or globs; - is one from stdin")
    output = "a folder, or a file for one input file, or - for stdout (default: IN-bright, beside IN)"
    add("-o", "--output", metavar="OUT", help=output)
    add("--method", help=f"see `fastllie methods` (default: that of the weights, or {METHOD})")
    add_weights(enhance)
    add_device(enhance)
    computes = "what is computed in; `fastllie benchmark` tells which is faster here (default: %(default)s)"
    add("--dtype", choices=DTYPES, default=DTYPES[0], help=computes)
    add("--strength", type=float, default=1.0, help="0 (the input) to 1 (default: 1)")
    add("--tile", type=_tile, default="auto", help="pixels, auto or none (default: auto)")
    add_options(enhance)
    smooth = "of videos, against flicker: 0 (none) to below 1, say 0.8"
    add("--smooth", type=float, default=0.0, help=smooth)
    add("--crf", type=float, help="of videos, their quality: lower is better, 18 by default")
    add("--compare", action="store_true", help="write the input and the result side by side")
    add("--overwrite", action="store_true", help="write also what is there already")
    workers = "threads that decode and write (default: one for each core)"
    add("--workers", type=int, metavar="N", help=workers)
    ray = "spread the files over a Ray cluster, or over Ray's workers here"
    add("--ray", action="store_true", help=ray)
    address = "auto, host:6379, ... (default: one that Ray finds, or begins)"
    add("--ray-address", metavar="A", help=address)
    add("--ray-workers", type=int, metavar="N", help="files at once (default: the cluster's CPUs)")
    add("--ray-gpus", type=float, metavar="G", help="GPUs of a worker, such as 0.25: four share one")
    quality = f"of lossy formats (default: that of the JPEG that it was; {QUALITY} for what was no JPEG)"
    add("--quality", type=int, metavar="Q", help=quality)
    level = f"of PNG, 0 (large, fast) to 9 (small, slow) (default: {PNG_LEVEL})"
    add("--png-level", type=int, metavar="L", help=level)
    kinds = "of the results, such as png (default: that of each input; tif for camera raw)"
    add("--format", metavar="F", help=kinds)
    links = "look also into folders that are links, each once (default: yes)"
    add("--follow", action=argparse.BooleanOptionalAction, default=None, help=links)
    add("--hidden", action="store_true", default=None, help="take also what begins with a dot")
    pixels = f"of one picture (default: {MOST_PIXELS})"
    add("--max-pixels", type=int, metavar="N", help=pixels)
    white = "the value of white of 16-bit files, such as 4095; or auto (default: what the file says)"
    add("--white-level", type=_white, metavar="W", help=white)
    add_json(enhance)
    enhance.set_defaults(run=run)


def _tile(text: str) -> int | str | None:
    if text in ("auto", "none"):
        return None if text == "none" else text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number of pixels, auto or none, not {text!r}") from None


def _white(text: str) -> int | str:
    try:
        return text if text == "auto" else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number or auto, not {text!r}") from None


def run(arguments: argparse.Namespace) -> int:
    _check(arguments)
    if not arguments.json and not any(map(_may_be_there, arguments.inputs)):
        for name in arguments.inputs:
            complain("enhance", f"{name}: no such image file: {name!r}")
        return FAILED
    # -v tells of each file
    silent = arguments.quiet or arguments.verbose > 0
    with _pipes(arguments) as (inputs, output), Progress(quiet=silent) as bar:
        bar.begin("starting")
        code = _enhance(arguments, inputs, output, bar)
        if code == OK and arguments.output is None and arguments.inputs != ["-"] and not arguments.quiet:
            changed = os.path.isfile(output) and Path(output).suffix != Path(inputs[0]).suffix
            why = f" ({Path(inputs[0]).suffix} is read only)" if changed and not arguments.format else ""
            complain("enhance", f"wrote {output}{why}")
    return code


def _check(arguments: argparse.Namespace) -> None:
    """Refuse what can be known to be wrong before PyTorch is loaded, which takes a second."""
    if arguments.method:
        check_method(arguments.method, options(arguments))
    if "-" in arguments.inputs and arguments.inputs != ["-"]:
        raise UsageError("- is stdin, and goes alone")
    pattern = glob.has_magic(arguments.inputs[0]) and not os.path.exists(arguments.inputs[0])
    if arguments.output is None and (len(arguments.inputs) > 1 or pattern):
        raise UsageError("-o is missing: several inputs want a folder")
    if arguments.output == "-" and (len(arguments.inputs) > 1 or os.path.isdir(arguments.inputs[0])):
        raise UsageError("-o - is stdout, for one input file")
    if arguments.output == "-" and arguments.json:
        raise UsageError("-o - and --json both want stdout")


def _may_be_there(name: str) -> bool:
    """Whether it is worth the second that PyTorch takes to look for this input."""
    return name == "-" or os.path.lexists(name) or glob.has_magic(name)


@contextmanager
def _pipes(arguments: argparse.Namespace) -> Iterator[tuple[list[str], str]]:
    """The inputs and the output as paths; stdin and stdout by way of a folder that goes away."""
    inputs, output = arguments.inputs, arguments.output
    if output is None and inputs != ["-"]:
        path = Path(inputs[0])
        if path.name in ("", ".."):
            # . and .. have a name too, beside which the result goes
            path = path.resolve()
        suffix = _suffix_of_result(path, arguments.format)
        yield inputs, str(path.with_name(f"{path.stem}-bright{suffix}") if path.name else path / "bright")
        return
    with tempfile.TemporaryDirectory(prefix="fastllie-") as folder:
        if inputs == ["-"]:
            inputs = [_from_stdin(Path(folder))]
        if output not in (None, "-"):
            yield inputs, output
            return
        result = Path(folder, f"out{_suffix_of_result(Path(inputs[0]), arguments.format)}")
        yield inputs, str(result)
        if result.is_file():
            sys.stdout.buffer.write(result.read_bytes())
            sys.stdout.buffer.flush()


def _suffix_of_result(path: Path, format: str | None) -> str:
    """The suffix of the result where no output is given; of what is only read, that of another kind."""
    from fastllie.folders import suffix_of_result

    if path.is_dir():
        return path.suffix
    try:
        suffix = suffix_of_result(path, format or "")
    except ValueError as error:
        raise UsageError(str(error)) from error
    if suffix == path.suffix.lower():
        suffix = fastllie.video.suffix_of_result(path)
    return path.suffix if suffix == path.suffix.lower() else suffix


def _from_stdin(folder: Path) -> str:
    """What comes on stdin, in a file with the suffix of its kind."""
    from fastllie.folders import suffix_of_content

    content = sys.stdin.buffer.read()
    suffix = suffix_of_content(content)
    if not suffix:
        raise UsageError(f"stdin: {len(content)} bytes that are no image that can be read")
    path = folder / f"stdin{suffix}"
    path.write_bytes(content)
    return str(path)


def _enhance(arguments: argparse.Namespace, inputs: Sequence[str], output: str, bar: Progress) -> int:
    import torch

    settings = {
        "weights": arguments.weights,
        "device": arguments.device,
        "dtype": getattr(torch, arguments.dtype),
        "tile": arguments.tile,
        **given(arguments, "white_level"),
        **options(arguments),
    }
    function = _function(arguments)
    try:
        arguments.method = arguments.method or _method_of(arguments.weights)
        kind = fastllie.cluster.LazyEnhancer if arguments.ray else fastllie.Enhancer
        enhancer = kind(arguments.method, strength=arguments.strength, **settings)
        fastllie.video.Steady(arguments.smooth)
    except (TypeError, ValueError, FileNotFoundError) as error:
        raise UsageError(str(error)) from error

    def advance(finished: int, total: int, failure: "Failure | None") -> None:
        if failure is not None:
            bar.clear()
            complain("enhance", failure)
        bar.advance(total)

    video = _Video(arguments, settings, bar)
    try:
        result = function(
            inputs,
            output,
            enhancer,
            compare=arguments.compare,
            overwrite=arguments.overwrite,
            progress=advance,
            others=dict.fromkeys(fastllie.video.suffixes_among(inputs, output), video),
            **given(arguments, "quality", "png_level", "format", "follow", "hidden", "max_pixels"),
        )
    except (TypeError, ValueError, ImportError, ConnectionError) as error:
        raise UsageError(str(error)) from error
    except KeyboardInterrupt:
        bar.clear()
        complain("enhance", "stopped; the same command does the rest")
        raise
    bar.clear()
    if not arguments.quiet and not arguments.json:
        for note in result.notes:
            complain("enhance", note)
    if arguments.json:
        print_json({**asdict(result), "failed": [_named(failure) for failure in result.failed]})
    elif not arguments.quiet and (
        len(result.done) != 1 or result.skipped or result.failed or result.passed_over
    ):
        hint = " (--overwrite makes the skipped ones again)" if result.skipped else ""
        complain("enhance", f"{result}{hint}")
    return FAILED if result.failed else OK


def _method_of(weights: str | None) -> str:
    """The method of weights, by the name of a variant that one method has or by what is in a file."""
    if weights is None:
        return METHOD
    having: list[str] = [
        name
        for name in fastllie.list_methods()
        if any(variant.name == weights for variant in fastllie.info(name).weights)
    ]
    from fastllie.checkpoint import methods_of, parted

    if not having and parted(weights)[0].is_file():
        having = methods_of(Path(weights))
    return having[0] if len(having) == 1 else METHOD


def _named(failure: "Failure") -> dict[str, str]:
    return {"source": str(failure.source), "error": str(failure.error)}


def _function(arguments: argparse.Namespace) -> Callable[..., "FolderResult"]:
    """What does the folder: here, or on Ray; with the flags that only one of the two knows."""
    on_ray = {
        "--ray-address": arguments.ray_address,
        "--ray-workers": arguments.ray_workers,
        "--ray-gpus": arguments.ray_gpus,
    }
    if not arguments.ray:
        for flag, value in on_ray.items():
            if value is not None:
                raise UsageError(f"{flag} goes with --ray")
        return partial(fastllie.enhance_folder, workers=arguments.workers)
    if arguments.workers is not None:
        raise UsageError("--workers are the threads of this machine; with --ray it is --ray-workers")
    address, workers, gpus = on_ray.values()
    return partial(fastllie.cluster.enhance_folder, address=address, workers=workers, gpus=gpus)


@dataclass(frozen=True)
class _Video:
    """Brightens one video; what could not be kept as it was is named on stderr."""

    arguments: argparse.Namespace
    settings: dict[str, Any]
    bar: Progress  # of the files, which makes room for that of the frames

    @property
    def made_by(self) -> dict[str, Any]:
        """What its results depend on besides what those of images do."""
        return {"smooth": self.arguments.smooth, "crf": self.arguments.crf}

    def __call__(self, source: Path, target: Path) -> None:
        arguments = self.arguments
        if arguments.compare:
            raise ValueError("--compare is for images")
        target.parent.mkdir(parents=True, exist_ok=True)
        self.bar.clear()
        with Progress(quiet=arguments.quiet) as bar:
            result = fastllie.enhance_video(
                source,
                target,
                arguments.method,
                strength=arguments.strength,
                smooth=arguments.smooth,
                crf=arguments.crf,
                progress=lambda done, total: bar.advance(total),
                **self.settings,
            )
        notes = (*(f"dropped {line}" for line in result.dropped), *result.notes)
        for line in () if arguments.quiet else notes:
            complain("enhance", f"{source}: {line}")
