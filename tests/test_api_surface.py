"""The names that other people's code may use, with their signatures: a change of them shows in the diff.

`python tests/test_api_surface.py` writes the file anew.
"""

import inspect
import json
from importlib import import_module
from pathlib import Path

FILE = Path(__file__).with_name("api_surface.json")
# modules whose public names are promises: their `__all__`, or all that is defined below them
MODULES = (
    "fastllie",
    "fastllie.cluster",
    "fastllie.metrics",
    "fastllie.models",
    "fastllie.ops",
    "fastllie.training.losses",
    "fastllie.training.recipes",
    "fastllie.transforms",
    "fastllie.video",
)
# what README, docs and docstrings name besides
NAMES = (
    "fastllie.checkpoint.export_official",
    "fastllie.cli.main",
    "fastllie.folders.enhance_folder",
    "fastllie.training.data.collect",
    "fastllie.training.heap.keep_heap",
    "fastllie.training.recipes.RECIPES",
    "fastllie.training.sci.SCITask",
    "fastllie.training.trainer.Interrupted",
)


def names_of(module):
    """What a module hands to its users."""
    found = import_module(module)
    if hasattr(found, "__all__"):
        return [name for name in found.__all__ if not inspect.ismodule(getattr(found, name))]
    return [
        name
        for name, value in vars(found).items()
        if not name.startswith("_")
        # what is defined here or below
        and (inspect.isclass(value) or inspect.isfunction(value))
        and (f"{value.__module__}.".startswith(f"{module}."))
    ]


def signature(callable):
    """The parameters with their defaults; without what names modules, which may move, or a machine."""
    found = inspect.signature(callable)
    bare = [
        parameter.replace(annotation=parameter.empty, default=spelled(parameter.default))
        for parameter in found.parameters.values()
    ]
    return str(found.replace(parameters=bare, return_annotation=found.empty))


class Other:
    """A default that is none of Python's own values."""

    def __repr__(self):
        return "..."


def spelled(default):
    plain = (bool, int, float, str, tuple, frozenset, type(None), type)
    return default if isinstance(default, plain) else Other()


def described(name, value):
    """Name -> signature, of an object and, where it is a class of ours, of its public parts."""
    if not callable(value):
        return {name: type(value).__name__}
    surface = {name: signature(value)}
    # what networks and tasks do besides is between them and who runs them
    if inspect.isclass(value) and not name.startswith(("fastllie.models.", "fastllie.training.")):
        # with what it inherits from classes of ours
        ours = [kind for kind in reversed(value.__mro__) if kind.__module__.startswith("fastllie")]
        parts = {part: content for kind in ours for part, content in vars(kind).items()}
        for part, content in parts.items():
            if part.startswith("_"):
                continue
            if isinstance(content, (staticmethod, classmethod)):
                content = content.__func__
            if inspect.isfunction(content):
                surface[f"{name}.{part}"] = signature(content)
            elif isinstance(content, property):
                surface[f"{name}.{part}"] = "property"
    return surface


def surface():
    found = {}
    for module in MODULES:
        for name in names_of(module):
            found |= described(f"{module}.{name}", getattr(import_module(module), name))
    for name in NAMES:
        module, _, attribute = name.rpartition(".")
        found |= described(name, getattr(import_module(module), attribute))
    return dict(sorted(found.items()))


def test_the_public_names_are_those_that_were_promised():
    promised = json.loads(FILE.read_text(encoding="utf-8"))
    found = surface()
    gone = sorted(promised.keys() - found.keys())
    changed = {
        name: (promised[name], found[name])
        for name in promised.keys() & found.keys()
        if promised[name] != found[name]
    }
    new = sorted(found.keys() - promised.keys())
    assert (gone, changed) == ([], {}), "a promise is broken"
    assert new == [], f"write the new promises down: python {Path(__file__).name}"


if __name__ == "__main__":
    FILE.write_text(json.dumps(surface(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
