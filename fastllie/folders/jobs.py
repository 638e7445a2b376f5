"""Which files are read, which is written for each, and what is passed over."""

import glob
import itertools
import os
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fastllie.folders.record import SUFFIX as RECORD
from fastllie.images.extras import require
from fastllie.images.formats import DEVELOPED, FORMATS, READ, SUFFIXES, format_of, suffix_of
from fastllie.images.reading import kind_of
from fastllie.images.walk import Walk, counted

PathLike = str | os.PathLike[str]
Job = tuple[Path, Path]  # what is read, and what is written for it


@dataclass(frozen=True)
class Failure:
    """An input for which nothing was written, and why."""

    source: Path
    error: Exception

    def __str__(self) -> str:
        return f"{self.source}: {self.error}"


@dataclass
class Plan:
    """What is to be done.

    Attributes:
        jobs: Which file is read and which is written for it.
        unreadable: Folders that could not be looked into.
        passed_over: What folders hold and is not read, by kind: a suffix, "hidden", "link to a folder", ...
    """

    jobs: list[Job] = field(default_factory=list)
    unreadable: list[Failure] = field(default_factory=list)
    passed_over: dict[str, list[Path]] = field(default_factory=dict)


def plan(
    inputs: Sequence[PathLike],
    output: PathLike,
    others: Collection[str] = (),
    *,
    follow: bool = True,
    hidden: bool = False,
    format: str = "",
) -> Plan:
    """Which file is read and which is written for it.

    Args:
        inputs: Folders, files and globs.
        output: A folder; or a file, for one input file.
        others: Suffixes of files that are no images, taken too.
        follow: Look also into folders that are links, each once.
        hidden: Take also what begins with a dot.
        format: The suffix of what is written; "" is that of what is read, and ".tif" for camera raw.

    Raises:
        ValueError: nothing to do, one output for two inputs, a format that is not written, or an output that
            would overwrite an input (one file given as its own output is meant and allowed).
        ImportError: a format that an extra writes which is not installed.
    """
    if not inputs:
        raise ValueError("no inputs: wanted image files, folders or globs")
    out = Path(output)
    suffix = _suffix(format)
    walk = Walk((*READ, *others), follow=follow, hidden=hidden, results=out, ours=(RECORD,))
    found: list[Job] = []  # an input, and where below OUT its result goes
    for given in inputs:
        found += _found(given, walk)
    known = {*SUFFIXES, *others}
    if out.exists() and not out.is_dir() and out.suffix.lower() not in known:
        raise ValueError(f"{str(out)!r} is a file that is no image: give a folder")
    one = len(inputs) == 1 and not Path(inputs[0]).is_dir() and not glob.has_magic(os.fspath(inputs[0]))
    to_file = out.suffix.lower() in known and not out.is_dir()
    if (
        one
        and not to_file
        and out.suffix
        and not out.exists()
        and not os.fspath(output).endswith(("/", os.sep))
    ):
        # a word with a point for one photograph is meant as a file
        format_of(out)
    if to_file and (len(found) != 1 or Path(inputs[0]).is_dir()):
        raise ValueError(f"{str(out)!r} is one file, but there are {len(found)} inputs: give a folder")
    if to_file:
        if out.suffix.lower() in SUFFIXES:
            require(format_of(out))
            if suffix and SUFFIXES[suffix] != format_of(out):
                raise ValueError(f"{str(out)!r} is no file of the format {format!r}: give one of the two")
        return Plan([(found[0][0], out)], passed_over=walk.passed_over)
    jobs = [(source, out / place) for source, place in _named(found, suffix, others)]
    _refuse_clashes(jobs)
    return Plan(jobs, [Failure(path, error) for path, error in walk.unreadable], walk.passed_over)


def suffix_of_result(source: PathLike, format: str = "", others: Collection[str] = ()) -> str:
    """The suffix of what is written for a file: its own, that of a format, or of what becomes of camera raw.

    Args:
        source: What is read; it need not be there.
        format, others: As for `plan`.

    Raises:
        ValueError: a format that is not written.
    """
    return _result(source, _suffix(format), others)


def _result(source: PathLike, suffix: str, others: Collection[str]) -> str:
    given = suffix_of(source)
    if given in others or (not suffix and given in SUFFIXES):
        return given
    if suffix or given in READ:
        return suffix or DEVELOPED
    # a name that says nothing: what is written as it came keeps it, and what is read only becomes a TIFF
    kind = kind_of(source) if os.path.isfile(source) else ""
    return DEVELOPED if kind and not (kind in FORMATS and FORMATS[kind].written) else given


def _suffix(format: str) -> str:
    """The suffix of a format that was given as one, with its point or without; "" for none."""
    if not format:
        return ""
    suffix = f".{format.removeprefix('.').lower()}"
    if suffix not in SUFFIXES:
        raise ValueError(f"cannot write {format!r}: wanted one of {', '.join(SUFFIXES)}")
    require(SUFFIXES[suffix])
    return suffix


def _named(found: Sequence[Job], suffix: str, others: Collection[str]) -> list[Job]:
    """The places of the results: with another suffix, or behind the old one where two would be the same."""
    named = []
    for source, place in dict.fromkeys(found):
        given = suffix_of(place)
        wanted = _result(source, suffix, others)
        named.append((source, place, place if wanted == given else place.with_suffix(wanted)))
    taken = Counter(target for _, _, target in named)
    return [
        (
            source,
            target if target == place or taken[target] == 1 else place.with_name(place.name + target.suffix),
        )
        for source, place, target in named
    ]


def _found(given: PathLike, walk: Walk) -> list[Job]:
    text = os.fspath(given)
    path = Path(text)
    if path.is_dir():
        images = sorted(walk.below(path))
        if not images and not walk.unreadable:
            holds = f"; it holds {counted(walk.passed_over)}" if walk.passed_over else ""
            raise ValueError(f"the folder {text!r} holds no images ({', '.join(walk.suffixes)}){holds}")
        return [(image, image.relative_to(path)) for image in images]
    if not path.exists() and glob.has_magic(text):
        files = [Path(match) for match in sorted(glob.glob(text, recursive=True)) if os.path.isfile(match)]
        if not files:
            raise ValueError(f"no file matches {text!r}")
        # below the part of the pattern that names folders plainly, the folders are kept
        base = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts))
        return [(file, file.relative_to(base)) for file in files]
    # a missing file too: it is named when its turn comes, and the others are done
    return [(path, Path(path.name))]


def _refuse_clashes(jobs: Sequence[Job]) -> None:
    inputs = {source.resolve(): source for source, _ in jobs}
    written: dict[Path, Path] = {}
    for source, target in jobs:
        place = target.resolve()
        if place in inputs:
            raise ValueError(f"this would overwrite the input {str(inputs[place])!r}: give another folder")
        if place in written:
            raise ValueError(
                f"{str(written[place])!r} and {str(source)!r} would both be written to {str(target)!r}"
            )
        written[place] = source
