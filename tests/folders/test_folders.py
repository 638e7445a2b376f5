"""Folders: what is done, skipped, named and left behind, and how much is in flight."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import RGB, needs_permissions, refused, write_weights
from PIL import Image
from serving import HOME

import fastllie
from fastllie import cli
from fastllie.folders import threads, work
from fastllie.folders.record import SUFFIX as RECORD
from fastllie.images import files

pytestmark = pytest.mark.usefixtures("random_weights")


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Twelve photographs in three folders; the working directory is above."""
    monkeypatch.chdir(tmp_path)
    for place in range(12):
        path = Path("photos", ("", "one", "one/two")[place % 3], f"{place:02}.{('png', 'jpg')[place % 2]}")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(RGB + place).save(path)
    return tmp_path / "photos"


def tree(folder):
    files = (path for path in Path(folder).rglob("*") if path.is_file() and not path.name.endswith(RECORD))
    return sorted(str(path.relative_to(folder)) for path in files)


def brighter(image):
    return 255 - image


def test_the_tree_is_mirrored(photos):
    result = fastllie.enhance_folder("photos", "out")
    assert tree("out") == tree("photos")
    assert (len(result.done), result.skipped, result.failed) == (12, [], [])
    assert sorted(map(str, result.done)) == [f"out/{name}" for name in tree("out")]
    with Image.open("out/00.png") as got:
        assert np.array_equal(np.array(got), fastllie.enhance(RGB))
    with Image.open("out/one/two/02.png") as got:
        assert np.array_equal(np.array(got), fastllie.enhance(RGB + 2))


def test_inputs_of_every_sort(photos):
    result = fastllie.enhance_folder(
        [photos / "00.png", "photos/one/0*.jpg"], Path("out"), "zerodce++", scale=2
    )
    assert tree("out") == ["00.png", "01.jpg", "07.jpg"]
    with Image.open(result.done[0]) as got:
        assert np.array_equal(np.array(got), fastllie.enhance(RGB, "zerodce++", scale=2))
    assert fastllie.enhance_folder("photos/00.png", "other", brighter).done == [Path("other/00.png")]


def test_any_callable_enhances(photos):
    fastllie.enhance_folder("photos", "a", fastllie.Enhancer())
    fastllie.enhance_folder("photos", "b", brighter)
    with Image.open("b/00.png") as got:
        assert np.array_equal(np.array(got), 255 - RGB)
    with refused(TypeError, "strength, tile: settings go with the name of a method"):
        fastllie.enhance_folder("photos", "c", brighter, strength=1, tile=2)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda x: x / 255, "the method made float64 (13, 18, 3) of uint8 (13, 18, 3)"),
        (lambda x: x[1:], "the method made uint8 (12, 18, 3) of uint8 (13, 18, 3)"),
        (Image.fromarray, "the method made Image of uint8 (13, 18, 3)"),
    ],
)
def test_a_callable_that_makes_something_else(photos, wrong, told):
    result = fastllie.enhance_folder("photos/00.png", "out", wrong)
    assert told in str(result.failed[0].error)


MODES = {
    "png": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "tif": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"),
    "jpg": ("L", "RGB", "CMYK"),
    "webp": ("RGB", "RGBA"),
    "bmp": ("1", "L", "P", "RGB"),
    "ppm": ("L", "RGB", "I;16"),
}


def of_mode(mode):
    alpha = Image.fromarray(RGB[..., 1].copy())
    grey = RGB[..., 0].astype(np.int32)
    if mode == "F":
        return Image.fromarray(grey.astype(np.float32) / 255)
    if mode in ("I", "I;16"):
        return Image.fromarray((grey * 257).astype(np.int32 if mode == "I" else np.uint16))
    if mode == "P":
        return Image.fromarray(RGB).quantize(16)
    image = Image.fromarray(RGB).convert(mode)
    if mode in ("LA", "RGBA"):
        image.putalpha(alpha)
    return image


@pytest.mark.parametrize(("suffix", "mode"), [(suffix, mode) for suffix in MODES for mode in MODES[suffix]])
def test_a_file_of_every_mode_comes_back_as_it_was(tmp_path, suffix, mode):
    lossless = {"lossless": True, "exact": True} if suffix == "webp" else {}
    of_mode(mode).save(tmp_path / f"a.{suffix}", icc_profile=b"profile", **lossless)
    with Image.open(tmp_path / f"a.{suffix}") as given:
        given.load()
    result = fastllie.enhance_folder(tmp_path / f"a.{suffix}", tmp_path / "out", quality=100)
    assert result.failed == []
    with Image.open(result.done[0]) as got:
        got.load()
    assert got.format == given.format
    assert got.mode == {"P": "RGB"}.get(given.mode, given.mode)
    assert got.size == given.size
    if suffix not in ("bmp", "ppm"):
        assert got.info["icc_profile"] == b"profile"
    if "A" in mode:
        assert got.getchannel("A").tobytes() == given.getchannel("A").tobytes()
    if suffix not in ("jpg", "webp"):
        assert np.array_equal(np.asarray(got), np.asarray(fastllie.enhance(given)))


