"""`fastllie methods`."""

import argparse
from dataclasses import asdict
from typing import Any

import fastllie
from fastllie.cli.common import OK, UsageError, add_json, print_json, table


def register(verbs: Any) -> None:
    methods = verbs.add_parser("methods", help="list the methods, or all there is to know about some")
    methods.add_argument("names", nargs="*", metavar="METHOD")
    add_json(methods)
    methods.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    try:
        chosen = [fastllie.info(name) for name in arguments.names]
    except ValueError as error:
        raise UsageError(str(error)) from error
    if arguments.json:
        rows = chosen or [fastllie.info(name) for name in fastllie.list_methods()]
        print_json([asdict(row) for row in rows])
        return OK
    if chosen:
        print("\n\n".join(map(str, chosen)))
        return OK
    lines = [("method", "parameters", "weights", "options", "paper")]
    for name in fastllie.list_methods():
        row = fastllie.info(name)
        lines.append(
            (
                name,
                f"{row.parameters:,}",
                ", ".join(variant.name for variant in row.weights) or "-",
                ", ".join(f"{option.name}={option.default}" for option in row.options) or "-",
                row.paper,
            )
        )
    table(lines)
    return OK
