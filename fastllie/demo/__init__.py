"""A page in the browser to try the methods on."""

from fastllie.demo.server import serve

__all__ = ["serve"]
