"""Weights that a network packs for the CPU's kernels when it is first run, and when that may be."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from fastllie.ops import backend as backends


class Packing:
    """What was packed from a network's weights, for as long as they stay as they are.

    A copy or a pickle of it is empty: it packs for itself.
    """

    def __init__(self) -> None:
        self._held: tuple[list[Any], Any, list[Tensor]] | None = None

    def get(self, weights: Sequence[Tensor], kind: Hashable, pack: Callable[[], Any]) -> Any:
        """`pack()`, called anew only when one of the weights, or `kind`, has changed."""
        found = [kind, *((tensor.data_ptr(), tensor._version, tensor.dtype) for tensor in weights)]
        held = self._held
        if held is None or held[0] != found:
            # the old values are kept alive, or new ones could come to lie where they were
            held = self._held = found, pack(), [tensor.detach() for tensor in weights]
        return held[1]

    def __reduce__(self) -> tuple[Any, ...]:
        return Packing, ()


def can_run_packed(
    images: Sequence[Tensor],
    weights: Iterable[Tensor],
    dtypes: Sequence[torch.dtype],
    serving: Sequence[str] = ("cpu",),
) -> bool:
    """Whether a network may run on packed weights: without gradients, all of one of the dtypes, on the device
    of a backend that has the kernels.

    A module that torch.compile or an exporter traces is better left as it is, and so are tensors of
    inference mode among the weights: they tell nobody that they changed.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    dtype = images[0].dtype
    weights = list(weights)
    tensors = [*images, *weights]
    if dtype not in dtypes or any(t.is_floating_point() and t.dtype != dtype for t in tensors):
        return False
    if any(type(t) not in (Tensor, torch.nn.Parameter) for t in tensors):
        return False
    if any(t.is_inference() for t in weights) or any(t.device != images[0].device for t in tensors):
        return False
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        return False
    return backends.choose("auto", images[0]) in serving
