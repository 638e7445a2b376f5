"""The compiled modules, or None and the reason why not."""

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

reasons: dict[str, str] = {}


def _load(backend: str, needs: str) -> ModuleType | None:
    name = f"fastllie._{backend}"
    if find_spec(name) is None:
        reasons[backend] = f"{name} was not built: {needs}"
        return None
    try:
        return import_module(name)
    except ImportError as error:
        reasons[backend] = f"{name} does not load: {error}"
        return None


cpu = _load("cpu", "installing fastllie builds it, with a C++17 compiler")
cuda = _load("cuda", "FASTLLIE_CUDA=1 pip install . builds it, with nvcc; Triton serves without")
