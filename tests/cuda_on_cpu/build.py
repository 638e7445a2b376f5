"""Build the CUDA kernels for the CPU; see README.md."""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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
    return re.sub(
        r"(\w+)(<[^<>;]*>)?(\s*)<<<([^;]*?)>>>", r'emulator::configured("\1",\3{\4}, \1\2)', text
    )


def compiler() -> str | None:
    return shutil.which(os.environ.get("CXX", "g++"))


def build(kind: str = "metered", csrc: Path = CSRC) -> Path:
    """The module, made if there is none of the same sources yet.

    Args:
        kind: "metered" or "sanitized".
        csrc: Where the sources are, if not in their folder.

    Raises:
        RuntimeError: the compiler's errors.
    """
    files = [*HERE.glob("*.py"), *HERE.glob("*.cpp"), *HERE.glob("*.h"), *HERE.glob("include/*")]
    files += [*csrc.glob("*.h"), *csrc.glob("cuda/*")]
    digest = hashlib.sha256(kind.encode() + str(compiler()).encode())
    for path in sorted(files):
        digest.update(path.name.encode() + path.read_bytes())
    folder = ROOT / "build" / "cuda_on_cpu" / f"{kind}-{digest.hexdigest()[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    module = folder / f"_cuda{sysconfig.get_config_var('EXT_SUFFIX')}"
    # several processes of one test run ask at once
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not module.exists():
            _compile(kind, csrc, folder, module)
    return module


def _compile(kind: str, csrc: Path, folder: Path, module: Path) -> None:
    import pybind11

    flags = [*COMMON, "-D__CUDACC__", f"-I{HERE / 'include'}", f"-I{csrc}", f"-I{csrc / 'cuda'}"]
    plain = [*COMMON, f"-I{csrc}", f"-I{sysconfig.get_path('include')}", f"-I{pybind11.get_include()}"]
    plain += ["-fvisibility=hidden"]
    jobs = []
    for path in sorted((csrc / "cuda").glob("*.cu")):
        translated = folder / f"{path.stem}.cu.cpp"
        # what the compiler says names the lines of the original
        translated.write_text(f'#include "cuda_runtime.h"\n#line 1 "{path}"\n{in_cpp(path.read_text())}')
        jobs.append([*flags, *KERNELS[kind], translated])
    jobs += [[*COMMON, "-O2", path] for path in (HERE / "emulator.cpp", HERE / "meter.cpp")]
    jobs.append([*plain, csrc / "cuda" / "bind.cpp"])

    def compile_one(job: list) -> Path:
        target = folder / f"{job[-1].name}.o"
        _run([compiler(), *map(str, job[:-1]), "-c", str(job[-1]), "-o", str(target)])
        return target

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_one, jobs))
    linking = KERNELS[kind] if kind == "sanitized" else []
    made = module.with_suffix(".new")
    _run([compiler(), "-shared", *linking, *map(str, objects), "-o", str(made)])
    made.replace(module)


def _run(command: list) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr[-4000:]}")


if __name__ == "__main__":
    print(build())
