"""The page: what it computes and writes, the command that serves it, and all of it in a real browser."""

import os
import signal
import socket
import subprocess
import sys
from urllib.parse import urlsplit

import numpy as np
import pytest
from helpers import RGB, picture, refused
from PIL import Image, ImageCms
from serving import HOME

import fastllie
from fastllie import cli
from fastllie.demo import showcase
from fastllie.demo.page import page as made_page
from fastllie.images.photograph import Photograph
from fastllie.images.reading import read

EAGER = "gradio" in sys.modules
ORIENTATION, MODEL = 274, 272  # tags of EXIF
# smooth, with lower bytes that 8 bits would lose
DEEP = np.asarray(picture(size=(18, 13), brightest=80)).astype(np.uint16) * 256 + RGB


def pixels(path):
    with Image.open(path) as image:
        return np.array(image)


@pytest.fixture
def photograph(tmp_path):
    path = tmp_path / "night.png"
    Image.fromarray(RGB).save(path)
    return path


# --- what is behind the page


@pytest.mark.parametrize(("method", "variant"), showcase.everything())
def test_the_result_is_that_of_enhance(photograph, tmp_path, method, variant):
    result = showcase.brighten(photograph, method, variant, 0.7, tmp_path)
    want = fastllie.enhance(RGB, method, weights=variant, strength=0.7)
    assert np.array_equal(pixels(result.file), want)
    assert result.size == (18, 13)
    assert result.seconds > 0
    assert pixels(result.before).shape == pixels(result.after).shape == RGB.shape
    assert pixels(result.after).mean() > pixels(result.before).mean()


def test_every_method_with_weights_can_be_chosen():
    assert showcase.methods() == [name for name in fastllie.list_methods() if fastllie.info(name).weights]
    assert {"zerodce", "zerodce++", "sci"} <= set(showcase.methods())
    assert ("sci", "mild") in showcase.everything()


def test_the_names_of_files_tell_method_and_weights(photograph, tmp_path):
    plain = showcase.brighten(photograph, "sci", "strong", 1, tmp_path)
    other = showcase.brighten(photograph, "sci", "mild", 1, tmp_path)
    assert (plain.file.name, other.file.name) == ("night-sci.png", "night-sci.mild.png")


def test_a_photograph_comes_back_upright_with_its_data(tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION], exif[MODEL] = 6, "camera"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = tmp_path / "turned.JPG"
    picture(size=(40, 30)).save(path, "JPEG", quality=95, exif=exif, icc_profile=profile)
    result = showcase.brighten(path, "zerodce", "fastllie", 1, tmp_path)
    assert result.size == (30, 40)
    with Image.open(result.file) as image:
        assert (image.format, image.size) == ("JPEG", (30, 40))
        assert image.info["icc_profile"] == profile
        assert (image.getexif().get(ORIENTATION, 1), image.getexif()[MODEL]) == (1, "camera")
    for shown in (result.before, result.after):
        with Image.open(shown) as image:
            assert image.size == (30, 40)
            assert image.info["icc_profile"] == profile


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_stay(tmp_path, suffix):
    path = tmp_path / ("deep" + suffix)
    Photograph(DEEP).save(path)
    result = showcase.brighten(path, "zerodce", "fastllie", 1, tmp_path)
    assert result.file.suffix == suffix
    assert np.array_equal(read(result.file).values, fastllie.enhance(DEEP, "zerodce"))
    assert result.size == (18, 13)
    assert np.abs(pixels(result.before).astype(int) - DEEP // 257).mean() < 5


@pytest.mark.parametrize(
    ("name", "format", "suffix"),
    [
        ("a.webp", "WEBP", ".webp"),
        ("a.bmp", "BMP", ".bmp"),
        ("a.gif", "GIF", ".gif"),
        ("mistaken.jpg", "PNG", ".png"),
        ("nothing", "JPEG", ".jpg"),
    ],
)
def test_the_result_is_of_the_kind_that_the_file_is(tmp_path, name, format, suffix):
    Image.fromarray(RGB).save(tmp_path / name, format)
    result = showcase.brighten(tmp_path / name, "sci", "strong", 1, tmp_path)
    assert result.file.suffix == suffix
    with Image.open(result.file) as image:
        assert image.size == (18, 13)
        assert image.format == format


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"])
def test_a_browser_can_show_every_mode(mode):
    grey = Image.fromarray(RGB).convert("L")
    if mode in ("I", "I;16"):
        image = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257).convert(mode)
    elif mode == "F":
        image = Image.fromarray(np.asarray(grey, np.float32) / 255)
    else:
        image = Image.fromarray(RGB).convert(mode)
    shown = showcase.displayable(image, 9)
    assert shown.mode == ("RGBA" if mode in ("LA", "RGBA") else "RGB")
    assert shown.size == (9, 6)
    if mode not in ("1", "P"):
        assert abs(np.asarray(shown.convert("L"), float).mean() - np.asarray(grey, float).mean()) < 3


