"""Brighten dark photographs and video, and train the networks that do it."""

import sys
import warnings
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES, PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

_here = Path(__file__).resolve().parent


def _warn_unless_built() -> None:
    """Say once that this checkout has no compiled module, and whether it hides an installation that has."""
    if any((_here / f"_cpu{suffix}").is_file() for suffix in EXTENSION_SUFFIXES):
        return
    root = _here.parent
    others = [place for place in sys.path if Path(place).resolve() != root]
    installed = PathFinder.find_spec("fastllie", others)
    hidden = (
        f" It hides the one that is installed in {Path(installed.origin).parent}."
        if installed and installed.origin
        else ""
    )
    warnings.warn(
        f"fastllie is imported from a checkout without its compiled module, {root}: all works, several times slower."
        f"{hidden} Run Python elsewhere, or build it here: pip install -e {root}",
        stacklevel=3,
    )


# setup.py installs kernels/ and training/ inside this package; in a checkout they stand beside it
if not (_here / "kernels").is_dir():
    __path__.append(str(_here.parent))
    _warn_unless_built()

if TYPE_CHECKING:
    from fastllie.api import Enhancer as Enhancer
    from fastllie.api import enhance as enhance
    from fastllie.api import load as load
    from fastllie.benchmarking import Benchmark as Benchmark
    from fastllie.benchmarking import benchmark as benchmark
    from fastllie.comparing import Comparison as Comparison
    from fastllie.comparing import compare as compare
    from fastllie.evaluation import Evaluation as Evaluation
    from fastllie.evaluation import evaluate as evaluate
    from fastllie.exporting import Export as Export
    from fastllie.exporting import export as export
    from fastllie.folders import FolderResult as FolderResult
    from fastllie.folders import enhance_folder as enhance_folder
    from fastllie.methods import MethodInfo as MethodInfo
    from fastllie.methods import info as info
    from fastllie.methods import list_methods as list_methods
    from fastllie.ops.backend import backends as backends
    from fastllie.training.run import TrainResult as TrainResult
    from fastllie.training.run import finetune as finetune
    from fastllie.training.run import train as train
    from fastllie.video.conversion import VideoResult as VideoResult
    from fastllie.video.conversion import enhance_video as enhance_video

__version__ = "0.1.0"

# public name -> where it lives; loaded on first use, so that `import fastllie` costs next to nothing
_WHERE = {
    "enhance": "fastllie.api",
    "Enhancer": "fastllie.api",
    "enhance_folder": "fastllie.folders",
    "FolderResult": "fastllie.folders",
    "load": "fastllie.api",
    "benchmark": "fastllie.benchmarking",
    "Benchmark": "fastllie.benchmarking",
    "compare": "fastllie.comparing",
    "Comparison": "fastllie.comparing",
    "evaluate": "fastllie.evaluation",
    "Evaluation": "fastllie.evaluation",
    "export": "fastllie.exporting",
    "Export": "fastllie.exporting",
    "list_methods": "fastllie.methods",
    "info": "fastllie.methods",
    "MethodInfo": "fastllie.methods",
    "backends": "fastllie.ops.backend",
    "enhance_video": "fastllie.video.conversion",
    "VideoResult": "fastllie.video.conversion",
    "train": "fastllie.training.run",
    "finetune": "fastllie.training.run",
    "TrainResult": "fastllie.training.run",
}
_ROOMS = ("cluster", "metrics", "models", "ops", "training", "transforms", "video")

__all__ = [*_WHERE, *_ROOMS, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        value = getattr(import_module(_WHERE[name]), name)
    elif name in _ROOMS:
        value = import_module(f"fastllie.{name}")
    else:
        raise AttributeError(f"module 'fastllie' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
