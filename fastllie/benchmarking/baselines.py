"""A method as it would be run without us: PyTorch eager and compiled, ONNX Runtime, OpenVINO."""

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastllie import checkpoint, exporting, methods
from fastllie.models.network import Network

Call = Callable[[], Any]

#: what stands beside ours, and what it is called in tables
BASELINES = {
    "eager": "PyTorch eager",
    "channels_last": "eager, channels last",
    "compile": "torch.compile",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
}
# what each needs besides torch, and how it comes
_PACKAGES = {
    "onnxruntime": (("onnx", "onnxscript", "onnxruntime"), "pip install fastllie[export]"),
    "openvino": (("onnx", "onnxscript", "onnxruntime", "openvino"), "pip install fastllie[export] openvino"),
}
_HINTS = {"float32": "f32", "bfloat16": "bf16"}


class Unexported(ValueError):
    """The method, or its options, cannot be exported for a baseline; the message says why."""


class Subject:
    """A method with its weights: what ours and the others are made from.

    Args:
        method, weights, options: As for `load`.
        dtype: "float32", "bfloat16" or "float16", which the others compute in.
        device: Where.
        folder: For the exported network, of this method, weights and options; nothing else is written.

    Attributes:
        given: The options that are not left to the method.
        path: The file of the weights.
        weights: What they are called: a variant or a file.
        weight_bytes: What they take in memory.
        halo: Of the network with these weights and options, as in its contract.
    """

    def __init__(
        self,
        method: methods.Method,
        weights: Any,
        options: Mapping[str, Any],
        *,
        dtype: str,
        device: torch.device,
        folder: Path,
    ):
        self.method, self.dtype, self.device = method, dtype, device
        self.options = methods.options_of(method, options)
        self.given = dict(options)
        self._folder = folder
        shipped = methods.info(method).weights
        self.path = checkpoint.find(method, weights)
        self.weights = shipped[0].name if weights is None else str(weights)
        self._exported: Path | Unexported | None = None
        network = self.network()
        self.halo = network.contract.halo
        size = getattr(torch, dtype).itemsize
        self.weight_bytes = sum(size * tensor.numel() for tensor in network.state_dict().values())

    def network(self) -> Network:
        """The network as the method has it, with its weights, on the CPU."""
        network: Network = checkpoint.build(self.method, self.path, self.options)
        return network.requires_grad_(False)

    def plain(self, dtype: str | None = None) -> nn.Module:
        """The network in PyTorch's own operators alone, in `dtype` (None: the subject's)."""
        return self.network().plain().to(self.device, getattr(torch, dtype or self.dtype))

    def onnx(self) -> Path:
        """The network as `fastllie.export` writes it, float32, any size; written once in the folder.

        Raises:
            Unexported: the method, or an option.
        """
        if self._exported is None:
            path = self._folder / f"{self.method}.onnx"
            try:
                if not path.exists():
                    exporting.export(self.method, path, weights=self.path, **self.given)
                self._exported = path
            except ValueError as error:
                self._exported = Unexported(str(error))
        if isinstance(self._exported, Unexported):
            raise self._exported
        return self._exported


def why_absent(baseline: str, device: torch.device, dtype: str) -> str | None:
    """Why a baseline cannot run here, or None."""
    if baseline not in _PACKAGES:
        return None
    if device.type != "cpu":
        return "compared on the CPU only"
    if baseline == "onnxruntime" and dtype != "float32":
        return f"has no {dtype} on the CPU"
    if dtype not in _HINTS:
        return f"not compared in {dtype}"
    packages, command = _PACKAGES[baseline]
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    return f"needs {', '.join(missing)}: `{command}`" if missing else None


def call_of(baseline: str, subject: Subject, x: Tensor) -> Call:
    """What runs a baseline on images `[B, 3, H, W]` in float32, which it converts before it is timed.

    Raises:
        Unexported: the method cannot be had for it.
    """
    return _MAKERS[baseline](subject, x)


def _eager(subject: Subject, x: Tensor) -> Call:
    network, x = subject.plain(), x.to(getattr(torch, subject.dtype))
    return lambda: network(x)


def _channels_last(subject: Subject, x: Tensor) -> Call:
    # PyTorch's stubs leave the keyword out
    network: Any = subject.plain()
    network = network.to(memory_format=torch.channels_last)
    x = x.to(getattr(torch, subject.dtype), memory_format=torch.channels_last)
    return lambda: network(x)


def _compiled(subject: Subject, x: Tensor) -> Call:
    module, x = subject.plain(), x.to(getattr(torch, subject.dtype))

    def network(x: Tensor) -> Tensor:
        return module(x)

    # torch.compile counts the versions of all functions with one code, and gives up after eight
    network.__code__ = network.__code__.replace()
    compiled = torch.compile(network, dynamic=False)
    return lambda: compiled(x)


def _onnxruntime(subject: Subject, x: Tensor) -> Call:
    onnxruntime = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    for name, size in zip(("batch", "height", "width"), (x.shape[0], *x.shape[2:]), strict=True):
        options.add_free_dimension_override_by_name(name, size)
    session = onnxruntime.InferenceSession(str(subject.onnx()), options, providers=["CPUExecutionProvider"])
    array = x.numpy()
    return lambda: session.run(None, {"image": array})[0]


def _openvino(subject: Subject, x: Tensor) -> Call:
    openvino = importlib.import_module("openvino")
    model = openvino.Core().read_model(str(subject.onnx()))
    model.reshape(list(x.shape))
    settings = {
        # given, because on some machines it would choose bfloat16
        "INFERENCE_PRECISION_HINT": _HINTS[subject.dtype],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = openvino.compile_model(model, "CPU", settings).create_infer_request()
    array = x.numpy()
    return lambda: request.infer({0: array}, share_inputs=True, share_outputs=True)[0]


_MAKERS = {
    "eager": _eager,
    "channels_last": _channels_last,
    "compile": _compiled,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
}
