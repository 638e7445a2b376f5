"""Which copy of fastllie and which backends this run really tests."""

import os
import shutil

# Before OpenMP is loaded: threads that wait for the next operator would spin, and take the processor from the
# other processes of pytest-xdist, whose tests took several times as long
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
import torch

# Before any kernel is imported: without a GPU, Triton's kernels run in its interpreter
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

from cuda_on_cpu import emulated
from helpers import ship_random_weights

import fastllie


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    """No photograph of a test belongs into the user's cache."""
    monkeypatch.setenv("FASTLLIE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def browser():
    """The system's Chromium, which reaches this machine alone."""
    playwright = pytest.importorskip("playwright.sync_api")
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip("no Chromium here")
    with playwright.sync_playwright() as library:
        # a page that asks for another host must not reach it, but be found out
        flags = ["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
        chromium = library.chromium.launch(executable_path=found, args=flags)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def random_weights(tmp_path_factory):
    """Random weights stand in for those of the package in all tests of a module."""
    with pytest.MonkeyPatch.context() as patch:
        ship_random_weights(tmp_path_factory.mktemp("weights"), patch)
        yield


@pytest.fixture(autouse=True)
def cuda_on_cpu(request, monkeypatch):
    """The emulator of the CUDA kernels, in place where a test asks for them and there is no GPU."""
    if request.node.get_closest_marker("emulated") is None:
        return None
    if reason := emulated.absent():
        pytest.skip(reason)
    emulator = emulated.emulator()
    emulator.install(monkeypatch)
    return emulator


def pytest_report_header(config):
    found = ", ".join(
        f"{name}{'' if backend else ' (absent)'}" for name, backend in fastllie.backends().items()
    )
    return f"fastllie: {fastllie.__file__} | backends: {found}"


def pytest_collection_modifyitems(config, items):
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
