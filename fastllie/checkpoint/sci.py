"""The files of SCI: ours, and those of the published repository, of both its states."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fastllie.checkpoint.file import Checkpoint

_COPIES = re.compile(r"(enhance|calibrate)\.blocks\.(\d+)\.(.+)")
_PLAIN = {"out_conv.0": "in_conv.0", "out_conv.2": "conv.0", "out_conv.4": "out_conv.0"}


def layout(found: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Checkpoint:
    """SCI, ours or published; the keys are the same.

    The published files hold the shared blocks once more for each time that they run: `*.blocks.*`. The
    network of March 2022 has neither residual nor batch norm, and its convolutions all stand in
    `enhance.out_conv`. Files of ours say in the metadata how they pad and how often the block runs; all
    others pad with zeros.
    """
    names = {}
    runs = int(metadata.get("blocks", 1))
    plain = any(key.startswith("enhance.out_conv.4.") for key in found)
    for name, tensor in found.items():
        copy = _COPIES.fullmatch(name)
        if copy is None:
            network, _, rest = name.partition(".")
            layer, _, kind = rest.rpartition(".")
            renamed = plain and network == "enhance" and layer in _PLAIN
            names[f"enhance.{_PLAIN[layer]}.{kind}" if renamed else name] = name
            continue
        network, place, rest = copy.groups()
        original = found.get(f"{network}.{'conv' if network == 'enhance' else 'convs'}.{rest}")
        if original is None or not torch.equal(original, tensor):
            # not the published scheme of shared blocks: let it be listed
            names[name] = name
        elif network == "enhance":
            runs = max(runs, int(place) + 1)
    state = {key: found[name] for key, name in names.items()}
    first = state.get("enhance.in_conv.0.weight", torch.empty(3))
    block = "basic"
    if any(key.startswith("enhance.cell.") for key in state):
        block = "ruas"
    elif "enhance.conv.0.weight" in state and "enhance.conv.1.weight" not in state:
        block = "plain"
    options = {
        "block": block,
        "blocks": runs,
        "channels": max(1, first.shape[0]) if first.dim() else 1,
        "padding": metadata.get("padding", "zeros"),
        "calibrate": any(key.startswith("calibrate.") for key in state),
    }
    return Checkpoint(state, options, names)


def published(network: Any) -> dict[str, Tensor]:
    """The state dict as the published code saves one."""
    from fastllie.models.sci import CALIBRATE_BLOCKS

    if network.block != "basic":
        raise ValueError(f"the published code has the block 'basic' alone, the network has {network.block!r}")
    state = {}
    for key, tensor in network.state_dict().items():
        state[key] = tensor.detach().cpu().clone()
        for shared, copies in (("enhance.conv.", network.blocks), ("calibrate.convs.", CALIBRATE_BLOCKS)):
            if key.startswith(shared):
                rest = key.removeprefix(shared)
                prefix = shared.split(".")[0]
                state |= {f"{prefix}.blocks.{place}.{rest}": state[key] for place in range(copies)}
    return state
