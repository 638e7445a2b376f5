"""Exported files: what they compute, on which sizes, with which operators, and what is refused."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers import random_network, refused, same_levels, write_weights
from safetensors import safe_open
from safetensors.torch import save_file

import fastllie
from fastllie import checkpoint, exporting
from fastllie.cli import main
from fastllie.models import SCI

pytestmark = pytest.mark.usefixtures("random_weights")


@pytest.fixture
def onnxruntime():
    pytest.importorskip("onnxscript")
    return pytest.importorskip("onnxruntime")


METHODS = [("zerodce", {}), ("zerodce++", {"scale": 12}), ("sci", {})]


@pytest.mark.parametrize(("method", "options"), METHODS)
def test_onnx_is_the_network_at_any_size(tmp_path, onnxruntime, method, options):
    result = fastllie.export(method, tmp_path / "m.onnx", **options)
    assert result.path == tmp_path / "m.onnx"
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    assert len(result.checks) == 3
    assert max(result.checks.values()) < result.tolerance == 1e-4
    assert "ONNX Runtime" in str(result)
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    network = fastllie.load(method, **options)
    least = options.get("scale", 1) + 1
    for shape in ((1, 3, least, least), (3, 3, 41, 29), (2, 3, 24, 144), (1, 3, 203, 301)):
        x = torch.rand(shape, generator=torch.Generator().manual_seed(1))
        (got,) = session.run(None, {"image": x.numpy()})
        with torch.no_grad():
            want = network(x)
        assert (want - x).abs().max() > 0.05
        torch.testing.assert_close(torch.from_numpy(got), want, rtol=0, atol=1e-4)


@pytest.mark.parametrize("suffix", ["onnx", "pt2"])
def test_the_meter_is_exported_with_its_network(tmp_path, onnxruntime, suffix):
    weights = write_weights(tmp_path / "w.safetensors", "zerodce", meter=0.4)
    result = fastllie.export("zerodce", tmp_path / f"m.{suffix}", weights=weights)
    assert max(result.checks.values()) < result.tolerance
    network = fastllie.load("zerodce", weights)
    for shape in ((2, 3, 24, 31), (1, 3, 60, 50)):
        x = 0.05 * torch.rand(shape, generator=torch.Generator().manual_seed(1))
        if suffix == "onnx":
            session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
            got = torch.from_numpy(session.run(None, {"image": x.numpy()})[0])
        else:
            got = torch.export.load(tmp_path / "m.pt2").module()(x)
        torch.testing.assert_close(got, network(x), rtol=0, atol=1e-4, check_stride=False)
        assert (got - fastllie.load("zerodce")(x)).abs().max() > 0.05


def test_onnx_holds_standard_operators_and_says_what_it_is(tmp_path, onnxruntime):
    onnx = pytest.importorskip("onnx")
    fastllie.export("zerodce++", tmp_path / "m.onnx", opset=20, scale=3)
    model = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(model)
    assert {(entry.domain, entry.version) for entry in model.opset_import if not entry.domain} == {("", 20)}
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    assert not model.functions
    (image,), (enhanced,) = model.graph.input, model.graph.output
    assert (image.name, enhanced.name) == ("image", "enhanced")
    sizes = [side.dim_param or side.dim_value for side in image.type.tensor_type.shape.dim]
    assert sizes == ["batch", 3, "height", "width"]
    told = {entry.key: entry.value for entry in model.metadata_props}
    assert told["fastllie.method"] == "zerodce++"
    assert told["fastllie.options"] == '{"scale": 3}'


@pytest.mark.parametrize(("method", "dtype"), [("zerodce++", "float32"), ("sci", "float16")])
def test_onnx_takes_bytes(tmp_path, onnxruntime, method, dtype):
    result = fastllie.export(method, tmp_path / "m.onnx", uint8=True, dtype=dtype)
    assert result.tolerance == (1 if dtype == "float32" else 3)
    x = np.random.default_rng(0).integers(0, 140, (2, 3, 21, 34), dtype=np.uint8)
    (got,) = onnxruntime.InferenceSession(result.path).run(None, {"image": x})
    assert got.dtype == np.uint8
    want = fastllie.enhance(torch.from_numpy(x), method).numpy()
    if dtype == "float32":
        assert same_levels(got, want.astype(np.int64))
    else:
        assert np.abs(got.astype(int) - want).max() <= 3


def test_onnx_in_half_precision(tmp_path, onnxruntime):
    path = fastllie.export("zerodce++", tmp_path / "half.onnx", dtype="float16").path
    x = np.random.default_rng(0).random((1, 3, 33, 20)).astype(np.float16)
    (got,) = onnxruntime.InferenceSession(path).run(None, {"image": x})
    assert got.dtype == np.float16
    want = fastllie.enhance(torch.from_numpy(x).float(), "zerodce++").numpy()
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-2)


@pytest.mark.parametrize(
    ("method", "suffix", "settings"),
    [
        ("zerodce", "pt2", {"padding": "zeros"}),
        ("sci", "onnx", {"padding": "zeros"}),
        ("sci", "pt2", {"block": "plain", "blocks": 2}),
    ],
)
def test_weights_of_other_shapes(tmp_path, onnxruntime, method, suffix, settings):
    path = tmp_path / "w.safetensors"
    if "block" in settings:
        network = random_network(method, **settings)
        save_file(network.state_dict(), path, {"padding": network.padding, "blocks": str(network.blocks)})
    else:
        write_weights(path, method, **settings)
    result = fastllie.export(method, tmp_path / f"m.{suffix}", weights=path)
    assert max(result.checks.values()) < 1e-4


@pytest.mark.parametrize(
    ("suffix", "settings"),
    [("onnx", {}), ("pt2", {"dtype": "float16", "uint8": True})],
)
def test_dawn_looks_at_whole_images(tmp_path, onnxruntime, suffix, settings):
    path = write_weights(tmp_path / "w.safetensors", "dawn")
    result = fastllie.export("dawn", tmp_path / f"m.{suffix}", weights=path, **settings)
    assert max(result.checks.values()) <= result.tolerance
    # sides below 17 pixels are not for the file: a sixteenth of them is what exporters take for a constant
    assert min(min(size[1:]) for size in result.checks) >= 17


def test_channels_behind_at_one_size(tmp_path, onnxruntime):
    settings = {"layout": "nhwc", "size": (37, 53), "uint8": True}
    result = fastllie.export("zerodce++", tmp_path / "m.onnx", **settings, scale=3)
    assert list(result.checks) == [(1, 37, 53)]
    session = onnxruntime.InferenceSession(result.path)
    assert session.get_inputs()[0].shape == session.get_outputs()[0].shape == [1, 37, 53, 3]
    x = np.random.default_rng(0).integers(0, 140, (1, 37, 53, 3), dtype=np.uint8)
    (got,) = session.run(None, {"image": x})
    assert np.abs(got.astype(int) - fastllie.enhance(x, "zerodce++", scale=3)).max() <= 1
    x = torch.rand(2, 40, 30, 3)
    path = fastllie.export("sci", tmp_path / "m.pt2", layout="nhwc").path
    got = torch.export.load(path).module()(x).movedim(-1, 1)
    torch.testing.assert_close(got, fastllie.enhance(x.movedim(-1, 1), "sci"), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("method", "uint8"), [("zerodce", True), ("sci", False)])
def test_older_opsets(tmp_path, onnxruntime, method, uint8):
    onnx = pytest.importorskip("onnx")
    result = fastllie.export(method, tmp_path / "m.onnx", opset=13, uint8=uint8)
    model = onnx.load(result.path)
    onnx.checker.check_model(model, full_check=True)
    assert {entry.version for entry in model.opset_import if not entry.domain} == {13}
    assert len(result.checks) == 3
    assert max(result.checks.values()) <= result.tolerance
    assert {entry.key: entry.value for entry in model.metadata_props}["fastllie.method"] == method


def test_parts_of_a_shape_and_of_axes_in_older_words(onnxruntime):
    """What the exporter writes in opset 18 for larger networks, against the same in 13."""
    onnx = pytest.importorskip("onnx")
    from fastllie import opsets

    node, value = onnx.helper.make_node, onnx.helper.make_tensor
    nodes = [
        node("Shape", ["x"], ["last"], start=2),
        node("ReduceMax", ["x", "axes"], ["most"], keepdims=1),
        node("Split", ["x"], ["a", "b"], axis=1, num_outputs=2),
    ]
    kinds = onnx.TensorProto
    outputs = [
        ("last", kinds.INT64, [2]),
        ("most", kinds.FLOAT, [1, 4, 1, 1]),
        ("a", kinds.FLOAT, [1, 2, 5, 6]),
        ("b", kinds.FLOAT, [1, 2, 5, 6]),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [onnx.helper.make_tensor_value_info("x", kinds.FLOAT, [1, 4, 5, 6])],
        [onnx.helper.make_tensor_value_info(*output) for output in outputs],
        [value("axes", kinds.INT64, [2], [2, 3])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    x = {"x": np.random.default_rng(0).random((1, 4, 5, 6), np.float32)}
    results = [
        onnxruntime.InferenceSession(made.SerializeToString()).run(None, x)
        for made in (model, opsets.lowered(model, 13))
    ]
    for want, got in zip(*results, strict=True):
        assert np.array_equal(want, got)
    # the one that was given stays as it is
    assert model.opset_import[0].version == 18
    model.graph.node.append(node("Reshape", ["x", "axes"], ["c"], allowzero=1))
    with refused(ValueError, "opset 13 cannot hold this network: Reshape with allowzero=1", "can is 14"):
        opsets.lowered(model, 13)


RUN = """
import sys, torch
sys.modules["fastllie"] = None  # nothing may ask for it
x, wanted = torch.load("x.pth")
for name, want in wanted.items():
    network = torch.export.load(name).module()
    print(float((network(x) - want).abs().max()))
