"""What NeRCo's networks are made of: instance norm in any layout, recomputation, initial weights."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fastllie.models.network import standard_only
from fastllie.ops.checks import check_count
from fastllie.ops.convolution_training import checkpoint_contexts

EPS = 1e-5  # of the published instance norms, which have neither weights nor running statistics
INIT_STD = 0.02


def instance_norm(x: Tensor) -> Tensor:
    """(x - mean) / sqrt(variance + 1e-5) over the pixels of each image and channel, `[B, C, H, W]`.

    The variance is the biased one; training and inference are the same.
    """
    # PyTorch's own is seven times slower channels last on a CPU, and leaves that layout for several images
    if one_way() or not x.is_contiguous(memory_format=torch.channels_last):
        return F.instance_norm(x, eps=EPS)
    images = [F.batch_norm(image, None, None, training=True, eps=EPS) for image in x.split(1)]
    return images[0] if len(images) == 1 else torch.cat(images)


def one_way() -> bool:
    """Whether a compiler, an exporter or torch.func is at work: these take one way, whatever the layout."""
    return torch.compiler.is_compiling() or standard_only()


def activate(x: Tensor) -> Tensor:
    """Instance norm, then ReLU."""
    return F.relu(instance_norm(x), inplace=True)


def reflect(x: Tensor, margin: int) -> Tensor:
    """`margin` more rows and columns on each side, mirrored without the border pixel."""
    return F.pad(x, (margin,) * 4, mode="reflect")


def recomputed(step: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`step(x)`; where a gradient is wanted, what `step` makes on the way is made again for it, not kept.

    Ends `step` in a convolution, that one is not run again: only its input is needed.
    """
    if torch.is_grad_enabled() and not one_way():
        return checkpoint(
            step, x, use_reentrant=False, preserve_rng_state=False, context_fn=checkpoint_contexts
        )
    return step(x)


def whole(name: str, value: int, least: int = 1) -> int:
    """The value, if it is an integer that is large enough.

    Raises:
        ValueError: it is not.
    """
    check_count(name, value, least)
    return value


@torch.no_grad()
def initialise(network: nn.Module) -> None:
    """The published start: weights from N(0, 0.02), biases 0."""
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            parameter.zero_()
        else:
            parameter.normal_(0, INIT_STD)
