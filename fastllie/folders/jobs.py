"""Which files are read, which is written for each, and what is passed over."""

import glob
import itertools
import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fastllie.folders.record import NAME as RECORD
from fastllie.images.extras import require
from fastllie.images.formats import DEVELOPED, READ, SUFFIXES, format_of, suffix_of

PathLike = str | os.PathLike[str]
Job = tuple[Path, Path]  # what is read, and what is written for it
HIDDEN, LINK, BROKEN = "hidden", "link to a folder", "broken link"


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

    def pass_over(self, kind: str, path: Path) -> None:
        self.passed_over.setdefault(kind, []).append(path)


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
    walk = _Walk(out, (*READ, *others), follow, hidden)
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
        walk.plan.jobs = [(found[0][0], out)]
        return walk.plan
    walk.plan.jobs = [(source, out / place) for source, place in _named(found, suffix, others)]
    _refuse_clashes(walk.plan.jobs)
    return walk.plan


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
        own = DEVELOPED if READ.get(given) == "RAW" else given
        wanted = own if given in others or not suffix else suffix
        named.append((source, place, place if wanted == given else place.with_suffix(wanted)))
    taken = Counter(target for _, _, target in named)
    return [
        (
            source,
            target if target == place or taken[target] == 1 else place.with_name(place.name + target.suffix),
        )
        for source, place, target in named
    ]


def _found(given: PathLike, walk: "_Walk") -> list[Job]:
    text = os.fspath(given)
    path = Path(text)
    if path.is_dir():
        images = sorted(walk.below(path))
        if not images and not walk.plan.unreadable:
            others = ", ".join(f"{len(paths)} {kind}" for kind, paths in walk.plan.passed_over.items())
            holds = f"; it holds {others}" if others else ""
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


class _Walk:
    """A walk through folders, which finds what is read and keeps account of the rest."""

    def __init__(self, out: Path, suffixes: Sequence[str], follow: bool, hidden: bool) -> None:
        self.plan = Plan()
        self.suffixes = suffixes
        self._results = out.resolve()
        self._follow, self._hidden = follow, hidden

    def below(self, folder: Path) -> Iterator[Path]:
        """Files in a folder and its folders, by suffix, without the results of an earlier run."""
        inside = folder.resolve() in self._results.parents
        seen: set[Path] = set()
        places, links = [folder], list[Path]()
        while places or links:
            # those that are links last, so that what is in the folder itself has its own name
            place = places.pop() if places else links.pop(0)
            real = place.resolve()
            if real in seen or (inside and (real == self._results or self._results in real.parents)):
                continue
            seen.add(real)
            try:
                with os.scandir(place) as listed:
                    entries = sorted(listed, key=lambda entry: entry.name)
            except OSError as error:
                self.plan.unreadable.append(Failure(Path(error.filename or place), error))
                continue
            for entry in entries:
                path = place / entry.name
                if entry.name == RECORD:
                    continue
                if entry.name.startswith(".") and not self._hidden:
                    self.plan.pass_over(HIDDEN, path)
                elif entry.is_dir(follow_symlinks=False):
                    places.append(path)
                elif path.is_dir() and not self._follow:
                    self.plan.pass_over(LINK, path)
                elif path.is_dir():
                    links.append(path)
                elif self._is_read(entry, path) and not (inside and self._results in path.resolve().parents):
                    yield path

    def _is_read(self, entry: "os.DirEntry[str]", path: Path) -> bool:
        if entry.is_symlink() and not path.exists():
            self.plan.pass_over(BROKEN, path)
            return False
        suffix = suffix_of(path)
        if suffix in self.suffixes and path.is_file():
            return True
        self.plan.pass_over(suffix or "without a suffix", path)
        return False


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
