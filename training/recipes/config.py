"""A run as a file: the keywords of `fastllie.train`, with every field of the recipe, in TOML."""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastllie.images.files import replacing


def write_config(path: str | os.PathLike[str], settings: Mapping[str, Any]) -> None:
    """Write settings, parts that are mappings as tables, None as "none" (TOML has no word for it). Atomic."""
    lines = [
        f"{name} = {_spelled(value)}" for name, value in settings.items() if not isinstance(value, Mapping)
    ]
    for name, part in settings.items():
        if isinstance(part, Mapping):
            lines += ["", f"[{name}]", *(f"{key} = {_spelled(value)}" for key, value in part.items())]
    with replacing(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _spelled(value: Any) -> str:
    if value is None:
        return '"none"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_spelled, value)) + "]"
    # a basic string of TOML is one of JSON, but for one character that JSON leaves as it is
    return json.dumps(os.fspath(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def read_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The settings of a file that `write_config` or a person wrote; "none" is None.

    Raises:
        ValueError: not TOML; the message names the line.
        FileNotFoundError: no such file.
        ImportError: Python 3.10 without the extra `train`.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        try:
            import tomli as tomllib
        except ImportError as error:
            raise ImportError(
                "reading TOML on Python 3.10 needs tomli: pip install 'fastllie[train]'"
            ) from error
    text = Path(path).read_text(encoding="utf-8")
    try:
        found: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{os.fspath(path)} is not TOML: {error}") from error
    return _with_none(found)


def _with_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _with_none(value) if isinstance(value, Mapping) else None if value == "none" else value
        for name, value in values.items()
    }
