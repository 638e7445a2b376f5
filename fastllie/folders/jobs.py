"""Which files are read, and which is written for each."""

import glob
import itertools
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastllie.images.files import SUFFIXES

PathLike = str | os.PathLike[str]
Job = tuple[Path, Path]  # what is read, and what is written for it


@dataclass(frozen=True)
class Failure:
    """An input for which nothing was written, and why."""

    source: Path
    error: Exception

    def __str__(self) -> str:
        return f"{self.source}: {self.error}"


def plan(
    inputs: Sequence[PathLike], output: PathLike, suffixes: Collection[str] = tuple(SUFFIXES)
) -> tuple[list[Job], list[Failure]]:
    """Which file is read and which is written for it; and the folders that could not be looked into.

    Args:
        inputs: Folders, files and globs.
        output: A folder; or a file, for one input file.
        suffixes: What is taken from a folder, and what is a file as the output.

    Raises:
        ValueError: nothing to do, one output for two inputs, or an output that would overwrite an input (one
            file given as its own output is meant and allowed).
    """
    if not inputs:
        raise ValueError("no inputs: wanted image files, folders or globs")
    out = Path(output)
    found: list[Job] = []  # an input, and where below OUT its result goes
    unreadable: list[Failure] = []
    for given in inputs:
        text = os.fspath(given)
        path = Path(text)
        if path.is_dir():
            images = _files_below(path, out, suffixes, unreadable)
            if not images and not unreadable:
                raise ValueError(f"the folder {text!r} holds no images ({', '.join(suffixes)})")
            found += [(image, image.relative_to(path)) for image in images]
        elif not path.exists() and glob.has_magic(text):
            files = [
                Path(match) for match in sorted(glob.glob(text, recursive=True)) if os.path.isfile(match)
            ]
            if not files:
                raise ValueError(f"no file matches {text!r}")
            # below the part of the pattern that names folders plainly, the folders are kept
            base = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts))
            found += [(file, file.relative_to(base)) for file in files]
        else:
            # a missing file too: it is named when its turn comes, and the others are done
            found.append((path, Path(path.name)))
    if out.exists() and not out.is_dir() and out.suffix.lower() not in suffixes:
        raise ValueError(f"{str(out)!r} is a file that is no image: give a folder")
    to_file = out.suffix.lower() in suffixes and not out.is_dir()
    if to_file and (len(found) != 1 or Path(inputs[0]).is_dir()):
        raise ValueError(f"{str(out)!r} is one file, but there are {len(found)} inputs: give a folder")
    if to_file:
        return [(found[0][0], out)], unreadable
    jobs = list(dict.fromkeys((source, out / place) for source, place in found))
    _refuse_clashes(jobs)
    return jobs, unreadable


def _files_below(folder: Path, out: Path, suffixes: Collection[str], unreadable: list[Failure]) -> list[Path]:
    """Files in a folder and its folders, by suffix, without the results of an earlier run."""
    results = out.resolve()
    inside = folder.resolve() in results.parents
    found = []
    for place, _, names in os.walk(
        folder, onerror=lambda error: unreadable.append(Failure(Path(error.filename), error))
    ):
        if inside and (results == Path(place).resolve() or results in Path(place).resolve().parents):
            continue
        found += [Path(place, name) for name in names if os.path.splitext(name)[1].lower() in suffixes]
    return sorted(
        path for path in found if path.is_file() and not (inside and results in path.resolve().parents)
    )


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
