"""What the verbs share: exit codes, complaints, flags that several of them have, progress, tables."""

import argparse
import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fastllie
from fastllie.terminal import Bar, aligned, on_terminal, spell_seconds

OK, FAILED, USAGE = 0, 1, 2
BAR_AFTER = 1.0  # seconds
_OPTION = "option of a method "  # before its name in the parsed arguments


class UsageError(Exception):
    """The command line asks for something that cannot be meant; nothing was done."""


def complain(verb: str, about: object) -> None:
    """A line on stderr."""
    print(f"fastllie {verb}: {about}", file=sys.stderr)


def say(line: str) -> None:
    """A line on stdout, now."""
    print(line, flush=True)


def table(rows: Sequence[Sequence[str]]) -> None:
    """Rows on stdout, their columns aligned."""
    for line in aligned(rows):
        print(line)


class Progress:
    """A bar on stderr that appears once the work takes over a second, and only on a terminal.

    It is a context that clears it at its end.
    """

    def __init__(self, total: int | None = None, *, quiet: bool = False):
        self.total = total
        self._quiet = quiet
        self.done = 0
        self._start = time.monotonic()
        self._bar = Bar()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error: object) -> None:
        self.clear()

    def begin(self, words: str) -> None:
        """Say so at once, until the first is done: PyTorch takes its second to load, a large picture more."""
        if not self._quiet and on_terminal():
            self._bar.draw([words], 0)

    def advance(self, total: int | None = None) -> None:
        """One more is done, of so many where that was not known before."""
        self.done += 1
        self.total = total or self.total
        passed = time.monotonic() - self._start
        if self._quiet or passed < BAR_AFTER or not self.total or not on_terminal():
            return
        rate = self.done / passed
        left = spell_seconds((self.total - self.done) / rate)
        fields = [f"{self.done}/{self.total}", f"{rate:.1f}/s", f"{left} left"]
        self._bar.draw(fields, self.done / self.total)

    def clear(self) -> None:
        """Take the bar away, for what is to be printed."""
        self._bar.clear()


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: CUDA where there is one)")


def add_weights(parser: argparse.ArgumentParser, help: str = "") -> None:
    parser.add_argument("--weights", help=help or "a variant's name, or a .safetensors, .pth or .pt file")


def add_voice(parser: argparse.ArgumentParser) -> None:
    """-q and -v, which all verbs have."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("-q", "--quiet", action="store_true", help="say what failed, and nothing else")
    help = "say on stderr what is done: weights, devices, files; twice: more of it"
    group.add_argument("-v", "--verbose", action="count", default=0, help=help)


@contextmanager
def voice(arguments: argparse.Namespace) -> Iterator[None]:
    """What the logger `fastllie` says goes to stderr, as much of it as was asked for."""
    logger = logging.getLogger("fastllie")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(f"fastllie {arguments.verb}: %(message)s"))
    levels = (logging.WARNING, logging.INFO, logging.DEBUG)
    level = logging.ERROR if arguments.quiet else levels[min(arguments.verbose, 2)]
    before, propagated = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
        logger.propagate = propagated


def check_method(method: str, given: Mapping[str, Any] | None = None) -> None:
    """Refuse a method, or an option that it does not have, before PyTorch is loaded, which takes a second.

    Raises:
        UsageError: what is wrong, with what may have been meant.
    """
    try:
        known = {option.name for option in fastllie.info(method).options}
    except ValueError as error:
        raise UsageError(str(error)) from error
    if unknown := (given or {}).keys() - known:
        has = f"its options are: {', '.join(sorted(known))}" if known else "it has no options"
        raise UsageError(f"{method} has no option {min(unknown)!r}; {has}")


def add_options(parser: argparse.ArgumentParser, of: str = "the method") -> None:
    """A flag for each option of each method, and `--option` for any."""
    group = parser.add_argument_group("options of methods")
    meanings: dict[str, list[str]] = {}
    for method in fastllie.list_methods():
        for option in fastllie.info(method).options:
            meanings.setdefault(option.name, []).append(f"{method}: {option.meaning}")
    for name, told in meanings.items():
        group.add_argument(
            "--" + name.replace("_", "-"),
            dest=_OPTION + name,
            type=value_of,
            default=argparse.SUPPRESS,
            metavar="VALUE",
            help="; ".join(told).replace("%", "%%"),
        )
    group.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=f"an option of {of}, such as scale=12 for zerodce++; may be repeated",
    )


def options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options of methods, by flags of their own and by `--option NAME=VALUE`."""
    found = {
        name.removeprefix(_OPTION): value
        for name, value in vars(arguments).items()
        if name.startswith(_OPTION)
    }
    for pair in arguments.option:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise UsageError(f"--option wants NAME=VALUE, got {pair!r}")
        found[name] = value_of(value)
    return found


def value_of(text: str) -> Any:
    """A truth value, an integer, or the text itself."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return int(text)
    except ValueError:
        return text


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the same as JSON, on stdout")


def print_json(content: Any) -> None:
    print(json.dumps(content, indent=1, ensure_ascii=False, default=str))


def given(arguments: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Those of the arguments that were given; the others are left to the function."""
    return {name: value for name in names if (value := getattr(arguments, name)) is not None}


def check_writable(*paths: str | None) -> None:
    """Raise now, and not when all is computed, for what cannot be written."""
    for path in filter(None, paths):
        if Path(path).is_dir() or not Path(path).absolute().parent.is_dir():
            raise UsageError(f"cannot write {path!r}: it is a folder, or its folder does not exist")
