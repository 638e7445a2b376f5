"""The command `fastllie`: a thin layer over the public functions."""

import argparse
import difflib
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fastllie
from fastllie.images.files import PNG_LEVEL, QUALITY

if TYPE_CHECKING:
    from fastllie.benchmarking.timing import Case
    from fastllie.folders.jobs import Failure
    from fastllie.folders.work import FolderResult

OK, FAILED, USAGE = 0, 1, 2
BAR = 30
FIELD = "recipe field "  # before the name of a recipe's field in the parsed arguments
BAR_AFTER = 1.0  # seconds


class UsageError(Exception):
    """The command line asks for something that cannot be meant; nothing was done."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 1 (some of it failed) or 2 (a wrong command line)."""
    words = sys.argv[1:] if argv is None else list(argv)
    parser = _parser(words[0] if words else "")
    arguments, unknown = parser.parse_known_args(words)
    if unknown:
        _refuse(parser, arguments.verb, unknown)
    try:
        return arguments.run(arguments)
    except UsageError as error:
        print(f"fastllie {arguments.verb}: {error}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        return 130


def _refuse(parser: argparse.ArgumentParser, verb: str, unknown: Sequence[str]) -> None:
    """End with what was not understood, and the flags that may have been meant."""
    flags = [flag for action in _verbs(parser)[verb]._actions for flag in action.option_strings]
    told = []
    for word in unknown:
        close = difflib.get_close_matches(word.split("=")[0], flags) if word.startswith("-") else []
        told.append(word + (f" (did you mean {' or '.join(close)}?)" if close else ""))
    _verbs(parser)[verb].error("unrecognized arguments: " + ", ".join(told))


def _verbs(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    actions = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return actions[0].choices


def _parser(chosen: str) -> argparse.ArgumentParser:
    """The parser; the verb that is `chosen` gets the flags that take time to find out."""
    parser = argparse.ArgumentParser(prog="fastllie", description="Brighten dark photographs.")
    parser.add_argument("--version", action="version", version=f"fastllie {fastllie.__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    enhance = verbs.add_parser("enhance", help="brighten images, videos, folders and globs")
    enhance.add_argument("inputs", nargs="+", metavar="IN", help="files, folders (recursive) or globs")
    enhance.add_argument(
        "-o", "--output", required=True, metavar="OUT", help="a folder; or a file, for one input file"
    )
    enhance.add_argument("--method", default="zerodce", help="see `fastllie methods` (default: %(default)s)")
    enhance.add_argument("--weights", help="a variant's name, or a .safetensors, .pth or .pt file")
    enhance.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: CUDA where there is one)")
    enhance.add_argument("--strength", type=float, default=1.0, help="0 (the input) to 1 (default: 1)")
    enhance.add_argument("--tile", type=_tile, default="auto", help="pixels, auto or none (default: auto)")
    enhance.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of the method, such as scale=12 for zerodce++; may be repeated",
    )
    enhance.add_argument(
        "--smooth", type=float, default=0.0, help="of videos, against flicker: 0 (none) to below 1, say 0.8"
    )
    enhance.add_argument("--crf", type=float, help="of videos, their quality: lower is better, 18 by default")
    enhance.add_argument("--compare", action="store_true", help="write the input and the result side by side")
    enhance.add_argument("--overwrite", action="store_true", help="write also what is there already")
    enhance.add_argument(
        "--workers", type=int, metavar="N", help="threads that decode and write (default: one for each core)"
    )
    enhance.add_argument(
        "--ray", action="store_true", help="spread the files over a Ray cluster, or over Ray's workers here"
    )
    enhance.add_argument(
        "--ray-address",
        metavar="A",
        help="auto, host:6379, ... (default: one that Ray finds, or begins)",
    )
    enhance.add_argument(
        "--ray-workers", type=int, metavar="N", help="files at once (default: the cluster's CPUs)"
    )
    enhance.add_argument(
        "--ray-gpus",
        type=float,
        metavar="G",
        help="GPUs of a worker, such as 0.25: four share one",
    )
    enhance.add_argument(
        "--quality", type=int, default=QUALITY, metavar="Q", help="of JPEG and WebP (default: %(default)s)"
    )
    enhance.add_argument(
        "--png-level",
        type=int,
        default=PNG_LEVEL,
        metavar="L",
        help="of PNG, 0 (large, fast) to 9 (small, slow) (default: %(default)s)",
    )
    enhance.set_defaults(run=_enhance)

    for verb, text in (("train", "train a method on your photographs"), ("finetune", "go on from weights")):
        weights = " --weights W" if verb == "finetune" else ""
        # without its own usage, every error would begin with all the fields of the recipes
        usage = f"fastllie {verb} METHOD DATA{weights} -o RUN [options]"
        learn = verbs.add_parser(verb, help=text, usage=usage, allow_abbrev=False)
        learn.add_argument("method", nargs="?", metavar="METHOD", help="see `fastllie methods`")
        learn.add_argument(
            "data",
            nargs="?",
            metavar="DATA",
            help="a folder of photographs, searched with its folders, or a glob",
        )
        learn.add_argument("-o", "--output", required=True, metavar="RUN", help="the folder to write to")
        learn.add_argument(
            "--config", metavar="TOML", help="settings from a file, say the config.toml of a run; flags win"
        )
        _add_settings(learn, verb)
        learn.set_defaults(run=_learn)
        if verb == chosen:
            _add_recipe_fields(learn)

    methods = verbs.add_parser("methods", help="list the methods, or tell all about some")
    methods.add_argument("names", nargs="*", metavar="METHOD")
    methods.set_defaults(run=_methods)

    doctor = verbs.add_parser("doctor", help="versions, backends, and whether the kernels are right")
    doctor.set_defaults(run=_doctor)

    evaluate = verbs.add_parser(
        "evaluate",
        help="score results, or methods, against references and inputs",
        usage="fastllie evaluate [-h] PRED [GT] [--data LOW] [...]\n"
        "       fastllie evaluate --method METHOD [--method ...] --data LOW [GT] [...]",
        description="Images are matched by name, whatever their suffix. docs/metrics.md defines the metrics.",
    )
    evaluate.add_argument("images", nargs="*", metavar="PRED [GT]", help="results and references")
    evaluate.add_argument(
        "--data",
        nargs="+",
        metavar=("LOW", "GT"),
        help="the images that results are made from (and references)",
    )
    evaluate.add_argument(
        "--method",
        action="append",
        help="run this on LOW and score it, sci.mild: with these weights, see `fastllie methods`; may be"
        " repeated",
    )
    evaluate.add_argument("--weights", help="a variant's name, or a file, for one --method")
    evaluate.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="an option of the methods"
    )
    evaluate.add_argument(
        "--metrics", metavar="NAME,...", help="by name (default: all that the images allow)"
    )
    evaluate.add_argument("--niqe-model", metavar="FILE", help="a pristine model in place of ours")
    evaluate.add_argument(
        "--lpips-weights", nargs=2, metavar=("FEATURES", "LINEAR"), help="the two files that LPIPS needs"
    )
    evaluate.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: CUDA where there is one)")
    evaluate.add_argument("--csv", metavar="FILE", help="write the values of each image, and the means")
    evaluate.add_argument("--json", metavar="FILE", help="write the same with the labels and what failed")
    evaluate.set_defaults(run=_evaluate)

    _add_benchmark(verbs)

    export = verbs.add_parser("export", help="write a network as ONNX or torch.export, and check the file")
    export.add_argument("method", metavar="METHOD", help="see `fastllie methods`")
    export.add_argument("-o", "--output", required=True, metavar="FILE", help="ends in .onnx or .pt2")
    export.add_argument("--weights", help="a variant's name, or a .safetensors, .pth or .pt file")
    export.add_argument("--dtype", default="float32", help="float32 or float16 (default: %(default)s)")
    export.add_argument("--uint8", action="store_true", help="bytes in and out instead of floats in [0, 1]")
    export.add_argument("--opset", type=int, help="ONNX's (default: what this version of torch prefers)")
    export.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="an option of the method"
    )
    export.set_defaults(run=_export)

    demo = verbs.add_parser(
        "demo",
        help="a page in the browser: before and after, all methods",
        description="A page to try the methods on, for the browser of this machine. Photographs leave the"
        " machine with --share alone.",
    )
    demo.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets others in (default: %(default)s)")
    demo.add_argument("--port", type=int, default=7860, help="0 is any free one (default: %(default)s)")
    demo.add_argument(
        "--share",
        action="store_true",
        help="ask Gradio's servers for a public address; all photographs then go through them (default: no)",
    )
    demo.add_argument("--samples", metavar="FOLDER", help="photographs to pick from (default: ours)")
    demo.add_argument(
        "--open", action=argparse.BooleanOptionalAction, default=False, help="open the browser (default: no)"
    )
    demo.set_defaults(run=_demo)
    return parser


