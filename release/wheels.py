"""Build wheels for five platforms on this one, with the compilers of the `ziglang` package, and look at them.

    python release/wheels.py [--only linux-aarch64 ...] [--quick] [--out DIST]

Each is compiled and linked for its platform from this Python's headers. The two for Linux are whole wheels
of glibc 2.28, which `auditwheel` looks at; x86-64's is tested where it stands, arm64's under qemu-user where
that is, with an arm64 Python below FASTLLIE_AARCH64_ROOT. Those for macOS and Windows show that the sources
compile and link there: what is published is built on the platforms themselves, by release.yml.
"""

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

from elftools.elf.elffile import ELFFile

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
VERSION = sysconfig.get_config_var("py_version_nodot")  # of this Python: 311
GLIBC = 28  # 2.28: manylinux_2_28
QEMU_ROOT = os.environ.get("FASTLLIE_AARCH64_ROOT", "")


@dataclass(frozen=True)
class Target:
    """A platform, in the words of zig, of Python's modules and of wheels."""

    zig: str
    suffix: str
    platform: str
    linking: tuple[str, ...] = ("-shared",)


TARGETS = {
    "linux-x86_64": Target(
        f"x86_64-linux-gnu.2.{GLIBC}",
        f".cpython-{VERSION}-x86_64-linux-gnu.so",
        f"manylinux_2_{GLIBC}_x86_64",
    ),
    "linux-aarch64": Target(
        f"aarch64-linux-gnu.2.{GLIBC}",
        f".cpython-{VERSION}-aarch64-linux-gnu.so",
        f"manylinux_2_{GLIBC}_aarch64",
    ),
    "macos-arm64": Target(
        "aarch64-macos.11.0",
        f".cpython-{VERSION}-darwin.so",
        "macosx_11_0_arm64",
        ("-shared", "-undefined", "dynamic_lookup"),
    ),
    "macos-x86_64": Target(
        "x86_64-macos.10.13",
        f".cpython-{VERSION}-darwin.so",
        "macosx_10_13_x86_64",
        ("-shared", "-undefined", "dynamic_lookup"),
    ),
    "windows-x86_64": Target("x86_64-windows-gnu", f".cp{VERSION}-win_amd64.pyd", "win_amd64"),
}


def run(*command: object, **settings: object) -> str:
    """Run a command, and end with what it said where it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, **settings)  # type: ignore[call-overload]
    if done.returncode:
        sys.exit(f"{' '.join(words)}\n{done.stdout}{done.stderr}")
    return str(done.stdout)


def compiler(target: Target, work: Path, quick: bool) -> Path:
    """A script that is the C++ compiler for this target, with the headers of Python before all others."""
    headers = work / "include"
    if not headers.is_dir():
        shutil.copytree(sysconfig.get_paths()["include"], headers)
        if "windows" in target.zig:
            shutil.copy(HERE / "pyconfig_windows.h", headers / "pyconfig.h")
    script = work / "c++"
    faster = " -O1" if quick else ""
    words = f'"{sys.executable}" -m ziglang c++ -target {target.zig} -I"{headers}" "$@"{faster}'
    # asked for its version, zig leaves an empty a.o where it stands
    script.write_text(f'#!/bin/sh\n[ "$1" = --version ] && cd "{work}"\nexec {words}\n')
    script.chmod(0o755)
    return script


def python_library(work: Path) -> Path:
    """The import library of Windows' python3XX.dll, with all that a module may ask of this Python here."""
    shared = sysconfig.get_config_var("Py_ENABLE_SHARED")
    folder, name = sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("INSTSONAME")
    with (Path(folder, name) if shared else Path(sys.executable).resolve()).open("rb") as file:
        symbols = ELFFile(file).get_section_by_name(".dynsym").iter_symbols()
        given = [s.name for s in symbols if s["st_shndx"] != "SHN_UNDEF" and s.name.startswith(("Py", "_Py"))]
    # objects are data and all else is called; the compiler asks for either by the same import
    definition = work / "python.def"
    definition.write_text("\n".join([f"LIBRARY python{VERSION}.dll", "EXPORTS", *given, ""]))
    library = work / f"libpython{VERSION}.a"
    run(sys.executable, "-m", "ziglang", "dlltool", "-m", "i386:x86-64", "-d", definition, "-l", library)
    return library


