"""What results show in a notebook: tables, and before and after with a slider; and the tutorial."""

import base64
import io
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import RGB, refused
from PIL import Image

import fastllie
from fastllie.benchmarking.machine import describe
from fastllie.benchmarking.timing import Benchmark, Case, LeftOut, Timed
from fastllie.evaluation import Evaluation, Row
from fastllie.metrics import choose

TUTORIAL = Path(__file__).resolve().parents[1] / "examples" / "tutorial.ipynb"


class Cells(HTMLParser):
    """The texts of a page by tag; every tag that is opened is closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.texts, self.attributes = [], {}, []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.attributes += attributes
        if tag not in ("img", "input", "meta", "!doctype"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if self.open and text.strip():
            self.texts.setdefault(self.open[-1], []).append(text)


def test_an_evaluation():
    metrics = choose(["psnr"])
    rows = (Row("<sci>", "a.png", {"psnr": 12.0}), Row("<sci>", "b.png", {"psnr": 14.0}))
    found = Evaluation(metrics, rows, ("c.png: no reference",), ())
    shown = Cells(found._repr_html_())
    assert shown.texts["th"] == ["method", "images", "psnr"]
    assert shown.texts["td"][:2] == ["<sci>", "2"]
    assert shown.texts["td"][2] in found.table()
    assert "c.png: no reference" in shown.texts["small"]


def test_a_benchmark():
    row = Timed("fastllie", 1.5, 1.0, 2.0, 15, 700.0, 1.0, 1e-6, 60.0)
    case = Case("sci", {}, "strong", "64x48", 1, "float32", (row,), (LeftOut("openvino", "not here"),))
    whole = Benchmark(describe(torch.device("cpu")), (case, case), {"OpenVINO": "needs openvino"})
    both = Cells(whole._repr_html_())
    assert both.texts["b"] == 2 * [case.title]
    assert both.texts["small"][-1] == "not here: OpenVINO: needs openvino"
    shown = Cells(case._repr_html_())
    assert shown.texts["b"] == ["sci, 64x48, batch 1, float32"]
    assert "median ms" in shown.texts["th"]
    assert shown.texts["td"][0] == "fastllie"
    assert shown.texts["small"] == ["left out: openvino: not here"]
    assert all(text in case.table() for text in shown.texts["td"])


@pytest.mark.parametrize("method", fastllie.list_methods())
def test_a_method(method):
    row = fastllie.info(method)
    shown = Cells(row._repr_html_())
    assert shown.texts["b"] == [f"{method}: {row.title}"]
    assert shown.texts["th"][0] == "paper"
    assert len(shown.texts["td"]) == str(row).count("\n")


def pictures(html):
    codes = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', html)
    return [Image.open(io.BytesIO(base64.b64decode(code))) for code in codes]


def test_before_and_after(tmp_path):
    bright = fastllie.enhance(RGB, "sci")
    found = fastllie.compare(RGB, Image.fromarray(bright), labels=('"as shot"', "sci & fastllie"))
    html = found._repr_html_()
    shown = Cells(html)
    assert shown.texts["span"] == ['"as shot"', "sci & fastllie"]
    assert ("type", "range") in shown.attributes
    after, before = pictures(html)
    assert before.size == after.size == (18, 13)
    assert np.array_equal(np.asarray(found.before), RGB)
    assert np.asarray(after).mean() > np.asarray(before).mean() + 10
    # nothing from elsewhere, and no script beside it
    assert not re.search(r"https?://|<script|<link", html)
    found.save(tmp_path / "page.html")
    assert html in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_large_ones_are_made_smaller_and_all_kinds_are_taken():
    x = torch.rand(3, 200, 2600)
    found = fastllie.compare(x, x.mul(0.5).numpy().transpose(1, 2, 0))
    assert found.after.size == (1280, 98)
    assert found.before.size == found.after.size


def test_errors():
    with refused(ValueError, "before and after must have one size, got 18x13 and 18x12"):
        fastllie.compare(RGB, RGB[:-1])
    with refused(ValueError, "after must be one image, got a batch of 2"):
        fastllie.compare(RGB, np.stack([RGB, RGB]))
    with refused(TypeError, "image is a int"):
        fastllie.compare(RGB, 3)


def test_the_tutorial_runs():
    """All cells of examples/tutorial.ipynb, in a kernel of its own; it is kept without outputs."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    if not TUTORIAL.is_file():
        pytest.skip("examples/ is not here")
    notebook = nbformat.read(TUTORIAL, as_version=4)
    nbformat.validate(notebook)
    found = os.pathsep.join([str(Path(fastllie.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": found}
    codes = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in codes)
    nbclient.NotebookClient(
        notebook,
        timeout=120,
        kernel_name="python3",
        resources={"metadata": {"path": str(TUTORIAL.parent)}},
    ).execute(env=environment)
    shown = [output for cell in codes for output in cell.outputs if "data" in output]
    pages = [output.data["text/html"] for output in shown if "text/html" in output.data]
    assert any('type="range"' in page for page in pages)
    assert sum("<table>" in page for page in pages) >= 2


def test_the_slider_in_a_browser(tmp_path):
    playwright = pytest.importorskip("playwright.sync_api")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no Chromium here")
    black, white = np.zeros((40, 100, 3), np.uint8), np.full((40, 100, 3), 255, np.uint8)
    fastllie.compare(black, white).save(tmp_path / "page.html")
    with playwright.sync_playwright() as library:
        browser = library.chromium.launch(executable_path=found, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto((tmp_path / "page.html").as_uri())
        for at in (50, 80):
            page.locator("input").fill(str(at))
            # where the slider does not cover the picture
            seen = np.asarray(Image.open(io.BytesIO(page.locator("div").screenshot())).convert("L"))[3]
            assert (seen[: at - 3] < 20).all()
            assert (seen[at + 3 :] > 235).all()
        browser.close()
