"""What each CUDA kernel costs by its machine code, where nvcc is: see benchmarks/gpu_budget.py.

Of the architectures of FASTLLIE_ARCHITECTURES, by default sm_90 alone: compiled, or taken from the module
that setup.py has built in build/ from the same sources.
"""

import dataclasses
import json
import os
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
gpu_budget = pytest.importorskip("gpu_budget", reason="the benchmarks are not here")
machine_code = pytest.importorskip("machine_code", reason="the benchmarks are not here")
gpu_networks = pytest.importorskip("gpu_networks", reason="the benchmarks are not here")

ARCHITECTURES = [int(name) for name in os.environ.get("FASTLLIE_ARCHITECTURES", "90").split()]

# of a thread: so many leave a quarter of a multiprocessor's threads in blocks of 256
MANY = 128
# those of the losses, whose eight states and maps of four rows stay in registers, come in blocks of 128
LOSSES, MORE = r"backward_kernel<\w+, (float|f16|bf16),", 144
# eight warps of a multiprocessor walk through SCI's network, each with 36 sums under way; those of Zero-DCE's
# layers have 64 sums each, three blocks of four warps
WALKS, MOST = r"sci_kernel", 255
PRODUCTS, ROOM = r"zerodce_kernel", 168


@pytest.fixture(scope="module", params=ARCHITECTURES)
def found(request):
    missing = [name for name in ("nvcc", "cuobjdump", "nvdisasm") if machine_code.tool(name) is None]
    if missing or not machine_code.CSRC.is_dir():
        pytest.skip(f"{', '.join(missing) or 'the sources'} not here")
    kernels = {kernel.name: kernel for kernel in machine_code.kernels(request.param)}
    assert len(kernels) > 150
    return kernels


def in_float32(kernels):
    """Those whose arithmetic is float32: float64 serves gradient checks, and may spill."""
    return {name: kernel for name, kernel in kernels.items() if "<double" not in name}


def test_nothing_is_spilled(found):
    assert {k.name: k.stack for k in in_float32(found).values() if k.stack} == {}


def test_registers_leave_room(found):
    kernels = in_float32(found)
    kinds = {LOSSES: MORE, WALKS: MOST, PRODUCTS: ROOM}
    most = {
        name: next((limit for kind, limit in kinds.items() if re.match(kind, name)), MANY) for name in kernels
    }
    assert {name: k.registers for name, k in kernels.items() if k.registers > most[name]} == {}
    small = [k for name, k in kernels.items() if name.startswith(("map_kernel", "curve_forward"))]
    assert small
    for kernel in small:
        assert kernel.occupancy(256, machine_code.CHIPS[90]) >= 0.5


def elementwise(kernels):
    """Those that move packs of 16 bytes of their own type, and each pack's pixels."""
    for name, kernel in in_float32(kernels).items():
        parts = re.match(r"(map_kernel|curve_forward_kernel)<(.*), (\d+)>$", name)
        if parts and int(parts[3]) > 1 and "float, f16" not in name and "float, bf16" not in name:
            yield kernel


def test_packs_move_in_128_bits(found):
    kernels = list(elementwise(found))
    assert len(kernels) == 4 * 3 + 3 * 4
    for kernel in kernels:
        assert set(kernel.loads) == {"128"}, kernel
        assert set(kernel.stores) == {"128"}, kernel


def test_no_float64_where_nothing_is_float64(found):
    for name, kernel in in_float32(found).items():
        if name.startswith(("map_kernel", "curve_", "zerodce", "sci")):
            assert kernel.doubles == 0, name


def test_instructions_take_less_than_the_copy(found, request):
    if request.node.callspec.params["found"] != 90:
        pytest.skip("the estimates are for the H200, and know the loops of its code")
    most = {
        # each pixel has 24 neighbours, and each of those pairs takes 23 instructions
        "smoothness": 1.65,
        "smoothness backward": 2.25,
        # of 27 instructions a map and pixel 14 are its tanh; backward of 54
        "zero-reference, tanh inside": 1.0,
        "zero-reference backward, tanh inside": 0.95,
        # of each pixel 24 numbers are looked up and mixed, and eight steps are taken; backward these have two
        # derivatives, and 24 sums grow
        "grid curve": 0.75,
        "grid curve backward": 1.0,
    }
    figures = {name: dataclasses.asdict(kernel) for name, kernel in found.items()}
    rows = {row["title"]: row for row in gpu_budget.estimates(figures)}
    for title, row in rows.items():
        assert row["share"] <= most.get(title, 0.8 if "tanh" in title else 0.6), row
    both = [rows["smoothness"], rows["smoothness backward"]]
    assert sum(row["floor_ms"] for row in both) < 2 * sum(row["copy_ms"] for row in both)


def networks(network, name):
    return gpu_networks.code(machine_code.of_network(network, 90), name)


