"""`fastllie doctor`."""

import argparse
import os
import platform
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

    versions, backends = _versions(), fastllie.backends().values()
    if not arguments.json:
        # before the tests, which take a while
        print("versions")
        table(versions)
        print("\nbackends")
        table([(b.name, "yes" if b.available else "no", b.detail) for b in backends])
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
                "serving": serving,
                "tests": [asdict(test) for test in tests],
                "problems": failed,
            }
        )
        return FAILED if failed else OK
    print("\noperators: which backend serves")
    for device, chosen in serving.items():
        for op in operators:
            print(f"{op} on {device}: {chosen}")
    print("\nself-test: kernels against the reference")
    table([(test.op, test.backend, "ok" if test.ok else "WRONG", test.detail) for test in tests])
    if not tests:
        print("no compiled kernels here; PyTorch serves every operator")
    print(f"\nproblems: {failed}" if failed else "\nall is well")
    return FAILED if failed else OK


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