def _add_benchmark(verbs: Any) -> None:
    benchmark = verbs.add_parser(
        "benchmark",
        help="how fast the methods are here, beside PyTorch, ONNX Runtime and OpenVINO",
        description="Times methods on this machine beside what would be run without fastllie. All take turns;"
        " results are compared. Who is not installed, would take too long or too much memory is left out and"
        " named. docs/performance.md says how to read it.",
    )
    add = benchmark.add_argument
    add("--method", nargs="+", default=["zerodce"], metavar="M", help="some, or all (default: zerodce)")
    add("--weights", help="a variant's name, or a file, for one method")
    add(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of the methods, such as scale=12 for zerodce++; may be repeated",
    )
    add("--size", nargs="+", metavar="WxH", help="width x height (default: 600x400 1920x1080)")
    add("--batch", nargs="+", type=int, metavar="N", help="images at once (default: 1)")
    add("--dtype", default="float32", help="float32, bfloat16 or float16 (default: %(default)s)")
    add("--device", help="cpu, cuda, cuda:1, ... (default: CUDA where there is one)")
    add("--rounds", type=int, metavar="N", help="turns at most (default: 15)")
    add(
        "--seconds",
        type=float,
        metavar="S",
        help="for the turns of each contender at each size; who cannot do three in that is left out, ours in"
        " three times that (default: 4)",
    )
    add(
        "--against",
        nargs="*",
        metavar="NAME",
        help="eager, channels_last, compile, onnxruntime, openvino, or nothing (default: all that are here)",
    )
    add("--json", metavar="FILE", help="write the figures, and what the machine is")
    benchmark.set_defaults(run=_benchmark)


