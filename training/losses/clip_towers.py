"""The two networks of CLIP: the ResNet that sees images, and the transformer that reads prompts."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_HEAD = 64  # channels of an attention head, in all of CLIP
_REDUCTION = 32  # of the image, until the attention that pools it


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions beside the input; where they reduce, they average first."""

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample: Any = None
        if stride > 1 or inputs != 4 * width:
            layers = {"0": nn.Conv2d(inputs, 4 * width, 1, bias=False), "1": nn.BatchNorm2d(4 * width)}
            self.downsample = nn.ModuleDict(layers)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(self._reduced(F.relu(self.bn2(self.conv2(y))))))
        if self.downsample is not None:
            x = self.downsample["1"](self.downsample["0"](self._reduced(x)))
        return F.relu(x + y)

    def _reduced(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, self.stride) if self.stride > 1 else x


class AttentionPool(nn.Module):
    """One query, the mean of all places, over the places and itself."""

    def __init__(self, places: int, channels: int, outputs: int):
        super().__init__()
        self.heads = channels // _HEAD
        self.positional_embedding = nn.Parameter(torch.zeros(places + 1, channels))
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(channels, channels) for _ in range(3))
        self.c_proj = nn.Linear(channels, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([x.mean(1, keepdim=True), x], 1) + self.positional_embedding
        query, key, value = (
            projected.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for projected in (self.q_proj(x[:, :1]), self.k_proj(x), self.v_proj(x))
        )
        found = F.scaled_dot_product_attention(query, key, value)
        return self.c_proj(found.transpose(1, 2).flatten(2)[:, 0])


class ImageTower(nn.Module):
    """CLIP's ResNet: prepared images `[B, 3, size, size]` -> features `[B, outputs]`.

    Args:
        width: Channels after the stem.
        blocks: Of each of the four layers.
        size: Side of the images.
    """

    def __init__(self, width: int, blocks: Sequence[int], size: int, outputs: int):
        super().__init__()
        self.size = size
        self.conv1 = nn.Conv2d(3, width // 2, 3, 2, 1, bias=False)
        self.conv2 = nn.Conv2d(width // 2, width // 2, 3, padding=1, bias=False)
        self.conv3 = nn.Conv2d(width // 2, width, 3, padding=1, bias=False)
        self.bn1, self.bn2, self.bn3 = (nn.BatchNorm2d(n) for n in (width // 2, width // 2, width))
        inputs = width
        for layer, count in enumerate(blocks):
            wide = width * 2**layer
            made = []
            for place in range(count):
                made.append(Bottleneck(inputs, wide, 2 if layer and not place else 1))
                inputs = 4 * wide
            self.add_module(f"layer{layer + 1}", nn.Sequential(*made))
        self.attnpool = AttentionPool((size // _REDUCTION) ** 2, inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        for place in ("1", "2", "3"):
            x = F.relu(self.get_submodule(f"bn{place}")(self.get_submodule(f"conv{place}")(x)))
        x = F.avg_pool2d(x, 2)
        for layer in ("layer1", "layer2", "layer3", "layer4"):
            x = self.get_submodule(layer)(x)
        return self.attnpool(x)


def tower_of(state: Mapping[str, Tensor], source: str) -> ImageTower:
    """The image tower, with the sizes that its tensors have."""
    prefix = "visual."
    mine = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    needed = ("conv3.weight", "attnpool.positional_embedding", "attnpool.c_proj.weight")
    missing = [prefix + key for key in needed if key not in mine]
    missing += [key for key in ("logit_scale",) if key not in state]
    if missing:
        raise ValueError(f"{source} holds no ResNet of CLIP: {', '.join(missing)} missing")
    blocks = [
        len({key.split(".")[1] for key in mine if re.match(rf"layer{layer}\.\d+\.", key)})
        for layer in (1, 2, 3, 4)
    ]
    places = len(mine["attnpool.positional_embedding"]) - 1
    # without weights of its own, which would draw random numbers
    with torch.device("meta"):
        tower = ImageTower(
            len(mine["conv3.weight"]),
            blocks,
            _REDUCTION * math.isqrt(places),
            len(mine["attnpool.c_proj.weight"]),
        )
    wanted = {key: value for key, value in tower.state_dict().items() if value.is_floating_point()}
    # of batches, which nothing reads in a network that is not trained
    counters = {key: torch.zeros(()) for key in tower.state_dict() if key not in wanted}
    wrong = sorted(
        prefix + key
        for key in wanted.keys() | mine.keys()
        if key not in wanted or key not in mine or wanted[key].shape != mine[key].shape
    )
    if wrong:
        raise ValueError(
            f"{source} holds no ResNet of CLIP: {', '.join(wrong[:5])} missing or of other sizes"
        )
    tower.load_state_dict({**mine, **counters}, assign=True)
    return tower


@torch.no_grad()
def encode_text(state: Mapping[str, Tensor], tokens: Tensor) -> Tensor:
    """Features `[N, D]` of prompts by the text tower that a state dict of CLIP holds.

    Args:
        tokens: `[N, L]` of int64, zeros behind the end.

    Raises:
        ValueError: no text tower in the state dict.
    """
    if "token_embedding.weight" not in state:
        raise ValueError("no text tower among the weights of CLIP: give text_features, [2, D]")

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    x = state["token_embedding.weight"][tokens] + state["positional_embedding"][: tokens.shape[1]]
    heads = x.shape[-1] // _HEAD
    blocks = {key.split(".")[2] for key in state if key.startswith("transformer.resblocks.")}
    for block in sorted(blocks, key=int):
        name = f"transformer.resblocks.{block}"
        weight, bias = state[f"{name}.attn.in_proj_weight"], state[f"{name}.attn.in_proj_bias"]
        query, key, value = (
            part.unflatten(2, (heads, -1)).transpose(1, 2)
            for part in F.linear(norm(x, f"{name}.ln_1"), weight, bias).chunk(3, 2)
        )
        seen = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + linear(seen.transpose(1, 2).flatten(2), f"{name}.attn.out_proj")
        wide = linear(norm(x, f"{name}.ln_2"), f"{name}.mlp.c_fc")
        # the GELU that CLIP was trained with
        x = x + linear(wide * torch.sigmoid(1.702 * wide), f"{name}.mlp.c_proj")
    # the end has the largest number of all tokens
    ends = norm(x, "ln_final")[torch.arange(len(tokens)), tokens.argmax(1)]
    return ends @ state["text_projection"]
