"""Writing video files: an encoder like the source's, and everything else of the source as it is."""

import contextlib
import io
import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from fastllie.video.containers import MP4, USUAL, containers
from fastllie.video.encoders import choose_encoder, choose_format, set_quality
from fastllie.video.extras import Extras
from fastllie.video.pixels import Colours
from fastllie.video.reading import Reader, pyav

#: what can be written everywhere, and FFmpeg's name for the container; `containers` has all that FFmpeg knows
SUFFIXES = USUAL

# whose standard has a short list of rates
_STANDARD_RATES = ("mpeg1video", "mpeg2video")
# MPEG-4's header has 16 bits for the ticks of a second
_MPEG4_TICKS = 65535
# what Matroska rounds times to
_MILLISECOND = Fraction(1, 1000)
# written by the muxer anew, or statistics of the old coding
_STALE = (
    "encoder",
    "duration",
    "bps",
    "number_of_",
    "_statistics",
    "major_brand",
    "minor_version",
    "compatible_",
)
# what the MP4 muxer keeps by itself; other names need a list of keys of their own
_MP4_NAMES = frozenset(
    (
        *("title", "artist", "album_artist", "composer", "album", "date", "comment", "genre", "copyright"),
        *("grouping", "lyrics", "description", "synopsis", "show", "episode_id", "network", "keywords"),
        *("track", "disc", "compilation", "creation_time", "location", "language", "timecode"),
    )
)
# of AVColorPrimaries and AVColorTransferCharacteristic; the matrix is for `Colours` to choose
_TAGS = ("color_primaries", "color_trc")
_UNSAID = (0, 2)
# the display matrix survives in these
_TURNING = _CHAPTERS = (*MP4, "matroska", "webm")


