"""Which files are video: FFmpeg says so."""

import os

import pytest
from PIL import Image
from test_video import COUNT, picture, write

import fastllie
from fastllie import cli, video
from fastllie.video.containers import containers

av = pytest.importorskip("av")

CAMERAS = {
    ".mts": "libx264",
    ".m2ts": "libx264",
    ".ts": "libx264",
    ".3gp": "libx264",
    ".mpg": "mpeg2video",
    ".vob": "mpeg2video",
    ".flv": "libx264",
    ".ogv": "libvpx",
    ".mxf": "mpeg2video",
    ".f4v": "libx264",
    ".h265": "libx265",
}


def test_ffmpeg_is_asked_for_its_suffixes():
    found = containers()
    assert set(video.SUFFIXES) <= found.keys()
    assert CAMERAS.keys() <= found.keys()
    # no pictures, no sound, nothing that says no size
    assert not found.keys() & {
        ".jpg",
        ".png",
        ".gif",
        ".webp",
        ".avif",
        ".heic",
        ".mp3",
        ".m4a",
        ".flac",
        ".yuv",
    }


@pytest.mark.parametrize("suffix", CAMERAS)
def test_a_folder_of_a_camera(tmp_path, monkeypatch, capsys, suffix):
    monkeypatch.chdir(tmp_path)
    os.mkdir("in")
    write(f"in/a{suffix}", CAMERAS[suffix], rate=25)
    Image.fromarray(picture(0)).save("in/b.png")
    assert cli.main(["enhance", "in", "-o", "out", "--method", "sci"]) == 0
    assert sorted(os.listdir("out")) == [f"a{suffix}", "b.png"]
    with av.open(f"out/a{suffix}") as container:
        assert len(list(container.decode(video=0))) == COUNT
    assert cli.main(["enhance", f"in/a{suffix}", "-o", "b.mp4", "--method", "sci"]) == 0


def test_any_file_that_is_named_is_looked_into(tmp_path):
    write(tmp_path / "clip.mp4")
    os.rename(tmp_path / "clip.mp4", tmp_path / "clip.camera")
    (tmp_path / "notes.txt").write_text("moving pictures\n" * 50)
    found = video.suffixes_among([tmp_path / "clip.camera", tmp_path / "notes.txt"])
    assert found == {*video.SUFFIXES, ".camera"}
    assert fastllie.enhance_video(tmp_path / "clip.camera", tmp_path / "b.mp4", "sci").frames == COUNT


def test_an_output_of_a_camera_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("a.mp4")
    assert cli.main(["enhance", "a.mp4", "-o", "b.mts", "--method", "sci"]) == 0
    assert video.is_video("b.mts")


def test_typescript_is_no_transport_stream(tmp_path):
    (tmp_path / "a.ts").write_text("export const answer = 42;\n")
    assert video.suffixes_among([tmp_path]) == set(video.SUFFIXES)
    write(tmp_path / "b.ts")
    assert ".ts" in video.suffixes_among([tmp_path])


def test_pictures_and_text_are_no_video(tmp_path):
    Image.fromarray(picture(0)).save(tmp_path / "a.png")
    frames = [Image.fromarray(picture(index)) for index in range(3)]
    frames[0].save(tmp_path / "b.gif", save_all=True, append_images=frames[1:])
    (tmp_path / "c.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg' width='4' height='4'></svg>")
    assert not any(video.is_video(path) for path in tmp_path.iterdir())
    assert not video.is_video(tmp_path)


def test_folders_of_images_do_not_ask(tmp_path, monkeypatch):
    from fastllie.video import containers as module

    Image.fromarray(picture(0)).save(tmp_path / "a.png")
    monkeypatch.setattr(module, "is_video", lambda path: 1 / 0)
    monkeypatch.setattr(module, "containers", lambda: 1 / 0)
    assert video.suffixes_among([tmp_path]) == set(video.SUFFIXES)
