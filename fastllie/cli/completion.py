"""`fastllie completion`."""

import argparse
from typing import Any

from fastllie.cli.common import OK, UsageError, say

SHELLS = ("bash", "zsh", "fish", "tcsh")


def register(verbs: Any) -> None:
    completion = verbs.add_parser(
        "completion",
        help="print what makes a shell complete this command's words",
        description="bash: fastllie completion bash > ~/.local/share/bash-completion/completions/fastllie;"
        " zsh: into a file _fastllie on $fpath; fish: into ~/.config/fish/completions/fastllie.fish.",
    )
    completion.add_argument("shell", choices=SHELLS)
    completion.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    # the parser has this module's verb too
    from fastllie.cli.command import parser_of

    try:
        import shtab
    except ImportError as error:
        raise UsageError(f'completion needs shtab: pip install "fastllie[completion]" ({error})') from error
    if arguments.shell not in shtab.SUPPORTED_SHELLS:
        known = ", ".join(shtab.SUPPORTED_SHELLS)
        raise UsageError(f"this shtab completes {known}: pip install --upgrade shtab for {arguments.shell}")
    say(shtab.complete(parser_of(["train"]), arguments.shell))
    return OK
