"""Checkpoints as trainers save them: what is wrapped around a state dict, before its names, or beside it."""

import argparse
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import random_network, refused
from PIL import Image
from safetensors.torch import save_file
from torch.optim.swa_utils import AveragedModel

import fastllie
from fastllie import checkpoint, cli

STATES = {method: random_network(method, seed=3).state_dict() for method in fastllie.list_methods()}
OTHER = random_network("zerodce", seed=4).state_dict()


def prefixed(prefix, state):
    return {prefix + key: value for key, value in state.items()}


def averaged(state):
    network = random_network("zerodce")
    network.load_state_dict(state)
    return AveragedModel(network).state_dict()


WRAPPED = {
    "DataParallel": lambda state: prefixed("module.", state),
    "compiled, in parallel, in a trainer": lambda state: prefixed("net.module._orig_mod.generator.", state),
    "a part compiled": lambda state: {
        key.replace(".weight", "._orig_mod.weight"): v for key, v in state.items()
    },
    "with numbers": lambda state: {"epoch": 3, "loss": 0.5, **state},
    "any name": lambda state: {"epoch": 3, "the best one": state},
    "nested": lambda state: {"checkpoint": {"models": [{"weights": prefixed("module.", state)}]}, "epoch": 3},
    "with an optimizer": lambda state: {
        "model_state_dict": state,
        "optimizer_state_dict": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]},
    },
    "beside a loss": lambda state: {
        "state_dict": {**prefixed("model.", state), **prefixed("loss.vgg.", {"0.weight": torch.zeros(8, 3)})},
        "hyper_parameters": {"lr": 0.1},
    },
    "twice the same": lambda state: {"params": state, "params_ema": {k: v.clone() for k, v in state.items()}},
    "with counters": lambda state: {"step": torch.tensor(3), "initted": torch.tensor(True), **state},
    "a scaler of the average": lambda state: {"n_averaged": torch.tensor(3), **prefixed("module.", state)},
}


@pytest.mark.parametrize("wrap", WRAPPED)
@pytest.mark.parametrize("method", STATES)
def test_a_state_dict_is_found_in_whatever_holds_it(tmp_path, method, wrap):
    state = STATES[method]
    torch.save(WRAPPED[wrap](state), tmp_path / "w.pth")
    found = checkpoint.read(tmp_path / "w.pth", method)
    assert found.state.keys() == state.keys()
    assert all(torch.equal(found.state[key], state[key]) for key in state)


def test_subnormal_weights_become_zeros(tmp_path):
    state = {key: value.clone() for key, value in STATES["zerodce"].items()}
    state["conv1.weight"][3] = 1e-40
    state["conv1.weight"][4] = 2e-38
    save_file(state, tmp_path / "decayed.safetensors")
    loaded = fastllie.load("zerodce", tmp_path / "decayed.safetensors").state_dict()
    assert not loaded["conv1.weight"][3].any()
    assert torch.equal(loaded["conv1.weight"][4], state["conv1.weight"][4])
    assert torch.equal(loaded["conv2.weight"], state["conv2.weight"])


def test_prefixes_in_safetensors(tmp_path):
    save_file(prefixed("model._orig_mod.", STATES["sci"]), tmp_path / "w.safetensors", {"padding": "reflect"})
    found = checkpoint.read(tmp_path / "w.safetensors", "sci")
    assert found.options["padding"] == "reflect"
    assert found.state.keys() == STATES["sci"].keys()


def test_an_averaged_model_with_its_counter(tmp_path):
    torch.save({"ema": averaged(STATES["zerodce"])}, tmp_path / "w.pth")
    found = checkpoint.read(tmp_path / "w.pth", "zerodce")
    assert torch.equal(found.state["conv1.weight"], STATES["zerodce"]["conv1.weight"])


@pytest.mark.parametrize(
    ("raw", "average"),
    [("params", "params_ema"), ("state_dict", "state_dict_ema"), ("net", "net-ema"), ("a.b", "a.b_ema")],
)
def test_of_two_that_are_called_so_the_average_is_taken_and_named(tmp_path, raw, average):
    path = tmp_path / "w.pth"
    torch.save({average: STATES["zerodce"], raw: OTHER}, path)
    with pytest.warns(
        UserWarning, match=f"the weights are the average '{average}'; the others are .*:{raw}'"
    ):
        found = checkpoint.read(path, "zerodce")
    assert torch.equal(found.state["conv1.weight"], STATES["zerodce"]["conv1.weight"])


