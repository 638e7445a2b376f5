"""`fastllie benchmark`."""

import argparse
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
    check_method,
    check_writable,
    complain,
    given,
    options,
    say,
)
from fastllie.defaults import METHOD, ROUNDS, SECONDS, SIZES

if TYPE_CHECKING:
    from fastllie.benchmarking import Case


def register(verbs: Any) -> None:
    benchmark = verbs.add_parser(
        "benchmark",
        help="how fast the methods are here, beside PyTorch, ONNX Runtime and OpenVINO",
        description="Times methods on this machine beside what would be run without fastllie. All take turns;"
        " results are compared. Who is not installed, would take too long or too much memory is left out and"
        " named. docs/performance.md says how to read it.",
    )
    add = benchmark.add_argument
    add("--method", nargs="+", default=[METHOD], metavar="M", help=f"some, or all (default: {METHOD})")
    add_weights(benchmark, "a variant's name, or a file, for one method")
    add_options(benchmark, "the methods")
    add(
        "--size",
        nargs="+",
        dest="sizes",
        metavar="WxH",
        help=f"width x height (default: {' '.join(SIZES)})",
    )
    add("--batch", nargs="+", type=int, dest="batches", metavar="N", help="images at once (default: 1)")
    add("--dtype", default="float32", help="float32, bfloat16 or float16 (default: %(default)s)")
    add_device(benchmark)
    add("--rounds", type=int, metavar="N", help=f"turns at most (default: {ROUNDS})")
    add(
        "--seconds",
        type=float,
        metavar="S",
        help="for the turns of each contender at each size; who cannot do three in that is left out, ours in"
        f" three times that (default: {SECONDS:g})",
    )
    add(
        "--against",
        nargs="*",
        metavar="NAME",
        help="eager, channels_last, compile, onnxruntime, openvino, or nothing (default: all that are here)",
    )
    add("--json", metavar="FILE", help="write the figures, and what the machine is")
    benchmark.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    check_writable(arguments.json)
    for method in arguments.method:
        if method != "all":
            check_method(method)
    bar = Progress(quiet=arguments.quiet)

    def advance(done: int, total: int, case: "Case") -> None:
        bar.clear()
        if not arguments.quiet:
            say(case.table() + "\n")
        bar.advance(total)

    try:
        with bar:
            result = fastllie.benchmark(
                arguments.method,
                dtype=arguments.dtype,
                device=arguments.device,
                weights=arguments.weights,
                against=arguments.against,
                progress=advance,
                **given(arguments, "sizes", "batches", "rounds", "seconds"),
                **options(arguments),
            )
    except (TypeError, ValueError, OSError) as error:
        raise UsageError(str(error)) from error
    if not arguments.quiet:
        print(result.about)
    for line in result.wrong:
        complain("benchmark", line)
    try:
        if arguments.json:
            result.write_json(arguments.json)
    except OSError as error:
        complain("benchmark", error)
        return FAILED
    return FAILED if result.wrong else OK