class Writer:
    """Writes the frames of a `Reader`, changed, and passes its other streams, chapters and metadata through.

    Frames must come in the order of their times. Nothing of the file is usable before `finish`.

    Attributes:
        kept, dropped: A line for each other stream that is passed through, or is not and why.
        notes: What else differs from the source.
        frames: Frames written.
    """

    def __init__(
        self,
        path: Path,
        suffix: str,
        reader: Reader,
        *,
        crf: float | None = None,
        bitrate: int | None = None,
    ):
        self._av = pyav()
        self._format = containers()[suffix]
        self._suffix = suffix
        self.kept: list[str] = []
        self.dropped: list[str] = []
        self.notes: list[str] = []
        self.frames = 0
        self._reader = reader
        self._last: int | None = None
        self._moved = self._made = 0
        self._took = self._made_until = Fraction(0)
        self._rounded = self._early = Fraction(0)
        # the start of the sound, which players leave out, lies before zero
        self._shifts = self._format not in MP4 and self._format not in reader.container.format.name
        self._container = self._av.open(
            str(path),
            "w",
            format=self._format,
            container_options=self._muxer_options(),
            metadata_errors="replace",
        )
        try:
            self._add_video(crf, bitrate)
            self._others = dict(self._add_others())
            self._add_words()
        except BaseException:
            self.close()
            raise

    @property
    def codec(self) -> str:
        """The encoder and the pixel format."""
        return f"{self._video.codec_context.name} {self._video.codec_context.pix_fmt}"

    def write(self, frame: Any, array: np.ndarray) -> None:
        """Encode the pixels at the time of `frame`."""
        result = self.colours.to_frame(np.rot90(array, self._quarters) if self._quarters else array)
        result.time_base = self._ticks
        result.pts = self._time(frame)
        result.duration = self._in_ticks(frame.duration or 0, frame.time_base)
        coded = self._extras.take(frame, result)
        coded.time_base, coded.pts, coded.duration = result.time_base, result.pts, result.duration
        self._container.mux(self._video.encode(coded))
        self.frames += 1

    def copy(self, packet: Any) -> None:
        """Write a packet of another stream as it is, if that stream is kept."""
        stream = self._others.get(packet.stream_index)
        if stream is not None:
            # Matroska keeps the lead of Opus in a field of its own
            lead = stream.codec_context is not None and stream.codec_context.name == "opus"
            if self._shifts and not lead and packet.pts is not None:
                self._early = min(self._early, packet.pts * packet.time_base)
            packet.stream = stream
            self._container.mux(packet)

    def finish(self) -> None:
        """Write what the encoder holds back, and the end of the file."""
        self._container.mux(self._video.encode(None))
        self._container.close()
        kept, dropped = self._extras.lines()
        self.kept += kept
        self.dropped += dropped
        if self._made:
            rate = f"{float(1 / self._step):g}"
            self.notes.append(
                f"{self._made} frames had no time: they are {rate} a second, as the stream says"
            )
        if self._moved:
            self.notes.append(f"{self._moved} frames had no time later than the frame before, and got one")
        if self._rounded > _MILLISECOND:
            self.notes.append(
                f"times are off by up to {float(self._rounded):.3f} s: {self._suffix} counts frames"
            )
        if self._early < 0:
            shift = -float(self._early)
            self.notes.append(f"all times are {shift:.3f} s later: {self._suffix} has none below zero")

    def compare(self, path: Path) -> None:
        """Note the colour tags and the words about the whole that the written file does not hold."""
        before = self._reader.video.codec_context
        with self._av.open(str(path), metadata_errors="replace") as written:
            after = written.streams.video[0].codec_context
            lost = [name for name in _TAGS if _tag(before, name) not in (None, _tag(after, name))]
            names = {name.lower() for name in _words(self._reader.container.metadata)}
            names -= {name.lower() for name in written.metadata}
        if lost:
            listed = ", ".join(name.replace("_", " ") for name in lost)
            self.notes.append(f"colour tags are lost: {listed}: {self.codec} in {self._suffix} holds none")
        if names:
            self.notes.append(f"metadata are lost: {', '.join(sorted(names))}: {self._suffix} holds none")

    def close(self) -> None:
        """Let go of the file; after `finish` this does nothing."""
        # the file is thrown away: why is told by the error that brought us here
        with contextlib.suppress(self._av.FFmpegError):
            self._container.close()

    def _muxer_options(self) -> dict[str, str]:
        names = {name.lower() for name in _words(self._reader.container.metadata)}
        if self._format in ("mp4", "mov") and not names <= _MP4_NAMES:
            return {"movflags": "use_metadata_tags"}
        return {}

    def _add_video(self, crf: float | None, bitrate: int | None) -> None:
        source, first = self._reader.video, self._reader.first
        wanted = source.codec_context.codec.canonical_name
        encoder, codec = choose_encoder(wanted, self._container)
        if codec != wanted:
            self.notes.append(f"the video is {codec}: {wanted} is not written to {self._suffix} here")
        rate = source.average_rate or source.guessed_rate or Fraction(25)
        if first.pts is None and first.duration:
            # where a file says nothing the demuxer supposes an average, and the coded stream knows
            rate = 1 / (first.duration * first.time_base)
        self._step = 1 / Fraction(rate)
        if encoder.name in _STANDARD_RATES:
            # one of a short list in the standard, which an average may miss
            rate = source.codec_context.framerate or rate
        self._ticks = self._tick(encoder.name, Fraction(rate), Fraction(source.time_base))
        target, why = choose_format(encoder.name, first.format.name, (first.width, first.height))
        if why is not None:
            self.notes.append(f"the pixel format is {target}: {why}")
        self.colours = Colours(first, target)
        turning, self._quarters = self._turning(first)
        width, height = (first.height, first.width) if self._quarters % 2 else (first.width, first.height)
        stream = self._container.add_stream(
            encoder.name, rate=rate, time_base=self._ticks, width=width, height=height
        )
        context = stream.codec_context
        context.pix_fmt = target
        context.time_base = self._ticks
        context.colorspace, context.color_range = self.colours.matrix, self.colours.range
        context.color_primaries = source.codec_context.color_primaries
        context.color_trc = source.codec_context.color_trc
        aspect = source.sample_aspect_ratio
        if aspect:
            context.sample_aspect_ratio = 1 / aspect if self._quarters % 2 else aspect
        if turning is not None:
            stream.set_display_matrix(turning)
        flags = self._av.codec.context.Flags
        if hasattr(flags, "frame_duration"):
            context.flags |= flags.frame_duration
        context.thread_type = "AUTO"
        if encoder.name == "libx265" and self._format in MP4:
            # the only tag that Apple's players take
            context.codec_tag = "hvc1"
        options = dict(encoder.options)
        if self._format == "avi":
            # AVI knows one time a frame, that of decoding
            options["bf"] = "0"
        options.update(set_quality(encoder, context, crf, bitrate, width * height * float(rate)))
        same = target == first.format.name and not self._quarters
        self._extras = Extras(encoder.name, first, same)
        context.options = self._extras.options(options)
        stream.metadata.update(_words(source.metadata))
        stream.disposition = source.disposition
        self._video = stream
        if int(source.codec_context.color_trc) in (16, 18):
            self.notes.append("HDR (PQ or HLG): enhanced as coded, unlike all that the networks know")
        if first.interlaced_frame:
            self.notes.append("interlaced: enhanced as whole frames, coded as progressive ones")

    def _turning(self, first: Any) -> tuple[list[int] | None, int]:
        """The display matrix for the container, or how many quarters to turn the pixels themselves."""
        side = first.side_data.get("DISPLAYMATRIX")
        if side is None:
            return None, 0
        matrix = np.frombuffer(bytes(side), np.int32)
        if self._format in _TURNING and hasattr(self._av.VideoStream, "set_display_matrix"):
            return matrix.tolist(), 0
        quarters, rest = divmod(round(first.rotation), 90)
        mirrored = float(matrix[0]) * float(matrix[4]) < float(matrix[1]) * float(matrix[3])
        if rest or mirrored:
            self.notes.append(f"the display matrix {matrix.tolist()} is lost: {self._suffix} cannot hold it")
            return None, 0
        if quarters % 4:
            self.notes.append(f"the frames are turned upright: {self._suffix} cannot hold a rotation here")
        return None, quarters % 4

    def _tick(self, encoder: str, rate: Fraction, source: Fraction) -> Fraction:
        """The unit of the encoder's times: the source's wherever the formats allow."""
        if self._format == "avi":
            return 1 / rate
        if encoder in _STANDARD_RATES or (encoder == "mpeg4" and source.denominator > _MPEG4_TICKS):
            ticks = rate.numerator if encoder == "mpeg4" else 0
            if 0 < ticks <= _MPEG4_TICKS:
                return Fraction(1, ticks * (_MPEG4_TICKS // ticks))
            return 1 / rate
        return source

    def _in_ticks(self, ticks: int, unit: Fraction) -> int:
        return math.floor(ticks * unit / self._ticks + Fraction(1, 2))

    def _time(self, frame: Any) -> int:
        if frame.pts is not None:
            pts = self._in_ticks(frame.pts, frame.time_base)
            self._rounded = max(self._rounded, abs(pts * self._ticks - frame.pts * frame.time_base))
        else:
            pts = self._following()
        if self._last is not None and pts <= self._last:
            pts = self._last + 1
            self._moved += 1
        self._last, self._took = pts, frame.duration * frame.time_base if frame.duration else self._step
        return pts

    def _following(self) -> int:
        """The time of a frame that has none: as long after the frame before as that one is shown."""
        self._made += 1
        if self._last is None:
            return 0
        # summed without rounding, which would add up
        self._made_until = max(self._made_until, self._last * self._ticks) + self._took
        return math.floor(self._made_until / self._ticks + Fraction(1, 2))

    def _add_others(self) -> Iterator[tuple[int, Any]]:
        for source in self._reader.others:
            name = _describe(source)
            reason = self._refuses(source)
            if reason is None:
                self.kept.append(name)
                yield source.index, _copied(self._container, source)
            else:
                self.dropped.append(f"{name}: {reason}")

    def _refuses(self, source: Any) -> str | None:
        """Why the container does not take a stream; it is asked with that stream alone."""
        if source.type == "data":
            # timecodes and chapter tracks are made anew by the muxer, and no other kind has a place
            return f"{self._suffix} takes no such data stream"
        try:
            trial = self._av.open(io.BytesIO(), "w", format=self._format)
            try:
                _copied(trial, source)
                trial.start_encoding()
            finally:
                trial.close()
        except (self._av.FFmpegError, ValueError) as error:
            return f"{self._suffix} does not take it ({error})"
        return None

    def _add_words(self) -> None:
        source = self._reader.container
        self._container.metadata.update(_words(source.metadata))
        chapters = source.chapters()
        if chapters and self._format in _CHAPTERS:
            self._container.set_chapters(chapters)
        elif chapters:
            self.dropped.append(f"{len(chapters)} chapters: {self._suffix} takes none")


def _copied(container: Any, source: Any) -> Any:
    stream = container.add_stream_from_template(source, opaque=True)
    stream.metadata.update(_words(source.metadata))
    stream.disposition = source.disposition
    return stream


def _describe(stream: Any) -> str:
    codec = stream.codec_context.name if stream.codec_context is not None else ""
    language = stream.metadata.get("language", "")
    return " ".join(filter(None, (f"stream {stream.index}:", str(stream.type), codec, language)))


def _tag(context: Any, name: str) -> int | None:
    value = int(getattr(context, name))
    return None if value in _UNSAID else value


def _words(metadata: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in metadata.items() if not name.lower().startswith(_STALE)}
