"""A method as it would be run without us: PyTorch eager and compiled, ONNX Runtime, OpenVINO."""

import importlib
import importlib.util
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fastllie import checkpoint, exporting, methods
from fastllie.ops import reference

Call = Callable[[], Any]

#: what stands beside ours, and what it is called in tables
RIVALS = {
    "eager": "PyTorch eager",
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
    """The method, or its options, cannot be exported for a rival; the message says why."""


class Subject:
    """A method with its weights: what ours and the others are made from.

    Args:
        method, weights, options: As for `load`.
        dtype: "float32", "bfloat16" or "float16", which the others compute in.
        device: Where.
        folder: For files of weights and networks; nothing is written anywhere else.

    Attributes:
        path: The file of the weights.
        weights: What they are called: a variant or a file.
    """

    def __init__(
        self,
        method: str,
        weights: Any,
        options: Mapping[str, Any],
        *,
        dtype: str,
        device: torch.device,
        folder: Path,
    ):
        self.method, self.dtype, self.device = method, dtype, device
        self.options = methods.options_of(method, options)
        self._given = dict(options)
        self._folder = folder
        shipped = methods.info(method).weights
        self.path = checkpoint.find(method, weights)
        self.weights = shipped[0].name if weights is None else str(weights)
        self._exported: Path | Unexported | None = None

    def plain(self, dtype: str | None = None) -> nn.Module:
        """The network in PyTorch's own operators alone, in `dtype` (None: the subject's)."""
        network = checkpoint.build(self.method, self.path, self.options).requires_grad_(False)
        return plain(self.method, network).to(self.device, getattr(torch, dtype or self.dtype))

    def onnx(self) -> Path:
        """The network as `fastllie.export` writes it, float32, any size; written once.

        Raises:
            Unexported: the method, or an option.
        """
        if self._exported is None:
            path = self._folder / f"{self.method}.onnx"
            try:
                exporting.export(self.method, path, weights=self.path, **self._given)
                self._exported = path
            except ValueError as error:
                self._exported = Unexported(str(error))
        if isinstance(self._exported, Unexported):
            raise self._exported
        return self._exported


class Plain(nn.Module):
    """A formula on a network's layers."""

    def __init__(self, network: nn.Module, formula: Callable[[Any, Tensor], Tensor]):
        super().__init__()
        self.network, self.formula = network, formula

    def forward(self, x: Tensor) -> Tensor:
        return self.formula(self.network, x)


def plain(method: str, network: Any) -> nn.Module:
    """A network without any operator of ours: what PyTorch runs layer by layer, and compilers see through.

    NeRCo's is not in strips, but with the layers folded that the published code computes several times.
    """
    if method == "enlightengan":
        # its kernels are for eval mode; the batch norms have a flag of their own, which stays
        network.training = True
    if method == "nerco":
        network.enhance_whole = lambda x, logits=None: network.G_A(
            torch.cat([x, network.Pre(x)], 1) * network.H.mask(x), logits
        )
    formulas = {"zerodce": _curved, "zerodce++": _curved, "sci": _divided}
    return Plain(network, formulas.get(method, _as_it_is))


def _curved(network: Any, x: Tensor) -> Tensor:
    from fastllie.models.zerodce import STEPS

    # eight steps in half precision would lose what the convolutions keep
    return reference.curve(x.float(), network.curve_maps(x).float(), STEPS).to(x.dtype)


def _divided(network: Any, x: Tensor) -> Tensor:
    return reference.divide_illumination(x, network.enhance(x))


def _as_it_is(network: Any, x: Tensor) -> Tensor:
    return network(x)


def why_absent(rival: str, device: torch.device, dtype: str) -> str | None:
    """Why a rival cannot run here, or None."""
    if rival not in _PACKAGES:
        return None
    if device.type != "cpu":
        return "compared on the CPU only"
    if rival == "onnxruntime" and dtype != "float32":
        return f"has no {dtype} on the CPU"
    if dtype not in _HINTS:
        return f"not compared in {dtype}"
    packages, command = _PACKAGES[rival]
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    return f"needs {', '.join(missing)}: `{command}`" if missing else None


def call_of(rival: str, subject: Subject, x: Tensor) -> Call:
    """What runs a rival on images `[B, 3, H, W]` in float32, which it converts before it is timed.

    Raises:
        Unexported: the method cannot be had for it.
    """
    return _MAKERS[rival](subject, x)


def _eager(subject: Subject, x: Tensor) -> Call:
    network, x = subject.plain(), x.to(getattr(torch, subject.dtype))
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
        # told, because on some machines it would choose bfloat16
        "INFERENCE_PRECISION_HINT": _HINTS[subject.dtype],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = openvino.compile_model(model, "CPU", settings).create_infer_request()
    array = x.numpy()
    return lambda: request.infer({0: array}, share_inputs=True, share_outputs=True)[0]


_MAKERS = {"eager": _eager, "compile": _compiled, "onnxruntime": _onnxruntime, "openvino": _openvino}


class Peak(TorchDispatchMode):
    """The most bytes that the tensors made inside held at one time, in `most`; the CPU counts none."""

    def __init__(self) -> None:
        super().__init__()
        self.most = self._held = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self._held += size
        self.most = max(self.most, self._held)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._held -= size
