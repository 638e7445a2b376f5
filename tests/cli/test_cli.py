"""The command line: what it writes, what it says, and what it leaves behind when something fails."""

import io
import json
import os
import subprocess
import sys
import time
from functools import partial
from itertools import chain, repeat
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import RGB, dng, needs_permissions, write_weights
from PIL import Image
from serving import HOME

import fastllie
from fastllie import cli
from fastllie.cli import doctor
from fastllie.cli.common import Progress
from fastllie.folders.record import SUFFIX as RECORD
from fastllie.images import writing
from fastllie.images.reading import read

pytestmark = pytest.mark.usefixtures("random_weights")

# the copy of fastllie that these tests run on, for processes of their own


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Two photographs in a folder, one below it, and a text file; the working directory is above."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    Image.fromarray(RGB).save(folder / "a.png")
    Image.fromarray(RGB[::-1].copy()).save(folder / "b.jpg", quality=95)
    Image.fromarray(RGB[:, ::-1].copy()).save(folder / "below" / "c.PNG")
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture
def quick(monkeypatch):
    """The kernels of the CPU alone are compared; tests/ops compare them all, Triton's interpreter too."""
    monkeypatch.setattr(fastllie.ops, "self_test", partial(fastllie.ops.self_test, "cpu"))


def tree(folder):
    files = (path for path in Path(folder).rglob("*") if path.is_file() and not path.name.endswith(RECORD))
    return sorted(str(path.relative_to(folder)) for path in files)


def pixels(path):
    with Image.open(path) as image:
        return np.array(image)


# --- enhance


def test_a_file_to_a_file(photos, capsys):
    assert cli.main(["enhance", "photos/a.png", "-o", "new/bright.png"]) == 0
    assert np.array_equal(pixels("new/bright.png"), fastllie.enhance(RGB))
    assert capsys.readouterr() == ("", "")


def test_a_file_to_a_folder(photos):
    assert cli.main(["enhance", "photos/a.png", "-o", "out"]) == 0
    assert tree("out") == ["a.png"]
    (photos.parent / "named.png").mkdir()
    assert cli.main(["enhance", "photos/a.png", "-o", "named.png"]) == 0
    assert tree("named.png") == ["a.png"]


def test_a_folder_keeps_its_structure(photos):
    assert cli.main(["enhance", "photos", "-o", "out"]) == 0
    assert tree("out") == ["a.png", "b.jpg", "below/c.PNG"]
    assert np.array_equal(pixels("out/below/c.PNG"), fastllie.enhance(RGB[:, ::-1]))


def test_results_of_an_earlier_run_are_no_inputs(photos):
    for _ in range(2):
        assert cli.main(["enhance", "photos", "-o", "photos/out"]) == 0
    assert tree("photos/out") == ["a.png", "b.jpg", "below/c.PNG"]
    # a folder above the input is no such thing
    assert cli.main(["enhance", "photos/below", "-o", "photos"]) == 0
    assert (photos / "c.PNG").exists()


def test_globs(photos):
    assert cli.main(["enhance", "photos/*.png", "-o", "flat"]) == 0
    assert tree("flat") == ["a.png"]
    assert cli.main(["enhance", "photos/**/*.[pP][nN][gG]", "-o", "deep"]) == 0
    assert tree("deep") == ["a.png", "below/c.PNG"]


def test_options_reach_the_method(photos):
    arguments = ["enhance", "photos/a.png", "-o", "out.png", "--method", "zerodce++", "--option", "scale=3"]
    assert cli.main([*arguments, "--strength", "0.5", "--tile", "none", "--device", "cpu"]) == 0
    want = fastllie.enhance(RGB, "zerodce++", scale=3, strength=0.5)
    assert np.array_equal(pixels("out.png"), want)


def test_weights_and_tiles(photos):
    other = write_weights(photos.parent / "other.safetensors", "zerodce", seed=5)
    assert cli.main(["enhance", "photos/a.png", "-o", "out.png", "--weights", str(other), "--tile", "9"]) == 0
    assert np.array_equal(pixels("out.png"), fastllie.enhance(RGB, "zerodce", weights=other, tile=9))


