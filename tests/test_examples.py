"""Every script in examples/ does what it says, and every link of the pages leads somewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import picture

import fastllie

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
if not EXAMPLES.is_dir():
    pytest.skip("examples/ is not here", allow_module_level=True)


def run(name, *arguments):
    """What a script prints, in a process of its own."""
    found = os.pathsep.join([str(Path(fastllie.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": found},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def photographs(tmp_path):
    """A folder of small dark photographs."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    for seed in range(4):
        picture(seed, (96, 80), brightest=90).save(folder / f"{seed}.png")
    return folder


def test_every_example_is_tested_and_listed():
    tests = (Path(__file__), Path(__file__).with_name("test_tools.py"))
    text = "".join(path.read_text("utf-8") for path in tests)
    listed = (EXAMPLES / "README.md").read_text("utf-8")
    for path in EXAMPLES.glob("*.py"):
        assert f'"{path.name}"' in text, path.name
        assert f"]({path.name})" in listed, path.name


def test_a_photograph_by_every_method(photographs, tmp_path):
    out = run("enhance_photo.py", photographs / "0.png", tmp_path / "out")
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert made == {f"0-{method}.png" for method in fastllie.list_methods()}
    assert out.count("\n") == len(made)


def test_a_stream(photographs):
    lines = run("enhance_stream.py", *sorted(photographs.iterdir())).splitlines()
    assert len(lines) == 4
    assert all(line.startswith("96x80, mean ") for line in lines)


def test_training_on_own_photographs(photographs, tmp_path):
    out = run("train_own.py", photographs, tmp_path / "run", 2)
    assert "0.png enhanced with it" in out
    assert (tmp_path / "run" / "0-brighter.png").exists()
    assert (tmp_path / "run" / "report.html").exists()


def test_a_network_of_ones_own():
    before, after = re.findall(r"\d\.\d+", run("own_network.py", 30))
    assert float(after) > 1.5 * float(before)


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), EXAMPLES / "README.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        file, _, heading = target.partition("#")
        path = (page.parent / file) if file else page
        assert path.exists(), f"{page.name}: {target}"
        if heading:
            headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in [re.sub(r"[^\w -]", "", one).lower().replace(" ", "-") for one in headings], (
                target
            )


def test_every_page_is_in_the_index():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "index.md" or f"]({page.name})" in index, page.name
