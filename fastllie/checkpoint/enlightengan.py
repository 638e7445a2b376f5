"""The files of EnlightenGAN: ours, and those of the published repository."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fastllie.checkpoint.file import PARALLEL, Checkpoint, flag

# what a file says of its network beside the tensors
SAID = ("align_corners", "in_logits", "sees_logits")


def layout(found: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Checkpoint:
    """EnlightenGAN, ours or published; the keys are the same, the width is read off the first convolution.

    The published files were written before batch norm counted its batches; the counters start at zero.
    """
    state = dict(found)
    for key in found:
        norm, _, kind = key.rpartition(".")
        if kind == "running_mean":
            state.setdefault(f"{norm}.num_batches_tracked", torch.zeros((), dtype=torch.int64))
    options: dict[str, Any] = {name: flag(metadata, name) for name in SAID}
    first = state.get("conv1_1.weight", torch.empty(0))
    if first.numel():
        options["width"] = first.shape[0] if first.dim() else 1
    return Checkpoint(state, options, {key: key for key in state})


def published(network: Any) -> dict[str, Tensor]:
    """The state dict as the published code saves one."""
    from fastllie.models.enlightengan import WIDTH

    if network.width != WIDTH:
        raise ValueError(f"the published code has the width {WIDTH} alone, the network has {network.width}")
    if network.in_logits or network.sees_logits:
        raise ValueError("the published code knows no logits")
    # the published PyTorch knows no counters of batches
    return {
        f"{PARALLEL}{key}": tensor.detach().cpu().clone()
        for key, tensor in network.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
