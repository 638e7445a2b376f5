"""A network of your own on the fused operators, trained for some steps: python examples/own_network.py STEPS

It guesses one map for a curve and learns without references, by Zero-DCE's losses.
"""

import sys

import torch
from torch import Tensor, nn

from fastllie.ops import apply_curve, zero_reference_losses


class Curves(nn.Module):
    """Two convolutions that guess eight steps of a curve for each pixel, `[B, 24, H, W]`."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 24, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return apply_curve(x, self.layers(x), steps=8, tanh=True)


def main(steps: str) -> None:
    torch.manual_seed(0)
    dark = 0.2 * torch.rand(2, 3, 64, 64)
    network = Curves()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(int(steps)):
        # the curve and all four losses in one pass, and one pass back
        smoothness, structure, colour, exposure = zero_reference_losses(dark, network.layers(dark), tanh=True)
        loss = 200 * smoothness + structure + 5 * colour + 10 * exposure
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        print(f"mean brightness {dark.mean():.3f} -> {network(dark).mean():.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
