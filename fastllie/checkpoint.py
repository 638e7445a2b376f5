"""Weights: finding a file, recognising its layout by content, and saying exactly what does not fit."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from fastllie.methods import METHODS, info, model_class, unknown

FOLDER = Path(__file__).resolve().parent / "weights"
SUFFIXES = (".safetensors", ".pth", ".pt")
_WRAPPERS = ("state_dict", "model", "params")
_PUBLISHED = re.compile(r"e_conv([1-7])\.(?:(depth|point)_conv\.)?(weight|bias)")


@dataclass(frozen=True)
class Checkpoint:
    """A state dict in our layout and sign, float32, and the padding that its network was trained with."""

    state: dict[str, Tensor]
    padding: str


def find(method: str, weights: str | os.PathLike[str] | None) -> Path:
    """The file that `weights` means: None (the default variant), a variant's name, or a path.

    Raises:
        TypeError: neither a string nor a path.
        ValueError: an unknown variant, or a file of a suffix that holds no weights.
        FileNotFoundError: no such file.
    """
    row = info(method)
    if weights is None:
        weights = row.weights[0].name
    if not isinstance(weights, (str, os.PathLike)):
        raise TypeError(f"weights must be a variant's name, a path or None, got {type(weights).__name__}")
    variants = {variant.name: variant.file for variant in row.weights}
    if isinstance(weights, str) and weights in variants:
        path = FOLDER / variants[weights]
        if not path.is_file():
            raise FileNotFoundError(
                f"the weights {weights!r} of {method} are missing from this installation: {path}"
            )
        return path
    path = Path(weights)
    if path.is_dir():
        raise ValueError(f"weights {os.fspath(path)!r} is a directory; wanted a file: {', '.join(SUFFIXES)}")
    if path.suffix.lower() not in SUFFIXES:
        if isinstance(weights, str) and len(path.parts) == 1 and not path.exists() and not path.suffix:
            raise ValueError(
                unknown(f"weights of {method}", weights, variants)
                + f"; or give a path to a file: {', '.join(SUFFIXES)}"
            )
        raise ValueError(f"weights {os.fspath(path)!r}: wanted a file that ends in {', '.join(SUFFIXES)}")
    if not path.exists():
        raise FileNotFoundError(f"no such weight file: {os.fspath(path)!r}")
    return path


def read(path: Path, method: str) -> Checkpoint:
    """Read weights for `method`: our layout, or the one of the published repository (renamed, sign folded).

    The published networks emit -alpha. tanh is odd, so negating the last convolution folds the sign exactly.
    They pad every layer with zeros; ours say how they pad in the metadata, and replicate where there is none.

    Raises:
        ValueError: a file that cannot be read, or whose keys or shapes are not those of the method.
    """
    safe = path.suffix.lower() == ".safetensors"
    found, metadata = _read_safetensors(path) if safe else (_read_torch(path), {})
    prefix = "module."
    if found and all(key.startswith(prefix) for key in found):
        found = {key.removeprefix(prefix): tensor for key, tensor in found.items()}
    published = any(_PUBLISHED.fullmatch(key) for key in found)
    state = {_our_key(key): tensor.float() for key, tensor in found.items()}
    _check_fits(path, method, state, {_our_key(key): key for key in found})
    for key, tensor in state.items():
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            raise ValueError(f"{path}: {key} holds {bad} values that are NaN or infinite")
    if published:
        last = "conv7.point." if any(".point." in key for key in state) else "conv7."
        state = {key: -tensor if key.startswith(last) else tensor for key, tensor in state.items()}
        return Checkpoint(state, "zeros")
    return Checkpoint(state, metadata.get("padding", "replicate"))


def _our_key(published: str) -> str:
    """A published key in our spelling; any other as it is."""
    match = _PUBLISHED.fullmatch(published)
    if match is None:
        return published
    layer, part, kind = match.groups()
    return f"conv{layer}.{part}.{kind}" if part else f"conv{layer}.{kind}"


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except Exception as error:  # safetensors' own errors have no common public base
        raise ValueError(f"{path} is not a readable safetensors file{_looks_like(path)}: {error}") from error


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle and torch each raise their own kinds for a damaged file
        first = str(error).strip().split("\n")[0]
        raise ValueError(
            f"{path} is not a readable PyTorch checkpoint of tensors alone{_looks_like(path)}: {first}"
        ) from error
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}; wanted a state dict (names to tensors)")
    strangers = [str(key) for key, value in content.items() if not isinstance(value, Tensor)]
    if strangers:
        raise ValueError(f"{path}: wanted tensors alone, but these entries are not: {_listed(strangers)}")
    return {str(key): value for key, value in content.items()}


def _looks_like(path: Path) -> str:
    with open(path, "rb") as file:
        start = file.read(64)
    if not start:
        return " (it is empty)"
    if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return " (it is a web page: the download went wrong)"
    if start.startswith(b"version https://git-lfs"):
        return " (it is a Git LFS pointer, not the file itself)"
    return ""


def _check_fits(path: Path, method: str, state: Mapping[str, Tensor], names: Mapping[str, str]) -> None:
    """Raise a ValueError unless keys and shapes are the method's; `names` has the keys as in the file."""
    found = {key: tuple(tensor.shape) for key, tensor in state.items()}
    wanted = _shapes(method)
    if found == wanted:
        return
    for other in METHODS:
        if other != method and found == _shapes(other):
            raise ValueError(f"{path} holds weights of {other!r}, wanted weights of {method!r}")
    missing = [f"{key} {wanted[key]}" for key in wanted if key not in found]
    unexpected = [f"{names[key]} {found[key]}" for key in found if key not in wanted]
    shapes = [
        f"{names[key]} {found[key]}, wanted {wanted[key]}"
        for key in wanted
        if key in found and found[key] != wanted[key]
    ]
    lines = [f"{path} does not fit {method!r}:"]
    for label, entries in (("missing", missing), ("unexpected", unexpected), ("wrong shape", shapes)):
        if entries:
            lines.append(f"  {label}: {_listed(entries)}")
    lines.append("  wanted: fastllie's layout, or the one of the published repository")
    raise ValueError("\n".join(lines))


def _shapes(method: str) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {key: tuple(tensor.shape) for key, tensor in model_class(method)().state_dict().items()}


def _listed(entries: list[str], most: int = 8) -> str:
    more = f" and {len(entries) - most} more" if len(entries) > most else ""
    return ", ".join(entries[:most]) + more


def build(method: str, path: Path, options: Mapping[str, Any]) -> torch.nn.Module:
    """The method's network with the weights of `path`, on the CPU in float32, in eval mode."""
    checkpoint = read(path, method)
    try:
        # without memory: drawing initial weights would cost time and move the caller's random state
        with torch.device("meta"):
            model = model_class(method)(padding=checkpoint.padding, **options)
    except ValueError as error:
        raise ValueError(f"{method} with weights {path}: {error}") from error
    model.load_state_dict(checkpoint.state, assign=True)
    return model.eval()