@pytest.mark.parametrize("opened", ["load", "enhancer", "methods", "command"])
def test_which_of_several_is_meant_stands_behind_the_name(tmp_path, opened, capsys):
    path = tmp_path / "w.pth"
    states = {"student": STATES["zerodce"], "teacher": OTHER}
    torch.save(states, path)
    x = torch.rand(1, 3, 8, 9)
    results = []
    for name, state in states.items():
        weights = f"{path}:{name}"
        if opened == "load":
            assert torch.equal(fastllie.load("zerodce", weights).conv1.weight, state["conv1.weight"])
        elif opened == "enhancer":
            results.append(fastllie.enhance(x, "zerodce", weights=weights))
            want = fastllie.load("zerodce")
            want.load_state_dict(state)
            assert torch.allclose(results[-1], want(x), atol=1e-5)
        elif opened == "methods":
            assert checkpoint.methods_of(weights) == ["zerodce"]
        else:
            Image.new("RGB", (9, 8), (9, 9, 9)).save(tmp_path / "a.png")
            out = tmp_path / f"{name}.png"
            given = ["enhance", str(tmp_path / "a.png"), "-o", str(out), "--weights", weights]
            assert cli.main(given) == 0
            results.append(np.asarray(Image.open(out)))
    if opened == "command":
        assert not np.array_equal(*results)
    elif results:
        assert not torch.equal(*results)
    with refused(ValueError, path, "holds no weights called 'tutor'; it holds: student, teacher"):
        fastllie.load("zerodce", f"{path}:tutor")
    with refused(FileNotFoundError, "no such weight file", "gone.pth'"):
        fastllie.load("zerodce", tmp_path / "gone.pth:student")


@pytest.mark.parametrize(
    ("content", "places"),
    [
        ({"student": STATES["zerodce"], "teacher": OTHER}, "student, teacher"),
        (
            {"state_dict": {**prefixed("a.", STATES["zerodce"]), **prefixed("b.", OTHER)}},
            "state_dict.a, state_dict.b",
        ),
        ({"ema": STATES["zerodce"], "ema_slow": OTHER}, "ema, ema_slow"),
        ({"model": OTHER, "ema": STATES["zerodce"]}, "model, ema"),
        (
            {
                "params": OTHER,
                "params_ema": STATES["zerodce"],
                "best": random_network("zerodce").state_dict(),
            },
            "params, params_ema, best",
        ),
    ],
)
def test_several_that_differ_are_an_error_that_lists_them(tmp_path, content, places):
    path = tmp_path / "w.pth"
    torch.save(content, path)
    with refused(ValueError, path, f"holds several weights of 'zerodce' that differ: {places};"):
        fastllie.load("zerodce", path)


def test_a_pair_of_networks_gives_each_its_own(tmp_path):
    torch.save({"curves": STATES["zerodce"], "light": STATES["sci"]}, tmp_path / "w.pth")
    for method in ("zerodce", "sci"):
        found = checkpoint.read(tmp_path / "w.pth", method)
        assert found.state.keys() == STATES[method].keys()
    with refused(ValueError, "holds weights of 'zerodce', wanted weights of 'nerco'"):
        checkpoint.read(tmp_path / "w.pth", "nerco")


class Settings(dict):
    """As Lightning's AttributeDict."""


def test_objects_beside_the_weights_do_not_come_to_life(tmp_path):
    class Attack:
        def __reduce__(self):
            return (exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",))

    content = {
        "state_dict": prefixed("model.", STATES["zerodce"]),
        "hyper_parameters": Settings(lr=0.1),
        "arguments": argparse.Namespace(folder=Path("runs")),
        "best": np.float64(0.5),
        "attack": Attack(),
    }
    torch.save(content, tmp_path / "epoch=3.ckpt")
    found = checkpoint.read(tmp_path / "epoch=3.ckpt", "zerodce")
    assert torch.equal(found.state["conv1.weight"], STATES["zerodce"]["conv1.weight"])
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("method", STATES)
def test_a_whole_module_is_read_by_its_tensors(tmp_path, method):
    network = random_network(method, seed=3)
    torch.save(network, tmp_path / "w.pth")
    found = checkpoint.read(tmp_path / "w.pth", method)
    assert found.state.keys() == STATES[method].keys()
    assert all(torch.equal(found.state[key], STATES[method][key]) for key in found.state)


def test_what_does_not_fit_is_listed_for_the_part_that_comes_closest(tmp_path):
    state = {key: value for key, value in STATES["zerodce"].items() if key != "conv3.bias"}
    torch.save({"net": prefixed("module.", state), "epoch": 3}, tmp_path / "w.pth")
    with refused(ValueError, "does not fit 'zerodce':\n  missing: conv3.bias (32,)\n  wanted:"):
        checkpoint.read(tmp_path / "w.pth", "zerodce")


def test_weights_alone_are_read_without_a_word(tmp_path):
    torch.save(STATES["zerodce"], tmp_path / "w.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checkpoint.read(tmp_path / "w.pth", "zerodce")


# --- writing


def test_two_writers_of_one_file_do_not_meet(tmp_path, monkeypatch):
    """Each has a temporary file of its own, so that the result is the whole file of one of them."""
    seen = []
    real = Path.write_bytes

    def watched(self, content):
        seen.append(self.name)
        return real(self, content)

    monkeypatch.setattr(Path, "write_bytes", watched)
    for process in (1, 2):
        monkeypatch.setattr("os.getpid", lambda process=process: process)
        checkpoint.write(tmp_path / "w.safetensors", STATES["sci"], {"method": "sci"})
    assert len(set(seen)) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "w.pt"
    path.write_bytes(b"before")
    network = random_network("sci")

    def full(state, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.export_official(network, path)
    assert path.read_bytes() == b"before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["w.pt"]