def test_integers_become_sixteen_bits_in_png(tmp_path):
    of_mode("I").save(tmp_path / "a.tif")
    fastllie.enhance_folder(tmp_path / "a.tif", tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as got:
        assert np.array_equal(np.asarray(got), np.asarray(fastllie.enhance(of_mode("I"))))


def test_a_palette_with_transparency_keeps_its_alpha(tmp_path):
    palette = of_mode("P")
    opacity = bytes(range(0, 256, 16))
    palette.save(tmp_path / "a.png", transparency=opacity)
    fastllie.enhance_folder(tmp_path / "a.png", tmp_path / "out")
    with Image.open(tmp_path / "out" / "a.png") as got:
        assert got.mode == "RGBA"
        alpha = np.asarray(got)[..., 3]
    assert np.array_equal(alpha, np.frombuffer(opacity, np.uint8)[np.asarray(palette)])


# --- what is done is not done again


def test_what_is_done_is_skipped(photos):
    fastllie.enhance_folder("photos", "out", brighter)
    Path("out/00.png").unlink()
    times = {path: path.stat().st_mtime_ns for path in Path("out").rglob("[!.]*.*")}
    result = fastllie.enhance_folder("photos", "out", brighter)
    assert (result.done, len(result.skipped), result.failed) == ([Path("out/00.png")], 11, [])
    assert {path: path.stat().st_mtime_ns for path in times} == times
    result = fastllie.enhance_folder("photos", "out", brighter, overwrite=True)
    assert (len(result.done), result.skipped) == (12, [])


def test_an_input_that_changed_is_done_again(photos):
    fastllie.enhance_folder("photos", "out", brighter)
    later = time.time() + 60
    os.utime("photos/one/01.jpg", (later, later))
    assert fastllie.enhance_folder("photos", "out", brighter).done == [Path("out/one/01.jpg")]


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "bmp"])
@pytest.mark.parametrize("left", [0, 1, 20, -1])
def test_a_result_that_is_not_whole_is_done_again(photos, suffix, left):
    Image.fromarray(RGB).save(f"photos/a.{suffix}")
    out = Path(f"out/a.{suffix}")
    fastllie.enhance_folder("photos", "out", brighter)
    whole = out.read_bytes()
    assert files.is_complete(out)
    if suffix in ("tif", "bmp") and left == -1:
        pytest.skip("these formats have no end that could be missed")
    out.write_bytes(whole[:left])
    assert fastllie.enhance_folder("photos", "out", brighter).done == [out]
    assert out.read_bytes() == whole


def test_a_single_file_that_is_named_is_written(photos):
    for method in (brighter, fastllie.Enhancer()):
        result = fastllie.enhance_folder("photos/00.png", "out.png", method)
        assert result.done == [Path("out.png")]
    with Image.open("out.png") as got:
        assert np.array_equal(np.array(got), fastllie.enhance(RGB))


# --- what fails


def test_failures_are_named_in_order_and_the_rest_done(photos):
    for place in (0, 6):
        Path(f"photos/{place:02}.png").write_bytes(b"\x89PNG\r\n\x1a\n no")
    Path("out/one/01.jpg").mkdir(parents=True)
    seen = []
    result = fastllie.enhance_folder("photos", "out", brighter, progress=lambda *given: seen.append(given))
    assert [str(failure.source) for failure in result.failed] == [
        "photos/00.png",
        "photos/06.png",
        "photos/one/01.jpg",
    ]
    assert str(result.failed[2]) == "photos/one/01.jpg: cannot write 'out/one/01.jpg': it is a directory"
    assert isinstance(result.failed[2].error, IsADirectoryError)
    assert len(result.done) == 9
    assert [(done, total) for done, total, _ in seen] == [(place, 12) for place in range(1, 13)]
    assert [failure for *_, failure in seen if failure] == result.failed
    assert str(result) == f"9 done, 0 skipped, 3 failed, {result.seconds:.1f} s"


