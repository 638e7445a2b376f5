"""`fastllie VERB ...`: finds the verb, reads its flags, runs it; what it raises becomes an exit code."""

import argparse
import difflib
import sys
from collections.abc import Sequence

import fastllie
from fastllie.cli import benchmark, completion, demo, doctor, enhance, evaluate, export, methods, train
from fastllie.cli.common import OK, USAGE, UsageError, add_voice, complain, voice


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 1 (some of it failed) or 2 (a wrong command line)."""
    words = sys.argv[1:] if argv is None else list(argv)
    parser = parser_of(words)
    if not words:
        parser.print_help()
        return OK
    arguments, unknown = parser.parse_known_args(words)
    if unknown:
        _refuse(parser, arguments.verb, unknown)
    try:
        with voice(arguments):
            return arguments.run(arguments)
    except UsageError as error:
        complain(arguments.verb, error)
        return USAGE
    except KeyboardInterrupt:
        return 130


def parser_of(words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser for these words: their verb gets the flags that take time to find out."""
    parser = argparse.ArgumentParser(prog="fastllie", description="Brighten dark photographs.")
    parser.add_argument("--version", action="version", version=f"fastllie {fastllie.__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    enhance.register(verbs)
    train.register(verbs, words)
    methods.register(verbs)
    doctor.register(verbs)
    evaluate.register(verbs)
    benchmark.register(verbs)
    export.register(verbs)
    demo.register(verbs)
    completion.register(verbs)
    for verb in verbs.choices.values():
        add_voice(verb)
    return parser


def _refuse(parser: argparse.ArgumentParser, verb: str, unknown: Sequence[str]) -> None:
    """End with what was not understood, and the flags that may have been meant."""
    flags = [flag for action in _verbs(parser)[verb]._actions for flag in action.option_strings]
    lines = []
    for word in unknown:
        close = difflib.get_close_matches(word.split("=")[0], flags) if word.startswith("-") else []
        lines.append(word + (f" (did you mean {' or '.join(close)}?)" if close else ""))
    _verbs(parser)[verb].error("unrecognized arguments: " + ", ".join(lines))


def _verbs(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    actions = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return actions[0].choices
