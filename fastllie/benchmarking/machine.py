"""The machine that something ran on: what it is called, and its versions."""

import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fastllie import __version__
from fastllie.ops.backend import backends


def describe(device: torch.device) -> dict[str, Any]:
    """The device, threads and versions; what is not installed is None."""
    from importlib.metadata import PackageNotFoundError, version

    def installed(package: str) -> str | None:
        try:
            return version(package)
        except PackageNotFoundError:
            return None

    cpu = platform.processor() or platform.machine()
    listed = Path("/proc/cpuinfo")
    if listed.exists():
        named = re.search(r"model name\s*:\s*(.+)", listed.read_text())
        cpu = named[1].strip() if named else cpu
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu,
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "fastllie": __version__,
        "backends": {name: found.detail for name, found in backends().items() if found},
        "onnxruntime": installed("onnxruntime"),
        "openvino": installed("openvino"),
    }


def in_words(about: Mapping[str, Any]) -> str:
    """The machine in two lines."""
    host = "" if about["device"] == about["cpu"] else f"{about['device']}, "
    versions = [
        f"{label} {about[key]}"
        for key, label in (
            ("fastllie", "fastllie"),
            ("torch", "torch"),
            ("onnxruntime", "onnxruntime"),
            ("openvino", "openvino"),
            ("python", "Python"),
        )
        if about[key]
    ]
    kernels = "; ".join(f"{name}: {detail}" for name, detail in about["backends"].items() if name != "torch")
    return (
        f"{host}{about['cpu']}, {about['cores']} cores, {about['threads']} threads; {', '.join(versions)}\n"
        f"kernels: {kernels or 'none of ours, PyTorch serves'}"
    )
