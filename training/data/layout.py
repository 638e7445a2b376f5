"""Where photographs lie: folders, patterns, lists and datasets, on one side or on two that may be pairs."""

import glob
import os
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from torch.utils.data import IterableDataset

from fastllie.images.formats import READ, suffix_of
from fastllie.images.pairs import HIGH, LOW, naming
from fastllie.images.walk import Walk, counted

EXTENSIONS = tuple(READ)
UNPAIRED = ("traina", "trainb")  # the folders of CycleGAN and EnlightenGAN
MATCHING_SHARE = 0.5  # of the larger side, from which on two folders are taken for pairs

_TESTING = re.compile(r"(eval(uation)?|test(ing)?|val(id(ation)?)?)[-_ ]*\d*", re.IGNORECASE)


@dataclass(frozen=True)
class Problem:
    """What is wrong with a file: it was skipped, or converted and used."""

    file: str
    what: str
    skipped: bool


@dataclass(frozen=True, eq=False)
class Entry:
    """One image of a dataset: its item at `index`, or the first (0) or second (1) of that pair."""

    values: Any
    index: int
    side: int | None
    lock: threading.Lock

    def value(self) -> Any:
        # nothing says that a dataset may be read by several threads
        with self.lock:
            value = self.values[self.index]
        return value if self.side is None else value[self.side]


class Candidate(NamedTuple):
    """A photograph not looked at yet; the label is what a person calls it."""

    name: str
    label: str
    origin: Path | Entry


class Found(NamedTuple):
    layout: str
    low: list[Candidate]
    high: list[Candidate]
    where: str
    problems: list[Problem]


def find(data: Any, paired: bool | None) -> Found:
    if isinstance(data, IterableDataset):
        raise TypeError(
            "data is an IterableDataset, whose items have no numbers; wanted a map-style Dataset with __len__"
            " and __getitem__: give list(data) where it fits in memory, or write its images to a folder"
        )
    if isinstance(data, list) and len(data) == 2 and all(map(_is_side_in_text, data)):
        # a file of settings has no tuples
        data = tuple(data)
    if isinstance(data, tuple) and len(data) == 2 and all(_is_side(side) for side in data):
        (low, low_where, beside_low), (high, high_where, beside_high) = (_side(side) for side in data)
        positions = all(isinstance(side, (list, tuple)) for side in data)
        found = _two_sides(low, high, paired, f"({low_where}, {high_where})", positions)
        return found._replace(problems=[*beside_low, *beside_high, *found.problems])
    if isinstance(data, (str, os.PathLike)) and os.path.isdir(data):
        return _folder(Path(data), paired)
    candidates, where, problems = _side(data)
    entries = [one.origin for one in candidates if isinstance(one.origin, Entry)]
    if entries:
        return _entries(entries, candidates, where, paired)
    return _one_side(candidates, where, paired, problems)


def _is_side(data: Any) -> bool:
    """Whether one of two things is a side of its own, and not a file or an image."""
    if isinstance(data, (str, os.PathLike)):
        return os.path.isdir(data) or (glob.has_magic(os.fspath(data)) and not os.path.exists(data))
    return isinstance(data, (list, tuple))


def _is_side_in_text(data: Any) -> bool:
    """Whether one of two things is a side, given in strings alone: a list may also be a dataset of pairs."""
    return _is_side(data) and (isinstance(data, str) or all(isinstance(path, str) for path in data))


