"""`fastllie methods`."""

import argparse
from typing import Any

import fastllie
from fastllie.cli.common import OK, UsageError, table


def register(verbs: Any) -> None:
    methods = verbs.add_parser("methods", help="list the methods, or all there is to know about some")
    methods.add_argument("names", nargs="*", metavar="METHOD")
    methods.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
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
    table(rows)
    return OK
