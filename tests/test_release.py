"""What is published, and where: the build list, the workflows, the package's face. `make wheels` builds."""

import fnmatch
import importlib
import importlib.util
import inspect
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from serving import HOME

import fastllie
from fastllie import _native

ROOT = Path(__file__).resolve().parents[1]
if not (ROOT / "release").is_dir():
    pytest.skip("these tests run in a checkout", allow_module_level=True)
tomllib = pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


def pythons(project):
    """The versions of Python that the classifiers promise, the oldest first."""
    return [
        version
        for line in project["project"]["classifiers"]
        for version in re.findall(r"Python :: (3\.\d+)$", line)
    ]


def test_the_pages_promise_the_pythons_of_the_classifiers(project):
    versions = pythons(project)
    for name in ("README.md", "CHANGELOG.md", "docs/install.md"):
        found = set(re.findall(r"\b(3\.\d+) to (3\.\d+)\b", text(name)))
        assert found == {(versions[0], versions[-1])}, name


def test_a_wheel_for_every_python_that_is_promised(project):
    promised = [f"cp{version.replace('.', '')}" for version in pythons(project)]
    settings = project["tool"]["cibuildwheel"]
    assert promised[0] == "cp" + project["project"]["requires-python"].removeprefix(">=").replace(".", "")
    assert [f"{tag}-*" for tag in promised] + ["cp314t-*"] == settings["build"]
    platforms = {"linux": ["x86_64", "aarch64"], "macos": ["arm64", "x86_64"], "windows": ["AMD64"]}
    assert {name: settings[name]["archs"] for name in platforms} == platforms
    for arch in platforms["linux"]:
        assert settings["linux"][f"manylinux-{arch}-image"] == "manylinux_2_28"
    # nothing that is built is left out again
    assert not any(
        fnmatch.fnmatch(f"{tag}-{kind}", pattern)
        for pattern in settings["skip"]
        for tag in promised
        for kind in ("manylinux_x86_64", "manylinux_aarch64", "macosx_arm64", "macosx_x86_64", "win_amd64")
    )


def test_the_workflows_build_all_of_it(project):
    yaml = pytest.importorskip("yaml")
    release = yaml.safe_load(text(".github/workflows/release.yml"))
    rows = release["jobs"]["wheels"]["strategy"]["matrix"]["include"]
    built = {arch for row in rows for arch in row["archs"].split()}
    settings = project["tool"]["cibuildwheel"]
    assert built == {arch for name in ("linux", "macos", "windows") for arch in settings[name]["archs"]}
    publish = release["jobs"]["publish"]
    assert publish["permissions"] == {"id-token": "write"}
    assert (publish["needs"], publish["if"]) == ("check", "github.ref_type == 'tag'")
    floors = text(".github/workflows/ci.yml")
    for dependency in project["project"]["dependencies"]:
        name, _, floor = dependency.partition(">=")
        if floor:
            assert f"{name}=={floor}" in floors, f"ci.yml does not test {dependency}"
    for requirement in project["project"]["optional-dependencies"]["docs"]:
        assert f'"{requirement}"' in floors
        assert f'"{requirement}"' in text("Makefile")
    for file in ROOT.glob(".github/ISSUE_TEMPLATE/*.yml"):
        assert yaml.safe_load(file.read_text(encoding="utf-8")), file


def test_the_pages_of_the_site_tell_of_arguments_that_there_are():
    """What `mkdocs build --strict` refuses, where mkdocs is not."""
    named = re.findall(r"^::: (\S+)$", text("docs/api.md"), re.M)
    assert "fastllie.api.enhance" in named
    for name in named:
        module, _, item = name.rpartition(".")
        found = getattr(importlib.import_module(module), item)
        section = re.search(r"^Args:\n((?:[ ].*\n|\n)*)", inspect.getdoc(found) + "\n", re.M)
        told = re.findall(r"^    (\S[^:]*):", section[1], re.M) if section else []
        there = inspect.signature(found).parameters
        assert {argument.lstrip("*") for argument in told} <= there.keys(), name


def test_one_address_and_one_version(project):
    home = project["project"]["urls"]["Homepage"]
    for name in (
        "setup.py",
        "CITATION.cff",
        "SECURITY.md",
        "mkdocs.yml",
        ".github/ISSUE_TEMPLATE/config.yml",
    ):
        found = set(re.findall(r"https://github\.com/[\w-]+/[\w-]+", text(name)))
        assert found == {home}, name
    assert f"\nversion: {fastllie.__version__}\n" in text("CITATION.cff")