def _side(data: Any) -> tuple[list[Candidate], str, list[Problem]]:
    """The photographs of a folder, pattern, list or dataset, what to call it, and what is passed over."""
    problems: list[Problem] = []
    if isinstance(data, (str, os.PathLike)):
        name = os.fspath(data)
        if os.path.isdir(data):
            return _candidates(Path(data), _images(Path(data), problems)), name, problems
        if glob.has_magic(name) and not os.path.exists(name):
            matches = sorted(
                Path(found) for found in glob.glob(name, recursive=True) if os.path.isfile(found)
            )
            passed_over: dict[str, list[Path]] = {}
            for path in matches:
                if suffix_of(path) not in READ:
                    passed_over.setdefault(suffix_of(path) or "without a suffix", []).append(path)
            paths = [path for path in matches if suffix_of(path) in READ]
            problems += [_left_out(f"the pattern {name}", passed_over)] if passed_over else []
            return _candidates(_parent(paths), paths), f"the pattern {name}", problems
        raise ValueError(
            f"{name} is not a folder; wanted a folder of photographs, a pattern, or a list of files"
        )
    if isinstance(data, (list, tuple)) and all(isinstance(path, (str, os.PathLike)) for path in data):
        paths = [Path(path) for path in data]
        for path in paths:
            if not path.is_file():
                raise FileNotFoundError(f"no such image file: {path}")
        return _candidates(_parent(paths), paths), "the list", problems
    items = hasattr(data, "__len__") and hasattr(data, "__getitem__")
    if not items or isinstance(data, (Mapping, bytes, bytearray)):
        raise TypeError(
            "data must be a folder, a pattern, a list of image files, a tuple (low, high) of these, or a"
            f" dataset of images with __len__ and __getitem__; got {type(data).__name__}"
        )
    lock = threading.Lock()
    kind = type(data).__name__
    entries = [
        Candidate(str(i), f"item {i} of the {kind}", Entry(data, i, None, lock)) for i in range(len(data))
    ]
    return entries, f"the {kind}", problems


def _parent(paths: Sequence[Path]) -> Path:
    """The folder that all files lie in."""
    return Path(os.path.commonpath([path.absolute().parent for path in paths])) if paths else Path()


def _candidates(folder: Path, paths: Iterable[Path], prefix: Path | None = None) -> list[Candidate]:
    folder = folder.absolute()
    return [
        Candidate(((prefix or Path()) / path.absolute().relative_to(folder)).as_posix(), str(path), path)
        for path in paths
    ]


def _images(folder: Path, problems: list[Problem]) -> list[Path]:
    """The image files below a folder, as `fastllie.enhance_folder` finds them; the rest is counted."""
    walk = Walk()
    images = sorted(walk.below(folder))
    if walk.passed_over:
        problems.append(_left_out(str(folder), walk.passed_over))
    problems += [
        Problem(str(place), f"cannot be looked into: {error}", True) for place, error in walk.unreadable
    ]
    return images


def _left_out(where: str, passed_over: Mapping[str, list[Path]]) -> Problem:
    return Problem(where, f"holds {counted(passed_over)} beside photographs", True)


def _one_side(
    candidates: list[Candidate], where: str, paired: bool | None, problems: Sequence[Problem] = ()
) -> Found:
    if paired:
        raise ValueError(
            f"{where} has no two sides to pair; wanted subfolders {'/'.join(LOW)} and {'/'.join(HIGH)},"
            " a tuple (low, high), or a dataset of pairs"
        )
    if not candidates:
        others = "".join(f"; {problem.file} {problem.what}" for problem in problems)
        raise ValueError(f"{where} holds no images; wanted files that end in {', '.join(EXTENSIONS)}{others}")
    return Found("plain", candidates, [], where, list(problems))


def _folder(root: Path, paired: bool | None) -> Found:
    """A folder: two sides where it or folders in it hold them, one otherwise."""
    couples = _couples(root)
    training = [one for one in couples if not any(_TESTING.fullmatch(part) for part in one[0].parts)]
    testing = [one for one in couples if training and one not in training]
    problems = [
        Problem(str(root / folder), "is for testing, by its name; left out", True) for folder, _, _ in testing
    ]
    couples = training or couples
    if not couples:
        return _one_side(_candidates(root, _images(root, problems)), str(root), paired, problems)
    low, high = [], []
    for folder, dark, bright in couples:
        low += _candidates(root / folder / dark, _images(root / folder / dark, []), folder)
        high += _candidates(root / folder / bright, _images(root / folder / bright, []), folder)
    known = {candidate.origin for candidate in (*low, *high)}
    aside = [root / folder for folder, _, _ in testing]
    beside: list[Problem] = []
    outside = sum(
        path not in known and not any(path.is_relative_to(one) for one in aside)
        for path in _images(root, beside)
    )
    if outside:
        problems.append(Problem(str(root), f"holds {outside} images beside its two sides; left out", True))
    problems += beside
    if any(dark.lower() in UNPAIRED for _, dark, _ in couples) and paired is None:
        paired = False
    found = _two_sides(low, high, paired, str(root), False)
    return found._replace(problems=problems + found.problems)


