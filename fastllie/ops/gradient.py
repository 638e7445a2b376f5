"""How an operator's gradient is registered: once to be differentiated again, and once not to be."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from fastllie.ops.direct import Operator, look, register


class Gradient(Operator):
    """Two operators of one implementation, the second of which autograd knows nothing of.

    PyTorch's way through the autograd of an operator that is registered in Python costs the host as much as
    the operator itself on a small image. Where gradients are computed with gradients off (without
    `create_graph`) nobody can differentiate them, and the second one serves, or the implementation itself.
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
        first = signature.count("Tensor grad")

        def complete(*arguments: Any) -> tuple[Tensor, ...]:
            found = implementation(*arguments)
            # an operator has to return tensors where none are needed, too
            inputs = arguments[first : first + len(found)]
            return tuple(
                x.new_empty(0) if grad is None else grad for grad, x in zip(found, inputs, strict=True)
            )

        super().__init__(library, schema, complete, fake, differentiate, save)
        register(library, f"{name}_once({signature}", complete, fake)
        self.implementation = implementation
        self.once = getattr(torch.ops.fastllie, f"{name}_once")

    def __call__(self, *arguments: Any) -> Sequence[Tensor | None]:
        if torch.is_grad_enabled():
            return self.registered(*arguments)
        if is_dynamo_compiling() or look()(arguments[: self.tensors]) is None:
            return self.once(*arguments)
        return self.implementation(*arguments)


def where_needed(gradients: Sequence[Tensor | None], needs: Sequence[bool]) -> list[Tensor | None]:
    """What autograd gets of them."""
    return [grad if needed else None for grad, needed in zip(gradients, needs, strict=True)]
