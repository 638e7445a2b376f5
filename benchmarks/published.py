"""What the authors' code computes, step by step in its own order: what a user has without fastllie."""

from collections.abc import Callable
from typing import Any

import record
import torch
import torch.nn.functional as F
from torch import Tensor, nn

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


def zero_reference(y: Tensor, x: Tensor, maps: Tensor) -> Tensor:
    """The total loss of Zero-DCE's lowlight_train.py and Myloss.py @e0f4adc.

    Args:
        y: Enhanced images, `[B, 3, H, W]`.
        x: Low-light images, of the same shape.
        maps: Curve maps, `[B, 24, H, W]`.
    """
    batch, _, height, width = maps.shape
    vertical = torch.pow(maps[:, :, 1:, :] - maps[:, :, : height - 1, :], 2).sum()
    horizontal = torch.pow(maps[:, :, :, 1:] - maps[:, :, :, : width - 1], 2).sum()
    total_variation = 2 * (vertical / ((height - 1) * width) + horizontal / (height * (width - 1))) / batch

    cells_x = F.avg_pool2d(torch.mean(x, 1, keepdim=True), 4)
    cells_y = F.avg_pool2d(torch.mean(y, 1, keepdim=True), 4)
    spatial = y.new_zeros(())
    for row, column in ((1, 0), (1, 2), (0, 1), (2, 1)):
        kernel = y.new_zeros(1, 1, 3, 3)
        kernel[0, 0, 1, 1], kernel[0, 0, row, column] = 1, -1
        difference = F.conv2d(cells_x, kernel, padding=1) - F.conv2d(cells_y, kernel, padding=1)
        spatial = spatial + torch.pow(difference, 2)

    red, green, blue = torch.split(torch.mean(y, [2, 3], keepdim=True), 1, dim=1)
    pairs = [torch.pow(red - green, 2), torch.pow(red - blue, 2), torch.pow(green - blue, 2)]
    colour = torch.pow(torch.pow(pairs[0], 2) + torch.pow(pairs[1], 2) + torch.pow(pairs[2], 2), 0.5)

    patches = F.avg_pool2d(torch.mean(y, 1, keepdim=True), 16)
    exposure = torch.mean(torch.pow(patches - 0.6, 2))
    return 200 * total_variation + torch.mean(spatial) + 5 * torch.mean(colour) + 10 * exposure


class SCINetwork(nn.Module):
    """SCI's inference as its user writes it: three convolutions and a division.

    Args:
        weights, biases: Of the convolutions, `[3, 3, 3, 3, 3]` and `[3, 3]`, batch norm folded in.
    """

    def __init__(self, weights: Tensor, biases: Tensor):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
        for layer, weight, bias in zip(self.layers, weights, biases, strict=True):
            layer.weight.data.copy_(weight)
            layer.bias.data.copy_(bias)
        self.eval().to(weights.device)

    def forward(self, x: Tensor) -> Tensor:
        f = torch.relu(self.layers[0](x))
        f = f + torch.relu(self.layers[1](f))
        illum = (torch.sigmoid(self.layers[2](f)) + x).clamp(1e-4, 1)
        return (x / illum).clamp(0, 1)


def nerco(subject: Any, x: Tensor) -> Callable[[], Tensor]:
    """NeRCo's published inference, layer by layer, on images whose sides are multiples of 4.

    Args:
        subject: A `fastllie.benchmarking.baselines.Subject` with weights that draw the image anew.
    """
    state = subject.network().state_dict()
    width = len(state["Pre.model.1.weight"])
    plain = record.of_tests("published_nerco").NeRCo(width)
    plain.load_state_dict(state)
    dtype = getattr(torch, subject.dtype)
    plain.to(subject.device, dtype).requires_grad_(False)
    given = x.to(dtype)
    return lambda: torch.cat([(plain(2 * one - 1) + 1) / 2 for one in given.split(1)])


