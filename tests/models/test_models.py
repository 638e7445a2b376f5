"""The networks and their weight files: parity with the published ones, and what every wrong file is told."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import random_network, refused, ship_random_weights, write_weights
from safetensors import safe_open
from safetensors.torch import save_file

import fastllie
from fastllie import checkpoint, methods

SHARED = Path(__file__).resolve().parents[3] / "shared"
GOLDEN = SHARED / "golden" / "zerodce"
PUBLISHED = SHARED / "weights" / "zerodce"
needs_shared = pytest.mark.skipif(
    not (GOLDEN.is_dir() and PUBLISHED.is_dir()), reason="../shared/golden and ../shared/weights are not here"
)
METHODS = ("zerodce", "zerodce++")
SHIPPED = [(name, row.name) for name in methods.METHODS for row in fastllie.info(name).weights]
FORWARD = (
    ("zerodce", "zerodce_forward_a", {}),
    ("zerodce", "zerodce_forward_b", {}),
    ("zerodce++", "zerodcepp_forward_a_s1", {}),
    ("zerodce++", "zerodcepp_forward_b_s1", {"scale": 1}),
    ("zerodce++", "zerodcepp_forward_a_s4", {"scale": 4}),
    ("zerodce++", "zerodcepp_forward_a_s12", {"scale": 12}),
    ("zerodce++", "zerodcepp_forward_b_s12", {"scale": 12}),
    ("zerodce++", "zerodcepp_forward_c_s12", {"scale": 12}),
)
FILES = {
    "zerodce": ("zerodce_Epoch99.pth", "zerodce_official.safetensors"),
    "zerodce++": ("zerodcepp_Epoch99.pth", "zerodcepp_official.safetensors"),
}


def published_state(method, seed=0):
    """A state dict in the published spelling and sign, and the network of ours that it means."""
    network = random_network(method, padding="zeros", seed=seed)
    state = {}
    for key, value in network.state_dict().items():
        layer, *part, kind = key.split(".")
        sign = -1 if key.startswith("conv7.") and part != ["depth"] else 1
        state[".".join(["e_" + layer, *(f"{p}_conv" for p in part), kind])] = sign * value
    return state, network


# --- the published networks


@needs_shared
@pytest.mark.parametrize("file", [0, 1], ids=["pth", "safetensors"])
@pytest.mark.parametrize(("method", "case", "options"), FORWARD, ids=lambda value: str(value))
def test_published_weights_give_the_published_images(method, case, options, file):
    tolerances = json.loads((GOLDEN / "manifest.json").read_text())["files"][f"{case}.npz"]["tol"]
    arrays = np.load(GOLDEN / f"{case}.npz")
    weights = PUBLISHED / FILES[method][file]
    height, width = arrays["enhance"].shape[-2:]
    # the published code crops to whole cells first
    image = arrays["input_u8"][:height, :width]

    x = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255
    model = fastllie.load(method, weights, **options)
    with torch.no_grad():
        for name, got in (("enhance", model(x)), ("r", -model.curve_maps(x))):
            assert np.abs(got.numpy() - arrays[name]).max() <= tolerances[name]["atol"]

    got = fastllie.enhance(image, method, weights=weights, **options)
    off = np.abs(got.astype(int) - arrays["enhance_u8"])
    assert off.max() <= tolerances["enhance_u8"]["max_lsb"]
    assert (off > 0).mean() <= tolerances["enhance_u8"]["max_fraction_differing"]


@needs_shared
@pytest.mark.parametrize("method", METHODS)
def test_published_weights_only_brighten(method):
    """The sign is folded: without it the image would get darker."""
    image = np.load(GOLDEN / "zerodce_forward_b.npz")["input_u8"]
    got = fastllie.enhance(image, method, weights=PUBLISHED / FILES[method][0])
    assert (got >= image).all()
    assert got.mean() > 1.5 * image.mean()


# --- the weights that ship


@pytest.mark.parametrize(("method", "variant"), SHIPPED)
def test_shipped_weights_brighten_a_dark_image(method, variant):
    row = fastllie.info(method)
    file = next(entry.file for entry in row.weights if entry.name == variant)
    with safe_open(checkpoint.loading.FOLDER / file, "pt") as opened:
        assert opened.metadata()["format"] == "fastllie"
        assert opened.metadata()["method"] == method
    network = fastllie.load(method, variant)
    if hasattr(network, "padding"):
        assert network.padding == ("reflect" if method == "sci" else "replicate")
    told = next(entry.parameters for entry in row.weights if entry.name == variant) or row.parameters
    assert sum(parameter.numel() for parameter in network.parameters()) == told
    ramp = np.linspace(0, 60, 24 * 32 * 3).reshape(24, 32, 3).astype(np.uint8)
    got = fastllie.enhance(ramp, method, weights=variant)
    assert got.mean() > 1.5 * ramp.mean()
    if variant == row.weights[0].name:
        assert np.array_equal(fastllie.enhance(ramp, method), got)


# layers of the others pad with zeros, as published
@pytest.mark.parametrize(
    ("method", "variant"), [pair for pair in SHIPPED if pair[0] not in ("enlightengan", "nerco")]
)
def test_shipped_weights_leave_no_frame(method, variant):
    """A flat image stays flat up to its border."""
    got = fastllie.enhance(np.full((40, 50, 3), 20, np.uint8), method, weights=variant).reshape(-1, 3)
    assert (got == got[0]).all()


# --- Zero-DCE++ at every size


@pytest.mark.parametrize("scale", [1, 2, 3, 5, 12])
@pytest.mark.parametrize("size", [(24, 36), (25, 37), (13, 12), (7, 50), (1, 1), (2, 3)])
def test_zerodcepp_returns_the_size_it_was_given(tmp_path, scale, size):
    weights = write_weights(tmp_path / "w.safetensors", "zerodce++", padding="zeros")
    x = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))
    y = fastllie.enhance(x, "zerodce++", weights=weights, scale=scale)
    assert y.shape == x.shape
    assert (y >= 0).all()
    assert (y <= 1).all()

    # what the published code computes on the image completed to whole cells, cut back
    whole = F.pad(x, (0, -size[1] % scale, 0, -size[0] % scale), mode="replicate")
    model = fastllie.load("zerodce++", weights, scale=scale)
    with torch.no_grad():
        expected = model(whole)[..., : size[0], : size[1]]
    torch.testing.assert_close(y, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("scale", [0, -1, 1.5, "2"])
def test_scale_must_be_a_positive_integer(tmp_path, scale):
    weights = write_weights(tmp_path / "w.safetensors", "zerodce++")
    with refused(ValueError, "scale must be an integer >= 1"):
        fastllie.load("zerodce++", weights, scale=scale)


# --- layouts


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("wrap", ["plain", "module", "state_dict", "both"])
def test_published_layout_is_recognised_by_content(tmp_path, method, wrap):
    state, network = published_state(method)
    if wrap in ("module", "both"):
        state = {f"module.{key}": value for key, value in state.items()}
    path = tmp_path / "some name.pth"
    torch.save({"epoch": 3, "state_dict": state} if wrap in ("state_dict", "both") else state, path)
    loaded = fastllie.load(method, path)
    assert loaded.padding == "zeros"
    for key, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("padding", ["zeros", "replicate"])
def test_our_layout_says_its_padding(tmp_path, method, padding):
    path = write_weights(tmp_path / "w.safetensors", method, padding=padding, seed=3)
    loaded = fastllie.load(method, path)
    expected = random_network(method, seed=3).state_dict()
    assert loaded.padding == padding
    assert not loaded.training
    for key, value in expected.items():
        assert torch.equal(loaded.state_dict()[key], value), key


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
def test_our_layout_without_metadata_replicates(tmp_path, suffix):
    path = tmp_path / f"w{suffix}"
    state = random_network("zerodce").state_dict()
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    assert fastllie.load("zerodce", path).padding == "replicate"


def test_load_gives_a_network_of_ones_own(tmp_path):
    weights = write_weights(tmp_path / "w.safetensors", "zerodce")
    x = torch.rand(1, 3, 16, 16)
    before = fastllie.enhance(x, "zerodce", weights=weights)
    with torch.no_grad():
        fastllie.load("zerodce", weights).conv7.bias.add_(1)
    assert torch.equal(fastllie.enhance(x, "zerodce", weights=weights), before)


def test_loading_leaves_the_random_state_alone(tmp_path):
    weights = write_weights(tmp_path / "w.safetensors", "zerodce")
    before = torch.get_rng_state()
    fastllie.load("zerodce", weights)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("stored", [torch.float16, torch.float64])
def test_weights_of_another_precision(tmp_path, stored):
    state = {key: value.to(stored) for key, value in random_network("zerodce").state_dict().items()}
    torch.save(state, tmp_path / "w.pth")
    loaded = fastllie.load("zerodce", tmp_path / "w.pth")
    assert loaded.conv1.weight.dtype == torch.float32
    torch.testing.assert_close(loaded.conv1.weight.detach(), state["conv1.weight"].float())


def test_a_loaded_network_has_gradients(tmp_path):
    model = fastllie.load("zerodce", write_weights(tmp_path / "w.safetensors", "zerodce"))
    x = torch.rand(1, 3, 8, 8, requires_grad=True)
    model(x).mean().backward()
    assert x.grad.abs().sum() > 0
    assert model.conv1.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_load_takes_a_dtype(tmp_path, dtype):
    model = fastllie.load("zerodce", write_weights(tmp_path / "w.safetensors", "zerodce"), dtype=dtype)
    y = model(torch.rand(1, 3, 8, 8, dtype=dtype))
    assert y.dtype == dtype
    assert torch.isfinite(y).all()


# --- files that are not weights


def html(path):
    path.write_text("<!DOCTYPE html><html><body>404</body></html>")


def lfs_pointer(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n")


def empty(path):
    path.write_bytes(b"")


def truncated(path):
    good = path.with_name("good" + path.suffix)
    state = random_network("zerodce").state_dict()
    save_file(state, good) if path.suffix == ".safetensors" else torch.save(state, good)
    content = good.read_bytes()
    path.write_bytes(content[: len(content) // 2])


class Stranger:
    pass


def objects(path):
    torch.save({"model": Stranger()}, path)


def a_list(path):
    torch.save([torch.zeros(3)], path)


def numbers(path):
    torch.save({"epoch": 3, "lr": 0.1}, path)


@pytest.mark.parametrize(
    ("make", "suffix", "told"),
    [
        (html, ".pth", "is not a readable PyTorch checkpoint of tensors alone (it is a web page"),
        (html, ".safetensors", "is not a readable safetensors file (it is a web page"),
        (lfs_pointer, ".pt", "(it is a Git LFS pointer"),
        (empty, ".pth", "(it is empty)"),
        (empty, ".safetensors", "(it is empty)"),
        (truncated, ".pth", "is not a readable PyTorch checkpoint"),
        (truncated, ".safetensors", "is not a readable safetensors file"),
        (objects, ".pth", "of tensors alone"),
        (a_list, ".pth", "holds a list; wanted a state dict"),
        (numbers, ".pth", "wanted tensors alone, but these entries are not: epoch, lr"),
    ],
)
def test_unreadable_weights_are_named(tmp_path, make, suffix, told):
    path = tmp_path / f"weights{suffix}"
    make(path)
    with refused(ValueError, path, told):
        fastllie.enhance(np.zeros((4, 4, 3), np.uint8), weights=path)


def test_a_checkpoint_never_runs_code(tmp_path):
    class Attack:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"conv1.weight": Attack()}, tmp_path / "evil.pth")
    with refused(ValueError, "not a readable PyTorch checkpoint"):
        fastllie.load("zerodce", tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(("given", "wanted"), [METHODS, METHODS[::-1]])
@pytest.mark.parametrize("layout", ["ours", "published"])
def test_weights_of_the_other_method(tmp_path, given, wanted, layout):
    path = tmp_path / "w.pth"
    torch.save(random_network(given).state_dict() if layout == "ours" else published_state(given)[0], path)
    with refused(ValueError, f"{path} holds weights of {given!r}, wanted weights of {wanted!r}"):
        fastllie.load(wanted, path)


def test_keys_that_do_not_fit_are_listed(tmp_path):
    state, _ = published_state("zerodce")
    del state["e_conv3.bias"]
    state["e_conv7.weight"] = torch.zeros(3, 64, 3, 3)
    state["fc.weight"] = torch.zeros(10, 5)
    path = tmp_path / "foreign.pth"
    torch.save(state, path)
    told = [
        f"{path} does not fit 'zerodce':",
        "  missing: conv3.bias (32,)",
        "  unexpected: fc.weight (10, 5)",
        "  wrong shape: e_conv7.weight (3, 64, 3, 3), wanted (24, 64, 3, 3)",
        "  wanted: fastllie's layout, or the one of the published repository",
    ]
    with refused(ValueError, "\n".join(told)):
        fastllie.load("zerodce", path)


def test_weights_with_nan(tmp_path):
    state = random_network("zerodce").state_dict()
    state["conv2.weight"][0, 0, 0, :2] = float("nan")
    save_file(state, tmp_path / "w.safetensors")
    with refused(ValueError, "conv2.weight holds 2 values that are NaN or infinite"):
        fastllie.load("zerodce", tmp_path / "w.safetensors")


def test_missing_weights_and_directories(tmp_path):
    with refused(FileNotFoundError, "no such weight file", tmp_path / "nowhere.pth"):
        fastllie.load("zerodce", tmp_path / "nowhere.pth")
    with refused(ValueError, tmp_path, "is a directory; wanted a file: .safetensors, .pth, .pt"):
        fastllie.load("zerodce", tmp_path)
    (tmp_path / "w.onnx").write_bytes(b"1")
    with refused(ValueError, "wanted a file that ends in .safetensors, .pth, .pt"):
        fastllie.load("zerodce", tmp_path / "w.onnx")
    with refused(TypeError, "weights must be a variant's name, a path or None, got int"):
        fastllie.load("zerodce", 3)


def test_an_installation_without_weights_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint.loading, "FOLDER", tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"the weights 'fastllie' of zerodce .* missing .*zerodce\.safe"
    ):
        fastllie.load("zerodce")


# --- the table


def test_list_methods_is_sorted_and_whole():
    wanted = ["dawn", "enlightengan", "nerco", "sci", "zerodce", "zerodce++"]
    assert fastllie.list_methods() == sorted(methods.METHODS) == wanted


@pytest.mark.parametrize("method", methods.METHODS)
def test_info_tells_the_truth(method):
    row = fastllie.info(method)
    model = methods.model_class(method)()
    assert row.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert row.halo == model.contract.halo
    assert row.weights[0].name == ("strong" if method == "sci" else "fastllie")
    for option in row.options:
        assert option.default in (None, getattr(model, option.name))
    text = str(row)
    licences = {entry.licence for entry in row.weights}
    for part in (method, row.paper, f"{row.parameters:,}", *licences, *(o.name for o in row.options)):
        assert part in text


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("zero-dce", "did you mean 'zerodce' or 'zerodce++'? "),
        ("ZERODCE", "did you mean 'zerodce' or 'zerodce++'? "),
        ("gamma", ""),
    ],
)
def test_unknown_method(name, told):
    told = f"unknown method {name!r}; {told}known: {', '.join(fastllie.list_methods())}"
    for call in (fastllie.info, fastllie.load, fastllie.Enhancer):
        with refused(ValueError, told):
            call(name)


def test_unknown_variant():
    told = "unknown weights of zerodce 'fastlie'; did you mean 'fastllie'? known: fastllie, metered; or"
    with refused(ValueError, told):
        fastllie.load("zerodce", "fastlie")


def test_method_must_be_a_string():
    with refused(TypeError, "method must be a string, got int"):
        fastllie.info(3)


def test_unknown_option_names_those_there_are(tmp_path, monkeypatch):
    ship_random_weights(tmp_path, monkeypatch)
    with refused(TypeError, "zerodce++ has no option 'size'; its options are: scale"):
        fastllie.load("zerodce++", size=3)
    with refused(TypeError, "zerodce has no option 'scale'; it has no options"):
        fastllie.enhance(np.zeros((4, 4, 3), np.uint8), "zerodce", scale=3)