def _benchmark(arguments: argparse.Namespace) -> int:
    _check_writable(arguments.json)
    given = {
        "sizes": arguments.size,
        "batches": arguments.batch,
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
    }
    bar = Progress(0)

    def advance(done: int, total: int, case: "Case") -> None:
        bar.clear()
        _say(case.table() + "\n")
        bar.total = total
        bar.advance()

    try:
        result = fastllie.benchmark(
            arguments.method,
            dtype=arguments.dtype,
            device=arguments.device,
            weights=arguments.weights,
            against=arguments.against,
            progress=advance,
            **{name: value for name, value in given.items() if value is not None},
            **_options(arguments.option),
        )
    except (TypeError, ValueError, OSError) as error:
        raise UsageError(str(error)) from error
    finally:
        bar.clear()
    print(result.about)
    for line in result.wrong:
        print(f"fastllie benchmark: {line}", file=sys.stderr)
    try:
        if arguments.json:
            result.write_json(arguments.json)
    except OSError as error:
        print(f"fastllie benchmark: {error}", file=sys.stderr)
        return FAILED
    return FAILED if result.wrong else OK


def _check_writable(*paths: str | None) -> None:
    """Raise now, and not when all is computed, for what cannot be written."""
    for path in filter(None, paths):
        if Path(path).is_dir() or not Path(path).absolute().parent.is_dir():
            raise UsageError(f"cannot write {path!r}: it is a folder, or its folder does not exist")


def _demo(arguments: argparse.Namespace) -> int:
    from fastllie.demo.page import serve

    try:
        serve(
            arguments.host,
            arguments.port,
            share=arguments.share,
            samples=arguments.samples,
            open_browser=arguments.open,
        )
    except (TypeError, ValueError, FileNotFoundError, ImportError) as error:
        raise UsageError(str(error)) from error
    except (OSError, RuntimeError) as error:
        print(f"fastllie demo: {error}", file=sys.stderr)
        return FAILED
    return OK


