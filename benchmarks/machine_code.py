"""What nvcc makes of the CUDA kernels: compiled or taken from a built module, and read by nvdisasm."""

import hashlib
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CSRC = ROOT / "csrc"
WARP = 32
# H200: multiprocessors x schedulers x clock, and what torch's copy was seen to move
ISSUED = 132 * 4 * 1.98e9
COPIED = 4.3e12


@dataclass(frozen=True)
class Chip:
    """What a multiprocessor has."""

    threads: int
    blocks: int
    shared: int
    registers: int = 65536


CHIPS = {80: Chip(2048, 32, 164 << 10), 90: Chip(2048, 32, 228 << 10), 120: Chip(1536, 24, 100 << 10)}


@dataclass
class Block:
    """Instructions without a jump between them."""

    instructions: list[tuple[str, str]] = field(default_factory=list)  # opcode, operands
    next: list[str] = field(default_factory=list)
    slow: bool = False  # calls a division's slow path


@dataclass
class Kernel:
    """One instantiation.

    Attributes:
        registers: Of a thread.
        stack: Bytes of a thread in local memory: what was spilled, or indexed.
        shared: Bytes of a block.
        loads: Instructions that load from global memory, by bits.
        stores: Likewise.
        instructions: All but the slow paths of divisions.
        loop: Those of the largest loop, once; 0 where there is none.
        path: Those that a thread runs: the largest loop once, smaller ones not at all.
        nest: The loops in the order of the program: of each the number of the loop around it, or -1, and its
            own instructions on the longest way through; last what is in no loop.
        in_flight: Bytes that a thread asks global memory for before it waits.
        doubles: Instructions of float64.
    """

    name: str
    registers: int
    stack: int
    shared: int
    loads: dict[str, int]
    stores: dict[str, int]
    instructions: int
    loop: int
    path: int
    nest: list[list[int]]
    in_flight: int
    doubles: int

    def occupancy(self, threads: int, chip: Chip, dynamic_shared: int = 0) -> float:
        """Share of a multiprocessor's threads that can be there at a time, in blocks of so many."""
        warps = -(-threads // WARP)
        # registers are given to a warp by 256
        by_registers = chip.registers // (-(-self.registers * WARP // 256) * 256) // warps
        # a kilobyte of each block is the system's
        by_shared = chip.shared // (self.shared + dynamic_shared + 1024)
        return min(by_registers, by_shared, chip.blocks, chip.threads // threads) * threads / chip.threads


@cache
def tool(name: str) -> str | None:
    """A program of the CUDA toolkit: on the path, or triton's."""
    if found := shutil.which(name):
        return found
    try:
        import triton
    except ImportError:
        return None
    beside = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name
    return str(beside) if beside.exists() else None


def compiled(source: Path, architecture: int) -> Path:
    """The machine code of one .cu file, made if there is none of the same sources yet.

    Raises:
        RuntimeError: the compiler's errors, and warnings.
    """
    files = sorted([source, *CSRC.glob("*.h"), *CSRC.glob("cuda/*.cuh")])
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]
    target = ROOT / "build" / "gpu_budget" / f"{source.stem}-{architecture}-{digest}.cubin"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        made = target.with_suffix(".new")
        command = [str(tool("nvcc")), "-cubin", "-O3", "-std=c++17", f"-arch=sm_{architecture}"]
        command += ["-Werror=all-warnings", f"-I{CSRC}", str(source), "-o", str(made)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr[-3000:])
        made.replace(target)
    return target


def kernels(architecture: int) -> list[Kernel]:
    """All instantiations: of the module that setup.py has built here, or compiled, two files at a time."""
    cubins = _of_module(architecture)
    if not cubins:
        sources = sorted((CSRC / "cuda").glob("*.cu"))
        with ThreadPoolExecutor(2) as pool:
            cubins = list(pool.map(lambda source: compiled(source, architecture), sources))
    return [kernel for cubin in cubins for kernel in kernels_of(cubin)]


def of_network(name: str, architecture: int) -> Path:
    """The machine code of a network's kernel: of the module that setup.py has built here, or compiled."""
    for cubin in _of_module(architecture):
        if f"{name}_kernel".encode() in cubin.read_bytes():
            return cubin
    return compiled(CSRC / "cuda" / f"{name}.cu", architecture)


@cache
def _of_module(architecture: int) -> list[Path]:
    """The machine code in build/, where it is younger than every source and of this architecture too."""
    sources = [ROOT / "setup.py", *CSRC.glob("*.h"), *CSRC.glob("cuda/*")]
    changed = max(path.stat().st_mtime for path in sources)
    for module in (ROOT / "build").glob("lib.*/fastllie/_cuda.*.so"):
        if module.stat().st_mtime < changed:
            continue
        folder = ROOT / "build" / "gpu_budget" / f"{architecture}-{module.stat().st_mtime_ns}"
        folder.mkdir(parents=True, exist_ok=True)
        extract = ["-xelf", f"sm_{architecture}.cubin", str(module)]
        subprocess.run([str(tool("cuobjdump")), *extract], cwd=folder, capture_output=True, check=True)
        if cubins := sorted(folder.glob("*.cubin")):
            return cubins
    return []


def kernels_of(cubin: Path) -> list[Kernel]:
    usage = run("cuobjdump", "-res-usage", str(cubin))
    found = re.findall(r"Function (\S+):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+)", usage)
    if not found:  # of a source without kernels, in a whole module
        return []
    names = subprocess.run(
        ["c++filt", *(f[0] for f in found)], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    sections = re.split(r"\n//-+ \.text\.", run("nvdisasm", "-c", str(cubin)))[1:]
    code = {section.split()[0]: section for section in sections}
    return [
        kernel_of(_short(name), code[mangled], *map(int, rest))
        for name, (mangled, *rest) in zip(names, found, strict=True)
    ]


def run(name: str, *arguments: str) -> str:
    return subprocess.run([str(tool(name)), *arguments], capture_output=True, text=True, check=True).stdout


def _short(name: str) -> str:
    name = re.sub(r"\(anonymous namespace\)::|fastllie::|zerodce::|^void ", "", name.split(">(")[0])
    name = name.replace("__nv_bfloat16", "bf16").replace("__half", "f16").replace("unsigned char", "u8")
    name = name.replace("(bool)0", "false").replace("(bool)1", "true")
    return re.sub(r"\((?:int|Color)\)|\(.*", "", name) + ">"


def kernel_of(name: str, code: str, registers: int, stack: int, shared: int) -> Kernel:
    blocks = _blocks(code)
    loops = _loops(blocks)
    largest = max(loops.values(), key=lambda loop: _size(blocks, loop), default=set())
    others = set().union(*loops.values()) - largest if loops else set()
    fast = [block for block in blocks.values() if not block.slow]
    opcodes = [opcode for block in fast for opcode, _ in block.instructions]
    return Kernel(
        name,
        registers,
        stack,
        shared,
        _widths(opcodes, "LDG"),
        _widths(opcodes, "STG"),
        len(opcodes),
        _size(blocks, largest),
        _longest(blocks, others - largest)[0],
        _nest(blocks, loops),
        max((_in_flight(block) for block in fast), default=0),
        sum(opcode[:4] in ("DADD", "DMUL", "DFMA", "DSET", "DMNM") for opcode in opcodes),
    )


def _widths(opcodes: list[str], kind: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for opcode in opcodes:
        if opcode.startswith(kind):
            width = re.search(r"\.(?:U|S)?(8|16|64|128)\b", opcode)
            key = width[1] if width else "32"
            found[key] = found.get(key, 0) + 1
    return dict(sorted(found.items(), key=lambda item: int(item[0])))


def _blocks(code: str) -> dict[str, Block]:
    """Basic blocks by label, in the order of the program, up to the first function that they call."""
    blocks: dict[str, Block] = {}
    name, begun = "entry", True
    current = blocks.setdefault(name, Block())
    for line in code.splitlines():
        if label := re.match(r"(\S+):$", line):
            if label[1].startswith("$__internal"):
                break
            if not re.match(r"\.L_x_\d+$", label[1]):
                continue
            if begun:
                current.next.append(label[1])
            current, begun = blocks.setdefault(label[1], Block()), True
            continue
        found = re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(@!?\w+\s+)?(\S+)\s*([^;]*);", line)
        if not found or not begun:
            continue
        condition, opcode, operands = found.groups()
        current.instructions.append((opcode, operands))
        current.slow = current.slow or opcode.startswith("CALL")
        if opcode.split(".")[0] not in ("BRA", "EXIT", "RET"):
            continue
        # where the lanes of a warp come to a shuffle at different times, which none of ours do
        if opcode == "BRA.DIV":
            begun = True
            continue
        if target := re.search(r"`\((\.L_x_\d+)\)", operands):
            current.next.append(target[1])
        # of a warp's own predicates the second one is an operand
        begun = condition is not None or re.match(r"!?U?P\d", operands) is not None
        if begun:
            after = f"after {len(blocks)}"
            current.next.append(after)
            current = blocks.setdefault(after, Block())
    reached = set(_in_turn(blocks))
    return {name: block for name, block in blocks.items() if name in reached}


def _in_turn(blocks: dict[str, Block]) -> list[str]:
    """Blocks that can be reached, each before those that it leads to but for the ways back of loops."""
    seen, done = {"entry"}, list[str]()
    ahead = [("entry", iter(blocks["entry"].next))]
    while ahead:
        name, following = ahead[-1]
        target = next((n for n in following if n in blocks and n not in seen), None)
        if target is None:
            done.append(name)
            ahead.pop()
        else:
            seen.add(target)
            ahead.append((target, iter(blocks[target].next)))
    return done[::-1]


def _before(blocks: dict[str, Block]) -> dict[str, set[str]]:
    """Of each block those that every way to it leads through, itself too."""
    names = _in_turn(blocks)
    sources: dict[str, list[str]] = {name: [] for name in names}
    for name in names:
        for target in blocks[name].next:
            if target in sources:
                sources[target].append(name)
    found = {name: set(names) for name in names} | {"entry": {"entry"}}
    changed = True
    while changed:
        changed = False
        for name in names[1:]:
            common = set.intersection(*(found[source] for source in sources[name])) | {name}
            changed = changed or common != found[name]
            found[name] = common
    return found


def _loops(blocks: dict[str, Block]) -> dict[str, set[str]]:
    """By their first block, the blocks of each loop."""
    through = _before(blocks)
    before: dict[str, list[str]] = {name: [] for name in blocks}
    for name, block in blocks.items():
        for target in block.next:
            if target in before:
                before[target].append(name)
    loops: dict[str, set[str]] = {}
    for name, block in blocks.items():
        for target in block.next:
            # a jump to itself is how the code ends
            if target not in through[name] or not _goes_on(blocks, target):
                continue
            inside, open_ends = loops.setdefault(target, {target}), [name]
            while open_ends:
                found = open_ends.pop()
                if found not in inside:
                    inside.add(found)
                    open_ends += before[found]
    return loops


def _goes_on(blocks: dict[str, Block], name: str) -> bool:
    return {opcode for opcode, _ in blocks[name].instructions} != {"BRA"}


def _size(blocks: dict[str, Block], names: set[str]) -> int:
    return sum(len(blocks[name].instructions) for name in names if not blocks[name].slow)


def _longest(blocks: dict[str, Block], without: set[str]) -> tuple[int, list[str]]:
    """The longest way from the first block on, no block twice: its instructions and its blocks."""
    names = [name for name in _in_turn(blocks) if name not in without and not blocks[name].slow]
    order = {name: place for place, name in enumerate(names)}
    longest: dict[str, tuple[int, str | None]] = {}
    for name in reversed(names):
        ahead = [(longest[n][0], n) for n in blocks[name].next if order.get(n, -1) > order[name]]
        most, after = max(ahead, default=(0, None))
        longest[name] = len(blocks[name].instructions) + most, after
    way, name = [], "entry"
    while name is not None:
        way.append(name)
        name = longest[name][1]
    return longest["entry"][0], way


def _nest(blocks: dict[str, Block], loops: dict[str, set[str]]) -> list[list[int]]:
    order = {name: place for place, name in enumerate(blocks)}
    heads = sorted(loops, key=order.__getitem__)

    def innermost(name: str, but: str | None = None) -> int:
        around = [head for head in heads if name in loops[head] and head != but]
        return heads.index(min(around, key=lambda head: len(loops[head]))) if around else -1

    own = [[innermost(head, head), 0] for head in heads] + [[-1, 0]]
    for name in _longest(blocks, set())[1]:
        own[innermost(name)][1] += len(blocks[name].instructions)
    return own


def _in_flight(block: Block) -> int:
    """The most bytes that loads of a block ask for before one of them is waited for."""
    most = asked = 0
    awaited: set[int] = set()
    for opcode, operands in block.instructions:
        used = {int(r) for r in re.findall(r"\bR(\d+)\b", operands)}
        if opcode.startswith("LDG"):
            bits = re.search(r"\.(?:U|S)?(8|16|64|128)\b", opcode)
            bits_asked = int(bits[1]) if bits else 32
            first = re.match(r"R(\d+)", operands)
            if first:
                awaited |= set(range(int(first[1]), int(first[1]) + max(1, bits_asked // 32)))
            asked += bits_asked // 8
            most = max(most, asked)
        elif used & awaited:
            awaited, asked = set(), 0
    return most