def test_an_enhancer_that_fails(photos):
    def picky(image):
        if image[0, 0, 0] == RGB[0, 0, 0] + 4:
            raise ZeroDivisionError("of its own kind")
        return image

    result = fastllie.enhance_folder("photos/**/*.png", "out", picky)
    assert [str(failure) for failure in result.failed] == ["photos/one/04.png: of its own kind"]
    assert len(result.done) == 5
    # an error that is kept for long holds no pixels
    assert result.failed[0].error.__traceback__ is None


@needs_permissions
def test_a_folder_that_may_not_be_read_is_named(photos):
    Path("photos/one/two").chmod(0)
    try:
        result = fastllie.enhance_folder("photos", "out", brighter)
    finally:
        Path("photos/one/two").chmod(0o700)
    assert [failure.source for failure in result.failed] == [Path("photos/one/two")]
    assert len(result.done) == 8


def test_a_folder_that_vanishes_is_named(photos, monkeypatch):
    real = os.scandir

    def scandir(path):
        if str(path).endswith("two"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    result = fastllie.enhance_folder("photos", "out", brighter)
    assert [str(failure) for failure in result.failed] == [
        "photos/one/two: [Errno 13] Permission denied: 'photos/one/two'"
    ]
    assert len(result.done) == 8


@pytest.mark.parametrize(
    ("settings", "kind", "told"),
    [
        ({"workers": 0}, ValueError, "workers must lie in 1..1024, got 0"),
        ({"workers": 1.5}, TypeError, "workers must be an integer, got 1.5"),
        ({"quality": 101}, ValueError, "quality must lie in 1..100, got 101"),
        ({"png_level": -1}, ValueError, "png_level must lie in 0..9, got -1"),
        ({"method": "zerodec"}, ValueError, "unknown method 'zerodec'"),
        ({"inputs": []}, ValueError, "no inputs: wanted image files, folders or globs"),
        ({"inputs": "photos/*.gif"}, ValueError, "no file matches 'photos/*.gif'"),
        ({"output": "photos"}, ValueError, "this would overwrite the input"),
    ],
)
def test_wrong_arguments(photos, settings, kind, told):
    with refused(kind, told):
        fastllie.enhance_folder(**({"inputs": "photos", "output": "out"} | settings))
    assert not Path("out").exists()


def test_files_of_other_kinds_have_their_own_writer(photos):
    for name in ("a.txt", "one/b.TXT", "one/bad.txt"):
        Path("photos", name).write_text(name)
    seen = []

    def write(source, target):
        if source.stem == "bad":
            raise ValueError("not this one")
        seen.append((source, threading.current_thread()))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(source.read_text().upper())

    result = fastllie.enhance_folder("photos", "out", brighter, others={".txt": write})
    assert [str(failure) for failure in result.failed] == ["photos/one/bad.txt: not this one"]
    assert len(result.done) == 14
    assert Path("out/one/b.TXT").read_text() == "ONE/B.TXT"
    assert {thread for _, thread in seen} == {threading.current_thread()}
    Path("photos/one/bad.txt").unlink()
    again = fastllie.enhance_folder("photos", "out", brighter, others={".txt": write})
    assert (len(again.skipped), again.done) == (14, [])
    assert fastllie.enhance_folder("photos/a.txt", "b.txt", others={".txt": write}).done == [Path("b.txt")]


# --- side by side


def test_decoding_and_writing_are_done_by_others_and_bounded(photos, monkeypatch):
    enhancing, reading, alive, most = set(), set(), [0], [0]
    lock = threading.Lock()
    real = work.Work.read

    def read(self, path):
        reading.add(threading.current_thread())
        with lock:
            alive[0] += 1
            most[0] = max(most[0], alive[0])
        return real(self, path)

    def enhance(image):
        enhancing.add(threading.current_thread())
        return image

    def progress(*given):
        alive[0] -= 1

    monkeypatch.setattr(work.Work, "read", read)
    fastllie.enhance_folder("photos", "out", enhance, workers=2, progress=progress)
    assert enhancing == {threading.current_thread()}
    assert threading.current_thread() not in reading
    assert len(reading) <= 2
    assert 2 <= most[0] <= 5
    assert not any(thread.is_alive() for thread in reading)
    # enormous images: two at a time
    monkeypatch.setattr(threads, "MOST_PIXELS", RGB.size // 3)
    most[0] = 0
    fastllie.enhance_folder("photos", "other", enhance, workers=4, progress=progress)
    assert most[0] <= 2


def test_threads_are_left_as_they_were(photos):
    before = torch.get_num_threads()
    fastllie.enhance_folder("photos", "out")
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(("computing", "want"), [(0.001, 1), (0.12, 4)])
def test_threads_follow_the_share_of_the_work(photos, computing, want):
    def busy(seconds):
        begin = time.thread_time()
        while time.thread_time() - begin < seconds:
            pass

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        balance = threads.Balance()
        balance.timed(busy, 0.01)
        for _ in range(2):
            with balance.enhancing():
                busy(computing)
        assert torch.get_num_threads() == want
        balance.close()
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)


# --- stopped


def test_an_interrupt_leaves_nothing_half_done(photos):
    count = [0]

    def enhance(image):
        count[0] += 1
        if count[0] == 5:
            raise KeyboardInterrupt
        return image

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        fastllie.enhance_folder("photos", "out", enhance)
    assert threading.active_count() == before
    written = tree("out")
    assert 1 <= len(written) <= 5
    assert all(files.is_complete(f"out/{name}") for name in written)
    result = fastllie.enhance_folder("photos", "out", enhance)
    assert len(result.skipped) == len(written)
    assert len(result.done) == 12 - len(written)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
@pytest.mark.parametrize("stop", ["SIGINT", "SIGKILL"])
def test_the_command_can_be_stopped_and_started_again(photos, stop):
    large = Image.fromarray(RGB).resize((900, 700))
    for place in range(60):
        large.save(photos / f"large{place}.jpg")
    given = write_weights(photos.parent / "w.safetensors", "zerodce")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HOME), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "fastllie", "enhance", "photos", "-o", "out", "--weights", str(given)]
    run = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while len(list(Path("out").rglob("[!.]*.*"))) < 5 and time.monotonic() < end and run.poll() is None:
        time.sleep(0.02)
    run.send_signal(getattr(signal, stop))
    _, err = run.communicate(timeout=60)
    written = [name for name in tree("out") if not name.endswith(".part")]
    assert 5 <= len(written) < 72
    assert all(files.is_complete(f"out/{name}") for name in written)
    if stop == "SIGINT":
        assert run.returncode == 130
        assert err.splitlines() == ["fastllie enhance: stopped; the same command does the rest"]
        assert written == tree("out")
    # a few of the rest say what all would
    rest = [place for place in range(60) if f"large{place}.jpg" not in written]
    for place in rest[3:]:
        (photos / f"large{place}.jpg").unlink()
    result = fastllie.enhance_folder("photos", "out", "zerodce", weights=given)
    assert len(result.skipped) == len(written)
    assert len(result.done) == 72 - len(written) - len(rest[3:])


