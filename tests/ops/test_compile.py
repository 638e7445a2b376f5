"""What no machine here can run is compiled at least: Triton for sm_80 and sm_90, CUDA C++ by nvcc."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from serving import HOME

ROOT = Path(__file__).resolve().parents[2]
ARCHITECTURES = (80, 90)

# In its own process: the interpreter of the other tests replaces the compiler when a kernel is defined
COMPILE_TRITON = """
import itertools, re, sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from fastllie.kernels import curve, zerodce, illumination, sci, smoothness, zero_reference

SIZES = ("channels", "pixels", "width", "blocks")

def compile_kernel(kernel, architecture, image, maps, **constants):
    constants = {"CHUNK": 8, "BLOCK": curve.BLOCK} | constants
    constants = {name: value for name, value in constants.items() if name in kernel.arg_names}
    def kind(name):
        if name in constants:
            return "constexpr"
        if name.endswith("_ptr"):
            return "*" + (maps if "alpha" in name else image)
        return "i32" if name in SIZES else "i64"
    source = ASTSource(kernel, {name: kind(name) for name in kernel.arg_names}, constants)
    return triton.compile(source, target=GPUTarget("cuda", architecture, 32))

architecture = int(sys.argv[1])
pairs = [("fp64", "fp64"), ("fp32", "fp32"), ("fp32", "bf16")]
pairs += [("fp32", "fp16"), ("bf16", "bf16"), ("fp16", "fp16")]
dtypes = ["fp64", "fp32", "bf16", "fp16"]
# what Triton makes of a kernel hangs on the types, what the assembler makes of that on the architecture:
# all types for the newest one, the usual ones for the older
if architecture == 80:
    pairs, dtypes = pairs[1:3], dtypes[1:3]
flags = itertools.product((False, True), (False, True), (False, True))
for (image, maps), (shared, tanh, adjoin) in itertools.product(pairs, list(flags)):
    common = dict(SHARED=shared, TANH=tanh, ADJOIN=adjoin)
    forward = compile_kernel(curve.curve_forward_kernel, architecture, image, maps, STEPS=8, **common)
    needs = dict(NEED_X=True, NEED_ALPHA=True)
    needs |= common
    backward = compile_kernel(curve.curve_backward_kernel, architecture, image, maps, STEPS=8, **needs)
    for compiled in (forward, backward):
        assert compiled.asm["cubin"], "no machine code"
        # a spill to local memory would cost more than the states that the kernel does not store
        assert ".local" not in compiled.asm["ptx"], (image, maps, common)
long = compile_kernel(
    curve.curve_backward_kernel, architecture, "fp32", "fp32", STEPS=11, NEED_X=False, NEED_ALPHA=True,
    SHARED=False, TANH=True, ADJOIN=True,
)
assert long.asm["cubin"]

tensors = {"divide_forward": (2, 1), "divide_backward": (3, 2)}
tensors |= {"illuminate_forward": (3, 2), "illuminate_backward": (5, 3)}
for (op, (inputs, outs)), dtype, adjoin in itertools.product(
    tensors.items(), dtypes, (False, True)
):
    constants = dict(OP=op, NEED_0=True, NEED_1=True, NEED_2=True, ADJOIN=adjoin, BLOCK=illumination.BLOCK)
    signature = {"pointers": ("*" + dtype,) * (inputs + outs), "strides": (("i64",) * 4,) * (inputs + outs)}
    signature |= {name: "i32" for name in SIZES} | {name: "constexpr" for name in constants}
    source = ASTSource(illumination.illumination_kernel, signature, constants)
    compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32))
    assert compiled.asm["cubin"] and ".local" not in compiled.asm["ptx"], (op, dtype)

networks = list(itertools.product((*dtypes, "u8"), (False, True), (False, True)))
for dtype, residual, reflect in networks:
    constants = dict(RESIDUAL=residual, REFLECT=reflect, BYTES=dtype == "u8", SIZE=sci.SIZE, HALO=sci.HALO)
    wide = "fp64" if dtype == "fp64" else "fp32"
    kinds = {name: "*" + dtype for name in ("x_ptr", "out_ptr")}
    kinds |= {name: "*" + wide for name in ("weights_ptr", "biases_ptr")}
    kinds |= {name: "constexpr" for name in constants}
    kinds |= {name: "i32" for name in ("height", "width", "tiles_y", "tiles_x")}
    signature = {name: kinds.get(name, "i64") for name in sci.sci_forward_kernel.arg_names}
    source = ASTSource(sci.sci_forward_kernel, signature, constants)
    compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32))
    assert compiled.asm["cubin"] and ".local" not in compiled.asm["ptx"], (dtype, residual, reflect)

