"""Weights: finding a file, recognising its layout by content, and saying exactly what does not fit."""

import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastllie.checkpoint import enlightengan, hub, nerco, sci, zerodce
from fastllie.checkpoint.candidates import average_of, candidates, same, tensors_of
from fastllie.checkpoint.file import (
    METER,
    SUFFIXES,
    Checkpoint,
    level_of,
    listed,
    parted,
    read_safetensors,
    read_torch,
    write_published,
)
from fastllie.methods import METHODS, info, model_class, unknown
from fastllie.models.metered import Metered
from fastllie.models.network import Network

FOLDER = Path(__file__).resolve().parents[1] / "weights"
LEAST = 4  # tensors, of the smallest network
_LAYOUTS: Mapping[str, Callable[[Mapping[str, Tensor], Mapping[str, str]], Checkpoint]] = {
    "zerodce": zerodce.layout,
    "zerodce++": zerodce.layout,
    "sci": sci.layout,
    "enlightengan": enlightengan.layout,
    "nerco": nerco.layout,
    # there is no published file
    "dawn": lambda found, metadata: Checkpoint(dict(found), {}, {key: key for key in found}),
}


def find(method: str, weights: str | os.PathLike[str] | None) -> Path:
    """The file that `weights` means: None (the default variant), a variant's name, a path, or hf://owner/name.

    Behind a path and a colon may stand which of several weights in the file is meant: model.pth:params.

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
    if isinstance(weights, str) and weights.startswith(hub.SCHEME):
        return hub.fetch(weights)
    whole = Path(weights)
    path, _ = parted(whole)
    if path.is_dir() and method == "nerco":
        return nerco.file_in(path)
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
    return whole


def read(path: Path, method: str) -> Checkpoint:
    """Read weights for `method`: our layout, or the one of the published repository.

    Args:
        path: As `find` gives it, perhaps with a place in the file.

    Raises:
        ValueError: a file that cannot be read, or whose keys or shapes are not those of the method; several
            weights that differ, and no word which of them is meant.
    """
    path, place = parted(path)
    tensors, metadata = _tensors(path, method)
    content = candidates(tensors, LEAST)
    if place and place not in content:
        raise ValueError(f"{path} holds no weights called {place!r}; it holds: {listed(list(content)[1:])}")
    checkpoint = _fitting(path, method, {place: content[place]} if place else content, metadata)
    for key, tensor in checkpoint.state.items():
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            raise ValueError(f"{path}: {key} holds {bad} values that are NaN or infinite")
    return checkpoint


def methods_of(path: Path) -> list[str]:
    """The methods that the weights of a file fit.

    Raises:
        ValueError: a file that cannot be read.
    """
    path, place = parted(path)
    found = []
    for method in METHODS:
        tensors, metadata = _tensors(path, method)
        content = candidates(tensors, LEAST)
        parts = [content[place]] if place in content else []
        if any(_read_as(method, part, metadata) for part in (parts if place else content.values())):
            found.append(method)
    return found


def fits(method: str, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bool:
    """Whether tensors and metadata in our layout are a network of the method."""
    return _read_as(method, state, metadata) is not None


def _tensors(path: Path, method: str) -> tuple[dict[tuple[str, ...], Tensor], dict[str, str]]:
    """What a file holds, and its metadata."""
    if path.suffix.lower() == ".safetensors":
        content, metadata = read_safetensors(path)
        return tensors_of(content), metadata
    if method == "nerco" and nerco.is_published(path):
        return tensors_of(nerco.read_published(path)), {}
    return read_torch(path), {}


def _fitting(
    path: Path, method: str, content: Mapping[str, Mapping[str, Tensor]], metadata: Mapping[str, str]
) -> Checkpoint:
    """What of the content, by its place in the file, is a state dict of the method.

    Of NAME and NAME_ema that differ the average is taken, and named.

    Raises:
        ValueError: none is, or which of several is meant cannot be known.
    """
    fitting: dict[str, Checkpoint] = {}
    for place, found in content.items():
        checkpoint = _read_as(method, found, metadata)
        if checkpoint is None or any(same(checkpoint.state, other.state) for other in fitting.values()):
            continue
        if not place:
            # all of the file, or all but what the method leaves alone
            return checkpoint
        fitting[place] = checkpoint
    if not fitting:
        raise ValueError(_why(path, method, content, metadata))
    if len(fitting) == 1:
        return next(iter(fitting.values()))
    average = average_of(fitting)
    if not average:
        raise ValueError(
            f"{path} holds several weights of {method!r} that differ: {', '.join(fitting)}; say which is"
            f" meant behind its name, as in {os.fspath(path) + ':' + next(iter(fitting))!r}"
        )
    other = next(place for place in fitting if place != average)
    warnings.warn(
        f"{path}: the weights are the average {average!r}; the others are {os.fspath(path) + ':' + other!r}",
        stacklevel=2,
    )
    return fitting[average]


def _read_as(method: str, found: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Checkpoint | None:
    """The tensors in our layout, if they are a network of the method."""
    level = level_of(found[METER]) if METER in found else None
    found = _network_of(found)
    # files of half precision too: what is folded is folded in float32
    found = {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in found.items()}
    checkpoint = _LAYOUTS[method](found, metadata)
    if level is not None:
        checkpoint.options[METER] = level
    try:
        wanted = _wanted(method, checkpoint)
        # counters of steps that are no part of a network
        state = {key: value for key, value in checkpoint.state.items() if key in wanted or value.dim()}
        return replace(checkpoint, state=state) if _shapes(state) == wanted else None
    except ValueError:
        # sizes that make no network of this method: said where nothing else fits
        return None


def _network_of(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without what stands beside the network."""
    return {key: tensor for key, tensor in found.items() if key != METER}