def test_what_a_killed_run_left_goes_away(photos):
    Path("out/one").mkdir(parents=True)
    for name in (".a.png.123.part", "one/.b.jpg.9.part"):
        Path("out", name).write_bytes(b"half")
        os.utime(Path("out", name), (0, 0))
    Path("out/.c.png.7.part").write_bytes(b"somebody is writing this now")
    Path("out/mine.part").write_bytes(b"no name of ours")
    os.utime("out/mine.part", (0, 0))
    fastllie.enhance_folder("photos", "out", brighter)
    assert sorted(set(tree("out")) - set(tree("photos"))) == [".c.png.7.part", "mine.part"]


# --- the command


def test_the_summary(photos, capsys):
    assert cli.main(["enhance", "photos", "-o", "out"]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("fastllie enhance: 12 done, 0 skipped, 0 failed, ")
    assert cli.main(["enhance", "photos", "-o", "out"]) == 0
    err = capsys.readouterr().err
    assert err.startswith("fastllie enhance: 0 done, 12 skipped, 0 failed, ")
    assert err.endswith(" (--overwrite makes the skipped ones again)\n")
    assert cli.main(["enhance", "photos", "-o", "out", "--overwrite", "--workers", "1"]) == 0
    assert capsys.readouterr().err.startswith("fastllie enhance: 12 done, 0 skipped, 0 failed, ")
    assert cli.main(["enhance", "photos", "-o", "out", "--workers", "0"]) == 2
    assert "workers must lie in 1..1024, got 0" in capsys.readouterr().err


def test_quality_and_level(photos):
    Image.fromarray(RGB).resize((200, 160)).save("a.png")
    sizes = {}
    for place, flags in enumerate([[], ["--png-level", "9"], ["--png-level", "0"]]):
        assert cli.main(["enhance", "a.png", "-o", f"{place}.png", *flags]) == 0
        sizes[place] = Path(f"{place}.png").stat().st_size
    assert sizes[1] < sizes[0] < sizes[2]
    assert cli.main(["enhance", "a.png", "-o", "a.jpg"]) == 0
    assert cli.main(["enhance", "a.png", "-o", "b.jpg", "--quality", "30"]) == 0
    assert Path("b.jpg").stat().st_size < Path("a.jpg").stat().st_size / 2
