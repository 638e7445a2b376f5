"""`fastllie export`."""

import argparse
from typing import Any

import fastllie
from fastllie.cli.common import FAILED, OK, UsageError, add_options, add_weights, check_method, complain, options


def register(verbs: Any) -> None:
    export = verbs.add_parser("export", help="write a network as ONNX or torch.export, and check the file")
    export.add_argument("method", metavar="METHOD", help="see `fastllie methods`")
    export.add_argument("-o", "--output", required=True, metavar="FILE", help="ends in .onnx or .pt2")
    add_weights(export)
    export.add_argument("--dtype", default="float32", help="float32 or float16 (default: %(default)s)")
    export.add_argument("--uint8", action="store_true", help="bytes in and out instead of floats in [0, 1]")
    export.add_argument(
        "--layout", default="nchw", help="nchw, or nhwc: channels behind (default: %(default)s)"
    )
    export.add_argument(
        "--size", nargs=2, type=int, metavar=("H", "W"), help="one image of this size alone (default: any)"
    )
    export.add_argument("--opset", type=int, help="ONNX's (default: what this version of torch prefers)")
    add_options(export)
    export.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    check_method(arguments.method, options(arguments))
    try:
        result = fastllie.export(
            arguments.method,
            arguments.output,
            weights=arguments.weights,
            dtype=arguments.dtype,
            uint8=arguments.uint8,
            layout=arguments.layout,
            size=tuple(arguments.size) if arguments.size else None,
            opset=arguments.opset,
            **options(arguments),
        )
    except (TypeError, ValueError, OSError, ImportError) as error:
        raise UsageError(str(error)) from error
    except RuntimeError as error:
        complain("export", error)
        return FAILED
    if not arguments.quiet:
        print(result)
    return OK
