"""Compile the Triton kernels of a group for an architecture, on a machine without one; print how many.

    TRITON_INTERPRET=0 python triton_compiled.py 90 curve

A program of its own: the interpreter of the tests replaces the compiler when a kernel is defined. Every
kernel is compiled for every type, and for float32 with all combinations of its flags. What Triton makes of a
kernel depends on these, what the assembler makes of that on the architecture: for an older one than sm_90,
one type is compiled.
"""

import itertools
import re
import sys

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from fastllie.kernels import curve, gridcurve, illumination, sci, smoothness, zero_reference, zerodce

ARCHITECTURE = int(sys.argv[1])
NEWEST = ARCHITECTURE == 90
DTYPES = ("fp32", "fp64", "bf16", "fp16") if NEWEST else ("bf16",)
# of images and of curve maps
PAIRS = [
    ("fp32", "fp32"),
    ("fp64", "fp64"),
    ("fp32", "bf16"),
    ("fp32", "fp16"),
    ("bf16", "bf16"),
    ("fp16", "fp16"),
]
PAIRS = PAIRS if NEWEST else [("fp32", "bf16")]


def cases(types, *flags):
    """Every type with values of the flags: the first of sm_90 with all, the others with one, not the same."""
    settings = list(itertools.product((False, True), repeat=len(flags)))
    for place, kind in enumerate(types):
        for values in settings if place == 0 and NEWEST else [settings[place % len(settings)]]:
            yield kind, dict(zip(flags, values, strict=True))


def compile_kernel(kernel, kind, constants, attributes=None, spills=False, **options):
    """Return a kernel's PTX.

    Args:
        kind: The type of an argument by its name.
        constants: Values of constant arguments; those that the kernel does not have are left out.
        spills: Whether it may keep values in local memory, which costs more than what kernels do not store.
    """
    used = {name: value for name, value in constants.items() if name in kernel.arg_names}
    signature = {name: "constexpr" if name in used else kind(name) for name in kernel.arg_names}
    source = ASTSource(kernel, signature, used, attributes)
    compiled = triton.compile(source, target=GPUTarget("cuda", ARCHITECTURE, 32), options=options or None)
    assert compiled.asm["cubin"], (kernel, constants)
    assert spills or ".local" not in compiled.asm["ptx"], (kernel, signature, constants)
    compile_kernel.count += 1
    return compiled.asm["ptx"]


compile_kernel.count = 0


def compile_curve():
    for (image, maps), flags in cases(PAIRS, "SHARED", "TANH", "ADJOIN"):

        def kind(name, image=image, maps=maps):
            if name.endswith("_ptr"):
                return "*" + (maps if "alpha" in name else image)
            return "i32" if name in ("channels", "pixels", "width", "blocks") else "i64"

        constants = flags | {"STEPS": 8, "CHUNK": 8, "BLOCK": curve.BLOCK, "NEED_X": True, "NEED_ALPHA": True}
        for kernel in (curve.curve_forward_kernel, curve.curve_backward_kernel):
            compile_kernel(kernel, kind, constants)
        if image == maps == "fp32" and flags == {"SHARED": False, "TANH": True, "ADJOIN": True}:
            # more steps than a chunk has, and one gradient
            longer = constants | {"STEPS": 11, "NEED_X": False}
            compile_kernel(curve.curve_backward_kernel, kind, longer, spills=True)


def compile_illumination():
    tensors = {"illumination_forward": (2, 1), "illumination_backward": (3, 2)}
    tensors |= {"illuminate_forward": (3, 2), "illuminate_backward": (5, 3)}
    for op, (inputs, outs) in tensors.items():
        for dtype, flags in cases(DTYPES, "ADJOIN"):
            constants = flags | {"OP": op, "BLOCK": illumination.BLOCK}
            constants |= dict.fromkeys(("NEED_0", "NEED_1", "NEED_2"), True)
            kinds = {
                "pointers": ("*" + dtype,) * (inputs + outs),
                "strides": (("i64",) * 4,) * (inputs + outs),
            }
            compile_kernel(
                illumination.illumination_kernel, lambda n, kinds=kinds: kinds.get(n, "i32"), constants
            )


def compile_sci():
    for dtype, flags in cases((*DTYPES, "u8"), "RESIDUAL", "REFLECT"):
        wide = "*fp64" if dtype == "fp64" else "*fp32"
        kinds = {"x_ptr": "*" + dtype, "out_ptr": "*" + dtype, "weights_ptr": wide, "biases_ptr": wide}
        kinds |= dict.fromkeys(("height", "width", "tiles_y", "tiles_x"), "i32")
        constants = flags | {"BYTES": dtype == "u8", "SIZE": sci.SIZE, "HALO": sci.HALO}
        compile_kernel(sci.sci_forward_kernel, lambda n, kinds=kinds: kinds.get(n, "i64"), constants)


