"""Many image files: decoded, enhanced and written side by side, and gone on with after a stop."""

import itertools
import math
import os
import time
import warnings
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from fastllie.api import Enhancer
from fastllie.folders.jobs import Failure, Job, PathLike, plan
from fastllie.images.files import PNG_LEVEL, QUALITY, SUFFIXES, is_complete, remove_remains, save_image
from fastllie.images.photograph import DeepImage, read_image

# Pixels of all decoded images at once: 0.8 GB as bytes, and as much again for their results
MOST_PIXELS = 2**28
# More threads than this wait for the disk and for each other
MOST_WORKERS = 16


@dataclass
class FolderResult:
    """What became of the inputs.

    Attributes:
        done: Files that were written.
        skipped: Files that were there already, whole and no older than their inputs.
        failed: Inputs without a result, each with its error.
        seconds: How long it took.
    """

    done: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        counts = f"{len(self.done)} done, {len(self.skipped)} skipped, {len(self.failed)} failed"
        return f"{counts}, {self.seconds:.1f} s"


Progress = Callable[[int, int, Failure | None], None]


def enhance_folder(
    inputs: PathLike | Sequence[PathLike],
    output: PathLike,
    method: str | Callable[[Any], Any] = "zerodce",
    *,
    compare: bool = False,
    overwrite: bool = False,
    workers: int | None = None,
    quality: int = QUALITY,
    png_level: int = PNG_LEVEL,
    progress: Progress | None = None,
    others: Mapping[str, Callable[[Path, Path], None]] | None = None,
    **settings: Any,
) -> FolderResult:
    """Enhance the images of folders into another folder with the same tree, each in its own format.

    Files are decoded and written by `workers` threads while this one enhances. A result appears under its
    name when it is whole. What is there already is skipped if it is whole and no older than its input, so
    after a stop of whatever kind the same call does the rest. Other settings are not noticed; `overwrite`
    makes all anew. An error of one image is kept in the result, and the others are done.

    PNG and TIFF with 16 bits a channel keep all of them, in colour too.

    Args:
        inputs: A folder, searched with its folders; an image file; a glob; or several of these.
        output: A folder, made where it is not there; or, for one input file, a file, which is always written.
        method: One of `list_methods()`, or an `Enhancer`, or whatever takes an array or PIL image and returns
            another of the same kind and size.
        compare: Write the input and the result side by side.
        overwrite: Write also what is there already.
        workers: Threads that decode and write; None is one for each core.
        quality: Of JPEG and WebP, 1 to 100.
        png_level: Of PNG, 0 (large and fast) to 9 (small and slow).
        progress: Called in this thread after each input with how many are finished, how many there are, and
            the failure where it was one.
        others: Files of other kinds, taken from folders too: a suffix in small letters, with its point, and
            what writes the result (its second path) for such a file, whole or not at all; in this thread.
        **settings: As for `Enhancer`, where `method` is a name.

    Raises:
        TypeError, ValueError: an argument that cannot be meant, no inputs, one output for several inputs, or
            an output that would overwrite an input; nothing was written.
        FileNotFoundError: no such weight file.
        KeyboardInterrupt: what was begun is whole or not there.
    """
    if not isinstance(method, str) and settings:
        raise TypeError(f"{', '.join(settings)}: settings go with the name of a method, not with a callable")
    threads = checked("workers", workers, 1, 1024) if workers is not None else min(_cores(), MOST_WORKERS)
    enhancer = Enhancer(method, **settings) if isinstance(method, str) else method
    work = Work(enhancer, others or {}, compare, quality, png_level)
    return carry_out(
        inputs,
        output,
        lambda jobs: _outcomes(jobs, work, threads),
        overwrite=overwrite,
        progress=progress,
        others=work.others,
    )


Outcomes = Generator[tuple[Job, Exception | None], None, None]


