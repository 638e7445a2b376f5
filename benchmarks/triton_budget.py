"""How many instructions Triton's kernels issue beside CUDA C++'s, by their machine code, without a GPU.

    TRITON_INTERPRET=0 python benchmarks/triton_budget.py    # results/triton-budget.json

Compiles the kernels of the curve and of the illumination for sm_90, float32 and contiguous images of
1920 x 1080, as a launch would, and counts as benchmarks/gpu_budget.py does. In both a thread does four
pixels. Where nobody measured, fastllie/ops/measured.py goes by the two: see gpu_tables.py. Needs triton, with
its own tools.
"""

import tempfile
from pathlib import Path
from typing import Any

import gpu_tables
import machine_code
import record
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from fastllie.kernels import curve, illumination

ARCHITECTURE = 90
HEIGHT, WIDTH, STEPS = 1080, 1920, 8
POINTERS = {"forward": {"illumination": 3, "illuminate": 5}, "backward": {"illumination": 5, "illuminate": 8}}
POINTER = object()  # in the place of a tensor's address, which is a multiple of 16


def strides(channels: int) -> tuple[int, ...]:
    """Of contiguous images."""
    return channels * HEIGHT * WIDTH, HEIGHT * WIDTH, WIDTH, 1


def compiled(kernel: Any, values: dict[str, Any], constants: dict[str, Any]) -> machine_code.Kernel:
    """A kernel's machine code, specialised to the values of its arguments as Triton does at a launch."""
    attributes: dict[tuple[int, ...], list[list[Any]]] = {}
    fixed: dict[Any, Any] = {name: constants[name] for name in kernel.arg_names if name in constants}

    def kind(value: Any, place: tuple[int, ...]) -> Any:
        if isinstance(value, tuple):
            return tuple(kind(part, (*place, index)) for index, part in enumerate(value))
        if value == 1:
            fixed[place] = 1
            return "constexpr"
        if value is POINTER or value % 16 == 0:
            attributes[place] = [["tt.divisibility", 16]]
        return "*fp32" if value is POINTER else "i32"

    signature = {
        name: "constexpr" if name in constants else kind(values[name], (place,))
        for place, name in enumerate(kernel.arg_names)
    }
    made = triton.compile(
        ASTSource(kernel, signature, fixed, attributes), target=GPUTarget("cuda", ARCHITECTURE, 32)
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(made.asm["cubin"])
        (found,) = machine_code.kernels_of(path)
    return found


def kernel_of(op: str, form: str) -> machine_code.Kernel:
    """Of an operator in one of its forms."""
    name, way = op.split("_")
    pixels = HEIGHT * WIDTH
    values: dict[str, Any] = {"channels": 3, "pixels": pixels, "width": WIDTH, "blocks": -(-pixels // 512)}
    constants: dict[str, Any] = {"ADJOIN": True}
    if name != "curve":
        count = POINTERS[way][name]
        values |= {"pointers": (POINTER,) * count, "strides": (strides(3),) * count}
        constants |= {"OP": op, "BLOCK": illumination.BLOCK, "NEED_0": True, "NEED_1": True, "NEED_2": True}
        return compiled(illumination.illumination_kernel, values, constants)
    for tensor in ("x", "alpha", "out", "grad", "grad_x", "grad_alpha"):
        values[f"{tensor}_ptr"] = POINTER
        of = strides(3 * STEPS if tensor.endswith("alpha") else 3)
        values |= {f"{tensor}_{axis}": stride for axis, stride in zip("bchw", of, strict=True)}
    constants |= {"STEPS": STEPS, "CHUNK": STEPS, "BLOCK": curve.BLOCK, "SHARED": False}
    constants |= {"NEED_X": True, "NEED_ALPHA": True, "TANH": "tanh" in form}
    return compiled(getattr(curve, f"{op}_kernel"), values, constants)


def main() -> None:
    kernels = {}
    for op, forms in gpu_tables.FORMS.items():
        for form in forms:
            found = kernel_of(op, form)
            kernels[form] = {
                "instructions": found.path,
                "registers": found.registers,
                "in_flight": found.in_flight,
            }
    about = {"triton": triton.__version__, "architecture": ARCHITECTURE}
    record.write(record.path_of("triton-budget"), about | {"kernels": kernels})


if __name__ == "__main__":
    main()
