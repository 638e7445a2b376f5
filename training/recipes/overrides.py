"""Recipes with other values: from keywords, and from the flags of a command line."""

import ast
import difflib
import inspect
import re
import types
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from fastllie.training.recipes import RECIPES

R = TypeVar("R")


def override(recipe: R, changes: Mapping[str, Any]) -> R:
    """The recipe with other values; a part that is a dataclass may be given as a dict of its own changes.

    Raises:
        TypeError: a name that the recipe does not have, with the close match, or a value of the wrong type.
    """
    types_of = get_type_hints(type(recipe))
    names = [entry.name for entry in fields(recipe) if entry.name != "method"]  # type: ignore[arg-type]
    values = {}
    for name, value in changes.items():
        if name not in names:
            close = difflib.get_close_matches(name, names)
            guess = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
            raise TypeError(f"unknown field {name!r}; {guess}there are: {', '.join(names)}")
        part = getattr(recipe, name)
        if isinstance(value, Mapping):
            made: Any = next((kind for kind in kinds(types_of[name]) if is_dataclass(kind)), None)
            if made is None:
                raise TypeError(f"{name} must be {_spelled(types_of[name])}, got a {type(value).__name__}")
            value = override(part if part is not None else made(), value)
        values[name] = _typed(name, value, types_of[name])
    return replace(recipe, **values)  # type: ignore[type-var]


def kinds(annotation: Any) -> tuple[Any, ...]:
    """The alternatives of an annotation."""
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def _typed(name: str, value: Any, annotation: Any) -> Any:
    """The value, a list as a tuple and an integer as a float where that is meant."""
    for kind in kinds(annotation):
        if get_origin(kind) is tuple and isinstance(value, (list, tuple)):
            return tuple(value)
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        # a bool is an int to Python, never to a reader
        if isinstance(value, kind) and isinstance(value, bool) == (kind is bool):
            return value
    raise TypeError(f"{name} must be {_spelled(annotation)}, got {value!r}")


def _spelled(annotation: Any) -> str:
    return " or ".join("None" if kind is type(None) else _name(kind) for kind in kinds(annotation))


def _name(kind: Any) -> str:
    return str(kind) if get_origin(kind) else kind.__name__


def field_names() -> list[str]:
    """Every field of any recipe, those of its parts as `losses.exposure`."""
    found: dict[str, None] = {}
    for recipes in RECIPES.values():
        for recipe in recipes.values():
            found |= dict.fromkeys(_names(type(recipe)))
    return list(found)


def described_fields(method: str) -> dict[str, str]:
    """The fields of a method's official recipe, each with what its docstring says and its value."""
    return dict(_described(RECIPES[method]["official"], ""))


def _described(recipe: Any, prefix: str) -> Iterator[tuple[str, str]]:
    meanings: dict[str, str] = {}
    for kind in reversed(type(recipe).__mro__):
        meanings |= _meanings(kind.__doc__ or "")
    for entry in fields(recipe):
        value = getattr(recipe, entry.name)
        if is_dataclass(value):
            yield from _described(value, f"{prefix}{entry.name}.")
        elif entry.name != "method":
            told = meanings.get(entry.name, "")
            yield prefix + entry.name, f"{told} (default: {value!r})".strip()


def _meanings(docstring: str) -> dict[str, str]:
    """Name -> text of the entries in the section Args of a docstring."""
    found: dict[str, str] = {}
    name = ""
    for line in inspect.cleandoc(docstring).partition("Args:")[2].splitlines():
        entry = re.match(r" {4}(\w[\w, ]*): (.+)", line)
        if entry:
            name = entry[1]
            found[name] = entry[2]
        elif name and line.startswith(" " * 8):
            found[name] += " " + line.strip()
        elif line.strip():
            name = ""
    return {one: text for names, text in found.items() for one in names.split(", ")}


def _names(kind: Any, prefix: str = "") -> Iterator[str]:
    hints = get_type_hints(kind)
    for name in (entry.name for entry in fields(kind)):
        for part in filter(is_dataclass, kinds(hints[name])):
            yield from _names(part, f"{prefix}{name}.")
        if name != "method":
            yield prefix + name


def nested(changes: Mapping[str, Any]) -> dict[str, Any]:
    """`{"losses.exposure": 10}` as `{"losses": {"exposure": 10}}`."""
    found: dict[str, Any] = {}
    for path, value in changes.items():
        *parts, name = path.split(".")
        into = found
        for part in parts:
            into = into.setdefault(part, {})
        into[name] = value
    return found


def merged(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with the changes, which reach into parts; a length in steps replaces one in epochs."""
    found = dict(settings)
    for name in ("steps", "epochs"):
        if changes.get(name) is not None:
            found.pop("epochs" if name == "steps" else "steps", None)
    for name, value in changes.items():
        before = found.get(name)
        both = isinstance(before, Mapping) and isinstance(value, Mapping)
        found[name] = merged(before, value) if both else value  # type: ignore[arg-type]
    return found


def value_of(text: str) -> Any:
    """A number, a tuple, True, False or None where the text is one; the text itself otherwise."""
    spelled = {"true": "True", "false": "False", "none": "None"}.get(text.lower(), text)
    try:
        return ast.literal_eval(spelled)
    except (SyntaxError, ValueError):
        return text
