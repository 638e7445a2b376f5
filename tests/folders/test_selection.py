"""What of a folder is read, what is left alone, and under which names the results stand."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import RGB, refused
from PIL import Image
from serving import HOME

import fastllie
from fastllie import cli
from fastllie.folders.jobs import plan
from fastllie.images.files import RefusedError
from fastllie.images.reading import read


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("in/deep").mkdir(parents=True)
    for name in ("in/a.jpg", "in/deep/b.png"):
        Image.fromarray(RGB).save(name)


def same(image):
    return image


def done(**settings):
    result = fastllie.enhance_folder("in", "out", same, **settings)
    assert result.failed == []
    return sorted(str(path.relative_to("out")) for path in result.done), result


def test_hidden_files_are_left_alone_and_counted():
    Path("in/.thumbnails").mkdir()
    Image.fromarray(RGB).save("in/.thumbnails/t.jpg")
    Path("in/._a.jpg").write_bytes(b"\0\5\x16\7 no photograph")
    names, result = done()
    assert names == ["a.jpg", "deep/b.png"]
    assert result.passed_over == {"hidden": [Path("in/._a.jpg"), Path("in/.thumbnails")]}
    assert str(result).endswith(" s; left alone: 2 hidden")
    result = fastllie.enhance_folder("in", "all", same, hidden=True)
    assert Path("all/.thumbnails/t.jpg") in result.done
    assert [failure.source for failure in result.failed] == [Path("in/._a.jpg")]
    # what is named is meant
    assert fastllie.enhance_folder("in/.thumbnails", "small", same).done == [Path("small/t.jpg")]


def test_unknown_kinds_are_counted(capsys):
    for name in ("a.xmp", "notes.txt", "deep/more.TXT", "README"):
        Path("in", name).write_text("words")
    _, result = done()
    assert {kind: len(paths) for kind, paths in result.passed_over.items()} == {
        ".xmp": 1,
        ".txt": 2,
        "without a suffix": 1,
    }
    assert cli.main(["enhance", "in/deep", "-o", "out2"]) == 0
    assert "; left alone: 1 .txt\n" in capsys.readouterr().err
    Path("words").mkdir()
    Path("words/a.txt").write_text("words")
    with refused(ValueError, "the folder 'words' holds no images", "it holds 1 .txt"):
        fastllie.enhance_folder("words", "out3", same)


def test_links_are_followed_once():
    Path("elsewhere").mkdir()
    Image.fromarray(RGB).save("elsewhere/c.jpg")
    os.symlink("../elsewhere", "in/more")
    os.symlink("../elsewhere", "in/again")
    os.symlink(".", "in/round")
    os.symlink("gone.jpg", "in/broken.jpg")
    os.symlink("../elsewhere/c.jpg", "in/d.jpg")
    names, result = done()
    assert names == ["a.jpg", "again/c.jpg", "d.jpg", "deep/b.png"]
    assert result.passed_over == {"broken link": [Path("in/broken.jpg")]}
    result = fastllie.enhance_folder("in", "near", same, follow=False)
    assert {kind: len(paths) for kind, paths in result.passed_over.items()} == {
        "broken link": 1,
        "link to a folder": 3,
    }
    assert len(result.done) == 3
    assert cli.main(["enhance", "in", "-o", "near2", "--no-follow"]) == 0
    assert not Path("near2/again").exists()


def test_a_long_name():
    name = "x" * 246 + ".jpg"
    Image.fromarray(RGB).save(f"in/{name}")
    assert name in done()[0]


@pytest.mark.parametrize("suffix", ["jpg", "bmp", "webp"])
def test_a_wrong_suffix_costs_nothing(suffix):
    image = Image.fromarray(RGB).convert("RGBA")
    image.putalpha(Image.fromarray(RGB[..., 0].copy()))
    image.save(f"in/wrong.{suffix}", "PNG")
    done()
    with Image.open(f"out/wrong.{suffix}") as got:
        assert got.format == "PNG"
        assert np.array_equal(np.asarray(got), np.asarray(image))
    assert f"out/wrong.{suffix}" in map(str, fastllie.enhance_folder("in", "out", same).skipped)


def test_another_format():
    names, _ = done(format="png")
    assert names == ["a.png", "deep/b.png"]
    assert cli.main(["enhance", "in", "-o", "out2", "--format", ".TIFF"]) == 0
    assert read("out2/a.tiff").stored.format == "TIFF"
    with refused(ValueError, "cannot write 'pngg': wanted one of .jpg"):
        done(format="pngg")
    # two of one name have both their own
    Image.fromarray(RGB).save("in/a.bmp")
    result = fastllie.enhance_folder("in", "out3", same, format="png")
    assert sorted(path.name for path in result.done) == ["a.bmp.png", "a.jpg.png", "b.png"]


@pytest.mark.parametrize("name", ["bright.jpgg", "bright.cr2", "bright.psd", "folder/bright.svg"])
def test_an_unknown_suffix_of_the_output_is_an_error_before_any_work(name, capsys):
    assert cli.main(["enhance", "in/a.jpg", "-o", name]) == 2
    err = capsys.readouterr().err
    assert f"cannot write '{name}': wanted a suffix of .jpg, .jpeg, " in err
    assert not Path(name).exists()
    assert not Path("folder").exists()


def test_what_is_meant_as_a_folder_is_one():
    for output in ("results.v2/", "plain"):
        assert len(plan(["in/a.jpg"], output).jobs) == 1
    assert plan(["in"], "results.v2").jobs[0] == (Path("in/a.jpg"), Path("results.v2/a.jpg"))
    Path("there.v3").mkdir()
    assert plan(["in/a.jpg"], "there.v3").jobs == [(Path("in/a.jpg"), Path("there.v3/a.jpg"))]


def test_the_most_pixels(capsys):
    few = RGB.shape[0] * RGB.shape[1]
    with refused(RefusedError, "'in/a.jpg' has 18x13 pixels, and 233 are taken; give a larger max_pixels"):
        fastllie.Enhancer(max_pixels=few - 1)("in/a.jpg")
    fastllie.Enhancer(max_pixels=few)("in/a.jpg")
    assert cli.main(["enhance", "in", "-o", "out", "--max-pixels", "9"]) == 1
    assert capsys.readouterr().err.count("(--max-pixels) if you trust it") == 2
    before = Image.MAX_IMAGE_PIXELS
    try:
        # what users have set counts, and stays as it was
        Image.MAX_IMAGE_PIXELS = 10
        with refused(ValueError, "'in/a.jpg': Image size (234 pixels) exceeds limit", "larger max_pixels"):
            read("in/a.jpg")
        assert read("in/a.jpg", max_pixels=few).size == (18, 13)
        Image.MAX_IMAGE_PIXELS = None
        assert read("in/a.jpg").size == (18, 13)
        assert Image.MAX_IMAGE_PIXELS is None
    finally:
        Image.MAX_IMAGE_PIXELS = before


def test_pictures_between_pillows_limit_and_ours(tmp_path):
    """200 megapixels, in a process of its own: one byte a pixel."""
    code = (
        "from PIL import Image; before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None;"
        "image = Image.new('1', (16320, 12240));"
        "image.save('large.png'); image.save('large.tif'); Image.MAX_IMAGE_PIXELS = before;"
        "import warnings; warnings.simplefilter('error'); from fastllie.images.reading import read;"
        "print([read(name).size for name in ('large.png', 'large.tif')])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HOME), os.environ.get("PYTHONPATH", "")])},
    )
    assert run.stdout == "[(16320, 12240), (16320, 12240)]\n"


def test_a_progressive_photograph_with_a_film_behind():
    large = Image.new("RGB", (4000, 3000), (9, 9, 9))
    large.save("in/film.jpg", progressive=True)
    content = Path("in/film.jpg").read_bytes()
    # as often as in hundreds of megabytes of film
    Path("in/film.jpg").write_bytes(content + b"\0\0\0\x18ftypmp42" + b"\xff\xda" * 400)
    _, result = done()
    assert [str(note) for note in result.notes] == ["in/film.jpg: left out: the film behind the picture"]
