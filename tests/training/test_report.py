"""The report of a run and its contact sheets: whole, self-contained, and of any run that there may be."""

import base64
import json
import math
import os
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from helpers import refused, write_weights
from PIL import Image, ImageDraw
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from fastllie.training.record.charts import MOST_POINTS, Curve, draw, running_mean, thin, ticks
from fastllie.training.record.journal import LOG, VALIDATION, Journal
from fastllie.training.record.pictures import FAINT, GAP, GROUND, ROWS, SIDE, TEXT, Row, contact_sheet
from fastllie.training.record.report import facts_of, main, write_report

VOID = {"meta", "img", "path", "rect", "circle", "br"}


class Page(HTMLParser):
    """A page as tags, texts and attributes; every tag must be closed by its own end."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts, self.attributes = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == [], "tags stay open"

    def handle_starttag(self, tag, attributes):
        self.open.append(tag)
        self.handle_startendtag(tag, attributes)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attributes]

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> was never opened"
        assert self.open.pop() == tag

    def handle_data(self, text):
        if text.strip():
            self.texts.append(text.strip())

    def values(self, tag, name):
        return [value for found, key, value in self.attributes if (found, key) == (tag, name)]


def page(folder, facts=None):
    path = write_report(folder, facts or {})
    assert path == folder / "report.html"
    return Page(path.read_text(encoding="utf-8"))


def points(path):
    """The coordinates of a path of straight lines."""
    return [tuple(map(float, point.split())) for point in path[1:].split("L")]


def curve(values, **options):
    values = np.asarray(values, float)
    return Curve("exposure", np.arange(1.0, len(values) + 1), values, **options)


@pytest.fixture
def run(tmp_path):
    with Journal(tmp_path, total_steps=600) as journal:
        journal.note("<script>alert(1)</script>.jpg is damaged & was left out")
        for step in range(10, 601, 10):
            values = {"total": 100 / step, "exposure_<b>": 2.0, "gradient": 0.5, "learning_rate": 1e-4}
            journal.log(step, values, images=80, seconds=2.0)
            if step % 200 == 0:
                journal.validated(step, {"psnr": [0, 17.25, 19.5, 18.125][step // 200]}, step == 400)
                journal.picture(step, "photographs", Image.new("RGB", (30, 20), (step // 3, 0, 0)))
    (tmp_path / "config.toml").write_text('method = "zerodce"  # <i>\n')
    return tmp_path


# --- the report


def test_report_tells_all_of_a_run(run):
    found = page(run, {"method": "zerodce", "weights": "a/weights.safetensors"})
    for text in ("method", "zerodce", "weights", "a/weights.safetensors", "steps", "600", "time"):
        assert text in found.texts, text
    for text in ("first, step 200", "17.2500", "last, step 600", "18.1250", "best, step 400", "19.5000"):
        assert text in found.texts, text
    for chart in ("psnr", "total", "exposure <b>", "gradient", "learning rate", "images per second"):
        assert f"{chart} by step" in found.values("svg", "aria-label"), chart
    assert "step 600: 0.16667" in found.texts
    assert "step 400: 19.5 (best)" in found.texts
    assert 'method = "zerodce"  # <i>' in found.texts
    pictures = found.values("img", "src")
    embedded = [base64.b64decode(source.removeprefix("data:image/jpeg;base64,")) for source in pictures]
    assert embedded == [(run / "pictures" / f"step-0000{step}.jpg").read_bytes() for step in (200, 400, 600)]
    assert [text for text in found.texts if text in ("first", "best", "last")] == ["first", "best", "last"]


def test_given_facts_stand_over_those_of_the_log(run):
    found = page(run, {"Steps": "600 of 1,000", "time": "2 h"})
    assert "600 of 1,000" in found.texts
    assert "steps" not in found.texts
    assert found.texts.count("time") == 1


def test_every_text_is_escaped(run):
    odd = "<script>alert('x')</script>\"&"
    found = page(run, {"method": odd, odd: odd})
    assert "script" not in found.tags
    assert "b" not in found.tags
    assert found.texts.count(odd) == 3
    assert any("<script>alert(1)</script>.jpg is damaged & was left out" in text for text in found.texts)


def test_report_needs_nothing_from_the_network(run):
    text = write_report(run, {}).read_text(encoding="utf-8")
    assert not re.findall(r"https?:|//|url\(|@import|<script|<link", re.sub(r"base64,[^\"]*", "", text))
    assert "default-src 'none'" in text
    for needed in ("width=device-width", "prefers-color-scheme: dark"):
        assert needed in text


def test_report_of_a_run_without_validation_or_pictures(tmp_path):
    with Journal(tmp_path, total_steps=10) as journal:
        journal.log(10, {"total": 0.5}, images=8, seconds=1.0)
    found = page(tmp_path)
    assert "img" not in found.tags
    assert "Validation" not in found.texts
    assert "step 10: 0.5" in found.texts
    assert f"fastllie: training of {tmp_path.name}" in found.texts


def test_report_of_a_run_that_logged_nothing(tmp_path):
    assert "The log holds no lines yet." in page(tmp_path).texts
    with refused(NotADirectoryError, tmp_path / "absent"):
        write_report(tmp_path / "absent", {})


def test_report_passes_over_a_half_written_line(run):
    for name in (LOG, VALIDATION):
        with open(run / name, "a") as file:
            file.write('{"step": 610, "val')
    assert "600" in page(run).texts


def test_report_of_a_hundred_thousand_lines(tmp_path):
    with open(tmp_path / LOG, "w") as file:
        for step in range(1, 100_001):
            total = 9.0 if step == 77_777 else 1 + (step * 7919 % 100) / 1000
            line = {"step": step, "values": {"total": total}, "images_per_second": 50.0, "elapsed": step}
            file.write(json.dumps(line) + "\n")
    text = write_report(tmp_path, {}).read_text(encoding="utf-8")
    assert len(text) < 400_000
    raw, _ = re.findall(r'class="raw" d="([^"]+)"', text)  # the total's and the speed's
    drawn = points(raw)
    assert 1000 < len(drawn) <= MOST_POINTS
    # the one spike is seen, where it was
    highest = min(drawn, key=lambda point: point[1])
    assert sorted(y for _, y in drawn)[1] - highest[1] > 100
    assert highest[0] == pytest.approx(46 + 0.77777 * 304, abs=0.3)


def test_names_that_are_no_text(run):
    assert any("caf" in text for text in page(run, {"photographs": os.fsdecode(b"caf\xe9")}).texts)


def test_command_makes_it_again_with_what_the_weights_tell(run, capsys):
    plain = write_weights(run / "plain.safetensors", "sci")
    (run / "report.html").unlink(missing_ok=True)
    with safe_open(plain, "np") as file:
        metadata = file.metadata()
    for name, steps in (("best", 400), ("weights", 600)):
        told = {**metadata, "run": json.dumps({"steps": steps, "torch": f"2.{steps}", "seed": 3})}
        save_file(load_file(plain), run / f"{name}.safetensors", told)
    assert main([str(run)]) == 0
    assert capsys.readouterr().out == f"wrote {run / 'report.html'}\n"
    facts = facts_of(run)
    assert (facts["method"], facts["steps"], facts["torch"], facts["seed"]) == ("sci", "600", "2.600", "3")
    assert str(run / "best.safetensors") in facts["weights"]
    assert "2.600" in Page((run / "report.html").read_text(encoding="utf-8")).texts
    (run / "weights.safetensors").write_bytes(b"torn")
    assert main([str(run)]) == 2
    assert "weights.safetensors" in capsys.readouterr().err
    assert main([str(run / "absent")]) == 2


# --- curves


def test_curve_is_drawn_where_its_values_are():
    text = draw(curve([1.0, 3.0, 2.0]))
    (path,) = re.findall(r'class="line" d="([^"]+)"', text)
    (x0, y0), (x1, y1), (x2, y2) = points(path)
    assert (x0, x2) == (46, 350)
    assert x1 == pytest.approx((x0 + x2) / 2)
    assert y1 < y2 < y0
    assert y2 == pytest.approx((y0 + y1) / 2, abs=0.1)
    Page(text)


def test_scale_is_logarithmic_where_values_span_decades():
    wide = draw(curve(np.geomspace(1e-5, 1, 50)))
    assert "log scale" in wide
    for tick in ("1e-5", "1e-4", "0.001", "0.01", "0.1", "1"):
        assert f">{tick}</text>" in wide
    (path,) = re.findall(r'class="line" d="([^"]+)"', wide)
    heights = np.array([y for _, y in points(path)])
    np.testing.assert_allclose(np.diff(heights), np.diff(heights).mean(), atol=0.11)
    for values in (np.linspace(0.5, 1, 50), [0.0, *np.geomspace(1e-5, 1, 50)], [1e-6, *[1.0] * 99]):
        assert "log scale" not in draw(curve(values))


@pytest.mark.parametrize(
    "values",
    [[0.5], [0.5, 0.5], [0.0, 0.0], [-3.0, -3.0], [1e-12, 2e-12], [1e300, 1e-300], [123456.0, 123457.0]],
)
def test_curves_of_little_or_no_height(values):
    text = draw(curve(values))
    Page(text)
    assert "nan" not in text
    assert "inf" not in text
    for y in re.findall(r' cy="([^"]+)"', text):
        assert 8 <= float(y) <= 168


def test_lines_of_one_step_twice():
    assert "nan" not in draw(Curve("psnr", np.array([5.0, 5.0]), np.array([1.0, 2.0])))


def test_values_that_are_not_finite_are_told():
    text = draw(curve([1.0, math.nan, 2.0, math.inf]))
    assert "2 not finite, the first at step 2" in text
    assert text.count("<circle") == 2
    assert "not finite" in draw(curve([math.nan]))


def test_noisy_curve_has_a_running_mean():
    text = draw(curve(np.random.default_rng(0).random(200), smooth=True))
    (raw,), (mean,) = (re.findall(rf'class="{kind}" d="([^"]+)"', text) for kind in ("raw", "line"))
    assert np.std([y for _, y in points(mean)]) < 0.5 * np.std([y for _, y in points(raw)])
    np.testing.assert_allclose(running_mean(np.full(50, 2.5)), 2.5)
    np.testing.assert_allclose(running_mean(np.arange(5.0)), [0.5, 1, 2, 3, 3.5])


def test_thinning_keeps_ends_and_extremes():
    values = np.random.default_rng(0).random(10_001)
    values[[1234, 9876]] = [7.0, -7.0]
    kept = thin(values)
    assert len(kept) <= MOST_POINTS
    assert {0, 1234, 9876, 10_000} <= set(kept)
    assert (np.diff(kept) > 0).all()
    assert len(thin(values[:MOST_POINTS])) == MOST_POINTS


def test_ticks_are_round():
    assert ticks(0, 10) == [0, 2, 4, 6, 8, 10]
    np.testing.assert_allclose(ticks(17.9, 20.1), [18, 18.5, 19, 19.5, 20])
    np.testing.assert_allclose(ticks(-0.03, 0.02), [-0.03, -0.02, -0.01, 0, 0.01, 0.02], atol=1e-12)


# --- contact sheets


def block(height, width, value, channels=3):
    return np.full((height, width, channels), (value, 0, 0, 0)[:channels], np.uint8)


def test_contact_sheet_of_pictures_of_any_sizes():
    rows = [
        Row(
            "landscape.jpg", [block(100, 200, 50), block(300, 600, 150), block(50, 100, 250)], ["a", "b", "c"]
        ),
        Row("portrait.jpg", [block(640, 320, 60), block(10, 5, 90, channels=1)], ["input", "output 0.41"]),
    ]
    sheet = contact_sheet(rows)
    assert sheet.mode == "RGB"
    assert sheet.width == GAP + 3 * (SIDE + GAP)
    pixels = np.asarray(sheet)
    sizes = {50: (160, 320), 150: (160, 320), 250: (160, 320), 60: (320, 160)}
    # red, as the letters are grey
    assert {value: int((pixels == (value, 0, 0)).all(2).sum()) for value in sizes} == {
        value: height * width for value, (height, width) in sizes.items()
    }
    assert (pixels[-400:] == 90).all(2).sum() >= 320 * 160
    assert (pixels == TEXT).all(2).any()
    assert (pixels == FAINT).all(2).any()
    assert tuple(pixels[-1, -1]) == GROUND


def test_contact_sheet_shows_eight_rows():
    row = Row("a.jpg", [block(10, 10, 90)], ["input"])
    assert contact_sheet([row] * 20).size == contact_sheet([row] * ROWS).size
    assert contact_sheet([row] * 7).height < contact_sheet([row] * ROWS).height


@pytest.mark.parametrize("name", ["x" * 300, "two\nlines.jpg", os.fsdecode(b"caf\xe9.jpg"), "夜景.jpg", ""])
def test_contact_sheet_with_an_odd_name(name, monkeypatch):
    drawn = []
    original = ImageDraw.ImageDraw.text
    monkeypatch.setattr(
        ImageDraw.ImageDraw,
        "text",
        lambda draw, xy, text, *rest: drawn.append((draw, text, rest[1])) or original(draw, xy, text, *rest),
    )
    sheet = contact_sheet([Row(name, [block(40, 30, 90)], [name])])
    for draw_, text, font in drawn:
        assert draw_.textlength(text, font) <= sheet.width - 2 * GAP
    if len(name) == 300:
        assert re.fullmatch(r"x+\.\.\.x+", drawn[0][1])


@pytest.mark.parametrize(
    ("row", "kind", "part"),
    [
        (Row("a.jpg", [], []), ValueError, "0 and 0"),
        (Row("a.jpg", [block(9, 9, 1)], ["a", "b"]), ValueError, "1 and 2"),
        (Row("a.jpg", [block(9, 9, 1).astype(float)], ["a"]), TypeError, "float64"),
        (Row("a.jpg", ["a picture"], ["a"]), TypeError, "str"),
        (Row("a.jpg", [block(9, 9, 1)[0]], ["a"]), ValueError, "[9, 3]"),
        (Row("a.jpg", [block(9, 9, 1, channels=4)], ["a"]), ValueError, "[9, 9, 4]"),
        (Row("a.jpg", [block(0, 9, 1)], ["a"]), ValueError, "[0, 9, 3]"),
    ],
)
def test_contact_sheet_refuses_what_is_no_picture(row, kind, part):
    with refused(kind, "a.jpg", part):
        contact_sheet([row])


def test_contact_sheet_of_nothing():
    with refused(ValueError, "at least one row"):
        contact_sheet([])