def test_the_readme_of_pypi_has_no_link_into_the_repository(monkeypatch):
    pytest.importorskip("pybind11")
    setuptools = pytest.importorskip("setuptools")
    given = {}
    monkeypatch.setattr(setuptools, "setup", lambda **settings: given.update(settings))
    monkeypatch.chdir(ROOT)
    spec = importlib.util.spec_from_file_location("setup_of_fastllie", ROOT / "setup.py")
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    targets = re.findall(r"\]\(([^)]+)\)", given["long_description"])
    assert targets
    assert all(target.startswith("https://") for target in targets), targets
    assert (
        "](https://github.com/fastllie/fastllie/raw/main/docs/before-after.jpg)" in given["long_description"]
    )
    assert "](https://github.com/fastllie/fastllie/blob/main/docs/usage.md)" in given["long_description"]


def test_the_platforms_of_make_wheels_are_those_of_cibuildwheel(project):
    settings = project["tool"]["cibuildwheel"]
    targets = set(
        re.findall(r'^    "((?:linux|macos|windows)-\w+)": Target\(', text("release/wheels.py"), re.M)
    )
    named = {f"{name}-{arch}" for name in ("linux", "macos", "windows") for arch in settings[name]["archs"]}
    assert targets == {name.replace("AMD64", "x86_64") for name in named}


@pytest.mark.skipif(_native.cpu is None, reason="the C++ kernels are not built")
def test_the_selftest_of_wheels_knows_the_kernels():
    """It calls them past the operators, and runs where a wheel is tried: without torch."""
    script = ROOT / "release" / "selftest.py"
    environment = {**os.environ, "PYTHONPATH": str(HOME)}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WRONG" not in done.stdout
    assert re.search(r": digest [0-9a-f]{16}$", done.stdout.strip())
    assert done.stdout.count(" ok ") == 4 * len(_native.cpu.isas())


@pytest.mark.parametrize(("asked", "built"), [(None, False), ("", False), ("0", False), ("1", True)])
def test_the_cuda_module_is_built_only_where_it_is_asked_for(asked, built, monkeypatch, tmp_path):
    """Also where nvcc is: nobody waits for minutes by surprise."""
    pytest.importorskip("pybind11")
    setuptools = pytest.importorskip("setuptools")
    nvcc = tmp_path / "nvcc"
    nvcc.write_text("#!/bin/sh\n")
    nvcc.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("FASTLLIE_CUDA", raising=False)
    if asked is not None:
        monkeypatch.setenv("FASTLLIE_CUDA", asked)
    monkeypatch.chdir(ROOT)
    given = {}
    monkeypatch.setattr(setuptools, "setup", given.update)
    spec = importlib.util.spec_from_file_location("setup_that_builds", ROOT / "setup.py")
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    assert ("fastllie._cuda" in {extension.name for extension in given["ext_modules"]}) == built


@pytest.mark.skipif(shutil.which("make") is None or sys.platform == "win32", reason="no make here")
def test_make_says_what_takes_long(tmp_path):
    """With a Python whose pip takes its time: not a second passes without a word, and a failure is one."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in"):
        (tmp_path / name).touch()
    for name in ("fastllie", "kernels", "training", "csrc"):
        (tmp_path / name).mkdir()
    python = tmp_path / "slow-python"
    python.write_text(
        "#!/bin/sh\nmkdir -p $3/bin\n"
        "printf '#!/bin/sh\\nsleep 1.5; echo \"$@\" >>asked\\n' >$3/bin/pip\n"
        "printf '#!/bin/sh\\necho brightened\\n' >$3/bin/fastllie\n"
        "printf '#!/bin/sh\\n' >$3/bin/pytest\n"
        "chmod +x $3/bin/*\n"
    )
    python.chmod(0o755)
    quiet = ["make", "--no-print-directory"]
    command = [*quiet, "demo", f"PYTHON={python}", "EVERY=1", "TORCH=torch"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 0, done.stderr
    told = done.stdout.splitlines()
    for step in ("installing torch", "compiling and installing fastllie (a minute or two)"):
        assert told[told.index(step) + 1] == f"    {step}: 1 s"
    assert told[-1].startswith("before | after: ")
    done = subprocess.run([*quiet, "test"], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 0, done.stderr
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked == ["install --quiet torch", "install --quiet .", "install --quiet .[test,lint]"]
    shutil.rmtree(tmp_path / ".venv")
    python.write_text("#!/bin/sh\nexit 3\n")
    assert subprocess.run(command, capture_output=True, cwd=tmp_path, timeout=60).returncode == 2