class EnlightenGANStep:
    """The step of EnlightenGAN's single_model.py @b034984, one network call after the other.

    Each patch goes through discriminator and VGG-16 by itself, the discriminators see every image once for
    the generator's loss and again for their own, and VGG-16 runs to the end of its fifth block although
    relu5_1 is what is compared.

    Args:
        networks: The generator, the global and the local discriminator.
        vgg: Up to relu5_1; the two layers beyond are added here, with weights that do not matter.
        size: Of the patches, whose places `offsets` gives for a height and a width.
    """

    def __init__(self, networks, vgg, offsets, size=32):
        self.generator, self.judge, self.local = networks
        self.optimizers = [
            torch.optim.Adam(net.parameters(), lr=1e-4, betas=(0.5, 0.999)) for net in networks
        ]
        self.vgg, self.offsets, self.size = vgg, offsets, size
        self.beyond = torch.nn.Sequential(
            torch.nn.Conv2d(512, 512, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.Conv2d(512, 512, 3, padding=1),
            torch.nn.ReLU(),
        ).requires_grad_(False)

    def features(self, image):
        found = self.vgg(image)
        self.beyond(found)
        return found

    def distance(self, image, other):
        image, other = (F.instance_norm(self.features(v)) for v in (image, other))
        return torch.mean((image - other) ** 2)

    def __call__(self, x, normal):
        given, real = 2 * x - 1, 2 * normal - 1
        red, green, blue = given[:, :1] + 1, given[:, 1:2] + 1, given[:, 2:] + 1
        dark = 1 - (0.299 * red + 0.587 * green + 0.114 * blue) / 2
        fake = self.generator.generate(given, dark).image
        places = self.offsets(*fake.shape[-2:])

        def cut(image, place):
            top, left = place
            return image[..., top : top + self.size, left : left + self.size]

        def mse(found, wanted):
            return F.mse_loss(found, torch.full_like(found, wanted))

        self.optimizers[0].zero_grad()
        seen, true = self.judge(fake), self.judge(real)
        loss = (mse(true - seen.mean(), 0.0) + mse(seen - true.mean(), 1.0)) / 2
        loss = loss + sum(mse(self.local(cut(fake, place)), 1.0) for place in places) / len(places)
        loss = loss + self.distance(fake, given)
        loss = loss + sum(self.distance(cut(fake, p), cut(given, p)) for p in places) / len(places)
        loss.backward()
        self.optimizers[0].step()
        fake = fake.detach()
        for optimizer in self.optimizers[1:]:
            optimizer.zero_grad()
        seen, true = self.judge(fake), self.judge(real)
        ((mse(true - seen.mean(), 1.0) + mse(seen - true.mean(), 0.0)) / 2).backward()
        theirs = sum(
            (mse(self.local(cut(real, place)), 1.0) + mse(self.local(cut(fake, place)), 0.0)) / 2
            for place in places
        )
        (theirs / len(places)).backward()
        for optimizer in self.optimizers[1:]:
            optimizer.step()
        return loss.item()


class NeRCoStep:
    """The step of NeRCo's nerco_model.py @6b0e111 at batch 1, one network call after the other.

    All activations are kept until one backward pass; the representation's MLP runs four times on 612 numbers
    a pixel; the discriminators see every image for the generators' losses and, from the pools, which are
    never full here, for their own. Its text loss, which trains nothing, is left out.

    Args:
        makers: Pre, H, G_A and G_B as plain modules (tests/published_nerco.py).
        judges: Those of normal and dark images, and of the edges of both.
    """

    def __init__(self, makers, judges):
        self.pre, self.h, self.enhance, self.darken = makers
        self.judges = judges
        self.optimizers = [
            torch.optim.Adam([p for net in nets for p in net.parameters()], lr=2e-4, betas=(0.5, 0.999))
            for nets in (makers, judges)
        ]

    def __call__(self, x, normal):
        a, b = 2 * x - 1, 2 * normal - 1
        mse, l1 = F.mse_loss, F.l1_loss
        of_normal, of_dark, edge_normal, edge_dark = self.judges

        def real(judge, image):
            seen = judge(image)
            return mse(seen, torch.ones_like(seen))

        pre = self.pre(a)
        h, mask = self.h(a)
        fake_b = self.enhance(torch.cat([a, pre], 1) * mask)
        back_a = self.darken(fake_b)
        fake_a = self.darken(b * mask)
        back_b = self.enhance(torch.cat([fake_a, self.pre(fake_a)], 1))
        for judge in self.judges:
            judge.requires_grad_(False)
        self.optimizers[0].zero_grad()
        idt_a = 5 * l1(self.enhance(torch.cat([b, b], 1)), b)
        idt_b = 5 * l1(self.darken(a), a)
        loss = idt_a + idt_b + 10 * l1(back_a, a) + 10 * l1(back_b, b)
        loss = loss + real(of_normal, fake_b) + real(of_dark, fake_a) + real(of_dark, pre)
        loss = loss + 0.5 * (real(edge_normal, fake_b) + real(edge_dark, fake_a))
        loss = loss + 40 * l1(pre, a) + real(of_dark, pre)
        less = b - h
        residual = l1(fake_b, a + h) + l1(b, self.enhance(torch.cat([less, less], 1)))
        residual = residual + real(of_normal, a + h) + real(of_dark, less)
        residual = residual + l1(h, fake_b - a) + l1(fake_a, b - self.h(fake_a)[0])
        loss = loss + 0.5 * residual
        loss.backward()
        self.optimizers[0].step()
        for judge in self.judges:
            judge.requires_grad_(True)
        self.optimizers[1].zero_grad()
        for judge, true, fake in (
            (of_normal, b, fake_b),
            (of_dark, a, fake_a),
            (of_dark, a, pre),
            (edge_normal, self.edges(b), self.edges(fake_b)),
            (edge_dark, self.edges(a), self.edges(fake_a)),
        ):
            seen = judge(fake.detach())
            (0.5 * (real(judge, true) + mse(seen, torch.zeros_like(seen)))).backward()
        self.optimizers[1].step()
        return loss.item()

    def edges(self, image):
        red, green, blue = image[:, :1], image[:, 1:2], image[:, 2:]
        grey = F.pad((65.738 * red + 129.057 * green + 25.064 * blue) / 256, (1, 1, 1, 1))
        down = grey[..., 2:, 1:-1] - grey[..., :-2, 1:-1]
        across = grey[..., 1:-1, 2:] - grey[..., 1:-1, :-2]
        return 4 * torch.sqrt(down**2 + across**2 + 1e-6).repeat(1, 3, 1, 1)
