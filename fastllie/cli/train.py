"""`fastllie train` and `fastllie finetune`."""

import argparse
import os
from collections.abc import Sequence
from typing import Any

import fastllie
from fastllie.cli.common import FAILED, OK, UsageError, check_method, complain, say
from fastllie.defaults import MOST_PIXELS
from fastllie.terminal import on_terminal

_NO_SETTINGS = ("verb", "run", "config", "quiet", "verbose")
FIELD = "recipe field "  # before the name of a recipe's field in the parsed arguments


def register(verbs: Any, words: Sequence[str]) -> None:
    """Add both verbs; the one that the words begin with gets the fields of the recipes, which take time."""
    for verb, text in (("train", "train a method on your photographs"), ("finetune", "go on from weights")):
        weights = " --weights W" if verb == "finetune" else ""
        # without its own usage, every error would begin with all the fields of the recipes
        usage = f"fastllie {verb} METHOD DATA{weights} -o RUN [options]"
        train = verbs.add_parser(verb, help=text, usage=usage, allow_abbrev=False)
        train.add_argument("method", nargs="?", metavar="METHOD", help="see `fastllie methods`")
        train.add_argument(
            "data",
            nargs="?",
            metavar="DATA",
            help="a folder of photographs, searched with its folders, or a glob",
        )
        train.add_argument("-o", "--output", required=True, metavar="RUN", help="the folder to write to")
        train.add_argument(
            "--config", metavar="TOML", help="settings from a file, say the config.toml of a run; flags win"
        )
        _add_settings(train, verb)
        train.set_defaults(run=run)
        if words[:1] == [verb]:
            _add_recipe_fields(train, next(iter(words[1:]), ""))


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
    add("--max-pixels", type=int, metavar="N", help=f"of one photograph (default: {MOST_PIXELS})")
    add("--tensorboard", action="store_true", help="also write for TensorBoard")


def _validation(text: str) -> float | str | None:
    try:
        return float(text)
    except ValueError:
        return None if text == "none" else text


def _add_recipe_fields(parser: argparse.ArgumentParser, method: str) -> None:
    """A flag for each field; where the help is of a method it has that method's, with meaning and default."""
    from fastllie.training import described_fields, field_names, value_of

    told = described_fields(method) if method in fastllie.list_methods() else None
    about = "see fastllie.training.recipes; with a METHOD before --help, what each means"
    if told is not None:
        about = f"of the official recipe of {method}"
    group = parser.add_argument_group("the recipe", about)
    for name in field_names():
        group.add_argument(
            "--" + name.replace("_", "-"),
            type=value_of,
            dest=FIELD + name,
            default=argparse.SUPPRESS,
            metavar="VALUE",
            help=None if told is None else told.get(name, argparse.SUPPRESS).replace("%", "%%"),
        )


def run(arguments: argparse.Namespace) -> int:
    try:
        settings = _settings(arguments)
    except (TypeError, ValueError, FileNotFoundError) as error:
        raise UsageError(str(error)) from error
    check_method(settings["method"])
    # with torch, which takes a second
    from fastllie.training import Interrupted, keep_heap

    try:
        function = fastllie.finetune if arguments.verb == "finetune" else fastllie.train
        first = os.environ.get("RANK", "0") == "0"
        keep_heap()
        result = function(
            settings.pop("method"),
            settings.pop("data", None),
            progress=say if first and not arguments.quiet else None,
            bar=on_terminal() and not arguments.quiet,
            **settings,
        )
    except (TypeError, ValueError, FileNotFoundError, ImportError) as error:
        raise UsageError(str(error)) from error
    except (OSError, RuntimeError) as error:
        complain(arguments.verb, error)
        return FAILED
    except Interrupted as stop:
        complain(arguments.verb, f"{stop}; the same command goes on from there")
        return 128 + stop.signal
    if first and not arguments.quiet:
        print(f"wrote {result.weights}\n      {result.report}")
    return OK


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The keywords of `fastllie.train`: those of a file of settings, and the flags over them."""
    from fastllie.training import merged, nested, read_config

    given = {name: value for name, value in vars(arguments).items() if name not in _NO_SETTINGS}
    fields = nested(
        {name.removeprefix(FIELD): given.pop(name) for name in list(given) if name.startswith(FIELD)}
    )
    given = {name: value for name, value in given.items() if value is not None or name == "validation"}
    settings = read_config(arguments.config) if arguments.config else {}
    if "weights" in settings and arguments.verb == "train":
        raise UsageError(f"{arguments.config} is of a finetune run: `fastllie finetune --config` takes it")
    settings = merged(settings, {**given, **fields})
    for name, flag in (("method", "METHOD"), ("data", "DATA"), ("weights", "--weights")):
        if name not in settings and (name != "weights" or arguments.verb == "finetune"):
            raise UsageError(f"{flag} is missing: give it here or in a file of settings (--config)")
    if "target" in settings:
        settings["data"] = (settings["data"], settings.pop("target"))
    if "normal" in settings:
        settings["low"] = settings.pop("data")
    return settings
