"""How an operator's gradient is registered: once to be differentiated again, and once not to be."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


class Gradient:
    """Two operators of one implementation, the second of which autograd knows nothing of.

    PyTorch's way through the autograd of an operator that is registered in Python costs the host as much as
    the operator itself on a small image. Where gradients are computed with gradients off (without
    `create_graph`) nobody can differentiate them, and the second one serves.
    """

    def __init__(
        self,
        library: torch.library.Library,
        schema: str,
        implementation: Callable[..., Any],
        fake: Callable[..., Any],
        differentiate: Callable[..., Any],
        save: Callable[..., None],
    ) -> None:
        name, signature = schema.split("(", 1)
        for each in (name, f"{name}_once"):
            library.define(f"{each}({signature}")
            library.impl(each, implementation, "CompositeExplicitAutograd")
            torch.library.register_fake(f"fastllie::{each}", fake, lib=library)
        torch.library.register_autograd(f"fastllie::{name}", differentiate, setup_context=save, lib=library)
        self._twice = getattr(torch.ops.fastllie, name)
        self._once = getattr(torch.ops.fastllie, f"{name}_once")

    def __call__(self, *arguments: Any) -> Sequence[Tensor]:
        return (self._twice if torch.is_grad_enabled() else self._once)(*arguments)


def where_needed(gradients: Sequence[Tensor], needs: Sequence[bool]) -> list[Tensor | None]:
    """What autograd gets: an operator has to return tensors where none are needed, too."""
    return [grad if needed else None for grad, needed in zip(gradients, needs, strict=True)]
