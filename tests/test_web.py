"""The static page in examples/web brightens a photograph in a browser, with onnxruntime-web."""

import functools
import io
import os
import shutil
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from helpers import picture

import fastllie

PAGE = Path(__file__).resolve().parents[1] / "examples" / "web"
if not PAGE.is_dir():
    pytest.skip("examples/ is not here", allow_module_level=True)


class Files(SimpleHTTPRequestHandler):
    extensions_map = {**SimpleHTTPRequestHandler.extensions_map, ".mjs": "text/javascript"}  # noqa: RUF012

    def log_message(self, *arguments):
        pass


def onnxruntime_web():
    """npm's package, from where FASTLLIE_NODE_MODULES says, or beside the page."""
    places = (os.environ.get("FASTLLIE_NODE_MODULES"), PAGE / "node_modules")
    for place in places:
        if place and (Path(place) / "onnxruntime-web" / "dist" / "ort.wasm.min.mjs").is_file():
            return Path(place)
    pytest.skip("no onnxruntime-web here: npm install it, and name its folder in FASTLLIE_NODE_MODULES")


@pytest.fixture
def site(tmp_path):
    pytest.importorskip("onnxscript")
    modules = onnxruntime_web()
    for name in ("index.html", "brighten.js"):
        shutil.copy(PAGE / name, tmp_path)
    (tmp_path / "node_modules").symlink_to(modules)
    fastllie.export("sci", tmp_path / "model.onnx", uint8=True, layout="nhwc")
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Files, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/index.html"
    server.shutdown()
    server.server_close()


def test_a_photograph_is_brightened_in_the_browser(site, browser):
    photograph = picture(0, (97, 64), brightest=90).convert("RGB")
    content = io.BytesIO()
    photograph.save(content, "PNG")
    page = browser.new_page()
    page.set_default_timeout(120_000)
    asked, complaints = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.goto(site)
    page.wait_for_function("!document.getElementById('photograph').disabled")
    given = {"name": "night.png", "mimeType": "image/png", "buffer": content.getvalue()}
    page.set_input_files("#photograph", given)
    page.wait_for_function("document.getElementById('status').textContent.match('Done|not')")
    assert page.text_content("#status").startswith("Done in ")
    values = page.evaluate(
        "(() => { const c = document.getElementById('result');"
        " return Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data) })()"
    )
    made = np.array(values, np.uint8).reshape(64, 97, 4)
    wanted = np.asarray(fastllie.enhance(photograph, "sci")).astype(int)
    assert np.abs(made[..., :3] - wanted).max() <= 1
    assert wanted.mean() > 1.5 * np.asarray(photograph).mean()
    # of what a browser asks by itself, an icon is not there
    assert all(url.startswith((site.rsplit("/", 1)[0], "blob:")) for url in asked)
    assert [text for text in complaints if "favicon" not in text and "404" not in text] == []
    broken = {"name": "night.png", "mimeType": "image/png", "buffer": b"no picture"}
    page.set_input_files("#photograph", broken)
    page.wait_for_function("document.getElementById('status').textContent.startsWith('This did not work')")
