"""`fastllie evaluate`."""

import argparse
import sys
from typing import Any

import fastllie
from fastllie.cli.common import (
    FAILED,
    OK,
    UsageError,
    add_device,
    add_options,
    add_weights,
    check_method,
    check_writable,
    complain,
    options,
)
from fastllie.terminal import Counting, on_terminal

SIGN = 0.5  # seconds before the first line where there is no terminal


def register(verbs: Any) -> None:
    evaluate = verbs.add_parser(
        "evaluate",
        help="score results, or methods, against references and inputs",
        usage="fastllie evaluate [-h] PRED [GT] [--data LOW] [...]\n"
        "       fastllie evaluate --method METHOD [--method ...] --data LOW [GT] [...]",
        description="Images are matched by name, whatever their suffix. docs/metrics.md defines the metrics.",
    )
    add = evaluate.add_argument
    add("images", nargs="*", metavar="PRED [GT]", help="results and references")
    add(
        "--data",
        nargs="+",
        metavar=("LOW", "GT"),
        help="the images that results are made from (and references)",
    )
    add(
        "--method",
        action="append",
        help="run this on LOW and score it, sci.mild: with these weights, see `fastllie methods`; may be"
        " repeated",
    )
    add_weights(evaluate, "a variant's name, or a file, for one --method")
    add_options(evaluate, "the methods")
    add("--metrics", metavar="NAME,...", help="by name (default: all that the images allow)")
    add(
        "--names",
        metavar="REGEX",
        help="a rule for names that differ: what the files of one image share, such as '\\d+'",
    )
    add("--niqe-model", metavar="FILE", help="a pristine model in place of ours")
    add("--lpips-weights", nargs=2, metavar=("FEATURES", "LINEAR"), help="the two files that LPIPS needs")
    add_device(evaluate)
    add("--csv", metavar="FILE", help="write the values of each image, and the means")
    add("--json", metavar="FILE", help="write the same with the labels and what failed")
    evaluate.set_defaults(run=run)


def _report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def run(arguments: argparse.Namespace) -> int:
    data, *references = arguments.data or [None]
    references += arguments.images if arguments.method else arguments.images[1:]
    output = None if arguments.method else next(iter(arguments.images), None)
    if output is None and not arguments.method:
        raise UsageError("wanted PRED [GT], or --method METHOD --data LOW [GT]")
    if len(references) > 1:
        raise UsageError(f"wanted one folder of references, got {', '.join(references)}")
    check_writable(arguments.csv, arguments.json)
    for method in arguments.method or ():
        # sci.mild is a method with its weights
        check_method(method if method in fastllie.list_methods() else method.partition(".")[0])
    loud = not arguments.quiet
    bar, report = loud and on_terminal(), _report if loud else None
    try:
        with Counting("evaluating images", bar=bar, say=report, after=SIGN) as count:
            result = fastllie.evaluate(
                output,
                references[0] if references else None,
                data=data,
                method=arguments.method,
                weights=arguments.weights,
                metrics=arguments.metrics.split(",") if arguments.metrics else None,
                device=arguments.device,
                names=arguments.names,
                niqe_model=arguments.niqe_model,
                lpips_weights=arguments.lpips_weights,
                progress=count,
                **options(arguments),
            )
    except (TypeError, ValueError, OSError) as error:
        raise UsageError(str(error)) from error
    for line in (*result.unmatched, *result.failures, *result.passed_over):
        complain("evaluate", line)
    print(result.table())
    try:
        if arguments.csv:
            result.write_csv(arguments.csv)
        if arguments.json:
            result.write_json(arguments.json)
    except OSError as error:
        complain("evaluate", error)
        return FAILED
    if result.unmatched or result.failures:
        counts = f"{len(result.failures)} failures, {len(result.unmatched)} images without a partner"
        complain("evaluate", counts)
        return FAILED
    return OK
