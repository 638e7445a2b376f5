"""What several test files share: random weights that never ship, and errors with their whole message."""

from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import save_file

from fastllie import checkpoint, methods


def random_network(method, *, padding="replicate", seed=0, **options):
    torch.manual_seed(seed)
    network = methods.model_class(method)(padding=padding, **options).eval()
    last = network.conv7 if method == "zerodce" else network.conv7.point
    with torch.no_grad():
        # maps that vary and brighten on the whole, so that no test compares an image with itself
        last.weight.mul_(4)
        last.bias.add_(0.2)
    return network


def write_weights(path, method, **settings):
    """Random weights in our layout; returns the path."""
    network = random_network(method, **settings)
    metadata = {"format": "fastllie", "method": method, "padding": network.padding}
    save_file(network.state_dict(), path, metadata)
    return path


def ship_random_weights(folder, monkeypatch):
    """Stand random weights in for those of the package."""
    for method in methods.list_methods():
        for variant in methods.info(method).weights:
            write_weights(folder / variant.file, method)
    monkeypatch.setattr(checkpoint, "FOLDER", folder)


@contextmanager
def refused(kind, *parts):
    """Expect an error of exactly this kind, whose message has all the parts."""
    with pytest.raises(kind) as error:
        yield
    assert type(error.value) is kind
    for part in parts:
        assert str(part) in str(error.value)
