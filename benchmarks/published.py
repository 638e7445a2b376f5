"""What the authors' code computes, step by step in its own order: what a user has without fastllie."""

import torch
from torch import Tensor

_NEAR = ((1, 0), (0, 1), (1, 1), (1, -1), (2, 0), (0, 2), (2, 1), (2, -1), (1, 2), (1, -2), (2, 2), (2, -2))


def sci_smoothness(illum: Tensor, guide: Tensor) -> Tensor:
    """SCI's smoothness loss: 24 weight maps from YCbCr in memory order, then 24 weighted norms."""
    matrix = guide.new_tensor([[0.257, -0.148, 0.439], [0.564, -0.291, -0.368], [0.098, 0.439, -0.071]])
    bias = guide.new_tensor([16 / 255, 128 / 255, 128 / 255])
    colours = (guide.contiguous().view(-1, 3).float().mm(matrix) + bias).view(guide.shape)
    factor = -1.0 / (2 * 10.0 * 10.0)
    weights, terms = [], []
    for p, q in _slices(colours):
        weights.append(torch.exp(torch.sum((p - q) ** 2, dim=1, keepdim=True) * factor))
    for weight, (p, q) in zip(weights, _slices(illum), strict=True):
        terms.append(weight * torch.norm(p - q, p=1, dim=1, keepdim=True))
    return sum(torch.mean(term) for term in terms)


def _slices(x: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Both ends of all pairs with each of the 24 neighbours."""
    height, width = x.shape[2:]
    found = []
    for dy, dx in _NEAR:
        p = x[:, :, : height - dy, max(-dx, 0) : width - max(dx, 0)]
        q = x[:, :, dy:, max(dx, 0) : width + min(dx, 0)]
        found += [(q, p), (p, q)]
    return found