def test_the_dtype_is_that_of_the_flag(photos, capsys):
    arguments = ["enhance", "photos", "-o", "out", "--method", "sci"]
    assert cli.main([*arguments, "--dtype", "bfloat16"]) == 0
    want = fastllie.enhance(RGB, "sci", dtype=torch.bfloat16)
    assert np.array_equal(pixels("out/a.png"), want)
    exact = fastllie.enhance(RGB, "sci")
    assert not np.array_equal(want, exact)
    capsys.readouterr()
    # what another dtype made is made again
    assert cli.main(arguments) == 0
    assert " 0 skipped, 0 failed" in capsys.readouterr().err
    assert np.array_equal(pixels("out/a.png"), exact)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "I;16"])
def test_compare_is_before_and_after(photos, mode):
    image = (
        Image.fromarray(RGB[..., 0].astype(np.uint16) * 257)
        if mode == "I;16"
        else Image.fromarray(RGB).convert(mode)
    )
    image.save("in.png")
    assert cli.main(["enhance", "in.png", "-o", "out.png", "--compare"]) == 0
    both = pixels("out.png")
    assert np.array_equal(both[:, : image.width], np.array(image))
    assert np.array_equal(both[:, image.width :], np.array(fastllie.enhance(image)))


def test_metadata_is_carried(photos):
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "Maker"
    Image.fromarray(RGB).save("turned.jpg", exif=exif, icc_profile=b"profile", quality=95)
    for suffix in ("jpg", "png", "webp", "tif"):
        assert cli.main(["enhance", "turned.jpg", "-o", f"out.{suffix}"]) == 0
        with Image.open(f"out.{suffix}") as image:
            assert image.size == RGB.shape[:2]
            assert image.info["icc_profile"] == b"profile"
            assert image.getexif()[0x010F] == "Maker"
            assert image.getexif().get(0x0112, 1) == 1


def test_jpeg_is_written_at_quality_95(photos):
    assert cli.main(["enhance", "photos/b.jpg", "-o", "out.jpg"]) == 0
    want = fastllie.enhance("photos/b.jpg")
    want.save("want.jpg", quality=95)
    with Image.open("out.jpg") as got, Image.open("want.jpg") as expected:
        assert got.quantization == expected.quantization


def test_a_file_may_be_its_own_output(photos):
    assert cli.main(["enhance", "photos/a.png", "-o", "photos/a.png"]) == 0
    assert np.array_equal(pixels(photos / "a.png"), fastllie.enhance(RGB))


# --- without a word more than needed


def test_the_command_alone_is_help(capsys):
    assert cli.main([]) == 0
    told = capsys.readouterr()
    assert told.out.startswith("usage: fastllie")
    assert "enhance" in told.out
    assert told.err == ""


def test_without_an_output_the_result_lies_beside_its_input(photos, capsys, monkeypatch):
    assert cli.main(["enhance", "photos/a.png"]) == 0
    assert np.array_equal(pixels("photos/a-bright.png"), fastllie.enhance(RGB))
    assert capsys.readouterr().err == f"fastllie enhance: wrote {Path('photos/a-bright.png')}\n"
    assert cli.main(["enhance", "photos/", "-q"]) == 0
    assert tree("photos-bright") == ["a-bright.png", "a.png", "b.jpg", "below/c.PNG"]
    assert capsys.readouterr() == ("", "")
    monkeypatch.chdir("photos")
    assert cli.main(["enhance", "."]) == 0
    assert "0 done, 4 skipped" in capsys.readouterr().err
    monkeypatch.chdir("..")
    assert cli.main(["enhance", "photos/a.png", "photos/b.jpg"]) == 2
    assert "-o is missing: several inputs want a folder" in capsys.readouterr().err


class Pipe:
    """Bytes in the place of a stream."""

    def __init__(self, content=b""):
        self.buffer = io.BytesIO(content)