def _couples(root: Path) -> list[tuple[Path, str, str]]:
    """Folders that hold a low and a high one: their path in `root` and the names of the two."""
    couples = []
    for folder, folders, _ in os.walk(root):
        named = {name.lower(): name for name in folders}
        dark = [name for name in (*LOW, UNPAIRED[0]) if name in named]
        bright = [name for name in (*HIGH, UNPAIRED[1]) if name in named]
        if not dark or not bright:
            folders.sort()
            continue
        if len(dark) > 1 or len(bright) > 1:
            raise ValueError(
                f"{folder} holds {', '.join(named[name] for name in dark + bright)}: which are the two sides?"
                " give them as a tuple (low, high)"
            )
        couples.append((Path(folder).relative_to(root), named[dark[0]], named[bright[0]]))
        folders.clear()
    return couples


def _two_sides(
    low: list[Candidate], high: list[Candidate], paired: bool | None, where: str, positions: bool
) -> Found:
    """Pairs or not: by the names, or as `paired` says; `positions`: lists may be paired by their order."""
    for side, name in ((low, "low"), (high, "high")):
        if not side:
            wanted = f"wanted files that end in {', '.join(EXTENSIONS)}"
            raise ValueError(f"the {name} side of {where} holds no images; {wanted}")
    matched: list[tuple[Candidate, Candidate]] = []
    if paired is not False:
        key = naming([[one.name for one in side] for side in (low, high)])
        keys = [{key(one.name): one for one in side} for side in (low, high)]
        matched = [(one, keys[1][name]) for name, one in keys[0].items() if name in keys[1]]
    if paired is None:
        paired = len(matched) >= MATCHING_SHARE * max(len(low), len(high))
    if not paired:
        return Found("unpaired", low, high, where, [])
    if not matched and positions and len(low) == len(high):
        matched = list(zip(low, high, strict=True))
    if not matched:
        raise ValueError(
            f"no file of the low side of {where} has the name of one of the high side:"
            f" {low[0].name} and {high[0].name}, for example"
        )
    used = {one for pair in matched for one in pair}
    alone = [Problem(one.label, "has no pair", True) for one in (*low, *high) if one not in used]
    return Found("paired", [dark for dark, _ in matched], [bright for _, bright in matched], where, alone)


def _entries(entries: list[Entry], candidates: list[Candidate], where: str, paired: bool | None) -> Found:
    """A dataset of images, of images with labels, or of pairs; the first item that can be read says which."""
    value = _first(entries)
    if not isinstance(value, (tuple, list)):
        return _one_side(candidates, where, paired)
    images = [_is_image(part) for part in value[:2]]

    def side(number: int) -> list[Candidate]:
        return [
            one._replace(label=f"{one.label}, image {number + 1}", origin=replace(entry, side=number))
            for one, entry in zip(candidates, entries, strict=True)
        ]

    if images == [True, True]:
        if paired is False:
            return Found("unpaired", side(0), side(1), where, [])
        return Found("paired", side(0), side(1), where, [])
    # an image and its label, as the datasets for classification have it
    return _one_side(side(0), where, paired)


def _first(entries: list[Entry]) -> Any:
    for entry in entries:
        try:
            return entry.value()
        except Exception:
            # reported by name when each is looked at
            continue
    return None


def _is_image(value: Any) -> bool:
    return isinstance(value, Image.Image) or getattr(value, "ndim", 0) >= 2
