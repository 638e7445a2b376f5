"""Networks as files that run without fastllie: ONNX (.onnx) and torch.export (.pt2), each checked."""

import importlib
import importlib.util
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastllie import checkpoint, methods, opsets
from fastllie.checks import check_flag, check_int, check_within
from fastllie.images.files import replacing

SUFFIXES = (".onnx", ".pt2")
DTYPES = {"float32": torch.float32, "float16": torch.float16}
#: the largest difference from the network itself that a file may show, in [0, 1]
TOLERANCE = {"float32": 1e-4, "float16": 1e-2}
# bytes are rounded on both sides, and a value near a half may fall either way
LEVELS = {"float32": 1, "float16": 3}
LAYOUTS = ("nchw", "nhwc")
OPSETS = (opsets.OLDEST, 23)  # torch's exporter writes 18 and later
CHECKED = ((1, 64, 48), (3, 37, 53), (1, 131, 97))  # batch, height, width: odd ones, and a batch


@dataclass(frozen=True)
class Export:
    """A file that was written, and what was found when it was run beside the network; `print` it.

    Attributes:
        path: The file.
        runtime: What ran it.
        checks: Batch, height, width -> the largest difference, in [0, 1], or in levels of 255 for uint8.
        tolerance: What was allowed.
    """

    path: Path
    runtime: str
    checks: dict[tuple[int, int, int], float]
    tolerance: float

    def __str__(self) -> str:
        lines = [f"{self.path}: checked with {self.runtime}, at most {self.tolerance:g} allowed"]
        lines += [f"  {b}x3x{h}x{w}: {value:.2g}" for (b, h, w), value in self.checks.items()]
        return "\n".join(lines)


def export(
    method: str,
    path: str | os.PathLike[str],
    *,
    weights: str | os.PathLike[str] | None = None,
    dtype: str = "float32",
    uint8: bool = False,
    layout: str = "nchw",
    size: tuple[int, int] | None = None,
    opset: int | None = None,
    **options: Any,
) -> Export:
    """Write a network as ONNX or as a program of `torch.export`, run what was written, and compare.

    The file holds standard operators alone. It takes one input `image`, RGB, `[batch, 3, height, width]` of
    any size (a side of 2 at least, of `scale + 1`, or of 17 for EnlightenGAN), and gives one output
    `enhanced` of that shape. float16 convolves in float16 and computes curve and division in float32. A file
    that differs from the network by more than 1e-4 (float16: 1e-2; uint8: one level, in float16 three) is not
    written.

    Args:
        method: One of `list_methods()`.
        path: Ends in .onnx (needs the extra `export`) or .pt2 (`torch.export.load(path).module()` runs it).
        weights: As for `load`.
        dtype: "float32" or "float16", of the weights and, without `uint8`, of input and output, in [0, 1].
        uint8: Whether input and output are bytes in 0..255, rounded half up.
        layout: "nchw", or "nhwc" for `[batch, height, width, 3]`, as browsers and cameras have their pixels.
        size: Height and width, for runtimes that want them fixed: a file for one image of that size alone.
        opset: ONNX's, 13 to 23; None is what this version of torch prefers. Not for .pt2.
        **options: The method's own, e.g. `scale=12` for "zerodce++".

    Raises:
        TypeError, ValueError, FileNotFoundError: as `load`; an unknown suffix, dtype, layout, size or opset,
            or one that cannot hold the network; `halve_wide`, which would make one file two networks; a
            method that cannot be exported ("nerco").
        ImportError: ONNX without the extra.
        RuntimeError: the file computes something else; nothing is written.
    """
    target = Path(path)
    suffix = target.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"path must end in {' or '.join(SUFFIXES)}, got {os.fspath(path)!r}")
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {tuple(DTYPES)}, got {dtype!r}")
    check_flag("uint8", uint8)
    _check_opset(opset, suffix)
    if suffix == ".onnx":
        _need("onnx", "onnxscript", "onnxruntime")
    found = checkpoint.find(method, weights)
    given_options = methods.options_of(method, options)
    network = checkpoint.build(method, found, given_options).requires_grad_(False)
    copy = checkpoint.build(method, found, given_options).requires_grad_(False)
    contract = network.contract
    if not contract.exportable:
        raise ValueError(contract.unexportable)
    form = _Form(contract.least_side, uint8, torch.float32 if uint8 else DTYPES[dtype], layout, size)
    oracle = _Pixels(network, torch.float32, torch.float32, uint8, layout)
    plain = _Pixels(copy.to(DTYPES[dtype]).plain(), DTYPES[dtype], form.dtype, uint8, layout)
    described = {"method": method, "weights": found.name, "options": json.dumps(options), "dtype": dtype}
    tolerance = LEVELS[dtype] if uint8 else TOLERANCE[dtype]
    with replacing(target) as temporary, torch.no_grad():
        if suffix == ".onnx":
            _write_onnx(plain, form, temporary, opset, described)
            runtime, run = _onnx_runtime(temporary)
        else:
            _write_program(plain, form, temporary, described)
            runtime, run = _program(temporary)
        checks = {}
        for dimensions in form.checked():
            x = form.image(*dimensions)
            want = oracle(x).double()
            got = run(x if uint8 else x.to(form.dtype)).double()
            checks[dimensions] = float((got - want).abs().max()) if got.shape == want.shape else float("inf")
        result = Export(target, runtime, checks, tolerance)
        # not <=: NaN is no agreement
        if not all(value <= tolerance for value in checks.values()):
            raise RuntimeError(f"the export computes something else than the network; not written\n{result}")
    return result