def _export(arguments: argparse.Namespace) -> int:
    try:
        result = fastllie.export(
            arguments.method,
            arguments.output,
            weights=arguments.weights,
            dtype=arguments.dtype,
            uint8=arguments.uint8,
            opset=arguments.opset,
            **_options(arguments.option),
        )
    except (TypeError, ValueError, OSError, ImportError) as error:
        raise UsageError(str(error)) from error
    except RuntimeError as error:
        print(f"fastllie export: {error}", file=sys.stderr)
        return FAILED
    print(result)
    return OK


def _tile(text: str) -> int | str | None:
    if text in ("auto", "none"):
        return None if text == "none" else text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number of pixels, auto or none, not {text!r}") from None


def _options(pairs: Sequence[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise UsageError(f"--option wants NAME=VALUE, got {pair!r}")
        if value.lower() in ("true", "false"):
            options[name] = value.lower() == "true"
            continue
        try:
            options[name] = int(value)
        except ValueError:
            options[name] = value
    return options


def _enhance(arguments: argparse.Namespace) -> int:
    settings = {
        "weights": arguments.weights,
        "device": arguments.device,
        "tile": arguments.tile,
        **_options(arguments.option),
    }
    run = _folder_function(arguments)
    try:
        kind = fastllie.cluster.LazyEnhancer if arguments.ray else fastllie.Enhancer
        enhancer = kind(arguments.method, strength=arguments.strength, **settings)
        fastllie.video.Steady(arguments.smooth)
    except (TypeError, ValueError, FileNotFoundError) as error:
        raise UsageError(str(error)) from error
    bar = Progress(0)

    def advance(finished: int, total: int, failure: "Failure | None") -> None:
        if failure is not None:
            bar.clear()
            print(f"fastllie enhance: {failure}", file=sys.stderr)
        bar.total = total
        bar.advance()

    video = partial(_enhance_video, arguments, settings)
    try:
        result = run(
            arguments.inputs,
            arguments.output,
            enhancer,
            compare=arguments.compare,
            overwrite=arguments.overwrite,
            quality=arguments.quality,
            png_level=arguments.png_level,
            progress=advance,
            others=dict.fromkeys(fastllie.video.SUFFIXES, video),
        )
    except (TypeError, ValueError, ImportError, ConnectionError) as error:
        raise UsageError(str(error)) from error
    except KeyboardInterrupt:
        bar.clear()
        print("fastllie enhance: stopped; the same command does the rest", file=sys.stderr)
        raise
    bar.clear()
    if len(result.done) != 1 or result.skipped or result.failed:
        hint = " (--overwrite makes the skipped ones again)" if result.skipped else ""
        print(f"fastllie enhance: {result}{hint}", file=sys.stderr)
    return FAILED if result.failed else OK


def _folder_function(arguments: argparse.Namespace) -> Callable[..., "FolderResult"]:
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
    """Brighten one video; what could not be kept as it was is told on stderr."""
    if arguments.compare:
        raise ValueError("--compare is for images")
    bar: list[Progress] = []

    def advance(done: int, total: int | None) -> None:
        if total and not bar:
            bar.append(Progress(total))
        for shown in bar:
            shown.advance()

    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        result = fastllie.enhance_video(
            source,
            target,
            arguments.method,
            strength=arguments.strength,
            smooth=arguments.smooth,
            crf=arguments.crf,
            progress=advance,
            **settings,
        )
    finally:
        for shown in bar:
            shown.clear()
    for line in (*(f"dropped {line}" for line in result.dropped), *result.notes):
        print(f"fastllie enhance: {source}: {line}", file=sys.stderr)


class Progress:
    """A bar on stderr that appears once the work takes over a second, and only on a terminal."""

    def __init__(self, total: int):
        self.total = total
        self.done = 0
        self.start = time.monotonic()
        self.shown = False

    def advance(self) -> None:
        self.done += 1
        passed = time.monotonic() - self.start
        if passed < BAR_AFTER or not sys.stderr.isatty():
            return
        rate = self.done / passed
        left = (self.total - self.done) / rate
        filled = "#" * (BAR * self.done // self.total)
        print(
            f"\r[{filled:<{BAR}}] {self.done}/{self.total}, {rate:.1f}/s, {left:.0f} s left ",
            end="",
            file=sys.stderr,
            flush=True,
        )
        self.shown = True

    def clear(self) -> None:
        if self.shown:
            print("\r" + " " * (BAR + 50) + "\r", end="", file=sys.stderr, flush=True)
            self.shown = False


def _add_settings(parser: argparse.ArgumentParser, verb: str) -> None:
    """The flags of a run that are no fields of its recipe; what is not given is left to `fastllie.train`."""
    group = parser.add_argument_group("the run")

    def add(flag: str, **settings: Any) -> None:
        group.add_argument(flag, default=argparse.SUPPRESS, **settings)

    if verb == "finetune":
        add("--weights", help="a variant's name, or a file; needed here or in the file of settings")
    add("--recipe", help='by name (default: "official", what the published code does)')
    add("--target", metavar="DATA", help="what the photographs in DATA should become")
    add("--normal", metavar="DATA", help="photographs in normal light, no pairs of those in DATA")
    add("--paired", action=argparse.BooleanOptionalAction, help="whether the two sides are pairs")
    add("--validation", type=_validation, metavar="SHARE|DATA", help="held out (default: 0.05 from 40 on)")
    add("--seed", type=int)
    add("--device", help="cpu, cuda, cuda:1, ... (default: CUDA where there is one)")
    add("--every", type=int, help="steps between checkpoints (default: 200)")
    add("--log-every", type=int, help="steps between entries of the logs (default: 10)")
    add("--validate-every", type=int, help="steps between validations (default: as --every)")
    add("--cache", metavar="FOLDER", help="for decoded photographs, shared by all runs")
    add("--tensorboard", action="store_true", help="also write for TensorBoard")


def _validation(text: str) -> float | str | None:
    try:
        return float(text)
    except ValueError:
        return None if text == "none" else text


def _add_recipe_fields(parser: argparse.ArgumentParser) -> None:
    from fastllie.training.recipes.overrides import field_names, value_of

    group = parser.add_argument_group("the recipe", "fields of the recipe, see fastllie.training.recipes")
    for name in field_names():
        flag = "--" + name.replace("_", "-")
        group.add_argument(flag, type=value_of, dest=FIELD + name, default=argparse.SUPPRESS, metavar="VALUE")


def _learn(arguments: argparse.Namespace) -> int:
    from fastllie.training.heap import keep_heap
    from fastllie.training.recipes.config import read_config
    from fastllie.training.recipes.overrides import merged, nested
    from fastllie.training.trainer import Interrupted

    given = {name: value for name, value in vars(arguments).items() if name not in ("verb", "run", "config")}
    fields = nested(
        {name.removeprefix(FIELD): given.pop(name) for name in list(given) if name.startswith(FIELD)}
    )
    given = {name: value for name, value in given.items() if value is not None or name == "validation"}
    try:
        settings = read_config(arguments.config) if arguments.config else {}
        if "weights" in settings and arguments.verb == "train":
            raise UsageError(
                f"{arguments.config} is of a finetune run: `fastllie finetune --config` takes it"
            )
        settings = merged(settings, {**given, **fields})
        for name, flag in (("method", "METHOD"), ("data", "DATA"), ("weights", "--weights")):
            if name not in settings and (name != "weights" or arguments.verb == "finetune"):
                raise UsageError(f"{flag} is missing: give it here or in a file of settings (--config)")
        if "target" in settings:
            settings["data"] = (settings["data"], settings.pop("target"))
        if "normal" in settings:
            settings["low"] = settings.pop("data")
        run = fastllie.finetune if arguments.verb == "finetune" else fastllie.train
        first = os.environ.get("RANK", "0") == "0"
        keep_heap()
        result = run(
            settings.pop("method"),
            settings.pop("data", None),
            progress=_say if first else None,
            bar=None,
            **settings,
        )
    except (TypeError, ValueError, FileNotFoundError, ImportError) as error:
        raise UsageError(str(error)) from error
    except (OSError, RuntimeError) as error:
        print(f"fastllie {arguments.verb}: {error}", file=sys.stderr)
        return FAILED
    except Interrupted as stop:
        print(f"fastllie {arguments.verb}: {stop}; the same command goes on from there", file=sys.stderr)
        return 128 + stop.signal
    if first:
        print(f"wrote {result.weights}\n      {result.report}")
    return OK


def _say(line: str) -> None:
    print(line, flush=True)


def _methods(arguments: argparse.Namespace) -> int:
    try:
        chosen = [fastllie.info(name) for name in arguments.names]
    except ValueError as error:
        raise UsageError(str(error)) from error
    if chosen:
        print("\n\n".join(map(str, chosen)))
        return OK
    rows = [("method", "parameters", "weights", "options", "paper")]
    for name in fastllie.list_methods():
        row = fastllie.info(name)
        rows.append(
            (
                name,
                f"{row.parameters:,}",
                ", ".join(variant.name for variant in row.weights) or "-",
                ", ".join(f"{option.name}={option.default}" for option in row.options) or "-",
                row.paper,
            )
        )
    _table(rows)
    return OK


def _table(rows: Sequence[Sequence[str]]) -> None:
    if not rows:
        return
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def _doctor(arguments: argparse.Namespace) -> int:
    import torch

    print("versions")
    _table(_versions())
    print("\nbackends")
    _table([(b.name, "yes" if b.available else "no", b.detail) for b in fastllie.backends().values()])
    tests = fastllie.ops.self_test()
    failed = sum(not test.ok for test in tests)
    print("\noperators: which backend serves")
    for device in ("cpu", *(["cuda"] if torch.cuda.is_available() else [])):
        for op in dict.fromkeys(test.op for test in tests) or ("all",):
            try:
                chosen = fastllie.ops.default_backend(device)
            except (RuntimeError, ValueError) as error:
                chosen = f"none: {error}"
                failed += 1
            print(f"{op} on {device}: {chosen}")
    print("\nself-test: kernels against the reference")
    _table([(test.op, test.backend, "ok" if test.ok else "WRONG", test.detail) for test in tests])
    if not tests:
        print("no compiled kernels here; PyTorch serves every operator")
    print(f"\nproblems: {failed}" if failed else "\nall is well")
    return FAILED if failed else OK


def _versions() -> list[tuple[str, str]]:
    from importlib.metadata import PackageNotFoundError, version

    import torch

    rows = [("fastllie", fastllie.__version__), ("python", platform.python_version())]
    for name in ("torch", "numpy", "pillow", "safetensors", "triton"):
        try:
            rows.append((name, version(name)))
        except PackageNotFoundError:
            rows.append((name, "not installed"))
    cuda = torch.version.cuda or "torch is built without it"
    if torch.cuda.is_available():
        cuda += ", " + ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    elif torch.version.cuda:
        cuda += ", no device"
    return [*rows, ("CUDA", cuda), ("platform", f"{platform.platform()}, {os.cpu_count()} CPUs")]


def _evaluate(arguments: argparse.Namespace) -> int:
    data, *references = arguments.data or [None]
    references += arguments.images if arguments.method else arguments.images[1:]
    output = None if arguments.method else next(iter(arguments.images), None)
    if output is None and not arguments.method:
        raise UsageError("wanted PRED [GT], or --method METHOD --data LOW [GT]")
    if len(references) > 1:
        raise UsageError(f"wanted one folder of references, got {', '.join(references)}")
    _check_writable(arguments.csv, arguments.json)
    bar: list[Progress] = []

    def advance(done: int, total: int) -> None:
        if not bar:
            bar.append(Progress(total))
        bar[0].advance()

    try:
        result = fastllie.evaluate(
            output,
            references[0] if references else None,
            data=data,
            method=arguments.method,
            weights=arguments.weights,
            metrics=arguments.metrics.split(",") if arguments.metrics else None,
            device=arguments.device,
            niqe_model=arguments.niqe_model,
            lpips_weights=arguments.lpips_weights,
            progress=advance,
            **_options(arguments.option),
        )
    except (TypeError, ValueError, OSError) as error:
        raise UsageError(str(error)) from error
    finally:
        for shown in bar:
            shown.clear()
    for line in (*result.unmatched, *result.failures):
        print(f"fastllie evaluate: {line}", file=sys.stderr)
    print(result.table())
    try:
        if arguments.csv:
            result.write_csv(arguments.csv)
        if arguments.json:
            result.write_json(arguments.json)
    except OSError as error:
        print(f"fastllie evaluate: {error}", file=sys.stderr)
        return FAILED
    if result.unmatched or result.failures:
        counts = f"{len(result.failures)} failures, {len(result.unmatched)} images without a partner"
        print(f"fastllie evaluate: {counts}", file=sys.stderr)
        return FAILED
    return OK