"""


def test_programs_run_without_fastllie(tmp_path):
    x = torch.rand(2, 3, 35, 62)
    wanted = {}
    for place, (method, options) in enumerate(METHODS):
        result = fastllie.export(method, tmp_path / f"{place}.pt2", **options)
        assert max(result.checks.values()) < 1e-4
        wanted[result.path.name] = fastllie.enhance(x, method, **options)
    torch.save((x, wanted), tmp_path / "x.pth")
    done = subprocess.run(
        [sys.executable, "-c", RUN], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-2000:]
    differences = [float(line) for line in done.stdout.split()]
    assert len(differences) == len(METHODS)
    assert max(differences) < 1e-4


def test_a_program_takes_bytes_and_halves(tmp_path):
    for dtype in ("float32", "float16"):
        path = fastllie.export("sci", tmp_path / "m.pt2", uint8=True, dtype=dtype).path
        x = torch.randint(0, 120, (1, 3, 9, 11), dtype=torch.uint8)
        got = torch.export.load(path).module()(x)
        assert got.dtype == torch.uint8
        assert (got.int() - fastllie.enhance(x, "sci").int()).abs().max() <= 3


def test_a_file_that_computes_something_else_is_not_written(tmp_path, monkeypatch):
    (tmp_path / "m.pt2").write_bytes(b"from before")
    monkeypatch.setattr(SCI, "plain", lambda network: torch.nn.Sigmoid())
    with refused(RuntimeError, "computes something else", "1x3x64x48: 0."):
        fastllie.export("sci", tmp_path / "m.pt2")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"from before"]
    monkeypatch.setattr(SCI, "plain", lambda network: _Nothing())
    with refused(RuntimeError, "1x3x64x48: nan"):
        fastllie.export("sci", tmp_path / "m.pt2")


class _Nothing(torch.nn.Module):
    def forward(self, x):
        return x * float("nan")


def test_wrong_arguments(tmp_path, monkeypatch):
    with refused(ValueError, "path must end in .onnx or .pt2, got", "m.tflite"):
        fastllie.export("sci", tmp_path / "m.tflite")
    with refused(ValueError, "dtype must be one of ('float32', 'float16'), got 'int8'"):
        fastllie.export("sci", tmp_path / "m.onnx", dtype="int8")
    with refused(TypeError, "uint8 must be True or False, got 1"):
        fastllie.export("sci", tmp_path / "m.onnx", uint8=1)
    with refused(ValueError, "opset must lie in 13..23, got 9"):
        fastllie.export("sci", tmp_path / "m.onnx", opset=9)
    with refused(ValueError, "layout must be one of ('nchw', 'nhwc'), got 'hwc'"):
        fastllie.export("sci", tmp_path / "m.onnx", layout="hwc")
    with refused(ValueError, "size must be at least 5 a side for this network, got (4, 9)"):
        fastllie.export("zerodce++", tmp_path / "m.onnx", size=(4, 9), scale=4)
    with refused(TypeError, "size must be a height and a width, or None, got (4.5, 9)"):
        fastllie.export("sci", tmp_path / "m.onnx", size=(4.5, 9))
    with refused(TypeError, "opset must be an integer or None, got '18'"):
        fastllie.export("sci", tmp_path / "m.onnx", opset="18")
    with refused(ValueError, "opset is for .onnx alone"):
        fastllie.export("sci", tmp_path / "m.pt2", opset=18)
    with refused(FileNotFoundError, "its folder does not exist"):
        fastllie.export("sci", tmp_path / "nowhere" / "m.pt2")
    with refused(TypeError, "sci has no option 'scale'"):
        fastllie.export("sci", tmp_path / "m.pt2", scale=2)
    monkeypatch.setattr(exporting.importlib.util, "find_spec", lambda name: None)
    with refused(ImportError, "writing ONNX needs onnx, onnxscript, onnxruntime", "fastllie[export]"):
        fastllie.export("sci", tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_command_line(tmp_path, capsys):
    assert main(["export", "zerodce++", "-o", str(tmp_path / "m.pt2"), "--option", "scale=2"]) == 0
    told = capsys.readouterr()
    assert "checked with torch.export" in told.out
    assert told.err == ""
    assert (tmp_path / "m.pt2").is_file()
    assert main(["export", "sci", "-o", str(tmp_path / "m.tflite")]) == 2
    assert "path must end in .onnx or .pt2" in capsys.readouterr().err
    assert main(["export", "sci", "-o", str(tmp_path / "nowhere" / "m.pt2")]) == 2


def test_command_line_fails_where_the_check_does(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(SCI, "plain", lambda network: torch.nn.Sigmoid())
    assert main(["export", "sci", "-o", str(tmp_path / "m.pt2")]) == 1
    assert "computes something else" in capsys.readouterr().err


def test_weights_of_half_precision_are_exported_in_float32(tmp_path):
    path = write_weights(tmp_path / "half.safetensors", "zerodce")
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        state = {key: file.get_tensor(key).half() for key in file.keys()}  # noqa: SIM118
    save_file(state, path, metadata)
    network = checkpoint.build("zerodce", path, {})
    assert {tensor.dtype for tensor in network.parameters()} == {torch.float32}
    result = fastllie.export("zerodce", tmp_path / "half.pt2", weights=path)
    assert max(result.checks.values()) < result.tolerance
