"""Zero-DCE's weights in the order in which the lanes of a warp hold them for the tensor cores of CUDA C++.

A product is of 16 pixels with 16 inputs, by 8 outputs; of the 16 x 8 weights lane 4 g + t holds four: those
of column g for inputs 2 t, 2 t + 1 and those plus 8. Which weights these are is our choice: the outputs, so
that a lane's sums are eight channels that adjoin in memory, or all steps of the curve of one colour; and of
the first layer the inputs, so that a lane reads all channels of one pixel at once.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

FEATURES, STEPS, COLOURS = 32, 8, 3
LANES, VECTOR = 32, 8  # weights that a lane reads at once: 16 bytes
SIDE = 16  # inputs of a product
# of 32: of the first layer a matrix for each of three rows, of the others for nine taps of twice 16 inputs
ROWS = 3 * SIDE + 9 * FEATURES * 9


def pack_fragments(weights: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """The weights of the seven layers, `[2640, 32]`, one source of a layer after the other.

    Of a source: column of taps, half of the inputs, row of taps, half of the outputs, lane, and eight
    weights. Of the first layer: row of taps, half of the outputs, lane, and eight weights.
    """
    wide = [weight.detach().to(torch.float32) for weight in weights]
    packed = [_first(wide[0])]
    for weight in (*wide[1:-1], _by_colour(wide[-1])):
        packed += [_source(source) for source in weight.split(FEATURES, 1)]
    return torch.cat([part.flatten() for part in packed]).to(dtype).view(ROWS, FEATURES).contiguous()


def pack_biases(biases: Sequence[Tensor]) -> Tensor:
    """The biases of the seven layers, `[7, 32]`, the last layer's as its sums."""
    wide = [bias.detach().to(torch.float32) for bias in biases]
    return torch.stack([*wide[:-1], _by_colour(wide[-1])]).contiguous()


def _by_colour(maps: Tensor) -> Tensor:
    """From map 3 s + c, of step s and colour c, to map 8 c + s, and eight of zero."""
    ordered = maps.unflatten(0, (STEPS, COLOURS)).transpose(0, 1).flatten(0, 1)
    return torch.cat([ordered, ordered.new_zeros(FEATURES - len(ordered), *maps.shape[1:])])


def _places(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Of each weight, `[2, 32, 8]`: its output, which quarter of a product's inputs its lane has, and which
    of the four in it this is.
    """
    part = torch.arange(2, device=device).view(-1, 1, 1)
    lane = torch.arange(LANES, device=device).view(1, -1, 1)
    place = torch.arange(VECTOR, device=device).view(1, 1, -1)
    group = 2 * part + place // 4
    column = lane // 4
    output = column // 2 * VECTOR + 2 * group + column % 2
    return output, (lane % 4).expand_as(output), (place % 4).expand_as(output)


def _source(weight: Tensor) -> Tensor:
    output, quarter, place = _places(weight.device)
    inputs = 2 * quarter + 8 * (place // 2) + place % 2
    halves = [weight[output, half * SIDE + inputs] for half in range(FEATURES // SIDE)]
    # [half, part, lane, place, ky, kx]
    return torch.stack(halves).permute(5, 0, 4, 1, 2, 3)


def _first(weight: Tensor) -> Tensor:
    output, pixel, channel = _places(weight.device)
    # a fourth channel and a fourth neighbour, which are nothing
    padded = F.pad(weight, (0, 1, 0, 0, 0, 1))
    return padded[output, channel, :, pixel].permute(3, 0, 1, 2)
