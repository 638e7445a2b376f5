"""What in a file may be a state dict: whatever a trainer has wrapped around it, and put before its names."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

Path = tuple[str, ...]

# Parts of a name that wrappers of modules put in between, wherever that is: DataParallel, `torch.compile`,
# FSDP and activation checkpoints. What a pickled module keeps its tensors in is the same to a reader
_TRANSPARENT = frozenset(
    (
        *("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"),
        *("_parameters", "_buffers", "_modules"),
    )
)
_DEEPEST = 32


class StandIn:
    """Stands in for a class or function of a pickle: makes a dictionary, whatever it is called with.

    PyTorch's reader takes items and a state for no other kind of object than `OrderedDict`.
    """

    def __new__(cls, *arguments: Any, **settings: Any) -> Any:
        return OrderedDict()


class StandInOfNumPy:
    """The same for what NumPy pickles, whose state is a tuple and is forgotten."""

    def __init__(self, *arguments: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def tensors_of(content: Any) -> dict[Path, Tensor]:
    """All tensors in nested dictionaries and lists, by the parts of their names."""
    return dict(_walk(content, ()))


def _walk(content: Any, path: Path) -> Iterator[tuple[Path, Tensor]]:
    if isinstance(content, Tensor):
        yield path, content.detach()
    elif len(path) > _DEEPEST:
        return
    elif isinstance(content, Mapping):
        for name, value in (*content.items(), *getattr(content, "__dict__", {}).items()):
            yield from _walk(value, (*path, *str(name).split(".")))
    elif isinstance(content, (list, tuple)):
        for place, value in enumerate(content):
            yield from _walk(value, (*path, str(place)))


def candidates(tensors: Mapping[Path, Tensor], least: int) -> dict[str, dict[str, Tensor]]:
    """Every dictionary of at least so many tensors, by the name of the place where it begins; "" is the file.

    The outer ones come first.
    """
    found: dict[Path, dict[str, Tensor]] = {(): {}}
    for path, tensor in tensors.items():
        for depth in range(len(path)):
            place = found.setdefault(path[:depth], {})
            name = ".".join(part for part in path[depth:] if part not in _TRANSPARENT)
            place[".".join(path[depth:]) if name in place else name] = tensor
    return {
        ".".join(place): found[place]
        for place in sorted(found, key=len)
        if not place or len(found[place]) >= least
    }


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Whether two dictionaries hold the same names and values."""
    return one.keys() == other.keys() and all(
        one[key].shape == other[key].shape and torch.equal(one[key].float(), other[key].float())
        for key in one
    )


def average_of(places: Iterable[str]) -> str:
    """Of two places that BasicSR's names couple, NAME and NAME_ema, the average; "" for all others.

    Who trains so keeps the average to be used, and the other to go on from.
    """
    first, *others = sorted(places, key=len)
    return others[0] if others in ([f"{first}_ema"], [f"{first}-ema"]) else ""
