"""NeRCo's networks in the published structure, plain modules: the oracle of tests, a baseline of benchmarks.

Each layer stands where its number in the published checkpoints says. The representation's MLP does what the
published code does, at its price: four passes over 612 numbers a pixel, of which 34 are always zero.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        half = [nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), nn.InstanceNorm2d(width)]
        again = [nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), nn.InstanceNorm2d(width)]
        self.conv_block = nn.Sequential(*half, nn.ReLU(True), *again)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


def trunk(inputs: int, width: int, blocks: int) -> list[nn.Module]:
    layers: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(inputs, width, 7)]
    layers += [nn.InstanceNorm2d(width), nn.ReLU(True)]
    for wide in (2 * width, 4 * width):
        layers += [nn.Conv2d(wide // 2, wide, 3, 2, 1), nn.InstanceNorm2d(wide), nn.ReLU(True)]
    layers += [Block(4 * width) for _ in range(blocks)]
    for wide in (2 * width, width):
        layers += [nn.ConvTranspose2d(2 * wide, wide, 3, 2, 1, 1), nn.InstanceNorm2d(wide), nn.ReLU(True)]
    return layers


class Pre(nn.Module):
    def __init__(self, width: int = 64, blocks: int = 9, hidden: int = 256):
        super().__init__()
        self.model = nn.Sequential(*trunk(3, width, blocks))
        self.mlp = nn.Module()
        self.mlp.imnet = nn.Module()
        sizes = [9 * width + 36, hidden, hidden, hidden, 3]
        layers: list[nn.Module] = []
        for given, made in pairwise(sizes):
            layers += [nn.Linear(given, made), nn.ReLU()]
        self.mlp.imnet.layers = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        f = self.model(x)
        batch, channels, height, width = f.shape
        around = F.unfold(f, 3, padding=1).view(batch, channels * 9, -1).permute(0, 2, 1)
        passes = []
        for _ in range(4):
            relative = torch.zeros(batch, height * width, 34, dtype=f.dtype, device=f.device)
            cell = torch.full((batch, height * width, 2), 2.0, dtype=f.dtype, device=f.device)
            passes.append(self.mlp.imnet.layers(torch.cat([around, relative, cell], -1)))
        return (sum(passes) / 4).permute(0, 2, 1).reshape(batch, 3, height, width)


class H(nn.Module):
    def __init__(self, width: int = 64, blocks: int = 3):
        super().__init__()
        first = [nn.ReflectionPad2d(3), nn.Conv2d(3, width, 7), nn.InstanceNorm2d(width), nn.ReLU(True)]
        self.model = nn.Sequential(*first, *(Block(width) for _ in range(blocks)), nn.ReflectionPad2d(3))
        squeezed = max(1, width // 16)
        self.fc1 = nn.Conv2d(2 * width, squeezed, 1, bias=False)
        self.fc2 = nn.Conv2d(squeezed, 2 * width, 1, bias=False)
        self.conv_ca = nn.Conv2d(2 * width, width, 1, bias=False)
        self.conv1 = nn.Conv2d(2, 1, 7, bias=False)
        self.output = nn.Conv2d(width, 3, 7)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        f = self.model(x)
        v = torch.cat([F.adaptive_avg_pool2d(f, 1), F.adaptive_max_pool2d(f, 1)], 1)
        g = self.conv_ca(self.fc2(F.relu(self.fc1(v)))) * f
        summary = torch.cat([g.mean(1, keepdim=True), g.max(1, keepdim=True)[0]], 1)
        return torch.tanh(self.output(f)), torch.sigmoid(self.conv1(summary))


def generator(inputs: int = 6, width: int = 64, blocks: int = 9) -> nn.Module:
    network = nn.Module()
    ends = [nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7), nn.Tanh()]
    network.model = nn.Sequential(*trunk(inputs, width, blocks), *ends)
    network.forward = network.model.forward
    return network


def discriminator(width: int = 64) -> nn.Module:
    network = nn.Module()
    layers = [nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2)]
    for place in (1, 2, 3):
        wide = width * 2**place
        layers += [nn.Conv2d(wide // 2, wide, 4, 2 if place < 3 else 1, 1), nn.InstanceNorm2d(wide)]
        layers += [nn.LeakyReLU(0.2)]
    network.model = nn.Sequential(*layers, nn.Conv2d(8 * width, 1, 4, 1, 1))
    network.forward = network.model.forward
    return network


class NeRCo(nn.Module):
    """Images in [-1, 1], with sides that are multiples of 4, one at a time."""

    def __init__(self, width: int = 64, blocks: int = 9):
        super().__init__()
        self.Pre = Pre(width, blocks, 4 * width)
        self.H = H(width)
        self.G_A = generator(6, width, blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.G_A.forward(torch.cat([x, self.Pre(x)], 1) * self.H(x)[1])