def test_what_is_read_only_becomes_something_else(photos, capsys, monkeypatch):
    pytest.importorskip("rawpy")
    dng(Path("x.dng"), np.full((64, 96), 1000, np.uint16), 4000)
    Path("renamed.tif").write_bytes(Path("x.dng").read_bytes())
    assert cli.main(["enhance", "x.dng"]) == 0
    assert capsys.readouterr().err == "fastllie enhance: wrote x-bright.tif (.dng is read only)\n"
    assert read("x-bright.tif").values.dtype == np.uint16
    assert cli.main(["enhance", "renamed.tif"]) == 0
    assert read("renamed-bright.tif").size == read("x-bright.tif").size
    assert cli.main(["enhance", "-q", "x.dng", "--format", "png"]) == 0
    assert np.array_equal(read("x-bright.png").values, read("x-bright.tif").values)
    out = Pipe()
    monkeypatch.setattr(sys, "stdin", Pipe(Path("x.dng").read_bytes()))
    monkeypatch.setattr(sys, "stdout", out)
    assert cli.main(["enhance", "-q", "-"]) == 0
    assert out.buffer.getvalue() == Path("x-bright.tif").read_bytes()
    assert cli.main(["enhance", "x.dng", "-o", "x.png", "--format", "jpg"]) == 2
    assert "'x.png' is no file of the format 'jpg'" in capsys.readouterr().err
    assert cli.main(["enhance", "*.dng"]) == 2
    assert "several inputs want a folder" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_pipes(photos, monkeypatch, suffix):
    Image.fromarray(RGB).save(f"in.{suffix}")
    assert cli.main(["enhance", f"in.{suffix}", "-o", f"out.{suffix}"]) == 0
    for arguments in (["-", "-o", "-"], ["-"], [f"in.{suffix}", "-o", "-"]):
        out = Pipe()
        monkeypatch.setattr(sys, "stdin", Pipe(Path(f"in.{suffix}").read_bytes()))
        monkeypatch.setattr(sys, "stdout", out)
        assert cli.main(["enhance", "-q", *arguments]) == 0
        assert out.buffer.getvalue() == Path(f"out.{suffix}").read_bytes()
    monkeypatch.setattr(sys, "stdin", Pipe(Path(f"in.{suffix}").read_bytes()))
    assert cli.main(["enhance", "-", "-o", f"piped.{suffix}"]) == 0
    assert Path(f"piped.{suffix}").read_bytes() == Path(f"out.{suffix}").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["-", "photos/a.png", "-o", "out"], "- is stdin, and goes alone"),
        (["photos", "-o", "-"], "-o - is stdout, for one input file"),
        (["photos/a.png", "-o", "-", "--json"], "-o - and --json both want stdout"),
        (["-", "-o", "out.png"], "stdin: 4 bytes that are no image"),
    ],
)
def test_pipes_that_cannot_be_meant(photos, monkeypatch, capsys, arguments, told):
    monkeypatch.setattr(sys, "stdin", Pipe(b"text"))
    assert cli.main(["enhance", *arguments]) == 2
    assert told in capsys.readouterr().err


def test_options_of_methods_are_flags(photos, capsys):
    arguments = ["enhance", "photos/a.png", "-o", "out.png"]
    assert cli.main([*arguments, "--method", "zerodce++", "--scale", "3"]) == 0
    assert np.array_equal(pixels("out.png"), fastllie.enhance(RGB, "zerodce++", scale=3))
    assert cli.main([*arguments, "--method", "sci", "--scale", "3"]) == 2
    assert "sci has no option 'scale'; its options are: " in capsys.readouterr().err


@pytest.mark.parametrize("method", fastllie.list_methods())
def test_the_method_is_that_of_the_weights(photos, method):
    weights = write_weights(photos.parent / "w.safetensors", method, seed=5)
    assert cli.main(["enhance", "photos/a.png", "-o", "out.png", "--weights", str(weights)]) == 0
    assert np.array_equal(pixels("out.png"), fastllie.enhance(RGB, method, weights=weights))