def test_alpha_stays(tmp_path):
    alpha = Image.fromarray(np.full((13, 18), 77, np.uint8))
    image = Image.fromarray(RGB)
    image.putalpha(alpha)
    image.save(tmp_path / "a.png")
    result = showcase.brighten(tmp_path / "a.png", "sci", "strong", 1, tmp_path)
    for path in (result.file, result.before, result.after):
        assert (pixels(path)[..., 3] == 77).all()


def test_what_is_shown_of_a_large_photograph_is_small(tmp_path):
    picture(size=(showcase.SHOWN + 400, 100)).save(tmp_path / "wide.png")
    result = showcase.brighten(tmp_path / "wide.png", "sci", "strong", 1, tmp_path)
    assert result.size == (showcase.SHOWN + 400, 100)
    assert pixels(result.file).shape[:2] == (100, showcase.SHOWN + 400)
    assert pixels(result.before).shape[:2] == pixels(result.after).shape[:2] == (80, showcase.SHOWN)


def test_all_methods_side_by_side(tmp_path):
    picture(size=(showcase.COMPARED + 1, 40)).save(tmp_path / "night.png")
    tiles = list(showcase.compare(tmp_path / "night.png", 1, tmp_path))
    assert len(tiles) == 1 + len(showcase.everything())
    captions = [caption for _, caption in tiles]
    assert captions[0] == f"photograph, {showcase.COMPARED} × 40"
    assert [caption.rsplit(", ", 1)[0] for caption in captions[1:]] == [
        showcase.title(method, variant) for method, variant in showcase.everything()
    ]
    assert all(caption.endswith((" ms", " s")) for caption in captions[1:])
    small = showcase.displayable(Image.open(tmp_path / "night.png"), showcase.COMPARED)
    for (path, _), (method, variant) in zip(tiles[1:], showcase.everything(), strict=True):
        want = np.asarray(fastllie.enhance(small, method, weights=variant), int)
        # written as JPEG
        assert np.abs(pixels(path) - want).mean() < 3, method


def test_what_the_page_refuses(photograph, tmp_path, monkeypatch):
    with refused(ValueError, "sci has no weights '/etc/passwd'", "strong, mild"):
        showcase.brighten(photograph, "sci", "/etc/passwd", 1, tmp_path)
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    with refused(ValueError, "is not an image"):
        showcase.checked(tmp_path / "bad.jpg")
    with monkeypatch.context() as patch:
        patch.setattr(showcase, "MOST_PIXELS", 18 * 13 - 1)
        for work in (
            lambda: showcase.brighten(photograph, "sci", "strong", 1, tmp_path),
            lambda: next(showcase.compare(photograph, 1, tmp_path)),
        ):
            with refused(ValueError, "night.png has 0 million pixels", "takes more"):
                work()
    with monkeypatch.context() as patch:
        patch.setattr(showcase, "MOST_BYTES", 10)
        with refused(ValueError, "night.png has 0 million bytes", "takes more"):
            showcase.checked(photograph)


def test_samples():
    ours = showcase.samples_of()
    licence = (showcase.SAMPLES / "README.md").read_text(encoding="utf-8")
    assert len(ours) >= 2
    for path in ours:
        assert path.stat().st_size < 100_000
        assert path.name in licence
        assert pixels(path).mean() < 80
    assert "CC0" in licence


