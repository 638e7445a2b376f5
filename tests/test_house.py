"""The rooms of the house keep to themselves, and nothing comes in that was not asked."""

import ast
import os
import re
import subprocess
import sys
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
from serving import HOME

import fastllie
from fastllie import _native

ROOT = Path(__file__).resolve().parents[1]

# room -> the parts of fastllie that it may import
MAY_IMPORT = {
    "kernels": ("fastllie.kernels",),
    "fastllie/_native.py": ("fastllie._cpu", "fastllie._cuda"),
    "fastllie/ops": ("fastllie.ops", "fastllie.kernels", "fastllie._native", "fastllie.checks"),
    # the one arrow that turns, inside functions: from_pretrained and push_to_hub are asked of a network
    "fastllie/models/sharing.py": ("fastllie.checkpoint.pretrained",),
    "fastllie/models": ("fastllie.models", "fastllie.ops", "fastllie.checks", "fastllie.defaults"),
    "fastllie/methods.py": ("fastllie.markup", "fastllie.models"),
    "fastllie/markup.py": (),
    "fastllie/comparing.py": ("fastllie.images",),
    "fastllie/defaults.py": (),
    "fastllie/checks.py": (),
    "fastllie/terminal.py": (),
    "fastllie/images": ("fastllie.images", "fastllie.defaults"),
    # names that stood there before the wings
    "fastllie/files.py": ("fastllie.images", "fastllie.defaults"),
    "fastllie/deep.py": ("fastllie.images",),
    "fastllie/checkpoint": (
        "fastllie.checks",
        "fastllie.checkpoint",
        "fastllie.models",
        "fastllie.methods",
        "fastllie.images.files",
    ),
    "fastllie/inference": (
        "fastllie.defaults",
        "fastllie.checks",
        "fastllie.inference",
        "fastllie.checkpoint",
        "fastllie.methods",
        "fastllie.images.photograph",
        "fastllie.models.contract",
        "fastllie.models.network",
        "fastllie.ops.backend",
    ),
    "fastllie/api.py": ("fastllie.checks", "fastllie.methods", "fastllie.inference", "fastllie.images"),
    "fastllie/folders": (
        "fastllie.checks",
        "fastllie.defaults",
        "fastllie.folders",
        "fastllie.api",
        "fastllie.images",
    ),
    "fastllie/cluster.py": (
        "fastllie.checks",
        "fastllie.defaults",
        "fastllie.folders",
        "fastllie.api",
        "fastllie.images",
        "fastllie.methods",
    ),
    "fastllie/exporting.py": (
        "fastllie.checks",
        "fastllie.checkpoint",
        "fastllie.images.files",
        "fastllie.methods",
        "fastllie.opsets",
    ),
    "fastllie/opsets.py": (),
    "fastllie/benchmarking": (
        "fastllie.checks",
        "fastllie.benchmarking",
        "fastllie.__version__",
        "fastllie.api",
        "fastllie.checkpoint",
        "fastllie.exporting",
        "fastllie.defaults",
        "fastllie.images.files",
        "fastllie.inference.loading",
        "fastllie.methods",
        "fastllie.markup",
        "fastllie.models",
        "fastllie.ops",
        "fastllie.terminal",
    ),
    "fastllie/metrics": (
        "fastllie.defaults",
        "fastllie.checks",
        "fastllie.metrics",
        "fastllie.images.batches",
        "fastllie.images.photograph",
        "fastllie.methods",
    ),
    "fastllie/evaluation.py": (
        "fastllie.api",
        "fastllie.images",
        "fastllie.markup",
        "fastllie.methods",
        "fastllie.metrics",
        "fastllie.terminal",
    ),
    "fastllie/video": (
        "fastllie.checks",
        "fastllie.video",
        "fastllie.api",
        "fastllie.images",
        "fastllie.defaults",
        "fastllie.methods",
        "fastllie.ops",
    ),
    "fastllie/demo": (
        "fastllie.demo",
        "fastllie.api",
        "fastllie.defaults",
        "fastllie.images",
        "fastllie.methods",
    ),
    # steps of other libraries' pipelines
    "fastllie/transforms": ("fastllie.transforms", "fastllie.api", "fastllie.inference.loading"),
    "fastllie/spandrel.py": ("fastllie.checkpoint", "fastllie.methods"),
    "fastllie/cli": ("fastllie",),
    "training": (
        "fastllie.defaults",
        "fastllie.checks",
        "fastllie.training",
        "fastllie.terminal",
        "fastllie.ops",
        "fastllie.models",
        "fastllie.methods",
        "fastllie.images",
        "fastllie.checkpoint",
        "fastllie.metrics",
        "fastllie.terminal",
    ),
}
# library -> where alone it may be imported
ONLY_IN = {
    "triton": ("kernels",),
    "skimage": ("benchmarks", "tests"),
    "torchvision": (),
    "cv2": ("benchmarks",),
}
LONGEST_MODULE, LONGEST_FUNCTION = 400, 80  # lines
# internals that no public room may name although it may import from fastllie
PRIVATE = ("fastllie._native", "fastllie.kernels")


