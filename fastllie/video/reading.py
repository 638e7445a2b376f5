"""Reading video files: frames and the packets of all other streams in the file's order, damage named."""

import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

from PIL import Image

from fastllie.video.jumps import Jumps
from fastllie.video.late import late_streams

# A file that ends this much before the time in its header has lost its end; not all kinds have a header
MISSING = Fraction(1)  # seconds
_TIMED = ("mp4", "matroska", "avi")
MICROSECOND = Fraction(1, 1_000_000)


def pyav() -> Any:
    """The module `av`.

    Raises:
        ImportError: it is not installed; the message names the extra.
    """
    try:
        import av
    except ImportError as error:
        raise ImportError(f"video needs PyAV: pip install 'fastllie[video]' ({error})") from error
    return av


def moving(stream: Any) -> bool:
    """Whether a stream is video that can be decoded, and no cover picture."""
    pictures = pyav().stream.Disposition.attached_pic
    return not stream.disposition & pictures and stream.codec_context is not None


class Reader:
    """An open video: its first frame is decoded, the rest comes by iterating, once.

    Args:
        source: A path, or whatever FFmpeg opens by a name: a URL, a device with its `format`.
        salvage: Go on after damage, with what can be decoded, and count what could not in `lost`.
        format, options: As for `av.open`, for devices.

    Attributes:
        video: The stream whose frames come: the first one that is no cover picture.
        others: All other streams.
        first: The first frame.
        total: Frames to expect, None where the file does not tell.
        lost: Packets that could not be decoded.
        damage: The first damage that was found, None if there is none.
        jumps: Where the clock of the file jumps back; the times that come are without.

    Raises:
        FileNotFoundError, IsADirectoryError: no such file.
        ValueError: no video, no stream of video in it, or damaged, now or while iterating.
        ImportError: PyAV is not installed.
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        *,
        salvage: bool = False,
        format: str | None = None,
        options: dict[str, str] | None = None,
    ):
        av = pyav()
        if not isinstance(source, (str, os.PathLike)):
            raise TypeError(f"source must be a path, got {type(source).__name__}")
        self.name = os.fspath(source)
        if format is None and "://" not in self.name:
            if os.path.isdir(source):
                raise IsADirectoryError(f"{self.name!r} is a directory; wanted a video file")
            if not Path(source).exists():
                raise FileNotFoundError(f"no such video file: {self.name!r}")
        self.salvage = salvage
        self.lost = 0
        self.decoded = 0
        self.damage: str | None = None
        self._end = Fraction(0)
        self._size: tuple[int, int] | None = None
        try:
            self.container = av.open(
                self.name, format=format, options=options or {}, metadata_errors="replace"
            )
        except av.FFmpegError as error:
            empty = " (it is empty)" if os.path.isfile(source) and not os.path.getsize(source) else ""
            raise ValueError(f"{self.name!r} is no video, or damaged: {error.strerror}{empty}") from error
        try:
            self._open(av)
        except BaseException:
            self.container.close()
            raise

    def _open(self, av: Any) -> None:
        films = [stream for stream in self.container.streams.video if moving(stream)]
        # FFmpeg takes any text for an animation of characters
        if not films or self.container.format.name == "tty":
            kinds = ", ".join(sorted({str(stream.type) for stream in self.container.streams})) or "nothing"
            kinds = kinds.replace("video", "pictures, or video of an unknown codec")
            raise ValueError(f"{self.name!r} holds no video stream; it holds: {kinds}")
        self.video = films[0]
        self._check_pixels(self.video.width, self.video.height)
        if Image.MAX_IMAGE_PIXELS is not None:
            # a damaged header in the middle may ask for more
            self.video.codec_context.options = {"max_pixels": str(2 * Image.MAX_IMAGE_PIXELS)}
        self.others = [stream for stream in self.container.streams if stream.index != self.video.index]
        self.jumps = Jumps(av, self.container, self.name)
        self.video.thread_type = "AUTO"
        self.total = self.video.frames or None
        self._waiting: list[Any] = []
        self._items = self._decode(av)
        for item in self._items:
            self._waiting.append(item)
            if isinstance(item, av.VideoFrame):
                self.first = item
                return
        raise ValueError(f"{self.name!r} is damaged: no frame of its video can be decoded")

    @property
    def notes(self) -> list[str]:
        """What was found that may surprise, after the last frame."""
        found = []
        if self.jumps:
            count = len(self.jumps.offsets) - 1
            found.append(f"the source's clock jumps back ({count}x); what follows comes later instead")
        if self.damage is not None:
            found.append(f"{self.damage}; {self.lost} packets lost")
        if self.container.format.name == "mpegts" and os.path.isfile(self.name):
            for pid in late_streams(self.name, {stream.id for stream in self.container.streams}):
                found.append(f"left out: stream {pid:#x}, which first appears in the middle of the file")
        return found

    def __iter__(self) -> Iterator[Any]:
        """`av.VideoFrame`s of the video and `av.Packet`s of the other streams."""
        waiting, self._waiting = self._waiting, []
        yield from waiting
        yield from self._items

    def __enter__(self) -> "Reader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.container.close()

    def _check_pixels(self, width: int, height: int) -> None:
        """Pillow's limit for images, at which it raises, is that of frames too."""
        if Image.MAX_IMAGE_PIXELS is not None and width * height > 2 * Image.MAX_IMAGE_PIXELS:
            raise ValueError(
                f"{self.name!r}: frames of {width}x{height} exceed the limit of {2 * Image.MAX_IMAGE_PIXELS}"
                " pixels; raise PIL.Image.MAX_IMAGE_PIXELS if you trust it"
            )

    def _decode(self, av: Any) -> Iterator[Any]:
        packets = self.container.demux()
        while True:
            try:
                packet = next(packets)
            except (StopIteration, IndexError):
                # PyAV raises an IndexError behind the last packet, where streams have appeared meanwhile
                break
            except av.FFmpegError as error:
                self._damaged(error.strerror)
                # what the decoder still holds
                yield from self._frames(av, None)
                break
            beside = bool(packet.size) and self.jumps.follow(packet).beside
            if packet.pts is not None and packet.size:
                self._end = max(self._end, (packet.pts + (packet.duration or 0)) * packet.time_base)
            # not packet.stream_index: the empty packet at the end of each stream has that of the first
            if packet.stream.index != self.video.index:
                if packet.size:
                    yield packet
                continue
            if packet.is_corrupt and not beside:
                self._damaged("a packet is cut off")
            yield from self._frames(av, packet)
        duration = self.container.duration
        timed = any(name in self.container.format.name for name in _TIMED)
        if self.damage is None and duration and timed:
            promised = duration * MICROSECOND
            start = (self.container.start_time or 0) * MICROSECOND
            if self._end - start < promised - MISSING:
                self._damaged(f"it ends at {float(self._end - start):.2f} s of {float(promised):.2f} s")

    def _frames(self, av: Any, packet: Any) -> Iterator[Any]:
        try:
            frames = self.video.codec_context.decode(packet) if packet is None else packet.decode()
        except av.FFmpegError as error:
            self._damaged(error.strerror)
            self.lost += 1
            return
        for frame in frames:
            if frame.is_corrupt:
                self._damaged("a frame cannot be decoded wholly")
            size = (frame.width, frame.height)
            self._size = self._size or size
            if size != self._size:
                raise ValueError(
                    f"{self.name!r}: frame {self.decoded} is {size[0]}x{size[1]} and those before"
                    f" {self._size[0]}x{self._size[1]}; a video that changes its size is not supported"
                )
            self.decoded += 1
            yield frame

    def _damaged(self, what: str) -> None:
        found = f"{self.name!r} is damaged after {self.decoded} frames: {what}"
        self.damage = self.damage or found
        if not self.salvage:
            raise ValueError(found + "; salvage=True writes what can be decoded")