def carry_out(
    inputs: PathLike | Sequence[PathLike],
    output: PathLike,
    outcomes: Callable[[Iterator[Job]], Outcomes],
    *,
    overwrite: bool,
    progress: Progress | None,
    others: Collection[str],
) -> FolderResult:
    """Plan, skip what is done, and keep account of what becomes of the rest; see `enhance_folder`.

    Args:
        outcomes: Does the jobs that it takes, each as it comes to it, and yields them as they end: with the
            error, or None where the result is written. It is closed when the work is broken off.
        others: The suffixes of files that are no images.
    """
    begin = time.monotonic()
    single = isinstance(inputs, (str, os.PathLike))
    given: Any = [inputs] if single else inputs
    jobs, unreadable = plan(list(given), output, (*SUFFIXES, *others))
    # one file that was named is meant to be written
    afresh = overwrite or (len(jobs) == 1 and jobs[0][1] == Path(output))
    result = FolderResult()
    total = len(jobs) + len(unreadable)

    def finish(outcome: list[Any], entry: Any) -> None:
        outcome.append(entry)
        if progress is not None:
            finished = len(result.done) + len(result.skipped) + len(result.failed)
            progress(finished, total, entry if isinstance(entry, Failure) else None)

    def missing() -> Iterator[Job]:
        swept: set[Path] = set()
        for source, target in jobs:
            if not afresh and _is_done(source, target, source.suffix.lower() in others):
                finish(result.skipped, target)
                continue
            if target.parent not in swept:
                swept.add(target.parent)
                remove_remains(target.parent)
            yield source, target

    with quiet_pillow():
        for failure in unreadable:
            finish(result.failed, failure)
        with closing(outcomes(missing())) as ended:
            for (source, target), error in ended:
                if error is None:
                    finish(result.done, target)
                else:
                    finish(result.failed, Failure(source, error))
    result.seconds = time.monotonic() - begin
    return result


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """A damaged file makes Pillow warn about each of its tags; what matters of them is an error."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        yield


@dataclass(frozen=True)
class Work:
    """What becomes of one file; it pickles if its parts do.

    Attributes:
        enhance: An image of any kind to another of the same kind.
        others, compare, quality, png_level: As for `enhance_folder`.
    """

    enhance: Callable[[Any], Any]
    others: Mapping[str, Callable[[Path, Path], None]]
    compare: bool = False
    quality: int = QUALITY
    png_level: int = PNG_LEVEL

    def __post_init__(self) -> None:
        checked("quality", self.quality, 1, 100)
        checked("png_level", self.png_level, 0, 9)

    def __call__(self, source: Path, target: Path) -> None:
        """All of it, one step after the other."""
        other = self.other(source)
        if other is not None:
            other(source, target)
            return
        before = _read(source)
        self.write(before, _apply(self.enhance, before), target)

    def other(self, source: Path) -> Callable[[Path, Path], None] | None:
        """What writes the result of a file that is no image; None for an image."""
        return self.others.get(source.suffix.lower())

    def write(self, before: Any, after: Any, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        image = _joined(before, after) if self.compare else after
        if isinstance(image, _Pixels):
            image = image.as_pil()
        if isinstance(image, DeepImage):
            image.save(target, quality=self.quality, png_level=self.png_level)
        else:
            save_image(image, target, quality=self.quality, png_level=self.png_level)


class _Pixels(NamedTuple):
    """A plain colour photograph, as the bytes that an `Enhancer` takes without a detour."""

    values: np.ndarray  # uint8 [H, W, 3]
    info: dict[Any, Any]

    def as_pil(self) -> Image.Image:
        image = Image.fromarray(self.values)
        image.info = self.info
        return image


def _read(path: Path) -> Any:
    image = read_image(path)
    if isinstance(image, DeepImage) or image.mode != "RGB" or "transparency" in image.info:
        return image
    return _Pixels(np.array(image), image.info)


def _apply(enhancer: Callable[[Any], Any], image: Any) -> Any:
    if isinstance(image, DeepImage):
        return image.with_colours(enhancer(image.colours))
    if isinstance(image, _Pixels):
        return _Pixels(enhancer(image.values), image.info)
    return enhancer(image)


def _joined(before: Any, after: Any) -> Any:
    """One image of both, of the mode and with the metadata of `after`."""
    if not isinstance(after, Image.Image):
        return type(after)(np.concatenate((before.values, after.values), axis=1), after.info)
    width, height = after.size
    both = Image.new(after.mode, (2 * width, height))
    both.info = dict(after.info)
    # palettes come back as the colours that they name
    both.paste(before if before.mode == after.mode else before.convert(after.mode), (0, 0))
    both.paste(after, (width, 0))
    return both


def _outcomes(jobs: Iterator[Job], work: Work, workers: int) -> Outcomes:
    """Do the jobs, in their order; each with the error that ended it, or None.

    Enhancing stays in the calling thread: the networks use all cores themselves, and a GPU has one queue.
    """
    reading: deque[tuple[Job, Future[Any]]] = deque()
    writing: deque[tuple[Job, Future[None]]] = deque()
    # as if enormous, until the first is decoded
    largest = MOST_PIXELS
    balance = _Balance()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="fastllie-folder")

    def begun(job: Job) -> Future[Any]:
        if work.other(job[0]) is None:
            return pool.submit(balance.timed, _read, job[0])
        ready: Future[Any] = Future()
        ready.set_result(None)
        return ready

    def enhanced(job: Job, before: Any) -> Future[None]:
        other = work.other(job[0])
        if other is not None:
            other(*job)
            written: Future[None] = Future()
            written.set_result(None)
            return written
        with balance.enhancing():
            after = _apply(work.enhance, before)
        return pool.submit(balance.timed, work.write, before, after, job[1])

    try:
        while True:
            most = min(2 * workers + 1, max(2, MOST_PIXELS // largest))
            room = max(0, most - len(reading) - len(writing))
            reading += [(job, begun(job)) for job in itertools.islice(jobs, room)]
            if not reading and not writing:
                return
            if reading:
                job, decoded = reading.popleft()
                try:
                    before = decoded.result()
                    if before is not None:
                        pixels = _pixels(before)
                        largest = pixels if largest == MOST_PIXELS else max(largest, pixels)
                    written = enhanced(job, before)
                except Exception as error:
                    # of any kind: an enhancer may be the user's own, and the others are done all the same
                    written = Future()
                    written.set_exception(error)
                writing.append((job, written))
                # held by the threads that need them, and by nobody here while this one waits
                del decoded
                before = None
            while writing and (writing[0][1].done() or len(writing) > workers or not reading):
                job, written = writing.popleft()
                yield job, bare(written.exception())
                if not reading:
                    break
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        balance.close()


class _Balance:
    """How many threads the network gets: its share of the work, while others decode and encode.

    More of them only wait for a core. With `e` seconds of computing for an image and `f` for its files, no
    core rests when `cores * e / (e + f)` threads enhance. The second image tells, enhanced by one thread.
    """

    def __init__(self) -> None:
        self._all = torch.get_num_threads()
        self._images = 0
        self._files: list[float] = []  # seconds of each reading and each writing

    @contextmanager
    def enhancing(self) -> Iterator[None]:
        self._images += 1
        if self._images == 2:
            torch.set_num_threads(1)
        begin = time.thread_time()
        try:
            yield
        finally:
            if self._images == 2:
                alone = time.thread_time() - begin
                # reading and writing
                files = 2 * sum(self._files) / len(self._files) or 1e-9  # a clock may be coarse
                torch.set_num_threads(math.ceil(self._all * alone / (alone + files)) or 1)

    def timed(self, work: Callable[..., Any], *arguments: Any) -> Any:
        begin = time.thread_time()
        result = work(*arguments)
        self._files.append(time.thread_time() - begin)
        return result

    def close(self) -> None:
        torch.set_num_threads(self._all)


def _pixels(image: Any) -> int:
    if isinstance(image, Image.Image):
        return image.width * image.height
    height, width = image.values.shape[:2]
    return height * width


def bare(error: BaseException | None) -> Exception | None:
    """The error without its frames, which would keep the pixels of every image that failed."""
    if error is None:
        return None
    if not isinstance(error, Exception):
        raise error
    error.__cause__ = error.__context__ = error.__traceback__ = None
    return error


def _is_done(source: Path, target: Path, other: bool) -> bool:
    try:
        found = target.stat()
        if found.st_mtime_ns < source.stat().st_mtime_ns:
            return False
    except OSError:
        return False
    return found.st_size > 0 if other else is_complete(target)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def checked(name: str, value: Any, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if not low <= value <= high:
        raise ValueError(f"{name} must lie in {low}..{high}, got {value}")
    return value