def test_the_method_is_that_of_the_variant(photos):
    assert cli.main(["enhance", "photos/a.png", "-o", "out.png", "--weights", "mild"]) == 0
    assert np.array_equal(pixels("out.png"), fastllie.enhance(RGB, "sci", weights="mild"))


def test_json(photos, capsys, quick):
    Path("broken.jpg").write_bytes(b"no image")
    assert cli.main(["enhance", "photos/a.png", "broken.jpg", "-o", "out", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["done"] == [str(Path("out/a.png"))]
    assert told["failed"][0]["source"] == "broken.jpg"
    assert "is not an image" in told["failed"][0]["error"]
    assert cli.main(["methods", "--json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == fastllie.list_methods()
    assert cli.main(["methods", "sci", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["weights"][0]["name"] == "strong"
    assert cli.main(["doctor", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["versions"]["fastllie"] == fastllie.__version__
    assert told["serving"]["cpu"] == fastllie.ops.default_backend("cpu")
    assert told["problems"] == 0


def test_the_help_of_a_method_says_what_its_fields_mean(capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "sci", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "--learning-rate VALUE" in told
    assert "(default: 0.0003)" in told
    assert "of the official recipe of sci" in told
    assert "--text-loss" not in told
    # every field can be given all the same, and is refused by the recipe that has it not
    assert cli.main(["train", "sci", "none", "-o", "run", "--text-loss", "clip"]) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["enhance", "a.png", "-o", "b.png", "--method", "zerodec"],
        ["enhance", "a.png", "-o", "b.png", "--method", "sci", "--scale", "2"],
        ["enhance", "a.png", "-o", "b.png", "--strenght", "1"],
        ["enhance", "a.png", "-o", "b.png", "--dtype", "float8"],
        ["enhance", "a.png", "b.png"],
        ["brighten", "a.png"],
        ["train", "sci", "photos", "-o", "run", "--learning-rte", "1"],
        ["methods", "zero"],
    ],
)
def test_a_wrong_command_line_does_not_wait_for_pytorch(arguments):
    code = (
        "import sys; from fastllie import cli\n"
        f"try: code = cli.main({arguments!r})\n"
        "except SystemExit as stop: code = stop.code\n"
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=HOME, check=False)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert "Traceback" not in done.stderr


# --- what fails


def test_failed_files_are_named_and_the_others_done(photos, capsys):
    (photos / "broken.jpg").write_bytes((photos / "b.jpg").read_bytes()[:300])
    (photos / "text.png").write_text("no image")
    assert cli.main(["enhance", "photos", "missing.png", "-o", "out"]) == 1
    assert tree("out") == ["a.png", "b.jpg", "below/c.PNG"]
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 4
    assert lines[0].startswith(
        "fastllie enhance: photos/broken.jpg: the image 'photos/broken.jpg' is damaged"
    )
    assert lines[1] == (
        "fastllie enhance: photos/text.png: 'photos/text.png' is not an image that Pillow can read"
    )
    assert lines[2] == "fastllie enhance: missing.png: no such image file: 'missing.png'"
    assert lines[3].startswith("fastllie enhance: 3 done, 0 skipped, 3 failed, ")


def test_outputs_that_cannot_be_written(photos, capsys):
    Path("wall").write_text("a file where a folder should be")
    assert cli.main(["enhance", "photos/a.png", "photos/b.jpg", "-o", "wall/out"]) == 1
    err = capsys.readouterr().err
    assert "photos/a.png: " in err
    assert "photos/b.jpg: " in err
    assert "wall" in err
    Image.fromarray(RGB).convert("RGBA").save("clear.png")
    assert cli.main(["enhance", "clear.png", "-o", "clear.jpg"]) == 0
    assert capsys.readouterr().err == "fastllie enhance: clear.png: left out: alpha\n"
    assert Path("clear.jpg").exists()
    assert [name for name in os.listdir() if "part" in name] == []


@needs_permissions
def test_a_folder_without_permission(photos, capsys):
    Path("locked").mkdir(mode=0o500)
    assert cli.main(["enhance", "photos/a.png", "-o", "locked"]) == 1
    assert "cannot write 'locked/a.png': Permission denied" in capsys.readouterr().err


def test_nothing_half_written_is_left(photos, monkeypatch, capsys):
    Path("out.png").write_bytes(b"what was there before")

    def full(*arguments):
        yield b"half"
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing, "_encoded", lambda *arguments: (full(), []))
    assert cli.main(["enhance", "photos/a.png", "-o", "out.png"]) == 1
    assert "cannot write 'out.png': No space left on device" in capsys.readouterr().err
    assert Path("out.png").read_bytes() == b"what was there before"
    assert sorted(os.listdir()) == ["out.png", "photos"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["photos", "-o", "photos"], "this would overwrite the input 'photos/a.png': give another folder"),
        (["photos/a.png", "-o", "photos"], "this would overwrite the input 'photos/a.png'"),
        (["photos", "-o", "out.png"], "'out.png' is one file, but there are 3 inputs: give a folder"),
        (["photos/a.png", "photos/b.jpg", "-o", "o.png"], "'o.png' is one file, but there are 2 inputs"),
        (["photos/below", "-o", "out.png"], "'out.png' is one file, but there are 1 inputs: give a folder"),
        (["photos/a.png", "other/a.png", "-o", "out"], "would both be written to 'out/a.png'"),
        (["photos/*.gif", "-o", "out"], "no file matches 'photos/*.gif'"),
        (["empty", "-o", "out"], "the folder 'empty' holds no images (.jpg, .jpeg"),
        (
            ["photos/a.png", "-o", "photos/notes.txt"],
            "'photos/notes.txt' is a file that is no image: give a folder",
        ),
        (["photos", "-o", "out", "--method", "zerodec"], "unknown method 'zerodec'; did you mean 'zerodce'"),
        (["photos", "-o", "out", "--weights", "no.pth"], "no such weight file: 'no.pth'"),
        (["photos", "-o", "out", "--device", "gpu"], "unknown device 'gpu'"),
        (["photos", "-o", "out", "--strength", "2"], "strength must lie in [0, 1], got 2.0"),
        (["photos", "-o", "out", "--tile", "0"], "tile must be at least 1 pixel, got 0"),
        (["photos", "-o", "out", "--option", "scale"], "--option wants NAME=VALUE, got 'scale'"),
        (
            ["photos", "-o", "out", "--option", "scale=2"],
            "dawn has no option 'scale'; its options are: denoise",
        ),
        (
            ["photos", "-o", "out", "--method", "zerodce++", "--option", "scale=x"],
            "scale must be an integer >= 1",
        ),
    ],
)
def test_a_wrong_command_line_does_nothing(photos, capsys, arguments, told):
    Path("empty").mkdir()
    before = {path: path.read_bytes() for path in photos.rglob("*") if path.is_file()}
    assert cli.main(["enhance", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("fastllie enhance: ")
    assert told in err
    assert not Path("out").exists()
    assert {path: path.read_bytes() for path in photos.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["brighten"], "invalid choice: 'brighten'"),
        (["enhance"], "required: IN"),
        (
            ["enhance", "a.png", "-o", "out", "--tile", "big"],
            "must be a number of pixels, auto or none, not 'big'",
        ),
    ],
)
def test_usage(capsys, arguments, told):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert told in capsys.readouterr().err


# --- progress


class Terminal:
    def __init__(self, is_terminal):
        self.text = ""
        self.is_terminal = is_terminal

    def isatty(self):
        return self.is_terminal

    def write(self, text):
        self.text += text

    def flush(self):
        pass


@pytest.mark.parametrize(
    ("is_terminal", "seconds", "shown"), [(True, 2.0, True), (True, 0.5, False), (False, 2.0, False)]
)
def test_progress_on_a_terminal_after_a_second(monkeypatch, is_terminal, seconds, shown):
    stream = Terminal(is_terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    clock = chain([0.0], repeat(seconds))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    with Progress(2) as bar:
        bar.advance()
        assert ("1/2" in stream.text) == shown
        bar.advance()
    assert ("2/2" in stream.text) == shown
    assert stream.text.endswith("\r") == shown


# --- methods, doctor, version


def test_methods(capsys):
    assert cli.main(["methods"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()] == ["method", *fastllie.list_methods()]
    assert "79,416" in out
    assert "scale=1" in out
    assert cli.main(["methods", "zerodce++"]) == 0
    assert capsys.readouterr().out == f"{fastllie.info('zerodce++')}\n"
    assert cli.main(["methods", "zero"]) == 2
    assert "unknown method 'zero'" in capsys.readouterr().err


def test_doctor(capsys, quick):
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    for part in ("torch", "numpy", "pillow", "triton", "CUDA", fastllie.__version__):
        assert part in out
    for backend in fastllie.backends().values():
        assert backend.detail in out
    assert f"on cpu: {fastllie.ops.default_backend('cpu')}" in out
    assert out.endswith("all is well\n")


@pytest.mark.parametrize(
    ("gpu", "serving", "advice"),
    [
        (False, (), "there is no GPU here"),
        (True, ("cuda",), "built, and they run"),
        (True, (), "worth building, only PyTorch serves the GPU without: FASTLLIE_CUDA=1"),
        (True, ("triton",), "Triton serves without. Worth building where the first image"),
    ],
)
def test_doctor_says_when_to_build_the_cuda_kernels(gpu, serving, advice):
    found = {name: fastllie.ops.Backend(name, name in serving, "") for name in ("cuda", "triton")}
    assert advice in doctor._advice(found, gpu)


def test_doctor_says_which_backend_serves_a_gradient(monkeypatch, capsys, quick):
    """And asks for none of an operator that has no gradient."""
    rows = [fastllie.ops.SelfTest(op, "cuda", True, "") for op in ("curve", "illumination", "sci")]
    monkeypatch.setattr(fastllie.ops, "self_test", lambda: rows)
    others = {"curve_backward": "triton", "sci_backward": "unknown"}
    monkeypatch.setattr(fastllie.ops, "default_backend", lambda device, op=None: others.get(op, "cuda"))
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out.splitlines()
    for line in ("curve on cpu: cuda, its gradient triton", "illumination on cpu: cuda", "sci on cpu: cuda"):
        assert line in out


def test_doctor_fails_on_a_wrong_kernel(monkeypatch, capsys):
    rows = [fastllie.ops.SelfTest("curve", "cpu", False, "differs by 0.1")]
    monkeypatch.setattr(fastllie.ops, "self_test", lambda: rows)
    assert cli.main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "curve  cpu  WRONG  differs by 0.1" in out
    assert out.endswith("problems: 1\n")


def test_doctor_fails_on_a_backend_that_cannot_serve(monkeypatch, capsys, quick):
    monkeypatch.setenv("FASTLLIE_BACKEND", "nonsense")
    assert cli.main(["doctor"]) == 1
    assert "on cpu: none: FASTLLIE_BACKEND must be" in capsys.readouterr().out


def run(*arguments, **settings):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HOME), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "fastllie", *arguments]
    settings = {"cwd": HOME} | settings
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, **settings)


def test_the_command_itself(photos):
    """Through a process of its own: exit codes, and nothing on the wrong stream."""
    done = run("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"fastllie {fastllie.__version__}\n", "")
    weights = str(write_weights(photos.parent / "w.safetensors", "zerodce"))
    done = run("enhance", "photos/a.png", "gone.png", "-o", "out", "--weights", weights, cwd=photos.parent)
    assert (done.returncode, done.stdout) == (1, "")
    told, summary = done.stderr.splitlines()
    assert told == "fastllie enhance: gone.png: no such image file: 'gone.png'"
    assert summary.startswith("fastllie enhance: 1 done, 0 skipped, 1 failed, ")
    assert tree(photos.parent / "out") == ["a.png"]
