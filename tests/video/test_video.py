"""Video: what comes back has the frames, times, colours and streams that went in, and is brighter."""

import os
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import refused
from PIL import Image
from serving import HOME

import fastllie
from fastllie import cli, video
from fastllie.video import encoders, writing
from fastllie.video.pixels import Colours

av = pytest.importorskip("av")

PHOTO = Path(__file__).parents[2] / "docs" / "photos" / "nyc-2nd-ave.jpg"

SIZE, COUNT, RATE = (64, 48), 12, 12
UNEVEN = [0, 3000, 7000, 15000, 15500, 40000, 50000, 61000, 61001, 80000, 90000, 120000]
CHAPTERS = [
    {
        "id": i,
        "start": 500 * i,
        "end": 500 * i + 500,
        "time_base": Fraction(1, 1000),
        "metadata": {"title": t},
    }
    for i, t in enumerate(("one", "two"))
]
turns = pytest.mark.skipif(
    not hasattr(av.VideoStream, "set_display_matrix"), reason="this PyAV cannot write a display matrix"
)


def picture(index, size=SIZE):
    """A dark picture of coarse cells, in which a light square moves."""
    width, height = size
    cells = np.random.default_rng(0).integers(5, 80, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    image = np.kron(cells, np.ones((8, 8, 1), np.uint8))[:height, :width]
    image[4:12, 4 * index % (width - 8) : 4 * index % (width - 8) + 8] = 160
    return image


def write(
    path,
    codec="libx264",
    fmt="yuv420p",
    *,
    size=SIZE,
    count=COUNT,
    rate=RATE,
    tick=None,
    times=None,
    audio=None,
    turn=None,
    tags=None,
    words=None,
    chapters=(),
    pictures=picture,
):
    # without this an MP4 keeps the names that it knows only
    keep = {"movflags": "use_metadata_tags"} if words else {}
    with av.open(str(path), "w", container_options=keep) as container:
        tick = tick or Fraction(1, rate)
        stream = container.add_stream(codec, rate=rate, width=size[0], height=size[1], time_base=tick)
        stream.pix_fmt = fmt
        for name, value in (tags or {}).items():
            setattr(stream.codec_context, name, value)
        if codec == "libx265":
            stream.codec_context.options = {"x265-params": "log-level=error"}
        if turn is not None:
            stream.set_display_rotation(turn)
        sound = container.add_stream(audio, rate=48000) if audio else None
        if sound:
            sound.metadata["language"] = "deu"
        container.metadata.update(words or {})
        if chapters:
            container.set_chapters(list(chapters))
        for index in range(count):
            image = pictures(index) if pictures is not picture else picture(index, size)
            frame = av.VideoFrame.from_ndarray(image, format="rgba" if image.shape[2] == 4 else "rgb24")
            frame.pts, frame.time_base = times[index] if times else index, tick
            container.mux(stream.encode(frame))
        if sound:
            samples = sound.codec_context.frame_size or 1024
            for start in range(0, 48000 * count // rate, samples):
                wave = np.sin(np.arange(start, start + samples) / 20, dtype=np.float32)
                frame = av.AudioFrame.from_ndarray(wave[None].repeat(2, 0), format="fltp", layout="stereo")
                frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
                container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
        container.mux(stream.encode(None))
    return path


def look(path):
    """All that shall stay, and the mean brightness."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        others = [other.index for other in container.streams if other.type not in ("video", "data")]
        packets = [packet for packet in container.demux(others) if packet.size] if others else []
        found = SimpleNamespace(
            codec=context.codec.canonical_name,
            format=context.pix_fmt,
            size=(stream.width, stream.height),
            aspect=stream.sample_aspect_ratio,
            rate=stream.average_rate,
            tick=stream.time_base,
            tags=(context.colorspace, context.color_range, context.color_primaries, context.color_trc),
            duration=stream.duration,
            streams=[(s.type, s.codec_context and s.codec_context.name) for s in container.streams],
            languages=[s.metadata.get("language") for s in container.streams],
            chapters=[(c["start"] * c["time_base"], c["metadata"]) for c in container.chapters()],
            packets=[(p.stream.index, p.pts, p.duration, bytes(p)) for p in packets],
        )
        words = dict(container.metadata)
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    found.times = [frame.pts * frame.time_base for frame in frames]
    found.rotation = frames[0].rotation
    return vars(found), words, np.mean([frame.to_ndarray(format="rgb24") for frame in frames])


def planes(path, index=0, dtype=np.uint8):
    """The first plane of every frame, as it is coded."""
    with av.open(str(path)) as container:
        result = []
        for frame in container.decode(video=0):
            plane = frame.planes[index]
            rows = np.frombuffer(plane, dtype).reshape(plane.height, -1)
            result.append(rows[:, : plane.width].copy())
    return np.stack(result)


# --- what stays


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        (
            "sound.mp4",
            {"audio": "aac", "words": {"title": "night", "com.maker.model": "x"}},
        ),
        ("chapters.mp4", {"chapters": CHAPTERS}),
        ("chapters.mkv", {"audio": "flac", "chapters": CHAPTERS}),
        ("odd.mkv", {"codec": "ffv1", "fmt": "yuv422p", "size": (63, 47)}),
        ("odd.m4v", {"fmt": "yuv444p", "size": (63, 47)}),
        ("uneven.mp4", {"tick": Fraction(1, 90000), "times": UNEVEN}),
        (
            "uneven.mkv",
            {"tick": Fraction(1, 1000), "times": [time // 90 + 40 for time in UNEVEN[:8]], "count": 8},
        ),
        ("ntsc.mov", {"codec": "mpeg4", "rate": Fraction(30000, 1001)}),
        (
            "ten.mp4",
            {
                "codec": "libx265",
                "fmt": "yuv420p10le",
                "tags": {"colorspace": 9, "color_range": 1, "color_primaries": 9, "color_trc": 14},
            },
        ),
        (
            "full.mp4",
            {
                "fmt": "yuvj420p",
                "tags": {"colorspace": 1, "color_range": 2, "color_primaries": 1, "color_trc": 1},
            },
        ),
        pytest.param("turned.mp4", {"turn": 90}, marks=turns),
        pytest.param("turned.mkv", {"turn": -90}, marks=turns),
        ("wide.mp4", {"tags": {"sample_aspect_ratio": Fraction(4, 3)}}),
        ("web.webm", {"codec": "libvpx-vp9", "audio": "libopus"}),
        ("old.avi", {"codec": "mpeg4"}),
        ("disc.mkv", {"codec": "mpeg2video", "rate": 25}),
        ("pictures.mov", {"codec": "mjpeg", "fmt": "yuvj422p"}),
        ("edit.mov", {"codec": "prores_ks", "fmt": "yuv422p10le", "audio": "pcm_s16le"}),
        ("rgb.mov", {"codec": "qtrle", "fmt": "rgb24"}),
        ("grey.mkv", {"codec": "ffv1", "fmt": "gray"}),
    ],
)
def test_everything_but_the_brightness_stays(tmp_path, name, settings):
    source, target = write(tmp_path / name, **settings), tmp_path / f"new-{name}"
    result = fastllie.enhance_video(source, target, "sci")
    (before, words, dark), (after, new_words, bright) = look(source), look(target)
    assert after == before
    for key in settings.get("words", ()):
        assert new_words[key] == words[key]
    assert bright > 1.5 * dark
    assert result.frames == len(before["times"])
    assert result.notes == ()
    assert len(result.kept) == bool(settings.get("audio"))
    if name != "chapters.mp4":  # in an MP4 the chapters are also a track, which is made anew
        assert result.dropped == ()
    assert sorted(os.listdir(tmp_path)) == sorted([name, f"new-{name}"])


def test_frames_are_enhanced_as_images_are(tmp_path):
    source = write(tmp_path / "a.mkv", "ffv1", "yuv444p")
    fastllie.enhance_video(source, tmp_path / "b.mkv", "sci", strength=0.7)
    enhancer = fastllie.Enhancer("sci", strength=0.7)
    wanted = np.stack([enhancer(frame) for frame in video.frames(source)]).astype(int)
    got = np.stack(list(video.frames(tmp_path / "b.mkv"))).astype(int)
    # one level of rounding to Y, U and V
    assert np.abs(got - wanted).max() <= 3
    assert np.abs(got - wanted).mean() < 0.7


@pytest.mark.parametrize("fmt", ["yuv420p", "yuv420p10le"])
def test_strength_0_gives_the_frames_back(tmp_path, fmt):
    source = write(tmp_path / "a.mkv", "ffv1", fmt)
    fastllie.enhance_video(source, tmp_path / "b.mkv", strength=0.0)
    dtype = np.uint8 if fmt == "yuv420p" else np.uint16
    before, after = (planes(tmp_path / name, dtype=dtype).astype(int) for name in ("a.mkv", "b.mkv"))
    assert np.abs(after - before).max() <= 1


def test_ten_bits_are_more_than_eight(tmp_path):
    def ramp(index):
        return np.repeat(np.linspace(0, 255, 64 * 48).reshape(48, 64, 1), 3, 2).astype(np.uint8)

    source = tmp_path / "a.mkv"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("ffv1", rate=RATE, width=64, height=48)
        stream.pix_fmt = "yuv420p10le"
        frame = av.VideoFrame(64, 48, "yuv420p10le")
        luma = np.linspace(64, 940, 64 * 48).round().astype("<u2").reshape(48, 64)
        rows = np.zeros((48, frame.planes[0].line_size // 2), "<u2")
        rows[:, :64] = luma
        frame.planes[0].update(rows.tobytes())
        for plane in frame.planes[1:]:
            plane.update(np.full(plane.buffer_size // 2, 512, "<u2").tobytes())
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    (array,) = video.frames(source)
    assert array.dtype == np.uint16
    assert len(np.unique(array[..., 1])) == 877
    assert (array.min(), array.max()) == (0, 65535)
    fastllie.enhance_video(source, tmp_path / "b.mkv", "sci", strength=0.2)
    assert len(np.unique(planes(tmp_path / "b.mkv", dtype=np.uint16))) > 600


def test_alpha_is_untouched(tmp_path):
    def clear(index):
        alpha = np.full((48, 64, 1), 40 + index, np.uint8)
        return np.concatenate([picture(index), alpha], 2)

    source = write(tmp_path / "a.mov", "qtrle", "argb", pictures=clear)
    fastllie.enhance_video(source, tmp_path / "b.mov", "sci")
    with av.open(str(tmp_path / "b.mov")) as container:
        got = [frame.to_ndarray(format="rgba") for frame in container.decode(video=0)]
    enhancer = fastllie.Enhancer("sci")
    for index, frame in enumerate(got):
        assert (frame[..., 3] == 40 + index).all()
        assert np.array_equal(frame[..., :3], enhancer(picture(index)))


# --- colours

KR_KB = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}


def coded(fmt, values, size=(32, 18), **tags):
    """A frame of one colour."""
    frame = av.VideoFrame(*size, fmt)
    dtype = "<u2" if "10" in fmt else "u1"
    for plane, value in zip(frame.planes, values, strict=True):
        plane.update(np.full(plane.buffer_size // np.dtype(dtype).itemsize, value, dtype).tobytes())
    for name, value in tags.items():
        setattr(frame, name, value)
    return frame


def rgb_of(values, matrix, limits, bits):
    """ITU-R BT.601, 709 and 2020: Y'CbCr to R'G'B' in [0, 1]."""
    kr, kb = KR_KB[matrix]
    unit = 1 << (bits - 8)
    y, cb, cr = (float(value) for value in values)
    if limits == 2:
        top = (1 << bits) - 1
        y, cb, cr = y / top, (cb - 128 * unit) / top, (cr - 128 * unit) / top
    else:
        y, cb, cr = (y / unit - 16) / 219, (cb / unit - 128) / 224, (cr / unit - 128) / 224
    red, blue = y + 2 * (1 - kr) * cr, y + 2 * (1 - kb) * cb
    return np.clip([red, (y - kr * red - kb * blue) / (1 - kr - kb), blue], 0, 1)


@pytest.mark.parametrize("limits", [1, 2])
@pytest.mark.parametrize("matrix", KR_KB)
@pytest.mark.parametrize("fmt", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le"])
def test_colours_by_the_matrix_and_range_of_the_tags(fmt, matrix, limits):
    bits = 10 if "10" in fmt else 8
    random = np.random.default_rng(matrix)
    for _ in range(6):
        values = random.integers((60, 100, 100), (180, 156, 156)) << (bits - 8)
        frame = coded(fmt, values, colorspace=matrix, color_range=limits)
        colours = Colours(frame, fmt)
        array = colours.to_array(frame)
        top = 65535 if bits > 8 else 255
        wanted = rgb_of(values, matrix, limits, bits)
        # half a level of 8 bits, a quarter of one for the deep format
        assert np.abs(array[9, 16] / top - wanted).max() <= (0.51 if bits == 8 else 0.26) / 255
        back = colours.to_frame(array)
        assert (back.format.name, back.colorspace, back.color_range) == (fmt, matrix, limits)
        for plane, value in zip(back.planes, values, strict=True):
            rows = np.frombuffer(plane, "<u2" if bits > 8 else "u1").reshape(plane.height, -1)
            assert abs(int(rows[4, 4]) - value) <= (1 if bits == 8 else 2)


@pytest.mark.parametrize(("size", "matrix"), [((640, 480), 6), ((1280, 720), 1), ((720, 1280), 1)])
def test_untagged_colours_by_the_size(size, matrix):
    values = (120, 110, 150)
    frame = coded("yuv420p", values, size, colorspace=2, color_range=0)
    colours = Colours(frame, "yuv420p")
    got = colours.to_array(frame)[40, 40]
    assert np.abs(got - 255 * rgb_of(values, matrix, 1, 8)).max() <= 0.51
    back = colours.to_frame(colours.to_array(frame))
    assert (back.colorspace, back.color_range) == (2, 0)
    assert [plane.line_size and bytes(plane)[2000] for plane in back.planes] == list(values)


def test_rgb_becomes_tagged_yuv_where_the_encoder_has_no_rgb(tmp_path):
    source = write(tmp_path / "a.mov", "qtrle", "rgb24")
    result = fastllie.enhance_video(source, tmp_path / "b.mp4", strength=0.0)
    assert "the video is h264: qtrle is not written to .mp4 here" in result.notes
    assert "the pixel format is yuv444p: libx264 does not take rgb24" in result.notes
    after, _, _ = look(tmp_path / "b.mp4")
    assert (after["format"], after["tags"][:2]) == ("yuv444p", (6, 1))
    got = next(video.frames(tmp_path / "b.mp4")).astype(int)
    assert np.abs(got - picture(0)).mean() < 3


@pytest.mark.gpu
def test_a_gpu_gives_the_same(tmp_path):
    source = write(tmp_path / "a.mkv", "ffv1", "yuv444p")
    for device in ("cpu", "cuda"):
        fastllie.enhance_video(source, tmp_path / f"{device}.mkv", "sci", device=device, smooth=0.8)
    results = [np.stack(list(video.frames(tmp_path / f"{d}.mkv"))).astype(int) for d in ("cpu", "cuda")]
    assert np.abs(results[0] - results[1]).max() <= 3


# --- other containers


def test_what_another_container_cannot_hold_is_told(tmp_path):
    source = write(tmp_path / "a.mp4", audio="aac", chapters=CHAPTERS)
    result = fastllie.enhance_video(source, tmp_path / "b.webm", "sci")
    after, _, _ = look(tmp_path / "b.webm")
    assert after["codec"] == "vp9"
    assert [kind for kind, _ in after["streams"]] == ["video"]
    assert after["chapters"] == look(source)[0]["chapters"]
    assert any(line.startswith("stream 1: audio aac deu: .webm does not take it") for line in result.dropped)
    assert result.notes == ("the video is vp9: h264 is not written to .webm here",)
    assert "dropped stream 1" in str(result)

    result = fastllie.enhance_video(source, tmp_path / "b.mkv", "sci")
    before, after = look(source)[0], look(tmp_path / "b.mkv")[0]
    assert after["streams"] == before["streams"][:2]
    assert [packet[3] for packet in after["packets"]] == [
        packet[3] for packet in before["packets"] if packet[0]
    ]
    assert result.notes == ("all times are 0.021 s later: .mkv has none below zero",)
    steps = np.diff([float(moment) for moment in after["times"]])
    assert steps == pytest.approx([1 / RATE] * (COUNT - 1), abs=0.0011)

    result = fastllie.enhance_video(write(tmp_path / "c.mkv", chapters=CHAPTERS), tmp_path / "c.avi", "sci")
    assert result.dropped == ("2 chapters: .avi takes none",)
    assert len(look(tmp_path / "c.avi")[0]["times"]) == COUNT


@turns
def test_frames_are_turned_where_the_container_holds_no_rotation(tmp_path):
    source = write(tmp_path / "a.mp4", "mpeg4", turn=90, tags={"sample_aspect_ratio": Fraction(4, 3)})
    result = fastllie.enhance_video(source, tmp_path / "b.avi", strength=0.0)
    assert result.notes == ("the frames are turned upright: .avi cannot hold a rotation here",)
    (after, _, _) = look(tmp_path / "b.avi")
    assert (after["size"], after["rotation"], after["aspect"]) == ((48, 64), 0, Fraction(3, 4))
    # 90 degrees counterclockwise, as PyAV counts
    upright = np.rot90(next(video.frames(source))).astype(int)
    assert np.abs(next(video.frames(tmp_path / "b.avi")) - upright).mean() < 4


def test_all_other_streams_come_along(tmp_path):
    """A second film, a cover, subtitles and an attached font; and the result in the source's place."""
    source = tmp_path / "a.mkv"
    with av.open(str(source), "w") as container:
        streams = [container.add_stream("libx264", rate=RATE, width=64, height=48) for _ in range(2)]
        cover = container.add_stream("mjpeg", rate=1, width=64, height=48)
        cover.pix_fmt = "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        cover.metadata.update(filename="cover.jpg", mimetype="image/jpeg")
        words = container.add_mux_stream("subrip", time_base=Fraction(1, 1000))
        words.metadata["language"] = "fra"
        container.add_attachment("a.ttf", "font/ttf", b"font")
        for stream in (cover, *streams):
            for index in range(1 if stream is cover else COUNT):
                frame = av.VideoFrame.from_ndarray(picture(index), format="rgb24")
                frame.pts, frame.time_base = index, Fraction(1, RATE)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        for start in (0, 400):
            packet = av.Packet(b"Bonsoir")
            packet.stream, packet.pts, packet.dts, packet.duration = words, start, start, 300
            packet.time_base = Fraction(1, 1000)
            container.mux(packet)
    before, _, dark = look(source)
    content = raw(source)
    result = fastllie.enhance_video(source, source, "sci")
    after, _, bright = look(source)
    assert after == before
    assert bright > 1.5 * dark
    assert raw(source) == content
    assert len(result.kept) == len(before["streams"]) - 1 == 4
    assert result.dropped == result.notes == ()


def raw(path):
    """The packets of all streams but the first, and the attachments."""
    with av.open(str(path)) as container:
        found = [
            (str(s.type), s.metadata.get("filename"), s.metadata.get("language")) for s in container.streams
        ]
        others = [stream for stream in container.streams if stream.index and stream.type != "attachment"]
        return found + [(p.stream.index, p.pts, bytes(p)) for p in container.demux(others) if p.size]


def test_odd_sizes_where_the_encoder_takes_even_ones(tmp_path, monkeypatch):
    source = write(tmp_path / "a.mkv", "ffv1", "yuv420p", size=(63, 47))
    monkeypatch.delitem(encoders._ENCODERS, "ffv1")
    result = fastllie.enhance_video(source, tmp_path / "b.mp4", "sci")
    after, _, _ = look(tmp_path / "b.mp4")
    assert (after["codec"], after["format"], after["size"]) == ("h264", "yuv444p", (63, 47))
    assert "the pixel format is yuv444p: libx264 takes yuv420p of even sizes only" in result.notes


def test_times_that_are_missing_are_made(tmp_path):
    source = write(tmp_path / "a.h264")
    result = fastllie.enhance_video(source, tmp_path / "b.mp4", "sci")
    times = look(tmp_path / "b.mp4")[0]["times"]
    assert len(times) == result.frames == COUNT
    assert times == sorted(set(times))


# --- quality


def test_quality_and_bitrate(tmp_path):
    source = write(tmp_path / "a.mp4", size=(128, 96))
    sizes = {}
    for crf in (5, None, 40):
        fastllie.enhance_video(source, tmp_path / f"{crf}.mp4", "sci", crf=crf)
        sizes[crf] = (tmp_path / f"{crf}.mp4").stat().st_size
    assert sizes[5] > sizes[None] > sizes[40]
    fastllie.enhance_video(source, tmp_path / "bits.mp4", "sci", bitrate=2_000_000)
    assert (tmp_path / "bits.mp4").stat().st_size > sizes[None]


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"crf": 20, "bitrate": 1000}, ValueError, "crf and bitrate exclude each other"),
        ({"crf": 99}, ValueError, "crf must lie in [0, 63], got 99"),
        ({"crf": "18"}, TypeError, "crf must be a number, got str"),
        ({"bitrate": 0}, ValueError, "bitrate must be above 0, got 0"),
        ({"smooth": 1.0}, ValueError, "smooth must lie in [0, 1), got 1.0"),
        ({"smooth": True}, TypeError, "smooth must be a number, got bool"),
        ({"strength": 2}, ValueError, "strength must lie in [0, 1], got 2"),
        ({"scale": 2}, TypeError, "sci has no option 'scale'"),
    ],
)
def test_settings_that_cannot_be_meant(tmp_path, settings, kind, message):
    source = write(tmp_path / "a.mp4", count=2)
    with refused(kind, message):
        fastllie.enhance_video(source, tmp_path / "b.mp4", "sci", **settings)
    assert os.listdir(tmp_path) == ["a.mp4"]


