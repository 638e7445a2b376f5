"""When frames and sounds come: streams without times, and clocks that begin anew in the middle of a file."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from test_video import COUNT, write

import fastllie
from fastllie.video.reading import Reader

av = pytest.importorskip("av")


def times(path, kind="video"):
    with av.open(str(path)) as container:
        if kind == "video":
            return [frame.pts * frame.time_base for frame in container.decode(video=0)]
        return [packet.pts * packet.time_base for packet in container.demux(audio=0) if packet.size]


def steps(found):
    return {round(float(later - earlier), 3) for earlier, later in pairwise(found)}


@pytest.mark.parametrize("rate", [12, 25, 30])
@pytest.mark.parametrize(("suffix", "codec"), [(".h264", "libx264"), (".h265", "libx265")])
@pytest.mark.parametrize("target", ["b.mp4", "b.mkv", "b.avi", "b.ts"])
def test_a_stream_without_times_is_as_long_as_its_rate_says(tmp_path, suffix, codec, rate, target):
    source = write(tmp_path / f"a{suffix}", codec, rate=rate)
    result = fastllie.enhance_video(source, tmp_path / target, "sci")
    found = times(tmp_path / target)
    assert len(found) == COUNT
    # Matroska and MPEG-TS round to a millisecond and to 1/90 of one
    assert abs(float(found[-1] - found[0]) - (COUNT - 1) / rate) < 0.002
    assert max(steps(found)) - min(steps(found)) < 0.0015
    assert f"{COUNT} frames had no time: they are {rate} a second, as the stream says" in result.notes


def joined(path, *sources):
    path.write_bytes(b"".join(source.read_bytes() for source in sources))
    return path


@pytest.mark.parametrize("salvage", [False, True])
@pytest.mark.parametrize("audio", [None, "aac"])
@pytest.mark.parametrize("target", ["b.mp4", "b.mkv", "b.ts"])
def test_a_clock_that_jumps_back_goes_on(tmp_path, audio, salvage, target):
    parts = [write(tmp_path / f"{i}.ts", count=12 * (3 - i), rate=12, audio=audio) for i in range(3)]
    source = joined(tmp_path / "a.ts", *parts)
    result = fastllie.enhance_video(source, tmp_path / target, "sci", salvage=salvage)
    assert result.frames == 72
    found = times(tmp_path / target)
    assert len(found) == 72
    # where sound is longer than pictures, or the reverse, the longer one decides
    assert min(steps(found)) > 0.082
    assert max(steps(found)) < (0.17 if audio else 0.085)
    assert any("the source's clock jumps back (2x)" in note for note in result.notes)
    assert not any("damaged" in note for note in result.notes)
    if audio:
        heard = times(tmp_path / target, "audio")
        assert min(steps(heard)) > 0.019
        assert max(steps(heard)) < 0.11
        # both are as far from each other as in the parts
        with av.open(str(parts[1])) as container:
            starts = [stream.start_time * stream.time_base for stream in container.streams]
        second = [next(when for when in all if when > 3) for all in (found, heard)]
        assert abs(float((second[0] - second[1]) - (starts[0] - starts[1]))) < 0.1


def test_a_stream_that_is_silent_over_a_jump_is_where_the_others_are(tmp_path):
    """A subtitle of the second part, later on its clock than the one of the first, belongs to the second."""
    for name, text in (("0.ts", 1), ("1.ts", 2)):
        with av.open(str(tmp_path / name), "w", format="mpegts") as container:
            video = container.add_stream("libx264", rate=12, width=64, height=48)
            video.pix_fmt = "yuv420p"
            data = container.add_data_stream("bin_data")
            for index in range(36):
                frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 20, np.uint8), format="rgb24")
                frame.pts, frame.time_base = index, Fraction(1, 12)
                container.mux(video.encode(frame))
                if index == 12 * text:
                    packet = av.Packet(b"\x01" * 20)
                    packet.stream, packet.pts, packet.dts = data, text, text
                    packet.time_base = Fraction(1, 1)
                    container.mux(packet)
            container.mux(video.encode(None))
    source = joined(tmp_path / "a.ts", tmp_path / "0.ts", tmp_path / "1.ts")
    with Reader(source) as reader:
        packets = [item for item in reader if isinstance(item, av.Packet)]
    whole = [float(packet.pts * packet.time_base) for packet in packets]
    assert len(whole) == 2
    assert 3.9 < whole[1] - whole[0] < 4.1


def test_a_clock_that_only_goes_forward_is_left_alone(tmp_path):
    source = write(tmp_path / "a.ts", count=24, audio="aac")
    with Reader(source) as reader:
        assert not reader.jumps
    assert not any(
        "clock" in note for note in fastllie.enhance_video(source, tmp_path / "b.mp4", "sci").notes
    )
