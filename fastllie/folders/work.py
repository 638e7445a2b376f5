"""What becomes of one file, and the account of many, gone on with after a stop."""

import logging
import os
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fastllie.checks import check_within
from fastllie.defaults import PNG_LEVEL
from fastllie.folders.jobs import Failure, Job, PathLike, plan
from fastllie.folders.record import Record
from fastllie.images.files import is_complete, remove_remains
from fastllie.images.formats import FORMATS, READ, suffix_of
from fastllie.images.photograph import Photograph
from fastllie.images.reading import read
from fastllie.images.walk import counted

logger = logging.getLogger("fastllie")


@dataclass(frozen=True)
class Note:
    """A file that was written, and what of its source is not in it."""

    source: Path
    left_out: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.source}: left out: {', '.join(self.left_out)}"


@dataclass
class FolderResult:
    """What became of the inputs.

    Attributes:
        done: Files that were written.
        skipped: Files that were there already, whole and no older than their inputs.
        failed: Inputs without a result, each with its error.
        seconds: How long it took.
        passed_over: What folders hold and was not read, by kind: a suffix, "hidden", "link to a folder", ...
        notes: What of files that were done is not in their results.
        remade: Those of `done` that stood there with other settings.
    """

    done: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    seconds: float = 0.0
    passed_over: dict[str, list[Path]] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    remade: list[Path] = field(default_factory=list)

    def __str__(self) -> str:
        again = f" ({len(self.remade)} had other settings)" if self.remade else ""
        counts = f"{len(self.done)} done{again}, {len(self.skipped)} skipped, {len(self.failed)} failed"
        left_alone = f"; left alone: {counted(self.passed_over)}" if self.passed_over else ""
        return f"{counts}, {self.seconds:.1f} s{left_alone}"


Progress = Callable[[int, int, Failure | None], None]


Outcomes = Generator[tuple[Job, Exception | None, Sequence[str]], None, None]


