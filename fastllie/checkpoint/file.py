"""What a file of weights holds: read without unpickling objects, written whole or not at all."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from fastllie.checkpoint.candidates import StandIn, StandInOfNumPy, tensors_of
from fastllie.images.files import replacing

SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")
# The level of the exposure meter that a network is to stand behind, a tensor beside its weights: programs
# that hand on no metadata hand on this
METER = "meter"
# what DataParallel puts before each name
PARALLEL = "module."


def parted(path: str | os.PathLike[str]) -> tuple[Path, str]:
    """The file and the place in it that FILE:PLACE names, say model.pth:params; the place is "" for none."""
    file, colon, place = os.fspath(path).rpartition(":")
    if colon and place and Path(file).suffix.lower() in SUFFIXES and not os.path.exists(path):
        return Path(file), place
    return Path(path), ""


@dataclass(frozen=True)
class Checkpoint:
    """A file of weights in our layout.

    Attributes:
        state: The state dict, in our spelling and sign; float32, counters aside.
        options: What the network's constructor has to be given for it.
        names: Our key -> the key in the file.
    """

    state: dict[str, Tensor]
    options: dict[str, Any]
    names: dict[str, str]


def write(path: str | os.PathLike[str], state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file in our layout, whole or not at all, readable as any new file is."""
    with replacing(path) as temporary:
        # not save_file: what it writes only its owner may read
        temporary.write_bytes(to_bytes(dict(state), metadata={"format": "fastllie", **metadata}))


def write_published(path: str | os.PathLike[str], state: Mapping[str, Tensor]) -> None:
    """Write a state dict as published code saves one, whole or not at all."""
    # an open file: of a name, that of the temporary file would be kept inside
    with replacing(path) as temporary, open(temporary, "wb") as file:
        torch.save(dict(state), file)


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a file."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except Exception as error:  # safetensors' own errors have no common public base
        raise ValueError(f"{path} is not a readable safetensors file{_looks_like(path)}: {error}") from error


def read_torch(path: Path) -> dict[tuple[str, ...], Tensor]:
    """The tensors of a file of `torch.save`, by the parts of their names. No object in it comes to life.

    Raises:
        ValueError: not such a file, or no tensors in it.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle and torch each raise their own kinds for a damaged file
        found = _beside_objects(path)
        if found:
            return found
        first = str(error).strip().split("\n")[0]
        raise ValueError(
            f"{path} is not a readable PyTorch checkpoint of tensors alone{_looks_like(path)}: {first}"
        ) from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}; wanted a state dict (names to tensors)")
    found = tensors_of(content)
    if not found:
        entries = listed([str(key) for key in content])
        raise ValueError(f"{path}: wanted tensors alone, but these entries are not: {entries}")
    return found


def _beside_objects(path: Path) -> dict[tuple[str, ...], Tensor]:
    """The tensors of a file that holds objects too, say settings or a whole module: they stay stand-ins."""
    serialization = torch.serialization
    if not hasattr(serialization, "get_unsafe_globals_in_checkpoint"):
        # PyTorch before 2.6
        return {}
    try:
        names = serialization.get_unsafe_globals_in_checkpoint(path)
        known: list[Any] = [
            (StandInOfNumPy if name.startswith("numpy.") else StandIn, name) for name in names
        ]
        with serialization.safe_globals(known):
            return tensors_of(torch.load(path, map_location="cpu", weights_only=True))
    except Exception:
        # the caller has the reason
        return {}


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


def flag(metadata: Mapping[str, str], name: str) -> bool:
    """Whether the metadata say so; what they do not name is false."""
    given = metadata.get(name, "False")
    if given not in ("True", "False"):
        raise ValueError(f"{name} in the file must be 'True' or 'False', got {given!r}")
    return given == "True"


def level_tensor(level: float) -> Tensor:
    """The level of a meter as a file holds it, in all its digits."""
    return torch.tensor(level, dtype=torch.float64)


def level_of(found: Tensor) -> float:
    """The level of a meter that a file holds."""
    if found.numel() != 1 or not 0 < float(found) < 1:
        given = float(found) if found.numel() == 1 else tuple(found.shape)
        raise ValueError(f"{METER} in the file must be a number between 0 and 1, got {given}")
    return float(found)


def listed(entries: list[str], most: int = 8) -> str:
    """The first entries, and how many more there are."""
    more = f" and {len(entries) - most} more" if len(entries) > most else ""
    return ", ".join(entries[:most]) + more