count = 0
for dtype, convert, scalar in itertools.product(dtypes, (False, True), (False, True)):
    constants = dict(CONVERT=convert, SCALAR=scalar, NEED_ILLUM=True, NEED_GUIDE=True, BLOCK=smoothness.BLOCK)
    for kernel in (smoothness.smoothness_forward_kernel, smoothness.smoothness_backward_kernel):
        def kind(name):
            if name in constants:
                return "constexpr"
            if name.endswith("strides"):
                return ("i64",) * 4
            if name in ("parts_ptr", "grad_ptr", "means_ptr"):
                return "*fp64"
            if name.endswith("_ptr"):
                return "*" + dtype
            return "fp32" if name.startswith("kappa") else "i32"
        used = {name: value for name, value in constants.items() if name in kernel.arg_names}
        source = ASTSource(kernel, {name: kind(name) for name in kernel.arg_names}, used)
        compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32))
        assert compiled.asm["cubin"], (dtype, convert, scalar)
        assert dtype == "fp64" or ".local" not in compiled.asm["ptx"], (dtype, convert, scalar)
        count += 1
for backward in (False, True):
    constants = {"BACKWARD": backward, "BLOCK": smoothness.COLOURS}
    signature = {"from_ptr": "*fp32", "to_ptr": "*bf16", "triples": "i32"}
    signature |= dict.fromkeys(constants, "constexpr")
    source = ASTSource(smoothness.memory_order_kernel, signature, constants)
    assert triton.compile(source, target=GPUTarget("cuda", architecture, 32)).asm["cubin"]

losses = 0
for (image, maps), (shared, tanh) in itertools.product(pairs, ((False, True), (True, False))):
    constants = dict(SHARED=shared, TANH=tanh, NEED_X=True, NEED_ALPHA=True, STEPS=8, CHUNK=8)
    constants |= dict(BLOCK=zero_reference.BLOCK, PATCHES=zero_reference.PATCHES)
    for kernel in (
        zero_reference.zero_reference_forward_kernel, zero_reference.zero_reference_backward_kernel
    ):
        def kind(name):
            if name in constants:
                return "constexpr"
            if name.endswith("strides"):
                return ("i64",) * 4
            if name in ("parts_ptr", "grad_ptr"):
                return "*fp64"
            if name in ("cells_ptr", "patches_ptr", "slopes_ptr", "channels_ptr"):
                return "*fp64" if image == "fp64" else "*fp32"
            if name.endswith("_ptr"):
                return "*" + (maps if "alpha" in name else image)
            return "i32"
        used = {name: value for name, value in constants.items() if name in kernel.arg_names}
        source = ASTSource(kernel, {name: kind(name) for name in kernel.arg_names}, used)
        compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32))
        assert compiled.asm["cubin"], (image, maps, shared, tanh)
        assert ".local" not in compiled.asm["ptx"], (image, maps, shared, tanh)
        losses += 1

halves = [("fp16",), ("fp16", "bf16")][architecture > 80]
layers = [(zerodce.zerodce_first_kernel, dict(ZEROS=zeros)) for zeros in (False, True)]
layers += [(zerodce.zerodce_layer_kernel, dict(SKIP=skip)) for skip in (False, True)]
layers += [(zerodce.zerodce_curve_kernel, {})]
for dtype, (kernel, constants) in itertools.product(halves, layers):
    constants |= dict(FEATURES=zerodce.FEATURES, BLOCK_H=zerodce.BLOCK_H, BLOCK_W=zerodce.BLOCK_W)
    if "STAGES" in kernel.arg_names:
        constants |= dict(STAGES=zerodce.STAGES)
    def kind(name):
        if name in constants:
            return "constexpr"
        if name.endswith("_ptr"):
            return "*fp32" if name == "biases_ptr" else "*" + dtype
        return "i64" if re.fullmatch("(x|out)_[bchw]", name) else "i32"
    # as a launch finds them: torch's memory begins at multiples of 16 bytes
    aligned = {(i,): [["tt.divisibility", 16]] for i, n in enumerate(kernel.arg_names) if n.endswith("_ptr")}
    source = ASTSource(kernel, {name: kind(name) for name in kernel.arg_names}, constants, aligned)
    options = {"num_warps": zerodce.WARPS}
    compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)
    assert compiled.asm["cubin"] and ".local" not in compiled.asm["ptx"], (dtype, constants)
    # on tensor cores, and fed while they work
    assert {80: "mma.sync", 90: "wgmma"}[architecture] in compiled.asm["ptx"], (dtype, constants)
    assert ("cp.async" in compiled.asm["ptx"]) == (kernel is not zerodce.zerodce_first_kernel)
print("compiled", len(halves) * len(layers), len(pairs) * 8 * 2 + 1, len(tensors) * len(dtypes) * 2)
print(len(networks), count, losses)
"""


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_triton_kernels_compile(architecture, tmp_path):
    pytest.importorskip("triton")
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE_TRITON, str(architecture)],
        env=environment, cwd=HOME, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    counts = {80: ["5", "33", "16", "12", "16", "8"], 90: ["10", "97", "32", "20", "32", "24"]}
    assert done.stdout.split() == ["compiled", *counts[architecture]]
