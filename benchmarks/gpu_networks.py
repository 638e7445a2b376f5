"""What SCI and Zero-DCE cost in CUDA C++ for a frame of 1920 x 1080, by their machine code, on an H200.

`estimates()` gives a row a network, for the table of gpu_budget.py; run alone, this prints them. The times of
a row are those to issue the instructions, to serve what is asked of shared memory and of the first cache, to
multiply on tensor cores, and to move what goes through memory. They go on at once: the longest binds.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import machine_code

PROCESSORS, SCHEDULERS, CLOCK = 132, 4, 1.98e9
WIDTH, HEIGHT = 1920, 1080
# of csrc/cuda/sci_walk.cuh and zerodce_tile.cuh
SCI_KEPT, SCI_PLACES, SCI_WARPS = 120, 4, 2
TILE_H, TILE_W, TILE_WARPS = 8, 32, 4
# cycles that a tensor core takes for 16 x 8 x 16 at the 989 TFLOP/s of the data sheet. mma.sync is known to
# reach less on this chip than the instructions for groups of warps do
PRODUCT = 4
# what tells the steps of SCI's warps apart: multiply-adds, special functions, additions, stores
KINDS = ("FFMA", "MUFU", "FADD", "STG")
WHOLE_STEP = (972, 36, 36, 3)
# where a warp begins and ends, what is missing of one or the other
OTHER_STEPS = ((108, 0, 0, 0), (216, 0, 0, 0), (648, 0, 0, 0), (972, 0, 12, 0), (648, 36, 36, 3),
               (324, 36, 36, 3))  # fmt: skip

Blocks = dict[str, machine_code.Block]
Way = tuple[str, ...]


def _turns(opcodes: Way) -> int:
    """Turns of 128 bytes of shared memory and the first cache, as if no two lanes asked for the same."""
    turns = 0
    for opcode in opcodes:
        if opcode.startswith("LDGSTS"):
            # 16 bytes from the cache and into shared memory: one of two, with zeros in the other
            turns += 4
        elif re.match(r"(LDS|STS|LDG|STG)\b", opcode):
            bits = re.search(r"\.(?:U|S)?(64|128)\b", opcode)
            turns += int(bits[1]) // 32 if bits else 1
        elif opcode.startswith("LDSM"):
            turns += 4
        elif opcode.startswith("SHFL"):
            turns += 1
    return turns


def code(cubin: Path, pattern: str) -> Blocks:
    """The basic blocks of the one kernel whose mangled name fits."""
    sections = re.split(r"\n//-+ \.text\.", machine_code.run("nvdisasm", "-c", str(cubin)))[1:]
    (found,) = [section for section in sections if re.search(pattern, section.split()[0])]
    # a jump of lanes that have parted, which none have; it ends a block all the same
    blocks = machine_code._blocks(re.sub(r"\bBRA\.DIV", "@P6 BRA.PARTED", found))
    blocks = {name: block for name, block in blocks.items() if "WARPSYNC" not in _kinds(_opcodes(block))}
    return {name: blocks[name] for name in blocks if name in set(machine_code._in_turn(blocks))}


def _opcodes(block: machine_code.Block) -> Way:
    return tuple(opcode for opcode, _ in block.instructions)


def _kinds(opcodes: Way) -> Counter[str]:
    return Counter(opcode.split(".")[0] for opcode in opcodes)


def ways(blocks: Blocks, begin: str, inside: set[str]) -> dict[tuple[int, ...], Way]:
    """Of the ways through a loop, the shortest by what they do of `KINDS`."""
    place = {name: number for number, name in enumerate(blocks)}
    reached: dict[str, dict[tuple[int, ...], Way]] = {begin: {(0,) * len(KINDS): ()}}
    ended: dict[tuple[int, ...], Way] = {}
    for name in sorted(inside & blocks.keys(), key=lambda name: (name != begin, place[name])):
        opcodes = _opcodes(blocks[name])
        kinds = _kinds(opcodes)
        for done, way in reached.get(name, {}).items():
            key = tuple(count + kinds[kind] for count, kind in zip(done, KINDS, strict=True))
            for target in blocks[name].next:
                if target == begin:
                    to = ended
                elif target in inside and place.get(target, -1) > place[name]:
                    to = reached.setdefault(target, {})
                else:
                    continue
                if key not in to or len(way) + len(opcodes) < len(to[key]):
                    to[key] = (*way, *opcodes)
    return ended


def sci(cubin: Path) -> dict[str, Any]:
    """SCI in float32, planar: what the warps of one scheduler issue that has as many as any."""
    blocks = code(cubin, r"sci_kernelIfLNS0_5OrderE0")
    loops = machine_code._loops(blocks)
    steps = {begin: ways(blocks, begin, inside) for begin, inside in loops.items()}
    fast = min((b for b in loops if WHOLE_STEP in steps[b]), key=lambda b: len(steps[b][WHOLE_STEP]))
    (around,) = [b for b in loops if loops[fast] < loops[b]]
    strips = -(-WIDTH // SCI_KEPT)
    rows = -(-HEIGHT // (2 * (PROCESSORS * SCI_PLACES // strips)))
    warps = SCI_PLACES * SCI_WARPS
    whole, others = steps[fast][WHOLE_STEP], [steps[around][key] for key in OTHER_STEPS]
    # what comes before the loops, without their conditions
    names = list(blocks)
    before = sum(len(blocks[name].instructions) for name in names[: names.index(around)])
    issued = (rows - 2) * len(whole) + sum(map(len, others)) + before
    turns = (rows - 2) * _turns(whole) + sum(map(_turns, others))
    return {
        "title": "SCI, float32",
        "instructions": issued,
        "step": len(whole),
        "issue_us": issued * warps / SCHEDULERS / CLOCK * 1e6,
        "requests_us": turns * warps / CLOCK * 1e6,
        "tensor_us": 0.0,
        "memory_us": 2 * 3 * 4 * WIDTH * HEIGHT / machine_code.COPIED * 1e6,
    }


def _of_layer(cubin: Path, layer: int) -> tuple[float, float, float]:
    """Instructions, turns and products of a warp for a tile of a layer from the second on, in float16."""
    sources = len(_sources(layer))
    blocks = code(cubin, rf"14zerodce_kernelI6__halfLi{sources}ELb1ELb{int(layer == 7)}E")
    loops = machine_code._loops(blocks)
    multiplying = [inside for inside in loops.values() if _of(blocks, inside)["HMMA"]]
    tile, source = max(multiplying, key=len), min(multiplying, key=len)
    once = tile - source
    # of what is done or not at the edges of the image, all
    opcodes = (*_listed(blocks, once), *_listed(blocks, source) * sources)
    return len(opcodes), _turns(opcodes), _kinds(opcodes)["HMMA"]


def _of_first_layer(cubin: Path) -> tuple[float, float, float]:
    blocks = code(cubin, r"zerodce_first_kernelI6__half")
    (loop,) = machine_code._loops(blocks).values()
    once = _listed(blocks, blocks.keys() - loop)
    # two pixels a turn
    repeated = _listed(blocks, loop)
    times = (TILE_H + 2) * (TILE_W + 4) / (TILE_WARPS * machine_code.WARP * 2)
    return (
        len(once) + times * len(repeated),
        _turns(once) + times * _turns(repeated),
        _kinds(once)["HMMA"],
    )


def _listed(blocks: Blocks, names: Iterable[str]) -> Way:
    chosen = set(names)
    return tuple(opcode for name in blocks if name in chosen for opcode in _opcodes(blocks[name]))


def _of(blocks: Blocks, names: Iterable[str]) -> Counter[str]:
    return _kinds(_listed(blocks, names))


def _sources(layer: int) -> tuple[int, ...]:
    return {1: (0,), 2: (1,), 3: (2,), 4: (3,), 5: (3, 4), 6: (2, 5), 7: (1, 6)}[layer]


def zerodce(cubin: Path) -> dict[str, Any]:
    """Zero-DCE in float16: seven layers, each larger than the image by what the later ones lose."""
    issued = turns = products = bytes_moved = 0.0
    for layer in range(1, 8):
        rows, columns = HEIGHT + 2 * (7 - layer), WIDTH + 2 * (7 - layer)
        tiles = -(-rows // TILE_H) * -(-columns // TILE_W)
        places = PROCESSORS * (2 if layer >= 5 else 3)
        # blocks stay, and some get one tile more
        busy = -(-tiles // places) * places if layer > 1 else tiles
        counts = _of_first_layer(cubin) if layer == 1 else _of_layer(cubin, layer)
        issued, turns, products = (
            total + busy * TILE_WARPS * count
            for total, count in zip((issued, turns, products), counts, strict=True)
        )
        pixels = 64 * rows * columns
        bytes_moved += (pixels if layer < 7 else 0) + sum(pixels if s else 6 * rows * columns
                                                          for s in _sources(layer))  # fmt: skip
    bytes_moved += 2 * 6 * WIDTH * HEIGHT
    return {
        "title": "Zero-DCE, float16",
        "instructions": round(issued / (WIDTH * HEIGHT / machine_code.WARP)),
        "issue_us": issued / machine_code.ISSUED * 1e6,
        "requests_us": turns / (PROCESSORS * CLOCK) * 1e6,
        "tensor_us": products * PRODUCT / machine_code.ISSUED * 1e6,
        "memory_us": bytes_moved / machine_code.COPIED * 1e6,
    }


def estimates() -> list[dict[str, Any]]:
    """A row a network: see above; microseconds, rounded."""
    rows = [sci(machine_code.of_network("sci", 90)), zerodce(machine_code.of_network("zerodce", 90))]
    return [
        {key: round(value, 1) if isinstance(value, float) else value for key, value in row.items()}
        for row in rows
    ]


if __name__ == "__main__":
    print(json.dumps(estimates(), indent=1))
