"""Weights packed for the fused kernels: until when they hold, and when a network may run on them."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from fastllie.ops import backend as backends


class Packing:
    """What was packed from a network's weights, beside a copy of these: it tells whether they are the same.

    Nothing that PyTorch keeps of a tensor tells that: `.data`, NumPy and other views write past its counter
    of versions. So the values are compared, which takes a fraction of the time that packing does. Not on an
    accelerator, which would have to be waited for: there they are packed at each call.

    A copy or a pickle of it is empty: it packs for itself.

    Attributes:
        settled: Nobody changes the weights any more: what was packed once stays.
    """

    def __init__(self) -> None:
        self.settled = False
        self._held: tuple[Hashable, Any, list[Tensor]] | None = None

    def get(self, weights: Sequence[Tensor], kind: Hashable, pack: Callable[[], Any]) -> Any:
        """`pack()`, called anew only when `kind`, or one of the weights, is another."""
        held = self._held
        if held is None or held[0] != kind or not (self.settled or _equal(held[2], weights)):
            # copied first: what another thread changes while they are packed is seen the next time
            copies = [] if self.settled else [tensor.detach().clone() for tensor in weights]
            held = self._held = kind, pack(), copies
        return held[1]

    def __reduce__(self) -> tuple[Any, ...]:
        return Packing, ()


def _equal(held: Sequence[Tensor], weights: Sequence[Tensor]) -> bool:
    return len(held) == len(weights) and all(
        old.is_cpu and new.is_cpu and old.dtype == new.dtype and torch.equal(old, new)
        for old, new in zip(held, weights, strict=True)
    )


def can_run_packed(
    images: Sequence[Tensor],
    weights: Iterable[Tensor],
    dtypes: Sequence[torch.dtype],
    serving: Sequence[str] = ("cpu",),
) -> bool:
    """Whether a network may run on packed weights: without gradients, all of one of the dtypes, on the device
    of a backend that has the kernels.

    A module that torch.compile or an exporter traces is better left as it is.
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
    if any(t.device != images[0].device for t in tensors):
        return False
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        return False
    return backends.choose("auto", images[0]) in serving