@cache
def parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path):
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: import by the full name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def python_files(room):
    place = ROOT / room
    if not place.exists():
        pytest.skip(f"{room} is not here: these tests run on an installed copy")
    return [place] if place.suffix == ".py" else sorted(place.rglob("*.py"))


def within(name, room):
    return name == room or name.startswith(room + ".")


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_room_imports_only_what_it_may(room):
    for path in python_files(room):
        if path.relative_to(ROOT).as_posix() in MAY_IMPORT.keys() - {room}:
            # a file with arrows of its own
            continue
        for name in imports(path):
            top = name.split(".")[0]
            assert top not in ("kernels", "training"), f"{path}: import it as fastllie.{name}"
            if top != "fastllie":
                continue
            assert any(within(name, ok) for ok in MAY_IMPORT[room]), f"{path}: {name}"
            if room == "training":
                assert not any(within(name, private) for private in PRIVATE), f"{path}: {name}"


def test_the_command_line_uses_public_names_only():
    own = ("fastllie.cli", "fastllie.defaults", "fastllie.terminal")
    for path in python_files("fastllie/cli"):
        for name in imports(path):
            if name == "fastllie" or not within(name, "fastllie") or any(within(name, part) for part in own):
                continue
            module, _, public = name.rpartition(".")
            assert public in import_module(module).__all__, f"{path}: {name}"
        # `fastllie.WING.NAME` of the package itself
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "fastllie":
                assert node.attr in fastllie.__all__, f"{path}: fastllie.{node.attr}"


def test_training_is_imported_when_it_is_asked_for():
    for path in python_files("fastllie"):
        if path.is_relative_to(ROOT / "fastllie" / "training"):
            continue
        for node in parsed(path).body:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                module = getattr(node, "module", None) or node.names[0].name
                assert not within(module, "fastllie.training"), f"{path}: import it inside the function"


def test_networks_know_of_files_when_they_are_asked_for_one():
    for node in ast.parse((ROOT / "fastllie/models/sharing.py").read_text(encoding="utf-8")).body:
        assert not isinstance(node, (ast.Import, ast.ImportFrom)) or node.module == "typing"


def test_every_module_has_a_room():
    for path in python_files("fastllie"):
        relative = path.relative_to(ROOT).as_posix()
        if relative in ("fastllie/__init__.py", "fastllie/__main__.py"):
            continue
        assert any(relative == room or relative.startswith(room + "/") for room in MAY_IMPORT), relative


def test_modules_are_short_or_say_why():
    for room in ("fastllie", "kernels", "training"):
        for path in python_files(room):
            text = path.read_text(encoding="utf-8")
            if len(text.splitlines()) > LONGEST_MODULE:
                why = ast.get_docstring(ast.parse(text)) or ""
                assert "Longer than most because" in why, f"{path}: over {LONGEST_MODULE} lines"