def carry_out(
    inputs: PathLike | Sequence[PathLike],
    output: PathLike,
    outcomes: Callable[[Iterator[Job]], Outcomes],
    work: "Work",
    *,
    overwrite: bool,
    progress: Progress | None,
    **selection: Any,
) -> FolderResult:
    """Plan, skip what is done, and keep account of what becomes of the rest; see `enhance_folder`.

    Args:
        outcomes: Does the jobs that it takes, each as it comes to it, and yields them as they end: with the
            error, or None where the result is written, and what it leaves out. It is closed when the work is
            broken off.
        work: What is done, for the record of it.
        **selection: As for `plan`.
    """
    begin = time.monotonic()
    single = isinstance(inputs, (str, os.PathLike))
    given: Any = [inputs] if single else inputs
    # images are read as images, whatever else reads them
    others = set(work.others) - set(READ)
    planned = plan(list(given), output, others, **selection)
    jobs, unreadable = planned.jobs, planned.unreadable
    # one file that was named is meant to be written
    named = len(jobs) == 1 and jobs[0][1] == Path(output)
    # a file that was named stands among others, whose folder is not ours to write in
    records = {} if named else work.records(Path(output))
    stale: set[Path] = set()
    result = FolderResult(passed_over=planned.passed_over)
    total = len(jobs) + len(unreadable)

    def finish(outcome: list[Any], entry: Any) -> None:
        outcome.append(entry)
        if progress is not None:
            finished = len(result.done) + len(result.skipped) + len(result.failed)
            progress(finished, total, entry if isinstance(entry, Failure) else None)

    def missing() -> Iterator[Job]:
        swept: set[Path] = set()
        for source, target in jobs:
            other = suffix_of(source) in others
            record = records.get(other)
            if not named and not overwrite and _is_done(source, target, other):
                if record is None or not record.made_by_others(target):
                    logger.debug("%s: %s is there", source, target)
                    finish(result.skipped, target)
                    continue
                logger.info("%s: other settings made %s", source, target)
                stale.add(target)
            if record is not None:
                record.begin(target)
            if target.parent not in swept:
                swept.add(target.parent)
                remove_remains(target.parent)
            yield source, target

    with quiet_pillow(), ExitStack() as opened:
        for record in records.values():
            opened.callback(record.close)
        for failure in unreadable:
            finish(result.failed, failure)
        with closing(outcomes(missing())) as ended:
            for (source, target), error, left_out in ended:
                if left_out:
                    result.notes.append(Note(source, tuple(left_out)))
                if error is None:
                    logger.info("%s: wrote %s", source, target)
                    finish(result.done, target)
                else:
                    finish(result.failed, Failure(source, error))
    result.remade = [path for path in result.done if path in stale]
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
        enhance: A photograph to another one.
        others, compare, quality, png_level, max_pixels: As for `enhance_folder`.
    """

    enhance: Callable[[Photograph], Photograph]
    others: Mapping[str, Callable[[Path, Path], None]]
    compare: bool = False
    quality: int | None = None
    png_level: int = PNG_LEVEL
    max_pixels: int | None = None

    def __post_init__(self) -> None:
        if self.quality is not None:
            check_within("quality", self.quality, 1, 100)
        check_within("png_level", self.png_level, 0, 9)
        if self.max_pixels is not None:
            check_within("max_pixels", self.max_pixels, 1, 2**62)

    def __call__(self, source: Path, target: Path) -> Sequence[str]:
        """All of it, one step after the other; what of the source is not in the result, in words."""
        other = self.other(source)
        if other is not None:
            other(source, target)
            return ()
        before = self.read(source)
        return self.write(before, before.each(self.enhance), source, target)

    def other(self, source: Path) -> Callable[[Path, Path], None] | None:
        """What writes the result of a file that is no image; None for an image."""
        suffix = suffix_of(source)
        return None if suffix in READ else self.others.get(suffix)

    def records(self, folder: Path) -> dict[bool, Record]:
        """What made the images of a folder, and what its other files: they depend on more."""
        images = {**_made_by(self.enhance), "compare": self.compare, "quality": self.quality}
        records = {False: Record(folder, images)}
        if self.others:
            # one writer for many suffixes
            writers = {id(other): _made_by(other) for other in self.others.values()}
            records[True] = Record(folder, {**images, "others": list(writers.values())})
        return records

    def read(self, source: Path) -> Photograph:
        return read(source, max_pixels=self.max_pixels)

    def write(self, before: Photograph, after: Photograph, source: Path, target: Path) -> list[str]:
        target.parent.mkdir(parents=True, exist_ok=True)
        photo = before.beside(after) if self.compare else after
        # under the name that it came with a file stays what it is, whatever the name says
        known = FORMATS.get(before.stored.format)
        keeps = known is not None and known.written and suffix_of(source) == suffix_of(target)
        format = before.stored.format if keeps else ""
        return photo.save(target, quality=self.quality, png_level=self.png_level, format=format)


@dataclass(frozen=True)
class OfArrays:
    """A function of arrays `[H, W, 3]`, uint8, uint16 or float32, as one of photographs."""

    enhance: Callable[[Any], Any]

    def __call__(self, photo: Photograph) -> Photograph:
        colours = np.ascontiguousarray(photo.colours)
        result = self.enhance(colours)
        wanted = f"{colours.dtype} {colours.shape}"
        made = f"{result.dtype} {result.shape}" if isinstance(result, np.ndarray) else type(result).__name__
        if made != wanted:
            raise TypeError(f"the method made {made} of {wanted}; wanted the same shape and dtype")
        return photo.with_colours(result)


def _made_by(enhance: Any) -> dict[str, Any]:
    """What the results of an enhancer depend on, if it says so; of a function of the user's its name."""
    if isinstance(enhance, OfArrays):
        enhance = enhance.enhance
    made_by = getattr(enhance, "made_by", None)
    if isinstance(made_by, Mapping):
        return dict(made_by)
    named = enhance if hasattr(enhance, "__qualname__") else type(enhance)
    return {"function": f"{named.__module__}.{named.__qualname__}"}


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