def test_networks_on_an_h200(found):
    """Microseconds for a frame of 1920 x 1080."""
    sci, zerodce = gpu_networks.estimates()
    for kind in ("issue_us", "requests_us"):
        assert sci[kind] <= 25
        assert zerodce[kind] <= 600
    assert sci["memory_us"] <= 12
    assert sci["step"] <= 1290
    assert zerodce["tensor_us"] <= 350
    assert zerodce["memory_us"] <= 500


@pytest.mark.parametrize("sources", [1, 2])
@pytest.mark.parametrize("resident", [0, 1])
def test_layers_of_zerodce_mostly_multiply(found, sources, resident):
    """Of 64 pixels and a source: 288 products, all loads of shared memory as wide as there are."""
    blocks = networks("zerodce", rf"14zerodce_kernelI6__halfLi{sources}ELb{resident}ELb0E")
    (block,) = [
        block for block in blocks.values() if any(o.startswith("HMMA") for o, _ in block.instructions)
    ]
    opcodes = [opcode for opcode, _ in block.instructions]
    assert sum(opcode.startswith("HMMA.16816.F32") for opcode in opcodes) == 288
    assert sum(opcode == "LDSM.16.M88.4" for opcode in opcodes) == 36
    assert sum(opcode == "LDS.128" for opcode in opcodes) == 36
    assert len(opcodes) <= 500


def test_the_sizes_that_the_estimates_take():
    for file, names in {
        "sci_walk.cuh": {"SCI_BLOCKS": gpu_networks.SCI_PLACES, "WARPS": gpu_networks.SCI_WARPS, "MARGIN": 4},
        "zerodce_tile.cuh": {"TILE_H": gpu_networks.TILE_H, "TILE_W": gpu_networks.TILE_W},
        "zerodce.cu": {"DCE_BLOCKS": 3},
    }.items():
        path = machine_code.CSRC / "cuda" / file
        if not path.exists():
            pytest.skip("the sources are not here")
        text = path.read_text(encoding="utf-8")
        for name, value in names.items():
            assert re.search(rf"\b{name} = {value}[,;]", text), name


def test_the_table_of_the_page():
    if not gpu_budget.PAGE.exists():
        pytest.skip("the documents are not here")
    record = json.loads(gpu_budget.RESULT.read_text(encoding="utf-8"))
    text = gpu_budget.PAGE.read_text(encoding="utf-8")
    assert gpu_budget.with_table(text, record) == text, (
        "docs/gpu.md is stale: run benchmarks/gpu_budget.py --page"
    )
    assert gpu_budget.estimates(record["architectures"]["90"]) == record["estimates_h200"]


def test_occupancy():
    def kernel(registers, shared=0):
        return machine_code.Kernel("k", registers, 0, shared, {}, {}, 0, 0, 0, [], 0, 0)

    chip = machine_code.CHIPS[90]
    assert kernel(32).occupancy(256, chip) == 1
    assert kernel(64).occupancy(256, chip) == 0.5
    assert kernel(124).occupancy(256, chip) == 0.25
    assert kernel(32, 48 << 10).occupancy(256, chip) == 0.5
    assert kernel(32).occupancy(256, chip, dynamic_shared=200 << 10) == 0.125


def test_the_path_of_a_program():
    program = """
        /*0000*/                   LDG.E.128 R4, [R2] ;
        /*0010*/                   LDG.E.128 R8, [R2+0x10] ;
        /*0020*/               @P0 BRA `(.L_x_2) ;
.L_x_1:
        /*0030*/                   FADD R4, R4, R8 ;
        /*0040*/              @!P0 BRA `(.L_x_3) ;
        /*0050*/                   CALL.REL.NOINC `($__internal_0) ;
.L_x_3:
        /*0060*/               @P1 BRA `(.L_x_1) ;
.L_x_2:
        /*0070*/                   STG.E.U16 [R2], R4 ;
        /*0080*/                   EXIT ;
$__internal_0:
        /*0090*/                   RET.REL.NODEC R2 `(k) ;
"""
    kernel = machine_code.kernel_of("k", program, 16, 0, 0)
    assert (kernel.instructions, kernel.loop, kernel.path) == (8, 3, 8)
    # the call is a slow path, without which the loop is two blocks on the longest way
    assert kernel.nest == [[-1, 3], [-1, 5]]
    row = gpu_budget.Row("k", "k", 1, 1, turns=(4,))
    assert row.issued({"nest": kernel.nest}) == 5 + 4 * 3
    with pytest.raises(RuntimeError, match="k has 1 loops, and 2 are known"):
        gpu_budget.Row("k", "k", 1, 1, turns=(4, 2)).issued({"nest": kernel.nest})
    assert (kernel.loads, kernel.stores, kernel.in_flight) == ({"128": 2}, {"16": 1}, 32)
