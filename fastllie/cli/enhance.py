"""`fastllie enhance`."""

import argparse
from collections.abc import Callable
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
    add_options,
    add_weights,
    complain,
    given,
    options,
)
from fastllie.defaults import PNG_LEVEL, QUALITY

if TYPE_CHECKING:
    from fastllie import FolderResult
    from fastllie.folders import Failure


def register(verbs: Any) -> None:
    enhance = verbs.add_parser("enhance", help="brighten images, videos, folders and globs")
    add = enhance.add_argument
    add("inputs", nargs="+", metavar="IN", help="files, folders (recursive) or globs")
    add("-o", "--output", required=True, metavar="OUT", help="a folder; or a file, for one input file")
    add("--method", default="zerodce", help="see `fastllie methods` (default: %(default)s)")
    add_weights(enhance)
    add_device(enhance)
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
    add("--quality", type=int, metavar="Q", help=f"of JPEG and WebP (default: {QUALITY})")
    level = f"of PNG, 0 (large, fast) to 9 (small, slow) (default: {PNG_LEVEL})"
    add("--png-level", type=int, metavar="L", help=level)
    enhance.set_defaults(run=run)


def _tile(text: str) -> int | str | None:
    if text in ("auto", "none"):
        return None if text == "none" else text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number of pixels, auto or none, not {text!r}") from None


def run(arguments: argparse.Namespace) -> int:
    settings = {
        "weights": arguments.weights,
        "device": arguments.device,
        "tile": arguments.tile,
        **options(arguments.option),
    }
    function = _function(arguments)
    try:
        kind = fastllie.cluster.LazyEnhancer if arguments.ray else fastllie.Enhancer
        enhancer = kind(arguments.method, strength=arguments.strength, **settings)
        fastllie.video.Steady(arguments.smooth)
    except (TypeError, ValueError, FileNotFoundError) as error:
        raise UsageError(str(error)) from error
    bar = Progress()

    def advance(finished: int, total: int, failure: "Failure | None") -> None:
        if failure is not None:
            bar.clear()
            complain("enhance", failure)
        bar.advance(total)

    video = partial(_enhance_video, arguments, settings)
    try:
        with bar:
            result = function(
                arguments.inputs,
                arguments.output,
                enhancer,
                compare=arguments.compare,
                overwrite=arguments.overwrite,
                progress=advance,
                others=dict.fromkeys(fastllie.video.SUFFIXES, video),
                **given(arguments, "quality", "png_level"),
            )
    except (TypeError, ValueError, ImportError, ConnectionError) as error:
        raise UsageError(str(error)) from error
    except KeyboardInterrupt:
        complain("enhance", "stopped; the same command does the rest")
        raise
    if len(result.done) != 1 or result.skipped or result.failed:
        hint = " (--overwrite makes the skipped ones again)" if result.skipped else ""
        complain("enhance", f"{result}{hint}")
    return FAILED if result.failed else OK


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


def _enhance_video(
    arguments: argparse.Namespace, settings: dict[str, Any], source: Path, target: Path
) -> None:
    """Brighten one video; what could not be kept as it was is named on stderr."""
    if arguments.compare:
        raise ValueError("--compare is for images")
    target.parent.mkdir(parents=True, exist_ok=True)
    with Progress() as bar:
        result = fastllie.enhance_video(
            source,
            target,
            arguments.method,
            strength=arguments.strength,
            smooth=arguments.smooth,
            crf=arguments.crf,
            progress=lambda done, total: bar.advance(total),
            **settings,
        )
    for line in (*(f"dropped {line}" for line in result.dropped), *result.notes):
        complain("enhance", f"{source}: {line}")
