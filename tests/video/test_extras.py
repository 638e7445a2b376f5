"""What frames carry besides pixels: kept, or named."""

import re
from fractions import Fraction

import numpy as np
import pytest
from test_video import write

import fastllie

av = pytest.importorskip("av")

HDR10 = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)"


def captions():
    """A SEI message with one pair of CEA-608 bytes, for H.264."""
    payload = b"\xb5\x00\x31GA94\x03" + bytes([0xC1, 0xFF, 0xFC, 0x94, 0x2C]) + b"\xff"
    body = bytes([4, len(payload)]) + payload + b"\x80"
    return b"\0\0\1\x06" + re.sub(b"\0\0(?=[\0-\3])", b"\0\0\3", body)


def captioned(path):
    """25 frames with captions."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, width=64, height=48)
        stream.pix_fmt = "yuv420p"
        stream.codec_context.options = {"bf": "0"}
        packets = []
        for index in range(25):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 20 + index, np.uint8), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            packets += stream.encode(frame)
        for packet in [*packets, *stream.encode(None)]:
            raw = bytes(packet)
            start = next(m.start() for m in re.finditer(b"\0\0\1", raw) if raw[m.end()] & 31 in (1, 5))
            new = av.Packet(raw[:start] + captions() + raw[start:])
            new.pts, new.dts, new.time_base, new.stream = packet.pts, packet.dts, packet.time_base, stream
            new.is_keyframe = packet.is_keyframe
            container.mux(new)
    return path


def carried(path, name):
    with av.open(str(path)) as container:
        frames = container.decode(video=0)
        return [bytes(data) for frame in frames for data in frame.side_data if data.type.name == name]


@pytest.mark.parametrize("target", ["b.mp4", "b.mkv", "b.ts", "b.h265", "b.m2v"])
def test_closed_captions_are_kept(tmp_path, target):
    source = captioned(tmp_path / "a.ts")
    wanted = carried(source, "A53_CC")
    assert len(wanted) == 25
    result = fastllie.enhance_video(source, tmp_path / target, "sci")
    assert carried(tmp_path / target, "A53_CC") == wanted
    assert "closed captions of 25 frames" in result.kept
    assert result.dropped == ()
    with av.open(str(tmp_path / target)) as container:
        levels = [frame.to_ndarray(format="gray").mean() for frame in container.decode(video=0)]
    # the pixels in a frame that keeps its captions are those of the result
    assert min(levels) > 40
    assert levels[-1] > levels[0]


@pytest.mark.parametrize(
    ("target", "settings", "why"),
    [("b.webm", {}, "libvpx-vp9"), ("b.avi", {"codec": "mpeg4"}, "mpeg4")],
)
def test_captions_that_an_encoder_does_not_write_are_named(tmp_path, monkeypatch, target, settings, why):
    from fastllie.video import encoders

    if settings:
        monkeypatch.setitem(encoders._ENCODERS, "h264", encoders._ENCODERS["mpeg4"])
    result = fastllie.enhance_video(captioned(tmp_path / "a.ts"), tmp_path / target, "sci")
    assert f"closed captions of 25 frames: not written by {why} here" in result.dropped
    assert carried(tmp_path / target, "A53_CC") == []


@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libx264", {"x264-params": f"mastering-display={HDR10}:cll=1000,400"}),
        ("libx265", {"x265-params": f"log-level=error:master-display={HDR10}:max-cll=1000,400"}),
        (
            "libsvtav1",
            {
                "preset": "12",
                "svtav1-params": "mastering-display=G(0.265,0.69)B(0.15,0.06)R(0.68,0.32)WP(0.3127,0.329)"
                "L(1000,0.0001):content-light=1000,400",
            },
        ),
    ],
)
@pytest.mark.parametrize("target", ["b.mp4", "b.mkv", "b.webm"])
def test_hdr10_data_are_kept_or_named(tmp_path, codec, options, target):
    source = tmp_path / "a.mkv"
    with av.open(str(source), "w") as container:
        stream = container.add_stream(codec, rate=12, width=64, height=64)
        stream.pix_fmt, stream.options = "yuv420p10le", options
        for index in range(6):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 20 + index, np.uint8), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 12)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    result = fastllie.enhance_video(source, tmp_path / target, "sci")
    for name, words in (
        ("MASTERING_DISPLAY_METADATA", "mastering display"),
        ("CONTENT_LIGHT_LEVEL", "light levels"),
    ):
        before, after = carried(source, name), carried(tmp_path / target, name)
        assert before
        if target == "b.webm" and codec != "libsvtav1":
            assert after == []
            assert any(words in line for line in result.dropped)
        else:
            assert after[0] == before[0]
            assert any(words in line for line in result.kept)


def test_a_video_without_any_says_nothing(tmp_path):
    result = fastllie.enhance_video(write(tmp_path / "a.mp4"), tmp_path / "b.mkv", "sci")
    assert (result.kept, result.dropped, result.notes) == ((), (), ())


@pytest.mark.parametrize(
    ("target", "lost"),
    [
        ("b.mkv", []),
        ("b.ts", ["metadata are lost: artist, title: .ts holds none"]),
        (
            "b.ogv",
            [
                "colour tags are lost: color primaries, color trc: libvpx yuv420p in .ogv holds none",
                "metadata are lost: artist, title: .ogv holds none",
            ],
        ),
    ],
)
def test_colour_tags_and_words_that_a_container_does_not_hold_are_named(tmp_path, target, lost):
    tags = {"colorspace": 9, "color_primaries": 9, "color_trc": 14}
    source = write(tmp_path / "a.mkv", tags=tags, words={"title": "Night", "artist": "Me"})
    notes = fastllie.enhance_video(source, tmp_path / target, "sci").notes
    assert [note for note in notes if "lost" in note] == lost
