"""`enhance_video`: a video in, the same video brighter out; `frames`: the pictures of a video for a loop."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastllie import methods
from fastllie.api import AHEAD, Device, Enhancer, Method, Weights
from fastllie.checks import is_int, is_number
from fastllie.images.batches import from_batch, to_batch
from fastllie.images.files import replacing
from fastllie.video.containers import USUAL, containers
from fastllie.video.pixels import Colours
from fastllie.video.reading import Reader, pyav
from fastllie.video.steady import Steady
from fastllie.video.temporal import TemporalFilter
from fastllie.video.writing import Writer


@dataclass(frozen=True)
class VideoResult:
    """What `enhance_video` did.

    Attributes:
        path: The file that was written.
        frames: How many frames it has.
        seconds: What the work took.
        codec: The encoder and the pixel format.
        kept: The other streams that were passed through, a line each.
        dropped: Those that the container does not take, with the reason.
        notes: What else differs from the source, damage included.
        cuts: Where `smooth` began anew.
    """

    path: Path
    frames: int
    seconds: float
    codec: str
    kept: tuple[str, ...]
    dropped: tuple[str, ...]
    notes: tuple[str, ...]
    cuts: int

    def __str__(self) -> str:
        rate = self.frames / self.seconds
        lines = [
            f"{self.path}: {self.frames} frames, {self.codec}, {self.seconds:.1f} s ({rate:.1f} frames/s)"
        ]
        lines += [f"  kept {line}" for line in self.kept]
        lines += [f"  dropped {line}" for line in self.dropped]
        return "\n".join([*lines, *(f"  note: {line}" for line in self.notes)])


def enhance_video(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    method: Method = "dawn",
    *,
    weights: Weights = None,
    device: Device = None,
    dtype: torch.dtype | None = None,
    strength: float = 1.0,
    tile: int | str | None = "auto",
    smooth: float = 0.0,
    crf: float | None = None,
    bitrate: int | None = None,
    salvage: bool = False,
    progress: Callable[[int, int | None], None] | None = None,
    **options: Any,
) -> VideoResult:
    """Brighten a video; everything but the brightness stays.

    The same frames at the same times, size, aspect, rotation, pixel format, colour tags and codec, wherever
    the container and the encoders of FFmpeg allow (`notes` of the result say where not); audio, subtitles,
    chapters and metadata are passed through without decoding. Formats of more than 8 bits are enhanced in 16.
    Decoding, enhancing and encoding overlap. The file appears when it is complete, or not at all. Arguments
    that are not told here are those of `fastllie.enhance`.

    Args:
        source: A video file.
        target: Where to write; the suffix says the container: .mp4, .m4v, .mov, .mkv, .webm, .avi, or
            another that FFmpeg writes (.mts, .3gp, .mpg, ...).
        method: One of `list_methods()`.
        smooth: Against flicker, in [0, 1): 0 treats each frame alone, 0.8 averages over about five; see
            `fastllie.video.Steady`. With a method that takes noise out (`dawn`), against noise too, see
            `fastllie.video.TemporalFilter`.
        crf: Constant quality of H.264 (default 18), H.265 (20), VP8 (8), VP9 (22) and AV1 (24); lower is
            better and larger.
        bitrate: Bits a second instead of constant quality.
        salvage: Write what can be decoded of a damaged video, and say so in `notes`, instead of an error.
        progress: Called after each frame with how many are done, and of how many (None: not known).

    Raises:
        TypeError, ValueError: a wrong argument, as `fastllie.enhance`.
        ValueError: no video, no stream of video in it, damaged (the message has the frame), a container or a
            setting that the encoder refuses.
        FileNotFoundError, IsADirectoryError: no such source, no folder for the target.
        ImportError: PyAV is not installed.
    """
    begin = time.perf_counter()
    steady = Steady(smooth)
    quiet = TemporalFilter(smooth if methods.info(method).denoises else 0)
    suffix = _suffix(target)
    _check_quality(crf, bitrate)
    enhancer = Enhancer(
        method, weights=weights, device=device, dtype=dtype, tile=tile, strength=strength, **options
    )
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))

    def brighten(array: np.ndarray) -> np.ndarray:
        if steady.smooth == 0:
            return enhancer(array)
        x, kind = to_batch(array, device=place)
        return from_batch(enhancer(quiet.follow(steady.follow(x))), kind)

    with replacing(target) as temporary, Reader(source, salvage=salvage) as reader:
        with _named(target), closing(Writer(temporary, suffix, reader, crf=crf, bitrate=bitrate)) as writer:
            _run(reader, writer, brighten, progress)
            writer.finish()
            writer.compare(temporary)
        notes = [*writer.notes, *reader.notes]
    return VideoResult(
        path=Path(target),
        frames=writer.frames,
        seconds=time.perf_counter() - begin,
        codec=writer.codec,
        kept=tuple(writer.kept),
        dropped=tuple(writer.dropped),
        notes=tuple(notes),
        cuts=steady.cuts,
    )


@contextmanager
def _named(target: str | os.PathLike[str]) -> Iterator[None]:
    """Name the file in the errors of FFmpeg, of which the reader names its own."""
    try:
        yield
    except pyav().FFmpegError as error:
        message = f"cannot write {os.fspath(target)!r}: {error.strerror}"
        if isinstance(error, OSError):
            raise OSError(error.errno, message) from error
        raise ValueError(message) from error


def frames(
    source: str | os.PathLike[str],
    *,
    salvage: bool = False,
    format: str | None = None,
    options: dict[str, str] | None = None,
) -> Iterator[np.ndarray]:
    """The pictures of a video, one by one: RGB arrays `(H, W, 3)`, uint8, or uint16 from more than 8 bits.

    For `Enhancer.stream`: `for bright in enhancer.stream(fastllie.video.frames("clip.mp4")): ...`. The file
    is opened now, decoded as the loop asks, and closed at its end. Frames lie as they are stored: a rotation
    in the file's metadata is not applied.

    Args:
        source: A video file, a URL, or a device.
        salvage: Go on after damage, with what can be decoded.
        format, options: FFmpeg's name of a device's driver and its options: `frames("/dev/video0",
            format="v4l2", options={"framerate": "30"})`.

    Raises:
        ValueError, FileNotFoundError, IsADirectoryError, ImportError: as `enhance_video`.
    """
    av = pyav()
    reader = Reader(source, salvage=salvage, format=format, options=options)
    colours = Colours(reader.first, reader.first.format.name)

    def pictures() -> Iterator[np.ndarray]:
        with reader:
            for item in reader:
                if isinstance(item, av.VideoFrame):
                    yield np.ascontiguousarray(colours.to_array(item)[..., :3])

    return pictures()


def _run(
    reader: Reader,
    writer: Writer,
    brighten: Callable[[np.ndarray], np.ndarray],
    progress: Callable[[int, int | None], None] | None,
) -> None:
    """Read in one thread, brighten in this one, write in a third; at most `AHEAD` wait between two."""
    av = pyav()
    items = iter(reader)
    end = object()

    def following() -> tuple[Any, Any]:
        item = next(items, end)
        return item, writer.colours.to_array(item) if isinstance(item, av.VideoFrame) else None

    reading = ThreadPoolExecutor(1, thread_name_prefix="fastllie-decode")
    writing = ThreadPoolExecutor(1, thread_name_prefix="fastllie-encode")
    try:
        waiting: deque[Future[Any]] = deque(reading.submit(following) for _ in range(AHEAD))
        written: deque[Future[None]] = deque()
        done = 0
        while True:
            item, array = waiting.popleft().result()
            if item is end:
                break
            waiting.append(reading.submit(following))
            if array is None:
                written.append(writing.submit(writer.copy, item))
            else:
                result = brighten(array[..., :3])
                if writer.colours.alpha:
                    result = np.concatenate([result, array[..., 3:]], axis=-1)
                written.append(writing.submit(writer.write, item, result))
                done += 1
                if progress is not None:
                    progress(done, reader.total)
            while len(written) > AHEAD:
                written.popleft().result()
        for future in written:
            future.result()
    finally:
        # both threads hold a file open: nothing may be closed or renamed before they are done
        reading.shutdown(cancel_futures=True)
        writing.shutdown(cancel_futures=True)


def _suffix(target: str | os.PathLike[str]) -> str:
    if not isinstance(target, (str, os.PathLike)):
        raise TypeError(f"target must be a path, got {type(target).__name__}")
    suffix = os.path.splitext(os.fspath(target))[1].lower()
    if suffix not in USUAL and suffix not in containers():
        wanted = ", ".join(sorted(USUAL))
        raise ValueError(f"cannot write {os.fspath(target)!r}: wanted a suffix of {wanted}, got {suffix!r}")
    return suffix


def _check_quality(crf: float | None, bitrate: int | None) -> None:
    if crf is not None and bitrate is not None:
        raise ValueError("crf and bitrate exclude each other; give one")
    for name, value, right in (("crf", crf, is_number), ("bitrate", bitrate, is_int)):
        if value is None:
            continue
        if not right(value):
            raise TypeError(f"{name} must be a number, got {type(value).__name__}")
        if not (0 <= value <= 63 if name == "crf" else value > 0):
            wanted = "lie in [0, 63]" if name == "crf" else "be above 0"
            raise ValueError(f"{name} must {wanted}, got {value}")
