"""Type checkers on users' scripts: what is right passes, what is wrong is found before it runs."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

import fastllie
from fastllie import methods

HERE = Path(__file__).resolve().parent / "typing"


def test_the_type_of_a_method_has_every_method():
    assert list(get_args(methods.Method)) == sorted(methods.METHODS)


def test_mypy_knows_what_comes_back_and_which_names_there_are(tmp_path):
    pytest.importorskip("mypy")
    # as installed: kernels/ and training/ are inside the package
    package, root = Path(fastllie.__file__).parent, Path(fastllie.__file__).parents[1]
    (tmp_path / "fastllie").mkdir()
    for path in (*package.iterdir(), *(root / room for room in ("kernels", "training"))):
        target = tmp_path / "fastllie" / path.name
        if path.exists() and not target.exists():
            target.symlink_to(path)
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--no-error-summary",
        "--cache-dir",
        tmp_path / "cache",
    ]
    # no configuration of ours: a user has none; what a package lacks is not the user's error
    command += [
        "--config-file",
        os.devnull,
        "--follow-imports",
        "silent",
        HERE / "right.py",
        HERE / "wrong.py",
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "MYPYPATH": str(tmp_path)}
    )
    found = re.findall(r"(\w+)\.py:(\d+): error: (.*)", done.stdout)
    lines = (HERE / "wrong.py").read_text(encoding="utf-8").splitlines()
    wrong = {number for number, line in enumerate(lines, 1) if line.endswith("# wrong")}
    assert [row for row in found if row[0] != "wrong"] == [], done.stderr
    assert {int(number) for _, number, _ in found} == wrong
