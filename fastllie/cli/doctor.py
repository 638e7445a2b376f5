"""`fastllie doctor`."""

import argparse
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import fastllie
from fastllie.cli.common import FAILED, OK, add_json, print_json, table


def register(verbs: Any) -> None:
    doctor = verbs.add_parser("doctor", help="versions, backends, and whether the kernels are right")
    add_json(doctor)
    doctor.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    import torch

    versions, found = _versions(), fastllie.backends()
    backends, advice = found.values(), _advice(found, torch.cuda.is_available())
    if not arguments.json:
        # before the tests, which take a while
        print("versions")
        table(versions)
        print("\nbackends")
        table([(b.name, "yes" if b.available else "no", b.detail) for b in backends])
        print(f"\n{advice}")
    tests = fastllie.ops.self_test()
    failed = sum(not test.ok for test in tests)
    serving: dict[str, str] = {}
    operators = list(dict.fromkeys(test.op for test in tests)) or ["all"]
    for device in ("cpu", *(["cuda"] if torch.cuda.is_available() else [])):
        try:
            serving[device] = fastllie.ops.default_backend(device)
        except (RuntimeError, ValueError) as error:
            serving[device] = f"none: {error}"
            failed += len(operators)
    if arguments.json:
        print_json(
            {
                "versions": dict(versions),
                "backends": [asdict(backend) for backend in backends],
                "advice": advice,
                "serving": serving,
                "tests": [asdict(test) for test in tests],
                "problems": failed,
            }
        )
        return FAILED if failed else OK
    print("\noperators: which backend serves")
    for device, chosen in serving.items():
        for op in operators:
            print(f"{op} on {device}: {chosen if chosen.startswith('none') else _serving(device, op)}")
    print("\nself-test: kernels against the reference")
    table([(test.op, test.backend, "ok" if test.ok else "WRONG", test.detail) for test in tests])
    if not tests:
        print("no compiled kernels here; PyTorch serves every operator")
    print(f"\nproblems: {failed}" if failed else "\nall is well")
    return FAILED if failed else OK


def _serving(device: str, op: str) -> str:
    """The backend of an operator there, and that of its gradient where it is another."""
    import torch

    chosen = fastllie.ops.default_backend(device, f"{op}_forward")
    if not hasattr(torch.ops.fastllie, f"{op}_backward"):
        return chosen
    backward = fastllie.ops.default_backend(device, f"{op}_backward")
    return chosen if backward == chosen else f"{chosen}, its gradient {backward}"


def _advice(backends: "Mapping[str, fastllie.ops.Backend]", gpu: bool) -> str:
    """Whether to build the CUDA module, which takes minutes, for this machine."""
    cuda, triton = backends["cuda"], backends["triton"]
    how = "FASTLLIE_CUDA=1 FASTLLIE_CUDA_ARCH=native pip install . (with nvcc; it takes minutes)"
    if not gpu:
        return "CUDA kernels: there is no GPU here that they could run on; nothing to build"
    if cuda:
        return "CUDA kernels: built, and they run"
    if not triton:
        return f"CUDA kernels: worth building, only PyTorch serves the GPU without: {how}"
    return (
        "CUDA kernels: Triton serves without. Worth building where the first image must not wait for Triton's"
        f" compiler, or `make gpu` measures them as faster: {how}"
    )


def _versions() -> list[tuple[str, str]]:
    from importlib.metadata import PackageNotFoundError, version

    import torch

    rows = [("fastllie", fastllie.__version__), ("python", platform.python_version())]
    for name in ("torch", "numpy", "pillow", "safetensors", "triton"):
        try:
            rows.append((name, version(name)))
        except PackageNotFoundError:
            rows.append((name, "not installed"))
    cuda = torch.version.cuda or "torch is built without it"
    if torch.cuda.is_available():
        cuda += ", " + ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    elif torch.version.cuda:
        cuda += ", no device"
    return [*rows, ("CUDA", cuda), ("platform", f"{platform.platform()}, {os.cpu_count()} CPUs")]
