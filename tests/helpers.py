"""What several test files share: random weights that never ship, and errors with their whole message."""

import os
import struct
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import fastllie
from fastllie import checkpoint, methods

# on Windows a folder's mode locks nobody out
needs_permissions = pytest.mark.skipif(
    getattr(os, "geteuid", lambda: 0)() == 0, reason="modes of folders hold neither root nor Windows back"
)

RGB = np.random.default_rng(0).integers(0, 120, (13, 18, 3), dtype=np.uint8)


def random_network(method, *, padding=None, seed=0, **options):
    torch.manual_seed(seed)
    if method == "enlightengan":
        return _random_guided(**options)
    if method == "nerco":
        # in logits it starts from its image, so that the result is one
        made = {"width": 2, "blocks": 1, "in_logits": True, **options}
        network = methods.model_class("nerco")(**made).eval()
        torch.nn.init.constant_(network.G_A.model[network.G_A.last].bias, 0.7)
        return network
    if method == "dawn":
        return _random_dawn(**options)
    padding = padding or ("reflect" if method == "sci" else "replicate")
    network = methods.model_class(method)(padding=padding, **options).eval()
    if method == "sci":
        return network
    last = network.conv7 if method == "zerodce" else network.conv7.point
    with torch.no_grad():
        # maps that vary and brighten on the whole, so that no test compares an image with itself
        last.weight.mul_(4)
        last.bias.add_(0.2)
    return network


def _random_guided(width=2, **options):
    """EnlightenGAN with statistics as after some training: residuals that vary and stay within the range."""
    network = methods.model_class("enlightengan")(width=width, **options).eval()
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.dim() == 4:
                torch.nn.init.kaiming_normal_(tensor)
            elif name.startswith("bn") and tensor.is_floating_point():
                tensor.copy_(0.2 * torch.rand_like(tensor) + ("weight" in name or "var" in name))
        network.conv10.weight.mul_(0.15)
        network.conv10.bias.fill_(0.3)
    return network


def _random_dawn(**options):
    """`dawn` with random weights also in the layers that begin at zero."""
    network = methods.model_class("dawn")(**options).eval()
    for level in network.denoiser.levels:
        torch.nn.init.normal_(level.last.weight, 0, 0.2)
    torch.nn.init.normal_(network.brain.last.weight, 0, 0.1)
    return network.requires_grad_(False)


def write_weights(path, method, *, meter=None, **settings):
    """Random weights in our layout; returns the path."""
    network = random_network(method, **settings)
    metadata = {"format": "fastllie", "method": method}
    if method == "enlightengan":
        said = ("width", "align_corners", "in_logits", "sees_logits")
        metadata |= {name: str(getattr(network, name)) for name in said}
    elif method == "nerco":
        metadata["in_logits"] = str(network.in_logits)
    elif method != "dawn":
        metadata["padding"] = network.padding
    if method == "sci":
        metadata["blocks"] = str(network.blocks)
    state = network.state_dict()
    if meter is not None:
        state["meter"] = torch.tensor(meter, dtype=torch.float64)
    save_file(state, path, metadata)
    return path


def ship_random_weights(folder, monkeypatch):
    """Stand random weights in for those of the package."""
    for method in methods.list_methods():
        for variant in methods.info(method).weights:
            write_weights(folder / variant.file, method)
    monkeypatch.setattr(checkpoint.loading, "FOLDER", folder)


def picture(seed=0, size=(40, 30), brightest=225):
    """A small photograph of smooth colour."""
    coarse = np.random.default_rng(seed).integers(0, brightest, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def attributed_photographs(folder):
    """Five small photographs of smooth colour, one of them CC0, and their attribution; returns the folder."""
    folder.mkdir()
    random = np.random.default_rng(0)
    rows = ["file,author,licence"]
    for index in range(5):
        coarse = random.integers(30, 225, (4, 5, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((80, 64), Image.Resampling.BICUBIC).save(folder / f"{index}.png")
        rows.append(f"{index}.png,Author {index},{'CC0-1.0' if index == 3 else 'CC-BY-4.0'}")
    (folder / "photos.csv").write_text("\n".join(rows) + "\n")
    return folder


@contextmanager
def refused(kind, *parts):
    """Expect an error of exactly this kind, whose message has all the parts."""
    with pytest.raises(kind) as error:
        yield
    assert type(error.value) is kind
    for part in parts:
        assert str(part) in str(error.value)


def unit(image=RGB):
    """The image as a float batch, by the plainest means."""
    return torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1)[None]


def expected(x, method="zerodce", **options):
    with torch.no_grad():
        return fastllie.load(method, **options)(x)


def rounded(y, top=255):
    return torch.floor(y.double() * top + 0.5).clamp(0, top)[0].permute(1, 2, 0).numpy()


def same_levels(got, want, off=1):
    """Equal but for a rounding that falls the other way: at most one level, in at most 1 % of the values."""
    difference = np.abs(np.asarray(got, np.int64) - want)
    return difference.max() <= off and (difference > 0).mean() <= 0.01


def dng(path, values, white):
    """A linear DNG of grey, by hand."""
    height, width = values.shape
    data = values.astype("<u2").tobytes()
    rows = [(254, 4, 1, 0), (256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 16), (259, 3, 1, 1)]
    rows += [
        (262, 3, 1, 32803),
        (271, 2, 4, b"Cam\0"),
        (272, 2, 4, b"One\0"),
        (273, 4, 1, None),
        (277, 3, 1, 1),
    ]
    rows += [(278, 4, 1, height), (279, 4, 1, len(data)), (284, 3, 1, 1)]
    rows += [(33421, 3, 2, struct.pack("<HH", 2, 2)), (33422, 1, 4, bytes((0, 1, 1, 2)))]
    rows += [(50706, 1, 4, bytes((1, 4, 0, 0))), (50707, 1, 4, bytes((1, 1, 0, 0)))]
    rows += [(50714, 3, 1, 0), (50717, 4, 1, white)]
    matrix = struct.pack(
        "<18i", *(part for value in np.eye(3).ravel() for part in (int(value * 10000), 10000))
    )
    neutral = struct.pack("<6I", *(1, 1) * 3)
    rows += [(50721, 10, 9, matrix), (50728, 5, 3, neutral), (50778, 3, 1, 21)]
    place = 8 + 2 + 12 * len(rows) + 4
    body, extra = struct.pack("<H", len(rows)), b""
    for tag, kind, count, value in rows:
        if isinstance(value, bytes) and len(value) > 4:
            extra += value
            value = place + len(extra) - len(value)
        elif value is None:
            value = place + len(matrix) + len(neutral)
        body += struct.pack("<HHI", tag, kind, count) + (
            value.ljust(4, b"\0") if isinstance(value, bytes) else struct.pack("<I", value)
        )
    path.write_bytes(b"II*\0" + struct.pack("<I", 8) + body + struct.pack("<I", 0) + extra + data)