def test_samples_of_a_folder(photograph, tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    assert showcase.samples_of(tmp_path) == [photograph]
    with refused(FileNotFoundError, "no such folder of samples", "absent"):
        showcase.samples_of(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with refused(ValueError, "empty", "holds no images"):
        showcase.samples_of(tmp_path / "empty")


# --- the command


def test_a_missing_extra_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert cli.main(["demo", "--port", "0"]) == 2
    assert 'pip install "fastllie[demo]"' in capsys.readouterr().err


def test_gradio_is_imported_when_a_page_is_made():
    assert not EAGER


def test_a_port_in_use_is_an_error(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert cli.main(["demo", "--port", str(port)]) == 1
    message = capsys.readouterr().err
    assert f"cannot listen at port {port} of '127.0.0.1'" in message
    assert "0 is any free port" in message


def test_what_cannot_be_served(tmp_path, capsys):
    assert cli.main(["demo", "--port", "65536"]) == 2
    assert "port must lie in 0..65535, got 65536" in capsys.readouterr().err
    assert cli.main(["demo", "--host", "203.0.113.1", "--port", "0"]) == 1
    assert "of '203.0.113.1'" in capsys.readouterr().err
    pytest.importorskip("gradio")
    assert cli.main(["demo", "--port", "0", "--samples", str(tmp_path / "absent")]) == 2
    assert "no such folder of samples" in capsys.readouterr().err
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    assert cli.main(["demo", "--port", "0", "--samples", str(tmp_path)]) == 2
    assert "bad.jpg" in capsys.readouterr().err


def test_a_public_address_is_asked_for_and_not_replaced(monkeypatch, capsys):
    pytest.importorskip("gradio")
    from gradio import networking

    asked = []

    def tunnel(**where):
        asked.append(where["local_port"])
        raise RuntimeError("no tunnel here")

    monkeypatch.setattr(networking, "setup_tunnel", tunnel)
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    environment = [os.environ.get(name) for name in ("GRADIO_TEMP_DIR", "no_proxy")]
    assert cli.main(["demo", "--port", "0", "--share"]) == 1
    assert len(asked) == 1
    assert "no public address" in capsys.readouterr().err
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert [os.environ.get(name) for name in ("GRADIO_TEMP_DIR", "no_proxy")] == environment


def test_the_page_says_where_photographs_go(tmp_path):
    pytest.importorskip("gradio")
    texts = {}
    for public in (False, True):
        blocks = made_page(tmp_path, public=public)
        assert blocks.analytics_enabled is False
        texts[public] = str(blocks.get_config_file()["components"])
    assert "They stay on the machine" in texts[False]
    assert "go through Gradio" in texts[True]


# --- in a browser

# what the server asks of any other machine is written to a file; the file is there from the beginning
WATCHED = """
import sys
from pathlib import Path
record, *words = sys.argv[1:]
Path(record).touch()
HERE = (None, "", "localhost", "127.0.0.1", "::1", "0.0.0.0", "::")
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        place = arguments[1] if event == "socket.connect" else arguments[0]
        host = place[0] if isinstance(place, tuple) else None if event == "socket.connect" else place
        if host not in HERE:
            with open(record, "a") as file:
                print(event, host, file=file)
sys.addaudithook(watch)
from fastllie.cli import main
sys.exit(main(words))
"""


@pytest.fixture
def address(tmp_path):
    """The page, served by a process of its own; at its end, that nothing is left and nobody was asked."""
    pytest.importorskip("gradio")
    files = tmp_path / "temporary"
    files.mkdir()
    record = tmp_path / "record"
    command = [sys.executable, "-c", WATCHED, str(record), "demo", "--port", "0"]
    environment = {**os.environ, "TMPDIR": str(files), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, cwd=HOME, env=environment, stdout=subprocess.PIPE, text=True) as server:
        try:
            line = server.stdout.readline()
            assert "http://127.0.0.1:" in line
            yield next(word for word in line.split() if word.startswith("http"))
            server.send_signal(signal.SIGINT)
            assert server.wait(30) == 0
        finally:
            server.kill()
    assert record.read_text() == ""
    assert list(files.glob("fastllie-demo-*")) == []


class Visitor:
    """Someone at the page: each step waits until the page shows what it led to."""

    def __init__(self, page):
        self.page = page
        page.set_default_timeout(120_000)

    def shown(self):
        return self.page.locator("#slider img").last.get_attribute("src")

    def until_shown(self, step, status):
        before = self.shown() if self.page.locator("#slider img").count() else None
        step()
        self.page.wait_for_function(
            "([before, status]) => {const images = document.querySelectorAll('#slider img');"
            " return images.length && images[images.length - 1].getAttribute('src') !== before"
            " && document.querySelector('#status').innerText.startsWith(status)}",
            arg=[before, status],
        )

    def choose(self, label, value):
        self.page.get_by_label(label, exact=True).click()
        self.page.get_by_role("option", name=value, exact=True).click()

    def upload(self, path):
        self.page.set_input_files("#upload input[type=file]", path)

    def download(self, folder):
        with self.page.expect_download() as waiting:
            self.page.locator("#download").click()
        path = folder / waiting.value.suggested_filename
        waiting.value.save_as(path)
        return path


def test_a_visit(address, browser, tmp_path):
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    hosts = set()
    page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    visitor = Visitor(page)
    samples = showcase.samples_of()

    # the first sample is there at once, and another one is picked
    visitor.until_shown(lambda: page.goto(address), f"dawn · {samples[0].name} · 960 × 640 · ")
    visitor.until_shown(page.locator("#samples .thumbnail-lg").nth(1).click, f"dawn · {samples[1].name}")
    got = visitor.download(downloads)
    assert got.name == f"{samples[1].stem}-dawn.jpg"
    want = np.asarray(fastllie.enhance(samples[1]), int)
    assert np.abs(pixels(got) - want).mean() < 4  # of the quality that the sample has

    # an upload of 16 bits, another method, its weights, and half the strength
    Photograph(DEEP).save(tmp_path / "deep.png")
    visitor.until_shown(lambda: visitor.upload(tmp_path / "deep.png"), "dawn · deep.png · 18 × 13")
    visitor.until_shown(lambda: visitor.choose("Method", "SCI"), "SCI strong · deep.png")
    visitor.until_shown(lambda: visitor.choose("Weights", "mild"), "SCI mild · deep.png")
    strength = page.locator("#strength input[type=number]")

    def halve():
        strength.fill("0.5")
        strength.press("Tab")

    visitor.until_shown(halve, "SCI mild · deep.png")
    want = fastllie.enhance(DEEP, "sci", weights="mild", strength=0.5)
    for _ in range(60):
        got = visitor.download(downloads)
        assert got.name == "deep-sci.mild.png"
        # a run at full strength may still have been on its way: nothing else on the page tells it apart
        if np.array_equal(read(got).values, want):
            break
        page.wait_for_timeout(500)
    else:
        pytest.fail("the page never gave the result of half the strength")

    # a file that is none is told, and the page goes on with a turned photograph
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    visitor.upload(tmp_path / "bad.jpg")
    message = page.get_by_text("'bad.jpg' is not an image that Pillow can read")
    message.wait_for()
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    picture(size=(60, 40)).save(tmp_path / "turned.jpg", exif=exif)
    visitor.until_shown(lambda: visitor.upload(tmp_path / "turned.jpg"), "SCI mild · turned.jpg · 40 × 60")

    # all methods, and from there back to one
    page.get_by_role("tab", name="All methods side by side").click()
    tiles = page.locator("#tiles .thumbnail-lg")
    everything = showcase.everything()
    tiles.nth(len(everything)).wait_for()
    captions = page.locator("#tiles .caption-label").all_inner_texts()
    assert captions[0] == "photograph, 40 × 60"
    assert [caption.rsplit(", ", 1)[0] for caption in captions[1:]] == [
        showcase.title(method, variant) for method, variant in everything
    ]
    chosen = "zerodce++", "fastllie"
    visitor.until_shown(
        tiles.nth(1 + everything.index(chosen)).click, f"{showcase.title(*chosen)} · turned.jpg · 40 × 60"
    )
    assert page.get_by_label("Method", exact=True).input_value() == "Zero-DCE++"
    got = visitor.download(downloads)
    assert got.name == "turned-zerodce++.jpg"
    want = np.asarray(fastllie.enhance(tmp_path / "turned.jpg", "zerodce++", strength=0.5), int)
    assert np.abs(pixels(got) - want).mean() < 3

    assert hosts == {urlsplit(address).netloc}
    assert problems == []
