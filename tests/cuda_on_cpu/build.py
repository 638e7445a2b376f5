"""Build the CUDA kernels for the CPU; see README.md."""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pybind11

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CSRC = ROOT / "csrc"
# sra would take packs apart, which a GPU reads and writes at once
COMMON = ["-std=c++17", "-O1", "-fno-tree-sra", "-g1", "-fPIC", "-fno-strict-aliasing"]
KERNELS = {
    "metered": ["-fsanitize=thread", "-fsanitize-coverage=trace-pc"],
    "sanitized": [
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=undefined",
        "-fno-sanitize=vptr",
    ],
}


def in_cpp(text: str) -> str:
    """The three things of a .cu file that C++ has no words for, in words of emulator.h."""
    text = re.sub(
        r"extern __shared__ (?:__align__\(\d+\) )?([\w ]+?) (\w+)\[\];",
        r"\1* const \2 = emulator::dynamic_shared();",
        text,
    )
    text = re.sub(
        r"__shared__ ([^;]+?(\w+)(?:\[[^;,]*\])?);",
        r"static \1; emulator::shared_variable(&\2, sizeof \2);",
        text,
    )
    return re.sub(r"(\w+)(<[^<>;]*>)?(\s*)<<<([^;]*?)>>>", r'emulator::configured("\1",\3{\4}, \1\2)', text)


def compiler() -> str | None:
    return shutil.which(os.environ.get("CXX", "g++"))


def build(kind: str = "metered", sources: Sequence[Path] | None = None) -> Path:
    """The module `_cuda` of the project's kernels, or a library of other ones; made if there is none yet.

    Args:
        kind: "metered" or "sanitized".
        sources: .cu files that stand alone, instead of the project's.

    Raises:
        RuntimeError: the compiler's errors.
    """
    units = list(sources or [*sorted((CSRC / "cuda").glob("*.cu")), CSRC / "cuda" / "bind.cpp"])
    files = [*HERE.glob("*.cpp"), *HERE.glob("*.h"), *HERE.glob("include/*"), HERE / "build.py"]
    files += [*units, *CSRC.glob("*.h"), *CSRC.glob("cuda/*.cuh")]
    digest = hashlib.sha256(kind.encode() + str(compiler()).encode())
    for path in sorted(files):
        digest.update(path.name.encode() + path.read_bytes())
    folder = ROOT / "build" / "cuda_on_cpu" / f"{kind}-{digest.hexdigest()[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    module = folder / (
        f"{sources[0].stem}.so" if sources else f"_cuda{sysconfig.get_config_var('EXT_SUFFIX')}"
    )
    # several processes of one test run ask at once
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not module.exists():
            _compile(kind, units, folder, module)
    return module


def _compile(kind: str, units: Sequence[Path], folder: Path, module: Path) -> None:
    includes = [f"-I{HERE / 'include'}", f"-I{CSRC}", f"-I{CSRC / 'cuda'}"]

    def compile_one(path: Path) -> Path:
        target = folder / f"{path.stem}.o"
        if path.suffix == ".cu":
            # what the compiler says names the lines of the original
            text = f'#include "cuda_runtime.h"\n#line 1 "{path}"\n{in_cpp(path.read_text())}'
            path = folder / f"{path.name}.cpp"
            path.write_text(text)
            flags = ["-D__CUDACC__", *includes, *KERNELS[kind]]
        elif path.parent == HERE:
            flags = ["-O2"]
        else:
            flags = ["-fvisibility=hidden", f"-I{CSRC}", f"-I{sysconfig.get_path('include')}"]
            flags.append(f"-I{pybind11.get_include()}")
        _run([str(compiler()), *COMMON, *flags, "-c", str(path), "-o", str(target)])
        return target

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_one, [*units, HERE / "emulator.cpp", HERE / "meter.cpp"]))
    linking = KERNELS[kind] if kind == "sanitized" else []
    made = module.with_suffix(".new")
    _run([str(compiler()), "-shared", *linking, *map(str, objects), "-o", str(made)])
    made.replace(module)


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr[-4000:]}")
