"""The compiled modules, or None and the reason why not."""

from types import ModuleType

cpu: ModuleType | None = None
cuda: ModuleType | None = None
reasons: dict[str, str] = {}

try:
    from fastllie import _cpu

    cpu = _cpu
except ImportError as error:
    reasons["cpu"] = f"fastllie._cpu does not load: {error}"
try:
    from fastllie import _cuda

    cuda = _cuda
except ImportError as error:
    reasons["cuda"] = f"fastllie._cuda does not load (it is built where nvcc works): {error}"
