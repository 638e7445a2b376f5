"""Packages of others that the tests run against: each is skipped by name where it is not installed."""

import importlib.machinery
import importlib.util
import os

import pytest
import torch

# what torchvision's compiled part would register
_OPERATORS = (
    *("nms", "qnms", "deform_conv2d", "_deform_conv2d_backward"),
    *(
        f"{start}{name}{end}"
        for name in ("roi_align", "ps_roi_align", "roi_pool", "ps_roi_pool")
        for start, end in (("", ""), ("_", "_backward"))
    ),
)
_declared = None


def torchvision():
    """The package torchvision.

    The registry's build wants CUDA's libraries. Beside a torch without them its compiled operators do not
    load, and then its Python refuses to be imported for want of their names. None of it is in the transforms:
    so the names are declared here, without anything behind them, and the rest is torchvision as it is.
    """
    global _declared
    spec = importlib.util.find_spec("torchvision")
    if spec is None:
        pytest.skip("no torchvision here")
    if _declared is None:
        folder = os.path.dirname(spec.origin)
        suffixes = (*importlib.machinery.EXTENSION_SUFFIXES, ".so")
        compiled = [path for end in suffixes if os.path.exists(path := os.path.join(folder, f"_C{end}"))]
        try:
            torch.ops.load_library(compiled[0])
            _declared = ()
        except (OSError, IndexError):
            _declared = torch.library.Library("torchvision", "DEF")
            for name in _OPERATORS:
                _declared.define(f"{name}(Tensor x) -> Tensor")
    return pytest.importorskip("torchvision")
