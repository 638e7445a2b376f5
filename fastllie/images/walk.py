"""Walks through folders: which files are read, and an account of all that is passed over."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from fastllie.images.formats import READ, suffix_of

HIDDEN, LINK, BROKEN = "hidden", "link to a folder", "broken link"


class Walk:
    """A walk through folders, which finds what is read and keeps account of the rest.

    Args:
        suffixes: Of the files that are read.
        follow: Look also into folders that are links, each once.
        hidden: Take also what begins with a dot.
        results: A folder that is not looked into where the walk begins above it.
        ours: How names of files end that are none of anybody's, and are not counted.

    Attributes:
        passed_over: What was not read, by kind: a suffix, "hidden", "link to a folder", ...
        unreadable: Folders that could not be looked into, each with the reason.
    """

    def __init__(
        self,
        suffixes: Sequence[str] = tuple(READ),
        *,
        follow: bool = True,
        hidden: bool = False,
        results: Path | None = None,
        ours: tuple[str, ...] = (),
    ) -> None:
        self.suffixes = suffixes
        self.passed_over: dict[str, list[Path]] = {}
        self.unreadable: list[tuple[Path, OSError]] = []
        self._results = None if results is None else results.resolve()
        self._follow, self._hidden, self._ours = follow, hidden, ours

    def below(self, folder: Path) -> Iterator[Path]:
        """Files in a folder and its folders, by suffix."""
        results = self._results if self._results and folder.resolve() in self._results.parents else None
        seen: set[Path] = set()
        places, links = [folder], list[Path]()
        while places or links:
            # those that are links last, so that what is in the folder itself has its own name
            place = places.pop() if places else links.pop(0)
            real = place.resolve()
            if real in seen or (results and (real == results or results in real.parents)):
                continue
            seen.add(real)
            try:
                with os.scandir(place) as listed:
                    entries = sorted(listed, key=lambda entry: entry.name)
            except OSError as error:
                self.unreadable.append((Path(error.filename or place), error))
                continue
            for entry in entries:
                path = place / entry.name
                if entry.name.endswith(self._ours):
                    continue
                if entry.name.startswith(".") and not self._hidden:
                    self._pass_over(HIDDEN, path)
                elif entry.is_dir(follow_symlinks=False):
                    places.append(path)
                elif path.is_dir() and not self._follow:
                    self._pass_over(LINK, path)
                elif path.is_dir():
                    links.append(path)
                elif self._is_read(entry, path) and not (results and results in path.resolve().parents):
                    yield path

    def _is_read(self, entry: "os.DirEntry[str]", path: Path) -> bool:
        if entry.is_symlink() and not path.exists():
            self._pass_over(BROKEN, path)
            return False
        suffix = suffix_of(path)
        if suffix in self.suffixes and path.is_file():
            return True
        self._pass_over(suffix or "without a suffix", path)
        return False

    def _pass_over(self, kind: str, path: Path) -> None:
        self.passed_over.setdefault(kind, []).append(path)


def counted(passed_over: Mapping[str, Iterable[Path]]) -> str:
    """How many of each kind were passed over, in words."""
    return ", ".join(f"{len(list(paths))} {kind}" for kind, paths in sorted(passed_over.items()))


def images_below(folder: Path, passed_over: list[str]) -> dict[str, Path]:
    """The image files of a folder and its folders: path below it -> file, in order.

    Args:
        passed_over: Gets a line on what was not read.

    Raises:
        ValueError: none.
    """
    walk = Walk()
    paths = sorted(walk.below(folder))
    passed_over += [f"{folder}: left alone: {counted(walk.passed_over)}"] if walk.passed_over else []
    passed_over += [f"{place}: {error}" for place, error in walk.unreadable]
    if not paths:
        raise ValueError(f"the folder {os.fspath(folder)!r} holds no images ({', '.join(READ)})")
    return {path.relative_to(folder).as_posix(): path for path in paths}
