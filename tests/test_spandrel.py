"""Files of ours and of the published layouts, read and run by spandrel."""

import sys

import numpy as np
import pytest
import real_packages
import torch
from helpers import random_network, refused
from safetensors.torch import save_file

import fastllie
from fastllie import checkpoint

IMAGE = torch.rand(1, 3, 37, 41, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def reader():
    real_packages.torchvision()
    spandrel = pytest.importorskip("spandrel")
    import fastllie.spandrel as ours

    registry = spandrel.MAIN_REGISTRY.copy()
    assert ours.install(registry) == ["Zero-DCE", "Zero-DCE++", "SCI", "dawn"]
    assert ours.install(registry) == []
    return spandrel.ModelLoader(registry=registry)


def run(model):
    with torch.no_grad():
        return model(IMAGE)


@pytest.mark.parametrize("method", ["zerodce", "zerodce++", "sci", "dawn"])
def test_our_files(reader, method):
    spandrel_name = sys.modules["fastllie.spandrel"].ARCHITECTURES
    for variant in fastllie.info(method).weights:
        path = checkpoint.find(method, variant.name)
        model = reader.load_from_file(path)
        assert model.architecture.name == spandrel_name[method]
        assert (model.scale, model.purpose, model.input_channels) == (1, "Restoration", 3)
        network = fastllie.load(method, variant.name).requires_grad_(False)
        # spandrel completes a picture that is smaller than it may be
        assert torch.equal(run(model), network(IMAGE).clamp(0, 1))


@pytest.mark.parametrize("method", ["zerodce", "zerodce++"])
def test_published_curves(reader, method, tmp_path):
    """The published names and sign: `e_conv1.weight`, or `e_conv1.depth_conv.weight`."""
    network = random_network(method, padding="zeros").requires_grad_(False)
    state = {}
    for key, value in network.state_dict().items():
        layer, *part, kind = key.split(".")
        name = ".".join([f"e_{layer}", *(f"{one}_conv" for one in part), kind])
        state[name] = -value if layer == "conv7" and part in ([], ["point"]) else value
    torch.save(state, tmp_path / "Epoch99.pth")
    model = reader.load_from_file(tmp_path / "Epoch99.pth")
    assert model.model.padding == "zeros"
    assert torch.equal(run(model), network(IMAGE).clamp(0, 1))


def test_published_sci(reader, tmp_path):
    network = random_network("sci", padding="zeros").requires_grad_(False)
    checkpoint.export_official(network, tmp_path / "medium.pt")
    model = reader.load_from_file(tmp_path / "medium.pt")
    assert model.model.padding == "zeros"
    assert torch.equal(run(model), network(IMAGE))


def test_others_are_left_to_the_others(reader, tmp_path):
    import spandrel

    save_file({"some.weight": torch.ones(3, 3), "other.weight": torch.ones(2)}, tmp_path / "a.safetensors")
    with pytest.raises(spandrel.UnsupportedModelError):
        reader.load_from_file(tmp_path / "a.safetensors")
    odd = {"conv1.weight": np.ones(3), "conv1.bias": 3}
    assert not any(reader.registry.get(name).detect(odd) for name in ("Zero-DCE", "SCI", "dawn"))


def test_without_spandrel(monkeypatch):
    monkeypatch.setitem(sys.modules, "spandrel", None)
    monkeypatch.delitem(sys.modules, "fastllie.spandrel", raising=False)
    with refused(ImportError, 'pip install "fastllie[spandrel]"'):
        __import__("fastllie.spandrel")