def build(name: str, out: Path, work: Path, quick: bool) -> Path:
    """Build one wheel; returns its file."""
    target = TARGETS[name]
    work.mkdir(parents=True, exist_ok=True)
    cxx = compiler(target, work, quick)
    linking = list(target.linking)
    if "windows" in target.zig:
        linking.append(str(python_library(work)))
    environment = {
        **os.environ,
        "CC": str(cxx),
        "CXX": str(cxx),
        "LDSHARED": f"{cxx} {' '.join(target.linking)}",
        "LDCXXSHARED": f"{cxx} {' '.join(target.linking)}",
        # what this Python was compiled and linked with is not for other machines
        "CFLAGS": "",
        "LDFLAGS": " ".join(linking[len(target.linking) :]),
        "SETUPTOOLS_EXT_SUFFIX": target.suffix,
        "FASTLLIE_CUDA": "0",
    }
    arguments = ["build", "--build-base", work / "build", "egg_info", "--egg-base", work, "bdist_wheel"]
    run(
        sys.executable, "setup.py", *arguments, "--plat-name", target.platform, "--dist-dir", out,
        cwd=ROOT, env=environment,
    )  # fmt: skip
    wheel = next(out.glob(f"fastllie-*-cp{VERSION}-*{target.platform}.whl"))
    unpacked = out / "unpacked" / name
    shutil.rmtree(unpacked, ignore_errors=True)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked)
    return wheel


def selftest(unpacked: Path, *python: object) -> str:
    """The last line of `release/selftest.py` on an unpacked wheel, run outside of the checkout."""
    # by name, not by the environment of qemu alone: the Python below it has to see it too
    environment = {**os.environ, "PYTHONPATH": str(unpacked), "PYTHONDONTWRITEBYTECODE": "1"}
    return run(*python, HERE / "selftest.py", cwd=unpacked, env=environment).splitlines()[-1]


def try_whole(wheel: Path, work: Path) -> None:
    """Install a wheel, with the torch of this Python if it has one, ask the doctor, brighten a photograph."""
    place, start = work / "venv", time.monotonic()
    run(sys.executable, "-m", "venv", "--clear", place)
    torch = importlib.util.find_spec("torch")
    if torch is None or torch.origin is None:
        run(place / "bin" / "pip", "install", "--quiet", wheel)
    else:
        # not the gigabytes once more: those that are here, behind what the wheel brings, which may be an
        # installed fastllie too
        site = next(place.glob("lib/python*/site-packages"))
        (site / "beside.pth").write_text(f"{Path(torch.origin).parents[1]}\n")
        run(place / "bin" / "pip", "install", "--quiet", "--no-deps", "--ignore-installed", wheel)
    photograph, result = ROOT / "docs/photos/nyc-2nd-ave.jpg", work / "bright.jpg"
    run(place / "bin" / "fastllie", "enhance", photograph, "-o", result, cwd=work)
    print(f"    installed and {result} brightened: {time.monotonic() - start:.0f} s")
    found = run(place / "bin" / "python", "-c", "import fastllie; print(fastllie.__file__)", cwd=work)
    if not Path(found.strip()).is_relative_to(place):
        sys.exit(f"tried {found.strip()}, not the wheel")
    told = run(place / "bin" / "fastllie", "doctor", cwd=work)
    print("    doctor:", told.strip().splitlines()[-1])


def examine(name: str, wheel: Path, unpacked: Path, work: Path) -> None:
    """Say what can be found out here about a wheel, and what cannot."""
    if name.startswith("linux"):
        told = " ".join(run("auditwheel", "show", wheel).split())
        found = re.search(r"platform tag: \"manylinux_2_(\d+)_", told)
        if found is None or int(found[1]) > GLIBC:
            sys.exit(f"{wheel} asks for more than glibc 2.{GLIBC}: {told}")
        print(f"    auditwheel: glibc 2.{found[1]}")
    if name == "linux-x86_64":
        print("   ", selftest(unpacked, sys.executable))
        try_whole(wheel, work)
    elif name == "linux-aarch64" and shutil.which("qemu-aarch64") and QEMU_ROOT:
        python = Path(QEMU_ROOT, "usr", "bin", f"python3.{VERSION[1:]}")
        print("   ", selftest(unpacked, "qemu-aarch64", "-L", QEMU_ROOT, python))
    elif name == "linux-aarch64":
        print("    not run: that takes qemu-aarch64 and an arm64 Python below FASTLLIE_AARCH64_ROOT")
    else:
        print("    compiled and linked; not run here")


def main() -> None:
    parser = argparse.ArgumentParser(description="Build wheels for five platforms with zig's compilers.")
    parser.add_argument("--only", nargs="+", choices=TARGETS, default=list(TARGETS), metavar="TARGET")
    parser.add_argument(
        "--quick", action="store_true", help="-O1: to see whether it compiles, not to publish"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="(default: dist)")
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    for name in arguments.only:
        print(f"{name}: {TARGETS[name].zig}", flush=True)
        work = out / "work" / name
        wheel = build(name, out, work, arguments.quick)
        print(f"    {wheel.name}, {wheel.stat().st_size / 1e6:.1f} MB", flush=True)
        examine(name, wheel, out / "unpacked" / name, work)


if __name__ == "__main__":
    main()
