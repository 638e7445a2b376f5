"""`fastllie demo`."""

import argparse
from typing import Any

from fastllie.cli.common import FAILED, OK, UsageError, complain
from fastllie.defaults import HOST, PORT


def register(verbs: Any) -> None:
    demo = verbs.add_parser(
        "demo",
        help="a page in the browser: before and after, all methods",
        description="A page to try the methods on, for the browser of this machine. Photographs leave the"
        " machine with --share alone.",
    )
    demo.add_argument("--host", default=HOST, help="0.0.0.0 lets others in (default: %(default)s)")
    demo.add_argument("--port", type=int, default=PORT, help="0 is any free one (default: %(default)s)")
    demo.add_argument(
        "--share",
        action="store_true",
        help="ask Gradio's servers for a public address; all photographs then go through them (default: no)",
    )
    demo.add_argument("--samples", metavar="FOLDER", help="photographs to pick from (default: ours)")
    demo.add_argument(
        "--open", action=argparse.BooleanOptionalAction, default=False, help="open the browser (default: no)"
    )
    demo.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from fastllie.demo import serve

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
        complain("demo", error)
        return FAILED
    return OK
