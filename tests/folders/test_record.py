"""A folder's results know what made them: other settings make them again, and never pass for done."""

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import needs_permissions, ship_random_weights, write_weights
from PIL import Image

import fastllie
from fastllie.cli import main
from fastllie.folders.record import Record, beside


@pytest.fixture(autouse=True)
def photos(tmp_path, monkeypatch):
    """Three photographs in `in/`, and weights that need no training."""
    (tmp_path / "weights").mkdir()
    ship_random_weights(tmp_path / "weights", monkeypatch)
    monkeypatch.chdir(tmp_path)
    os.mkdir("in")
    pixels = np.random.default_rng(0).integers(0, 90, (3, 14, 19, 3), dtype=np.uint8)
    for number, picture in enumerate(pixels):
        Image.fromarray(picture).save(f"in/{number}.png")


def pictures(folder):
    return {path.name: np.asarray(Image.open(path)).tolist() for path in Path(folder).glob("*.png")}


def counts(result):
    return len(result.done), len(result.remade), len(result.skipped)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("sci", {}), ("zerodce", {})),
        (("zerodce++", {}), ("zerodce++", {"scale": 2})),
        (("zerodce", {}), ("zerodce", {"strength": 0.5})),
        (("zerodce", {}), ("zerodce", {"compare": True})),
    ],
)
def test_other_settings_make_the_results_again(first, second):
    fastllie.enhance_folder("in", "fresh", second[0], **second[1])
    assert counts(fastllie.enhance_folder("in", "out", first[0], **first[1])) == (3, 0, 0)
    assert pictures("out") != pictures("fresh")
    assert counts(fastllie.enhance_folder("in", "out", first[0], **first[1])) == (0, 0, 3)
    again = fastllie.enhance_folder("in", "out", second[0], **second[1])
    assert counts(again) == (3, 3, 0)
    assert str(again).startswith("3 done (3 had other settings), 0 skipped")
    assert pictures("out") == pictures("fresh")
    assert counts(fastllie.enhance_folder("in", "out", second[0], **second[1])) == (0, 0, 3)


def test_weights_are_known_by_what_is_in_them():
    write_weights("own.safetensors", "zerodce", seed=1)
    fastllie.enhance_folder("in", "out", "zerodce", weights="own.safetensors")
    os.mkdir("elsewhere")
    shutil.copy("own.safetensors", "elsewhere")
    moved = fastllie.enhance_folder("in", "out", "zerodce", weights="elsewhere/own.safetensors", tile=64)
    assert counts(moved) == (0, 0, 3)  # nor do tiles change what comes out
    write_weights("own.safetensors", "zerodce", seed=2)
    assert counts(fastllie.enhance_folder("in", "out", "zerodce", weights="own.safetensors")) == (3, 3, 0)


def test_functions_are_known_by_their_names():
    def dark(picture):
        return picture // 2

    def black(picture):
        return picture * 0

    fastllie.enhance_folder("in", "out", dark)
    assert counts(fastllie.enhance_folder("in", "out", dark)) == (0, 0, 3)
    assert counts(fastllie.enhance_folder("in", "out", black)) == (3, 3, 0)
    assert not np.any(list(pictures("out").values()))


def test_each_file_has_its_own_settings():
    fastllie.enhance_folder("in/0.png", "out/", "sci")
    os.rename("in/0.png", "0.png")
    fastllie.enhance_folder("in", "out", "zerodce")
    os.rename("0.png", "in/0.png")
    assert counts(fastllie.enhance_folder("in", "out", "zerodce")) == (1, 1, 2)


def test_what_nobody_wrote_down_is_left_alone():
    os.mkdir("out")
    Image.new("RGB", (19, 14)).save("out/0.png")
    assert counts(fastllie.enhance_folder("in", "out", "sci")) == (2, 0, 1)
    assert not np.any(pictures("out")["0.png"])


def test_a_run_may_end_at_any_moment():
    target = Path("out/0.png")
    target.parent.mkdir()
    settings = {"method": "sci"}, {"method": "zerodce"}
    sci, zerodce = (Record(Path("out"), one) for one in settings)
    sci.begin(target)
    Image.new("RGB", (2, 2)).save(target)
    zerodce.begin(target)
    zerodce.close()
    # killed before it wrote: what stands there is not zerodce's
    assert Record(Path("out"), {"method": "zerodce"}).made_by_others(target)
    os.utime(target, ns=(0, target.stat().st_mtime_ns + 1))
    # killed after it wrote
    assert not Record(Path("out"), {"method": "zerodce"}).made_by_others(target)
    assert Record(Path("out"), {"method": "sci"}).made_by_others(target)
    # a line that was cut off says nothing, and takes none that follows with it
    with open(beside(Path("out")), "a") as file:
        file.write('{"file": "1.png", "by": "')
    late = Record(Path("out"), {"method": "sci"})
    late.begin(Path("out/2.png"))
    late.close()
    assert Record(Path("out"), {"method": "zerodce"}).made_by_others(Path("out/2.png"))
    assert not Record(Path("out"), {"method": "zerodce"}).made_by_others(Path("out/1.png"))


def test_the_record_is_for_people_too():
    fastllie.enhance_folder("in", "out", "zerodce++", scale=3, strength=0.8)
    lines = [json.loads(line) for line in beside(Path("out")).read_text().splitlines() if line]
    told = lines[0]["settings"]
    assert (told["method"], told["options"], told["strength"]) == ("zerodce++", {"scale": 3}, 0.8)
    assert [line["file"] for line in lines[1:]] == ["0.png", "1.png", "2.png"]
    # as an input, the folder holds pictures and nothing else
    assert fastllie.enhance_folder("out", "twice").passed_over == {}
    # a file that was named stands in its owner's folder, which gets no record
    fastllie.enhance_folder("in/0.png", "in/bright.png")
    assert not beside(Path("in")).exists()
    # nor does the record count among what lies beside it
    weights = sorted(Path("weights").iterdir())
    assert fastllie.enhance_folder(".", "all").passed_over == {".safetensors": weights}


def test_a_folder_with_a_name_as_long_as_names_get_has_a_record():
    long = "ü" * 127
    assert counts(fastllie.enhance_folder("in", long, "sci")) == (3, 0, 0)
    assert counts(fastllie.enhance_folder("in", long, "zerodce")) == (3, 3, 0)


def test_a_record_that_cannot_be_written_is_said(caplog):
    Path("wall").write_text("a file where a folder should be")
    result = fastllie.enhance_folder("in", "wall/out", "sci")
    assert len(result.failed) == 3
    assert caplog.text.count("what made the results cannot be written down") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes on Linux alone")
def test_names_that_are_no_text_are_written_down():
    os.rename("in/0.png", "in/\udcff.png")
    assert counts(fastllie.enhance_folder("in", "out", "sci")) == (3, 0, 0)
    assert counts(fastllie.enhance_folder("in", "out", "zerodce")) == (3, 3, 0)


@needs_permissions
def test_where_nothing_may_be_written_beside_the_folder_the_record_is_in_it():
    os.makedirs("locked/out")
    os.chmod("locked", 0o500)
    assert counts(fastllie.enhance_folder("in", "locked/out", "sci")) == (3, 0, 0)
    assert counts(fastllie.enhance_folder("in", "locked/out", "zerodce")) == (3, 3, 0)


def test_the_command_line_says_so(capsys):
    assert main(["enhance", "in", "-o", "out", "--method", "sci"]) == 0
    assert main(["enhance", "in", "-o", "out", "--method", "zerodce"]) == 0
    assert "3 done (3 had other settings), 0 skipped" in capsys.readouterr().err