def compile_smoothness():
    for dtype, flags in cases(DTYPES, "CONVERT", "SCALAR"):

        def kind(name, dtype=dtype):
            if name.endswith("strides"):
                return ("i64",) * 4
            if name in ("parts_ptr", "grad_ptr", "means_ptr"):
                return "*fp64"
            if name.endswith("_ptr"):
                return "*" + dtype
            return "fp32" if name.startswith("kappa") else "i32"

        constants = flags | {"NEED_ILLUM": True, "NEED_GUIDE": True, "BLOCK": smoothness.BLOCK}
        for kernel in (smoothness.smoothness_forward_kernel, smoothness.smoothness_backward_kernel):
            compile_kernel(kernel, kind, constants, spills=dtype == "fp64")
    kinds = {"from_ptr": "*fp32", "to_ptr": "*bf16", "triples": "i32"}
    for backward in (False, True):
        constants = {"BACKWARD": backward, "BLOCK": smoothness.COLOURS}
        compile_kernel(smoothness.memory_order_kernel, kinds.get, constants, spills=True)


def compile_losses():
    for (image, maps), flags in cases(PAIRS, "SHARED"):

        def kind(name, image=image, maps=maps):
            if name.endswith("strides"):
                return ("i64",) * 4
            if name in ("parts_ptr", "sums_ptr", "means_ptr"):
                return "*fp64"
            if name in ("cells_ptr", "patches_ptr", "losses_ptr", "grad_ptr"):
                return "*fp64" if image == "fp64" else "*fp32"
            if name.endswith("_ptr"):
                return "*" + (maps if "alpha" in name else image)
            return "fp32" if name.startswith("level") else "i32"

        constants = flags | {"TANH": not flags["SHARED"], "NEED_X": True, "NEED_ALPHA": True, "STEPS": 8}
        constants |= {"CHUNK": 8, "BLOCK": zero_reference.BLOCK, "PATCHES": zero_reference.PATCHES}
        constants["MOST_PIECES"] = zero_reference.MOST_PIECES
        compile_kernel(zero_reference.zero_reference_forward_kernel, kind, constants)
        compile_kernel(zero_reference.zero_reference_backward_kernel, kind, constants)
        # of the image's type they see that of the arithmetic alone
        if (not flags["SHARED"] and (image, maps) in PAIRS[:1]) or image == "fp64":
            compile_kernel(zero_reference.zero_reference_sums_kernel, kind, constants)
            compile_kernel(zero_reference.zero_reference_losses_kernel, kind, constants)


def compile_gridcurve():
    for dtype, backward in itertools.product(DTYPES, (False, True)):

        def kind(name, dtype=dtype):
            if name.endswith("strides"):
                return ("i64",) * 4
            if name == "parts_ptr":
                return "*fp64"
            if name == "grid_ptr":
                return "*fp64" if dtype == "fp64" else "*fp32"
            return "*" + dtype if name.endswith("_ptr") else "i32"

        constants = {"BACKWARD": backward, "STEPS": 8, "CHUNK": 8}
        constants |= dict.fromkeys(("NEED_X", "NEED_GRID", "NEED_GUIDE"), True)
        constants |= {"ROWS": gridcurve.ROWS, "COLUMNS": gridcurve.COLUMNS}
        if dtype == "fp32":
            # as Triton takes them where they are 1
            constants |= dict.fromkeys(("height", "lumas", "rows", "columns", "whole_h", "bands", "tiles"), 1)
        compile_kernel(gridcurve.gridcurve_kernel, kind, constants)


def compile_zerodce():
    layers = [(zerodce.zerodce_first_kernel, {"ZEROS": zeros}) for zeros in (False, True)]
    layers += [(zerodce.zerodce_layer_kernel, {"SKIP": skip}) for skip in (False, True)]
    layers += [(zerodce.zerodce_curve_kernel, {})]
    for dtype, (kernel, constants) in itertools.product(("fp16", "bf16") if NEWEST else ("fp16",), layers):

        def kind(name, dtype=dtype):
            if name.endswith("_ptr"):
                return "*fp32" if name == "biases_ptr" else "*" + dtype
            return "i64" if re.fullmatch("(x|out)_[bchw]", name) else "i32"

        constants |= {"FEATURES": zerodce.FEATURES, "BLOCK_H": zerodce.BLOCK_H, "BLOCK_W": zerodce.BLOCK_W}
        constants |= {"STAGES": zerodce.STAGES}
        # as a launch finds them: torch's memory begins at multiples of 16 bytes
        pointers = [place for place, name in enumerate(kernel.arg_names) if name.endswith("_ptr")]
        aligned = {(place,): [["tt.divisibility", 16]] for place in pointers}
        ptx = compile_kernel(kernel, kind, constants, aligned, num_warps=zerodce.WARPS)
        # on tensor cores, and fed while they work
        assert ("wgmma" if NEWEST else "mma.sync") in ptx, (dtype, constants)
        assert ("cp.async" in ptx) == (kernel is not zerodce.zerodce_first_kernel)


GROUPS = {
    "curve": (compile_curve,),
    "images": (compile_illumination, compile_sci, compile_smoothness),
    "losses": (compile_losses, compile_gridcurve, compile_zerodce),
}
if __name__ == "__main__":
    for group in sys.argv[2:]:
        for compile_group in GROUPS[group]:
            compile_group()
    print(compile_kernel.count)