def test_crf_of_an_encoder_that_has_none(tmp_path):
    source = write(tmp_path / "a.mkv", "ffv1")
    with refused(ValueError, "crf is for H.264", "coded by ffv1"):
        fastllie.enhance_video(source, tmp_path / "b.mkv", "sci", crf=20)
    assert os.listdir(tmp_path) == ["a.mkv"]


# --- what is no video, or a damaged one


def test_what_is_no_video(tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "noise.mkv").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "text.txt").write_text("hello\n" * 50)
    with av.open(str(tmp_path / "sound.m4a"), "w") as container:
        stream = container.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
        frame.sample_rate = 48000
        container.mux([*stream.encode(frame), *stream.encode(None)])
    target = tmp_path / "out.mp4"
    for name, message in (
        ("empty.mp4", "is no video, or damaged"),
        ("empty.mp4", "(it is empty)"),
        ("noise.mkv", "is no video, or damaged"),
        ("text.txt", "no video"),
        ("sound.m4a", "holds no video stream; it holds: audio"),
    ):
        with refused(ValueError, str(tmp_path / name), message):
            fastllie.enhance_video(tmp_path / name, target, "sci")
    with refused(FileNotFoundError, "no such video file", "nothing.mp4"):
        fastllie.enhance_video("nothing.mp4", target, "sci")
    with refused(IsADirectoryError, "is a directory; wanted a video file"):
        fastllie.enhance_video(tmp_path, target, "sci")
    with refused(TypeError, "source must be a path, got int"):
        fastllie.enhance_video(3, target, "sci")
    with refused(TypeError, "target must be a path, got NoneType"):
        fastllie.enhance_video("a.mp4", None, "sci")
    with refused(ValueError, "wanted a suffix of .avi, .m4v, .mkv, .mov, .mp4, .webm, got '.png'"):
        fastllie.enhance_video("a.mp4", "a.png", "sci")
    with refused(FileNotFoundError, "its folder does not exist"):
        fastllie.enhance_video(write(tmp_path / "a.mp4", count=1), tmp_path / "none" / "a.mp4", "sci")
    assert not target.exists()


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mkv", "libx264"), ("a.webm", "libvpx-vp9"), ("a.avi", "mjpeg")]
)
def test_a_truncated_video(tmp_path, name, codec):
    fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    source = write(tmp_path / f"whole-{name}", codec, fmt, count=36, pictures=noisy)
    content = source.read_bytes()
    damaged = tmp_path / name
    damaged.write_bytes(content[: len(content) * 6 // 10])
    target = tmp_path / f"out-{name}"
    with refused(ValueError, str(damaged), "is damaged after", "salvage=True writes what can be decoded"):
        fastllie.enhance_video(damaged, target, "sci")
    assert sorted(os.listdir(tmp_path)) == sorted([name, source.name])
    result = fastllie.enhance_video(damaged, target, "sci", salvage=True)
    times = look(target)[0]["times"]
    assert 10 <= result.frames == len(times) < 36
    assert times == look(source)[0]["times"][: len(times)]
    assert "is damaged after" in result.notes[-1]


def noisy(index):
    return np.random.default_rng(index).integers(0, 90, (48, 64, 3), dtype=np.uint8)


def test_an_mp4_without_its_table(tmp_path):
    content = write(tmp_path / "whole.mp4").read_bytes()
    damaged = tmp_path / "a.mp4"
    damaged.write_bytes(content[: len(content) // 2])
    with refused(ValueError, "is no video, or damaged"):
        fastllie.enhance_video(damaged, tmp_path / "b.mp4", "sci", salvage=True)


def test_damage_in_the_middle(tmp_path):
    content = bytearray(write(tmp_path / "whole.avi", "mpeg4", pictures=noisy).read_bytes())
    middle = len(content) // 2
    content[middle : middle + 500] = np.random.default_rng(0).bytes(500)
    damaged = tmp_path / "a.avi"
    damaged.write_bytes(content)
    with refused(ValueError, "is damaged after"):
        fastllie.enhance_video(damaged, tmp_path / "b.avi", "sci")
    result = fastllie.enhance_video(damaged, tmp_path / "b.avi", "sci", salvage=True)
    assert "is damaged after" in result.notes[-1]
    assert COUNT - 3 <= result.frames <= COUNT


def test_frames_larger_than_pillow_allows(tmp_path, monkeypatch):
    source = write(tmp_path / "a.mp4", count=1)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 48 // 2)
    assert next(video.frames(source)).shape == (48, 64, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 48 // 2 - 1)
    with refused(ValueError, "frames of 64x48 exceed the limit of 3070 pixels", "PIL.Image.MAX_IMAGE_PIXELS"):
        video.frames(source)


@pytest.mark.parametrize("seed", range(4))
def test_hostile_files_are_named_errors(tmp_path, seed):
    """Bytes changed, cut off or overwritten: a video, or an error with the file's name; nothing remains."""
    random = np.random.default_rng(seed)
    name = ("a.mp4", "a.mkv", "a.avi", "a.webm")[seed]
    codec = ("libx264", "ffv1", "mpeg4", "libvpx-vp9")[seed]
    whole = write(tmp_path / name, codec, count=6).read_bytes()
    source, target = tmp_path / f"x-{name}", tmp_path / f"y-{name}"
    told: list[str] = []
    for trial in range(30):
        content = bytearray(whole)
        start = int(random.integers(len(content)))
        if trial % 3 == 0:
            content = content[:start]
        elif trial % 3 == 1:
            content[start : start + 60] = random.bytes(60)
        else:
            for place in random.integers(min(len(content), 1500), size=4):
                content[place] = random.integers(256)
        source.write_bytes(content)
        try:
            fastllie.enhance_video(source, target, "sci", salvage=trial % 2 == 0)
        except (ValueError, OSError) as error:
            told.append(str(error))
        else:
            target.unlink()
        assert sorted(os.listdir(tmp_path)) == [name, f"x-{name}"]
    assert 0 < len(told) < 30
    assert all(name in error for error in told)


def test_a_video_that_changes_its_size(tmp_path):
    parts = [write(tmp_path / f"{width}.h264", size=(width, 48)).read_bytes() for width in (64, 80)]
    (tmp_path / "a.h264").write_bytes(b"".join(parts))
    with refused(ValueError, "is 80x48 and those before 64x48"):
        fastllie.enhance_video(tmp_path / "a.h264", tmp_path / "b.mp4", "sci")
    assert not (tmp_path / "b.mp4").exists()


# --- stopping


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_an_interrupt_leaves_nothing(tmp_path, error):
    source = write(tmp_path / "a.mp4", audio="aac", count=60)
    (tmp_path / "b.mp4").write_bytes(b"before")

    def stop(done, total):
        assert total == 60
        if done == 4:
            raise error

    with pytest.raises(error):
        fastllie.enhance_video(source, tmp_path / "b.mp4", "sci", progress=stop)
    assert (tmp_path / "b.mp4").read_bytes() == b"before"
    assert sorted(os.listdir(tmp_path)) == ["a.mp4", "b.mp4"]
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("fastllie-")]


def test_an_encoder_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def fail(writer, frame, array):
        raise av.error.OSError(28, "No space left on device")

    monkeypatch.setattr(writing.Writer, "write", fail)
    source = write(tmp_path / "a.mp4", count=30)
    with pytest.raises(OSError, match=r"cannot write .*b\.mp4': No space left"):
        fastllie.enhance_video(source, tmp_path / "b.mp4", "sci")
    assert os.listdir(tmp_path) == ["a.mp4"]


def test_ctrl_c_on_the_command_line(tmp_path):
    source = write(tmp_path / "a.mp4", count=600, size=(160, 120))
    command = [
        sys.executable,
        "-m",
        "fastllie",
        "enhance",
        str(source),
        "-o",
        str(tmp_path / "b.mp4"),
        "--method",
        "zerodce",
    ]
    process = subprocess.Popen(command, cwd=HOME, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while len(os.listdir(tmp_path)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in told
    assert os.listdir(tmp_path) == ["a.mp4"]


# --- steady light


def scene(random, index, gain=1.0, mover=True):
    """A dark scene with sensor noise, in which a lit square wanders; floats in [0, 1]."""
    light = np.linspace(0.03, 0.3, 96)[None, :, None] * np.linspace(0.6, 1.2, 72)[:, None, None]
    image = light * np.array([1.0, 0.8, 0.6]) * gain
    if mover:
        image[10:26, 2 * index : 2 * index + 16] = 0.7 * gain
    return (np.clip(image + 0.01 * random.standard_normal(image.shape), 0, 1)).astype(np.float32)


def flicker(frames):
    """The mean absolute second difference of the frames' mean brightness, and their mean."""
    means = np.array([frame.mean() for frame in frames], np.float64)
    return np.abs(np.diff(means, 2)).mean(), means.mean()


@pytest.mark.parametrize("method", ["zerodce", "zerodce++", "sci"])
def test_smooth_steadies_the_brightness(method):
    random = np.random.default_rng(0)
    gains = 1 + 0.08 * random.standard_normal(36)
    clip = [scene(random, index, gain) for index, gain in enumerate(gains)]
    enhancer = fastllie.Enhancer(method)
    steady = video.Steady(0.8)
    without, mean = flicker([enhancer(frame) for frame in clip])
    with_it, new_mean = flicker([enhancer(steady(frame)) for frame in clip])
    assert with_it < 0.4 * without
    assert new_mean == pytest.approx(mean, rel=0.03)
    assert steady.cuts == 0


def test_smooth_through_a_file(tmp_path):
    random = np.random.default_rng(0)
    gains = 1 + 0.08 * random.standard_normal(30)

    def flickering(index):
        return (255 * scene(random, index, gains[index])).astype(np.uint8)

    source = write(tmp_path / "a.mkv", "ffv1", "yuv444p", size=(96, 72), count=30, pictures=flickering)
    values = []
    for smooth in (0.0, 0.8):
        fastllie.enhance_video(source, tmp_path / "b.mkv", "sci", smooth=smooth)
        values.append(flicker(list(video.frames(tmp_path / "b.mkv"))))
    assert values[1][0] < 0.4 * values[0][0]
    assert values[1][1] == pytest.approx(values[0][1], rel=0.03)


def test_what_moves_leaves_no_trail():
    enhancer = fastllie.Enhancer("sci")
    steady = video.Steady(0.9)
    random = np.random.default_rng(0)
    clip = [scene(random, index) for index in range(36)]
    differences = [np.abs(enhancer(steady(frame)) - enhancer(frame)).max() for frame in clip]
    # nowhere more than two levels of 8 bits: neither where the square is nor where it was
    assert max(differences) < 2 / 255


def test_a_cut_begins_anew():
    random = np.random.default_rng(0)
    steady = video.Steady(0.9)
    for index in range(8):
        steady(scene(random, index))
    other = np.ascontiguousarray(scene(random, 8, gain=2.0)[::-1, ::-1])
    assert np.array_equal(steady(other), other)
    assert steady.cuts == 1
    # another size too; a lamp that is switched on is no cut but followed soon
    steady(scene(random, 0)[:50])
    assert steady.cuts == 2
    on = scene(random, 1, gain=3.0)[:50]
    for _ in range(40):
        last = steady(on)
    assert np.abs(last - on).max() < 0.01
    assert steady.cuts == 2


# --- less noise


class Silence:
    """A generator of noise that makes none."""

    def standard_normal(self, shape):
        return np.zeros(shape)


def test_still_regions_lose_two_thirds_of_their_noise_and_nothing_leaves_a_trail():
    random = np.random.default_rng(0)
    quiet = video.TemporalFilter(0.8)
    noisy = [scene(random, index) for index in range(24)]
    clean = [scene(Silence(), index) for index in range(24)]
    found = [quiet(frame) for frame in noisy]
    still = np.s_[40:]
    before, after = (np.std(frames[-1][still] - clean[-1][still]) for frames in (noisy, found))
    # a recursive average over five frames keeps a third
    assert 0.28 * before < after < 0.4 * before
    # around the square no error is larger than that of the frames themselves
    around = np.s_[5:32]
    trail, most = (
        max(np.abs(frame[around] - there[around]).max() for frame, there in zip(frames, clean, strict=True))
        for frames in (found, noisy)
    )
    assert trail <= 1.05 * most


@pytest.mark.parametrize("noise", [0.002, 0.01, 0.03])
def test_a_pan_is_not_smeared(noise):
    with Image.open(PHOTO) as image:
        wide = np.asarray(image.convert("RGB").resize((450, 300)), np.float32) / 255
    random = np.random.default_rng(0)
    quiet = video.TemporalFilter(0.8)
    for index in range(10):
        there = wide[50:200, 4 * index : 4 * index + 200]
        frame = np.clip(there + noise * random.standard_normal(there.shape), 0, 1).astype(np.float32)
        found = quiet(frame)
    before, after = (np.sqrt(np.square(one - there).mean()) for one in (frame, found))
    assert after < 1.3 * before


def test_another_size_begins_the_average_anew():
    random = np.random.default_rng(0)
    quiet = video.TemporalFilter(0.8)
    for index in range(3):
        quiet(scene(random, index))
    other = scene(random, 3)[:51, :33]
    assert np.array_equal(quiet(other), other)
    alone = video.TemporalFilter(0)
    assert np.array_equal(alone(other), other)
    with pytest.raises(ValueError, match=r"smooth must lie in \[0, 1\), got 1"):
        video.TemporalFilter(1)
    with pytest.raises(ValueError, match=r"wanted one frame, \(1,3,H,W\), got shape \(2, 3, 8, 8\)"):
        quiet.follow(torch.zeros(2, 3, 8, 8))


def test_smooth_takes_noise_out_of_dawns_videos(tmp_path):
    random = np.random.default_rng(0)

    def pictures(index):
        return (255 * scene(random, index, mover=False)).astype(np.uint8)

    source = write(tmp_path / "a.mkv", "ffv1", "yuv444p", size=(96, 72), count=16, pictures=pictures)
    deviations = []
    for smooth in (0.0, 0.8):
        fastllie.enhance_video(source, tmp_path / "b.mkv", "dawn", smooth=smooth, denoise=0.0)
        shown = np.stack(list(video.frames(tmp_path / "b.mkv"))[8:]).astype(np.float64)
        deviations.append(shown.std(0).mean())
    assert deviations[1] < 0.4 * deviations[0]


def test_darkness_and_white_are_left_alone():
    steady = video.Steady(0.8)
    for value in (0, 255, 0, 1, 254):
        frame = np.full((20, 30, 3), value, np.uint8)
        assert np.array_equal(steady(frame), frame)


def test_steady_takes_what_enhance_takes():
    random = np.random.default_rng(0)
    frame = scene(random, 0)
    for image in (
        frame,
        (frame * 255).astype(np.uint8),
        torch.from_numpy(frame).permute(2, 0, 1),
        Image.fromarray((frame * 255).astype(np.uint8)),
        frame[:1, :1],
    ):
        steady = video.Steady(0.5)
        for _ in range(2):
            result = steady(image)
        assert type(result) is type(image)
        assert np.array_equal(np.asarray(result), np.asarray(image))
    with refused(ValueError, "wanted one frame, (1,3,H,W), got shape (2, 3, 5, 5)"):
        video.Steady(0.5)(torch.zeros(2, 3, 5, 5))
    with refused(ValueError, "smooth must lie in [0, 1), got -0.1"):
        video.Steady(-0.1)


# --- loops


def test_frames_for_a_stream(tmp_path):
    source = write(tmp_path / "a.mkv", "ffv1", "yuv444p", audio="flac")
    steady = video.Steady(0.8)
    enhancer = fastllie.Enhancer("sci")
    results = list(enhancer.stream(map(steady, video.frames(source))))
    assert len(results) == COUNT
    assert all(result.dtype == np.uint8 and result.shape == (48, 64, 3) for result in results)
    with refused(FileNotFoundError, "no such video file"):
        video.frames("nothing.mp4")
    pictures = video.frames(source)
    next(pictures)
    pictures.close()
    os.remove(source)


def test_without_pyav(tmp_path, monkeypatch):
    source = write(tmp_path / "a.mp4", count=1)
    monkeypatch.setitem(sys.modules, "av", None)
    for call in (lambda: video.frames(source), lambda: fastllie.enhance_video(source, tmp_path / "b.mp4")):
        with refused(ImportError, "pip install 'fastllie[video]'"):
            call()


# --- the command line


def test_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    os.makedirs("both/below")
    write("both/below/a.MP4", audio="aac")
    Image.fromarray(picture(0)).save("both/b.png")
    assert cli.main(["enhance", "both", "-o", "out", "--method", "sci", "--smooth", "0.8"]) == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("fastllie enhance: 2 done, 0 skipped, 0 failed")
    assert told.err.count("\n") == 1
    assert sorted(os.listdir("out")) == ["b.png", "below"]
    assert look("out/below/a.MP4")[0] == look("both/below/a.MP4")[0]

    assert (
        cli.main(["enhance", "both/below/a.MP4", "-o", "new/a.webm", "--method", "sci", "--crf", "40"]) == 0
    )
    told = capsys.readouterr().err
    assert "a.MP4: dropped stream 1: audio aac deu" in told
    assert "the video is vp9" in told

    assert cli.main(["enhance", "both", "-o", "out", "--smooth", "1"]) == 2
    assert "smooth must lie in [0, 1), got 1.0" in capsys.readouterr().err
    again = ["enhance", "both", "-o", "out", "--method", "sci", "--overwrite"]
    assert cli.main([*again, "--compare"]) == 1
    assert "a.MP4: --compare is for images" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "av", None)
    assert cli.main(again) == 1
    assert "a.MP4: video needs PyAV: pip install 'fastllie[video]'" in capsys.readouterr().err


def test_frames_are_computed_in_the_dtype_of_the_flag(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("a.mov", "qtrle", "rgb24")
    exact = fastllie.Enhancer("sci")
    for name in ("float32", "bfloat16"):
        assert cli.main(["enhance", "a.mov", "-o", f"{name}.mov", "--method", "sci", "--dtype", name]) == 0
        enhancer = fastllie.Enhancer("sci", dtype=getattr(torch, name))
        for index, frame in enumerate(video.frames(f"{name}.mov")):
            assert np.array_equal(frame, enhancer(picture(index)))
            assert np.array_equal(frame, exact(picture(index))) == (name == "float32")
        assert index == COUNT - 1
