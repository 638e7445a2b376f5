"""The images of a step of NeRCo, where its backward pass is cut, and groups of losses between the cuts."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fastllie.training.losses.adversarial import full


class Scene(NamedTuple):
    """The images that the losses are made of, `[B, 3, H, W]` in [-1, 1], float32 at least."""

    dark: Tensor  # A
    normal: Tensor  # B
    represented: Tensor  # Pre(A), unbounded
    residual: Tensor  # of H(A)
    enhanced: Tensor  # G_A of A
    darkened: Tensor  # G_B of B


class Cut:
    """Where the backward pass waits: tensors, and leaves in float32 at least that stand for them.

    What depends on the leaves goes backward into their gradients; `backward` sends those on.
    """

    def __init__(self, *made: Tensor):
        self._made = [full(tensor) for tensor in made]
        self.leaves = [tensor.detach().requires_grad_(tensor.requires_grad) for tensor in self._made]

    def backward(self, inputs: Sequence[Tensor]) -> None:
        pairs = [(made, leaf.grad) for made, leaf in zip(self._made, self.leaves, strict=True)]
        used = [(made, grad) for made, grad in pairs if grad is not None]
        if used:
            tensors, gradients = zip(*used, strict=True)
            torch.autograd.backward(tensors, gradients, inputs=inputs)


class Group(NamedTuple):
    """Losses that depend on passes of their own.

    Attributes:
        losses: The generators', weighted.
        judges: The discriminators' of the same images; they depend on passes that the generators' may share.
    """

    losses: dict[str, Tensor]
    judges: dict[str, Tensor]