def _why(
    path: Path, method: str, content: Mapping[str, Mapping[str, Tensor]], metadata: Mapping[str, str]
) -> str:
    """What does not fit: of the part of the file that has most of the names."""
    for other in METHODS:
        if other != method and any(_read_as(other, found, metadata) for found in content.values()):
            return f"{path} holds weights of {other!r}, wanted weights of {method!r}"
    layouts = [_LAYOUTS[method](_network_of(found), metadata) for found in content.values()]
    checkpoint = max(layouts, key=lambda made: len(made.state.keys() & _wanted(method, made).keys()))
    names = checkpoint.names
    found = _shapes(checkpoint.state)
    wanted = _wanted(method, checkpoint)
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
            lines.append(f"  {label}: {listed(entries)}")
    lines.append("  wanted: fastllie's layout, or the one of the published repository")
    return "\n".join(lines)


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in state.items()}


def _wanted(method: str, checkpoint: Checkpoint) -> dict[str, tuple[int, ...]]:
    """The keys and shapes of a network with the options that the file tells.

    Neither the padding matters to them, and one method may not know another's, nor the meter before all.
    """
    options = {name: value for name, value in checkpoint.options.items() if name not in ("padding", METER)}
    return _shapes_of(method, tuple(options.items()))


@lru_cache(maxsize=64)
def _shapes_of(method: str, options: tuple[tuple[str, Any], ...]) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return _shapes(model_class(method)(**dict(options)).state_dict())


def build(method: str, path: Path, options: Mapping[str, Any]) -> Network:
    """The method's network with the weights of `path`, on the CPU in float32, in eval mode.

    Of `options` those that are None leave the choice to the file.
    """
    checkpoint = read(path, method)
    try:
        return _made(method, checkpoint, options)
    except ValueError as error:
        raise ValueError(f"{method} with weights {path}: {error}") from error


def from_state(method: str, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Network | None:
    """The network of a state dict in our layout or the published one; None where it is not the method's."""
    checkpoint = _read_as(method, state, metadata)
    return None if checkpoint is None else _made(method, checkpoint, {})


def _made(method: str, checkpoint: Checkpoint, options: Mapping[str, Any]) -> Network:
    given = {name: value for name, value in options.items() if value is not None}
    # without memory: drawing initial weights would cost time and move the caller's random state
    options = {**checkpoint.options, **given}
    level = options.pop(METER, None)
    with torch.device("meta"):
        model = model_class(method)(**options)
    model.load_state_dict(_without_subnormals(checkpoint.state), assign=True)
    return (model if level is None else Metered(model, level)).eval()


def _without_subnormals(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state with zeros for numbers that are too small for float32 to hold in full.

    A weight decay leaves many of them in filters that nothing reads, a quarter of the published Zero-DCE.
    They change no result, and a network full of them takes thirty times as long on a CPU.
    """
    found = {}
    for key, value in state.items():
        if value.is_floating_point():
            small = (value.abs() < torch.finfo(torch.float32).tiny) & (value != 0)
            value = value.masked_fill(small, 0) if bool(small.any()) else value
        found[key] = value
    return found


def export_official(network: torch.nn.Module, path: str | os.PathLike[str]) -> None:
    """Write a network's weights as its published code does, for its scripts.

    SCI: a .pt with the shared blocks repeated under `blocks`; the script that enhances needs the enhance
    network alone, the one that trains the calibration network too. They pad with zeros, whatever the network
    was trained with. EnlightenGAN: what the published `<epoch>_net_G_A.pth` holds, `module.` before every
    name; the published code takes its corners from the PyTorch that it runs on. NeRCo: `path` is a folder,
    made where there is none, that gets latest_net_Pre.pth, latest_net_H.pth and latest_net_G_A.pth.

    Raises:
        TypeError: another network than SCI, EnlightenGAN and NeRCo.
        ValueError: a block, a width, coordinates or a meter that the published code does not have.
    """
    from fastllie.models.enlightengan import EnlightenGAN
    from fastllie.models.nerco import NeRCo
    from fastllie.models.sci import SCI

    if isinstance(network, Metered):
        raise ValueError("the published code knows no meter")
    if isinstance(network, NeRCo):
        return nerco.export(network, Path(path))
    if isinstance(network, SCI):
        state = sci.published(network)
    elif isinstance(network, EnlightenGAN):
        state = enlightengan.published(network)
    else:
        raise TypeError(f"network must be an SCI, an EnlightenGAN or a NeRCo, got {type(network).__name__}")
    write_published(path, state)