def test_functions_fit_on_a_screen_or_two():
    for room in ("fastllie", "kernels", "training", "benchmarks"):
        for path in python_files(room):
            for node in ast.walk(parsed(path)):
                if isinstance(node, ast.FunctionDef):
                    lines = (node.end_lineno or node.lineno) - node.lineno + 1
                    assert lines <= LONGEST_FUNCTION, f"{path}: {node.name} has {lines} lines"


@pytest.mark.parametrize("library", ONLY_IN)
def test_library_is_imported_only_where_it_may(library):
    for room in ("fastllie", "kernels", "training"):
        for path in python_files(room):
            if room in ONLY_IN[library]:
                continue
            assert not any(within(name, library) for name in imports(path)), f"{path} imports {library}"


def test_operators_are_registered_in_ops_only():
    for room in ("fastllie", "kernels", "training"):
        for path in python_files(room):
            if "fastllie/ops" not in path.as_posix():
                assert "torch.library" not in path.read_text(encoding="utf-8"), path


def test_native_code_knows_neither_torch_nor_python():
    if not (ROOT / "csrc").is_dir():
        pytest.skip("the sources are not here")
    for path in sorted((ROOT / "csrc").rglob("*.*")):
        included = re.findall(r'#include [<"]([^>"]+)', path.read_text(encoding="utf-8"))
        assert not any(name.startswith(("torch", "ATen", "c10")) for name in included), path
        if path.name not in ("bind.cpp", "bind.h"):
            assert not any(name.startswith(("pybind11", "Python")) for name in included), path


def test_native_modules_link_no_torch_and_no_cuda():
    for module in (_native.cpu, _native.cuda):
        if module is None:
            continue
        content = Path(module.__file__).read_bytes()
        # with the suffix, as a linker names it: parallel.cpp looks for the copy that torch has loaded
        for library in (b"libtorch", b"libc10", b"libcudart.so", b"libgomp.so"):
            assert library not in content, f"{module.__file__} names {library!r}"


def test_import_is_lean():
    code = (
        "import sys, torch; before = set(sys.modules); import fastllie; "
        "print(sorted(name for name in set(sys.modules) - before if not name.startswith('fastllie'))); "
        "assert not torch.cuda.is_initialized(); "
        "print([name for name in sys.modules if name.startswith('fastllie')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=HOME)
    brought, ours = map(ast.literal_eval, done.stdout.splitlines())
    assert not {"PIL", "safetensors", "triton", "skimage", "numpy"} & {name.split(".")[0] for name in brought}
    assert ours == ["fastllie"]
    assert done.stderr == ""


@pytest.mark.parametrize("installed", [False, True])
def test_a_checkout_that_is_not_built_says_so_once(installed, tmp_path):
    package = Path(fastllie.__file__).parent
    checkout, elsewhere = tmp_path / "checkout" / "fastllie", tmp_path / "site"
    checkout.mkdir(parents=True)
    for path in package.iterdir():
        if not path.name.startswith("_cpu") and path.name not in ("__pycache__", "kernels", "training"):
            (checkout / path.name).symlink_to(path)
    # a link would lead back to what is built
    (checkout / "__init__.py").unlink()
    (checkout / "__init__.py").write_bytes((package / "__init__.py").read_bytes())
    (elsewhere / "fastllie").mkdir(parents=True)
    if installed:
        (elsewhere / "fastllie" / "__init__.py").write_text("")
    code = "import fastllie, fastllie.defaults; print(fastllie.__version__)"
    # as where Python is started in the checkout
    path = os.pathsep.join(["", str(elsewhere)])
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=checkout.parent,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.stdout.strip() == fastllie.__version__
    assert done.stderr.count("UserWarning") == 1
    for said in (f"without its compiled module, {checkout.parent}", f"pip install -e {checkout.parent}"):
        assert said in done.stderr
    assert (f"It hides the one that is installed in {elsewhere / 'fastllie'}." in done.stderr) == installed


def test_public_names():
    for name in fastllie.__all__:
        assert getattr(fastllie, name) is not None, name
    assert set(fastllie.__all__) <= set(dir(fastllie))
    with pytest.raises(AttributeError, match="no attribute 'enhence'"):
        _ = fastllie.enhence
