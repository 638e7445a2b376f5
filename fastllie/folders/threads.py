"""Folders on the threads of this machine: how many files at once, and how many threads for the network."""

import itertools
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from fastllie.api import Enhancer, Method
from fastllie.checks import check_within
from fastllie.defaults import PNG_LEVEL
from fastllie.folders.jobs import Job, PathLike
from fastllie.folders.work import FolderResult, OfArrays, Outcomes, Progress, Work, bare, carry_out

# Pixels of all decoded images at once: 0.8 GB as bytes, and as much again for their results
MOST_PIXELS = 2**28
# More threads than this wait for the disk and for each other
MOST_WORKERS = 16


def enhance_folder(
    inputs: PathLike | Sequence[PathLike],
    output: PathLike,
    method: Method | Callable[[Any], Any] = "dawn",
    *,
    compare: bool = False,
    overwrite: bool = False,
    workers: int | None = None,
    quality: int | None = None,
    png_level: int = PNG_LEVEL,
    progress: Progress | None = None,
    others: Mapping[str, Callable[[Path, Path], None]] | None = None,
    format: str = "",
    follow: bool = True,
    hidden: bool = False,
    max_pixels: int | None = None,
    **settings: Any,
) -> FolderResult:
    """Enhance the images of folders into another folder with the same tree, each in its own format.

    Files are decoded and written by `workers` threads while this one enhances. A result appears under its
    name when it is whole. What is there already is skipped if it is whole and no older than its input, so
    after a stop of whatever kind the same call does the rest. What other settings made (another method,
    weights, options, strength, quality, ...) is made again: a file beside the output folder,
    `.NAME.fastllie.jsonl`, knows. `overwrite` makes all anew. An error of one image is kept in the result,
    and the others are done.

    What came with a photograph goes out with it: EXIF data with a preview of the result, XMP, IPTC, the ICC
    profile and more, and its coding: the quality of a JPEG, the compression of a TIFF, 16 bits a channel, all
    pictures of an animation. What a format cannot hold is named in `notes`; docs/formats.md has the table.

    Args:
        inputs: A folder, searched with its folders; an image file; a glob; or several of these.
        output: A folder, made where it is not there; or, for one input file, a file, which is always written.
        method: One of `list_methods()`, or an `Enhancer`, or whatever takes an array `(H, W, 3)` of uint8,
            uint16 or float32 and returns another of the same shape and dtype.
        compare: Write the input and the result side by side.
        overwrite: Write also what is there already.
        workers: Threads that decode and write; None is one for each core.
        quality: Of lossy formats, 1 to 100; None keeps that of a JPEG, and a lossless WebP lossless.
        png_level: Of PNG, 0 (large and fast) to 9 (small and slow).
        progress: Called in this thread after each input with how many are finished, how many there are, and
            the failure where it was one.
        others: Files of other kinds, taken from folders too: a suffix in small letters, with its point, but
            none of images, and what writes the result (its second path) for such a file, whole or not at all;
            in this thread.
        format: The suffix of the results, say "png"; "" is that of each input, and ".tif" for camera raw.
        follow: Look also into folders that are links, each once.
        hidden: Take also files and folders whose names begin with a dot.
        max_pixels: Of one picture; None is 220 million.
        **settings: As for `Enhancer`, where `method` is a name.

    Raises:
        TypeError, ValueError: an argument that cannot be meant, no inputs, one output for several inputs, or
            an output that would overwrite an input; nothing was written.
        FileNotFoundError: no such weight file.
        KeyboardInterrupt: what was begun is whole or not there.
    """
    if not isinstance(method, str) and settings:
        raise TypeError(f"{', '.join(settings)}: settings go with the name of a method, not with a callable")
    threads = (
        check_within("workers", workers, 1, 1024) if workers is not None else min(_cores(), MOST_WORKERS)
    )
    enhancer = Enhancer(method, **settings) if isinstance(method, str) else method
    if not isinstance(enhancer, Enhancer):
        enhancer = OfArrays(enhancer)
    work = Work(enhancer, others or {}, compare, quality, png_level, max_pixels)
    return carry_out(
        inputs,
        output,
        lambda jobs: side_by_side(jobs, work, threads),
        work,
        overwrite=overwrite,
        progress=progress,
        format=format,
        follow=follow,
        hidden=hidden,
    )


def side_by_side(jobs: Iterator[Job], work: Work, workers: int) -> Outcomes:
    """Do the jobs, in their order; each with the error that ended it, or None.

    Enhancing stays in the calling thread: the networks use all cores themselves, and a GPU has one queue.
    """
    reading: deque[tuple[Job, Future[Any]]] = deque()
    writing: deque[tuple[Job, Future[Any]]] = deque()
    # as if enormous, until the first is decoded
    largest = MOST_PIXELS
    balance = Balance()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="fastllie-folder")

    def begun(job: Job) -> Future[Any]:
        if work.other(job[0]) is None:
            return pool.submit(balance.timed, work.read, job[0])
        ready: Future[Any] = Future()
        ready.set_result(None)
        return ready

    def enhanced(job: Job, before: Any) -> Future[Any]:
        other = work.other(job[0])
        if other is not None:
            other(*job)
            written: Future[Any] = Future()
            written.set_result(())
            return written
        with balance.enhancing():
            after = before.each(work.enhance)
        return pool.submit(balance.timed, work.write, before, after, *job)

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
                        pixels = math.prod(before.size) * (1 + len(before.later))
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
                ended = bare(written.exception())
                yield job, ended, written.result() if ended is None else ()
                if not reading:
                    break
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        balance.close()


class Balance:
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


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