def _check_opset(opset: int | None, suffix: str) -> None:
    if opset is None:
        return
    check_int("opset", opset, "an integer or None")
    if suffix != ".onnx":
        raise ValueError(f"opset is for .onnx alone, the path ends in {suffix}")
    check_within("opset", opset, *OPSETS)


def _need(*modules: str) -> None:
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"writing ONNX needs {', '.join(missing)}: install the extra with `pip install fastllie[export]`"
        )


class _Pixels(nn.Module):
    """A network with the conversions around it: bytes or floats in and out, channels before or behind."""

    def __init__(
        self, network: nn.Module, inside: torch.dtype, outside: torch.dtype, uint8: bool, layout: str
    ):
        super().__init__()
        self.network = network
        self.inside, self.outside, self.uint8 = inside, outside, uint8
        self.behind = layout == "nhwc"

    def forward(self, image: Tensor) -> Tensor:
        x = image.to(torch.float32) / 255 if self.uint8 else image
        x = x.permute(0, 3, 1, 2) if self.behind else x
        y = self.network(x.to(self.inside))
        y = y.permute(0, 2, 3, 1) if self.behind else y
        if not self.uint8:
            return y.to(self.outside)
        return (y.to(torch.float32) * 255 + 0.5).floor().clamp(0, 255).to(torch.uint8)


@dataclass(frozen=True)
class _Form:
    """What goes into a file and comes out of it."""

    least: int
    uint8: bool
    dtype: torch.dtype
    layout: str
    size: tuple[int, int] | None

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise ValueError(f"layout must be one of {LAYOUTS}, got {self.layout!r}")
        if self.size is None:
            return
        if len(self.size) != 2 or not all(type(side) is int for side in self.size):
            raise TypeError(f"size must be a height and a width, or None, got {self.size!r}")
        if min(self.size) < self.least:
            raise ValueError(f"size must be at least {self.least} a side for this network, got {self.size}")

    def checked(self) -> list[tuple[int, int, int]]:
        """Batch, height and width of the images that the file is tried with."""
        if self.size is not None:
            return [(1, *self.size)]
        more = 3 * (self.least - 2)
        return [(batch, height + more, width + more) for batch, height, width in CHECKED]

    def image(self, batch: int, height: int, width: int) -> Tensor:
        """A dark image with a gradient and noise; the same each time."""
        generator = torch.Generator().manual_seed(0)
        ramp = torch.linspace(0, 1, width).expand(batch, 3, height, width)
        x = ramp * torch.rand(batch, 3, height, width, generator=generator)
        x = x.permute(0, 2, 3, 1).contiguous() if self.layout == "nhwc" else x
        return (x * 255).round().to(torch.uint8) if self.uint8 else x

    def example(self) -> Tensor:
        dimensions = (1, *self.size) if self.size else (2, 5 * self.least + 3, 4 * self.least + 3)
        x = self.image(*dimensions)
        return x if self.uint8 else x.to(self.dtype)

    def sizes(self) -> dict[str, dict[int, Any]] | None:
        from torch.export import Dim

        if self.size is not None:
            return None
        first = self.layout.index("h")
        height, width = Dim("height", min=self.least), Dim("width", min=self.least)
        return {"image": {0: Dim("batch"), first: height, first + 1: width}}


def _write_onnx(
    model: nn.Module, form: _Form, path: Path, opset: int | None, described: dict[str, str]
) -> None:
    with _quiet():
        program: Any = torch.onnx.export(
            model.eval(),
            (form.example(),),
            dynamo=True,
            dynamic_shapes=form.sizes(),
            input_names=["image"],
            output_names=["enhanced"],
            opset_version=opset and max(opset, opsets.WRITTEN),
            verbose=False,
        )
    program.model.metadata_props.update({f"fastllie.{key}": value for key, value in described.items()})
    if opset is None or opset >= opsets.WRITTEN:
        return program.save(os.fspath(path), external_data=False)
    path.write_bytes(opsets.lowered(program.model_proto, opset).SerializeToString())


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter has to say of its own workings, and of torchvision."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            log.setLevel(level)


def _onnx_runtime(path: Path) -> tuple[str, Callable[[Tensor], Tensor]]:
    onnxruntime = importlib.import_module("onnxruntime")
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])

    def run(x: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["enhanced"], {"image": x.numpy()})[0])

    return f"ONNX Runtime {onnxruntime.__version__}", run


def _write_program(model: nn.Module, form: _Form, path: Path, described: dict[str, str]) -> None:
    program = torch.export.export(model.eval(), (form.example(),), dynamic_shapes=form.sizes(), strict=False)
    with open(path, "wb") as file:
        torch.export.save(program, file, extra_files={"fastllie.json": json.dumps(described)})


def _program(path: Path) -> tuple[str, Callable[[Tensor], Tensor]]:
    with open(path, "rb") as file:
        return f"torch.export, PyTorch {torch.__version__}", torch.export.load(file).module()
