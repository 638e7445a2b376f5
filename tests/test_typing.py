"""Type checkers on users' scripts: what is right passes, what is wrong is found before it runs."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

import fastllie
from fastllie import methods

HERE = Path(__file__).resolve().parent / "typing"
# Of a user's script they see what torch.Tensor and Module are; to check torch itself takes four times as long
CONFIGURATION = """
[mypy]
follow_imports = silent
[mypy-torch.*,IPython.*,gradio.*,ray.*,skimage.*]
follow_imports = skip
[mypy-torch,torch._tensor,torch._C,torch.types,torch.nn,torch.nn.modules,torch.nn.modules.module]
follow_imports = silent
"""


@pytest.fixture
def place(tmp_path):
    """A folder with the package as installed, kernels/ and training/ inside of it, and both scripts."""
    package, root = Path(fastllie.__file__).parent, Path(fastllie.__file__).parents[1]
    (tmp_path / "fastllie").mkdir()
    for path in (*package.iterdir(), *(root / room for room in ("kernels", "training"))):
        target = tmp_path / "fastllie" / path.name
        if path.exists() and not target.exists():
            target.symlink_to(path)
    for script in HERE.glob("*.py"):
        shutil.copy(script, tmp_path)
    return tmp_path


def wrong_lines():
    """Where the checkers have to complain: script and line."""
    lines = (HERE / "wrong.py").read_text(encoding="utf-8").splitlines()
    return {("wrong.py", number) for number, line in enumerate(lines, 1) if line.endswith("# wrong")}


def checked(place, *command):
    done = subprocess.run([*command, "right.py", "wrong.py"], capture_output=True, text=True, cwd=place)
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


def test_the_type_of_a_method_has_every_method():
    assert list(get_args(methods.Method)) == sorted(methods.METHODS)


def test_mypy_knows_what_comes_back_and_which_names_there_are(place):
    pytest.importorskip("mypy")
    (place / "mypy.ini").write_text(CONFIGURATION)
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--cache-dir", os.devnull]
    told = checked(place, *command)
    assert {
        (name, int(line)) for name, line in re.findall(r"^(\S+):(\d+): error: ", told, re.M)
    } == wrong_lines()


def test_pyright_knows_the_same(place):
    modules = os.environ.get("FASTLLIE_NODE_MODULES", "")
    pyright = shutil.which("pyright", path=str(Path(modules, ".bin"))) or shutil.which("pyright")
    if pyright is None:
        pytest.skip("no pyright here: npm install it, and name its folder in FASTLLIE_NODE_MODULES")
    told = json.loads(checked(place, pyright, "--pythonpath", sys.executable, "--outputjson"))
    found = {
        (Path(row["file"]).name, row["range"]["start"]["line"] + 1) for row in told["generalDiagnostics"]
    }
    assert found == wrong_lines()
