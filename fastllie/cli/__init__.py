"""The command `fastllie`: a thin layer over the public functions; a module for each verb."""

from fastllie.cli.command import main
from fastllie.cli.common import FAILED, OK, USAGE

__all__ = ["FAILED", "OK", "USAGE", "main"]
