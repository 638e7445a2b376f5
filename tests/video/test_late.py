"""Transport streams in which a stream first appears in the middle: it is named."""

from fractions import Fraction

import numpy as np
import pytest
from helpers import ship_random_weights

import fastllie
from fastllie.video import reading
from fastllie.video.late import late_streams

av = pytest.importorskip("av")


@pytest.fixture(autouse=True, scope="module")
def weights(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        ship_random_weights(tmp_path_factory.mktemp("weights"), patch)
        yield


def part(path, first, *, sound, frames=12):
    with av.open(str(path), "w", format="mpegts") as out:
        film = out.add_stream("libx264", rate=25, width=64, height=48)
        film.pix_fmt, film.codec_context.options = "yuv420p", {"bf": "0"}
        voice = out.add_stream("aac", rate=48000) if sound else None
        for place in range(first, first + frames):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 20, np.uint8), format="rgb24")
            frame.pts, frame.time_base = place, Fraction(1, 25)
            out.mux(film.encode(frame))
            if voice is not None:
                tone = av.AudioFrame.from_ndarray(
                    np.zeros((1, 1920), np.float32), format="fltp", layout="mono"
                )
                tone.sample_rate, tone.pts, tone.time_base = 48000, place * 1920, Fraction(1, 48000)
                out.mux(voice.encode(tone))
        out.mux(film.encode(None))
        if voice is not None:
            out.mux(voice.encode(None))


@pytest.mark.parametrize("size", [188, 192])
def test_a_stream_that_begins_later_is_found(tmp_path, size):
    part(tmp_path / "a.ts", 0, sound=False)
    part(tmp_path / "b.ts", 12, sound=True)
    content = (tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes()
    if size == 192:
        content = b"".join(bytes(4) + content[place : place + 188] for place in range(0, len(content), 188))
    (tmp_path / "joined.ts").write_bytes(content)
    assert late_streams(str(tmp_path / "joined.ts"), {0x100}) == [0x101]
    assert late_streams(str(tmp_path / "joined.ts"), {0x100, 0x101}) == []


def test_it_is_named(tmp_path, monkeypatch):
    part(tmp_path / "a.ts", 0, sound=True)
    # FFmpeg itself misses one only behind megabytes of others
    monkeypatch.setattr(reading, "late_streams", lambda name, known: late_streams(name, known - {0x101}))
    result = fastllie.enhance_video(tmp_path / "a.ts", tmp_path / "out.ts", "sci")
    assert result.notes == ("left out: stream 0x101, which first appears in the middle of the file",)


def test_what_is_no_transport_stream_announces_nothing(tmp_path):
    (tmp_path / "a.ts").write_bytes(b"export const x = 1;\n" * 99)
    assert late_streams(str(tmp_path / "a.ts"), set()) == []
    (tmp_path / "b.ts").write_bytes(b"\x47" * 188 * 9)
    assert late_streams(str(tmp_path / "b.ts"), set()) == []
