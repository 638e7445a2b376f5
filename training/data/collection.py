"""What there is to train on: photographs, each decoded once to see that it is good, in one or two sides."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from fastllie.terminal import Count
from fastllie.training.data.cache import Index, spread
from fastllie.training.data.layout import Candidate, Entry, Problem, find
from fastllie.training.data.pixels import from_value, read

SMALLEST_SIDE = 16  # a patch of the exposure loss
SAVE_EVERY = 1000  # files between savings of what was found out about them
SHOWN = 5  # problems in an error


@dataclass(frozen=True)
class Item:
    """A photograph that was decoded once and found good.

    Attributes:
        name: Its path in its folder, or its number in its dataset.
        digest: Of its content.
        size: Upright width and height.
        origin: Where it is read from.
        max_pixels: How many it may have; None is the usual limit.
    """

    name: str
    digest: str
    size: tuple[int, int]
    origin: Path | Entry
    max_pixels: int | None = None

    def image(self) -> Image.Image:
        """The photograph in 8-bit RGB.

        Raises:
            ValueError: a file that has changed since it was looked at.
        """
        if isinstance(self.origin, Entry):
            return from_value(self.origin.value())[0]
        content = self.origin.read_bytes()
        if hashlib.sha256(content).hexdigest() != self.digest:
            raise ValueError(f"{self.origin} has changed since the run began")
        return read(content, self.origin, self.max_pixels)[0]


@dataclass(frozen=True)
class Collection:
    """Photographs to train on.

    Attributes:
        layout: "plain": `low` alone; "paired": `high[i]` is what `low[i]` should become; "unpaired": `high`
            are photographs of normal light that have nothing to do with `low`.
        problems: What was skipped or converted.
    """

    layout: str
    low: tuple[Item, ...]
    high: tuple[Item, ...] = ()
    problems: tuple[Problem, ...] = ()

    def split(self, share: float, seed: int = 0) -> tuple["Collection", "Collection"]:
        """Those to train on, and a share held out; pairs stay together.

        Which are held out depends on their names and the seed alone, so that they stay so when photographs
        are added. At least one is held out where `share` is above 0, and at least one is left.

        Raises:
            ValueError: a share outside [0, 1), or a single photograph.
        """
        if not 0 <= share < 1:
            raise ValueError(f"share must lie in [0, 1), got {share}")
        if share and len(self.low) < 2:
            raise ValueError(
                f"a single photograph cannot be split: {self.low[0].name}; give more, or share=0"
            )
        low, low_out = _split([item.name for item in self.low], share, seed)
        if self.layout == "unpaired" and len(self.high) > 1:
            high, high_out = _split([item.name for item in self.high], share, seed)
        elif self.layout == "unpaired":
            high = high_out = [0]
        else:
            high, high_out = low, low_out

        def part(low: list[int], high: list[int], problems: tuple[Problem, ...]) -> Collection:
            chosen = tuple(self.high[i] for i in high) if self.high else ()
            return replace(self, low=tuple(self.low[i] for i in low), high=chosen, problems=problems)

        return part(low, high, self.problems), part(low_out, high_out, ())


def _split(names: Sequence[str], share: float, seed: int) -> tuple[list[int], list[int]]:
    places = [int(hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()[:13], 16) / 16**13 for name in names]
    order = sorted(range(len(names)), key=places.__getitem__)
    out = sum(place < share for place in places)
    out = min(max(out, 1), len(names) - 1) if share else 0
    held = set(order[:out])
    return [i for i in range(len(names)) if i not in held], sorted(held)


def collect(
    data: Any,
    *,
    paired: bool | None = None,
    cache: Path | None = None,
    threads: int | None = None,
    max_pixels: int | None = None,
    progress: Count | None = None,
) -> Collection:
    """Find photographs in `data` and decode each once, so that none turns out broken in the middle of a run.

    Args:
        data: A folder, searched with its folders; a glob pattern; a list of files; two of these as a tuple
            (low, high); a map-style dataset, or any sequence of images or of pairs of them (PIL images,
            tensors `[C, H, W]`, arrays `[H, W, C]`). In a folder the subfolders low and high (or input,
            normal, gt, target; also deeper, as our485/low) are two sides: paired where their files have the
            same names but for those words and the suffix, else unpaired; trainA and trainB are unpaired.
        paired: Forces two sides to be taken as pairs, or not to be.
        cache: A folder in which is remembered which files are good, so that they are not decoded next time.
        threads: That decode.
        max_pixels: Of one photograph, as for `fastllie.enhance_folder`.
        progress: Called with how many are done, and how many there are.

    Raises:
        TypeError: none of these kinds.
        ValueError: nothing there that can be used.
        FileNotFoundError: a file of a list that is not there.
        OSError: a cache that cannot be written.
    """
    found = find(data, paired)
    index = Index(cache)
    work = list(dict.fromkeys((*found.low, *found.high)))
    findings: dict[Candidate, _Finding] = {}
    if progress is not None:
        progress(0, len(work))
    for done, (candidate, finding) in enumerate(
        zip(work, spread(lambda one: _look(one.origin, index, max_pixels), work, threads), strict=True), 1
    ):
        findings[candidate] = finding
        if done % SAVE_EVERY == 0:
            index.save()
        if progress is not None:
            progress(done, len(work))
    index.save()
    problems = [
        *found.problems,
        *(
            Problem(candidate.label, finding.what, not finding.digest)
            for candidate, finding in findings.items()
            if finding.what
        ),
    ]

    def item(candidate: Candidate) -> Item | None:
        finding = findings[candidate]
        if not finding.digest:
            return None
        return Item(candidate.name, finding.digest, finding.size, candidate.origin, max_pixels)

    low, high = [item(one) for one in found.low], [item(one) for one in found.high]
    if found.layout == "paired":
        pairs, unlike = _alike(found.low, low, high)
        problems += unlike
        low, high = [dark for dark, _ in pairs], [bright for _, bright in pairs]
    result = Collection(
        found.layout,
        tuple(one for one in low if one is not None),
        tuple(one for one in high if one is not None),
        tuple(problems),
    )
    if not result.low or (result.layout == "unpaired" and not result.high):
        side = (
            "" if found.layout == "plain" else "pairs of " if found.layout == "paired" else "both sides of "
        )
        raise ValueError(f"{found.where} holds no {side}images that can be used{_listed(problems)}")
    return result


def _alike(
    candidates: Sequence[Candidate], low: Sequence[Item | None], high: Sequence[Item | None]
) -> tuple[list[tuple[Item, Item]], list[Problem]]:
    """The pairs of which both can be used, and the problems of those that differ in size."""
    pairs, problems = [], []
    for candidate, dark, bright in zip(candidates, low, high, strict=True):
        if dark is None or bright is None:
            continue
        if dark.size == bright.size:
            pairs.append((dark, bright))
            continue
        sizes = " and ".join("{}x{}".format(*one.size) for one in (dark, bright))
        problems.append(Problem(candidate.label, f"and its pair differ in size: {sizes}", True))
    return pairs, problems


class _Finding(NamedTuple):
    """An empty digest where the photograph cannot be used; `what` is a problem, or empty."""

    digest: str
    size: tuple[int, int]
    what: str


def _listed(problems: Sequence[Problem]) -> str:
    lines = [f"\n  {problem.file} {problem.what}" for problem in problems[:SHOWN]]
    more = len(problems) - SHOWN
    return ":" * bool(lines) + "".join(lines) + (f"\n  and {more} more" if more > 0 else "")


def _look(origin: Path | Entry, index: Index, max_pixels: int | None) -> _Finding:
    """Decode a photograph in full."""
    try:
        if isinstance(origin, Path):
            known = index.find(origin)
            if known is not None:
                digest, width, height, what = known
                return _Finding(digest, (width, height), what)
            state = index.state(origin)
            content = origin.read_bytes()
            image, what = read(content, origin, max_pixels)
        else:
            image, what = from_value(origin.value())
            content = repr(image.size).encode() + image.tobytes()
    except (ImportError, ValueError) as error:
        return _Finding("", (0, 0), str(error))
    except Exception as error:
        # a file that may not be read, or whatever a dataset raises: reported by name, like a broken file
        return _Finding("", (0, 0), f"cannot be read: {type(error).__name__}: {error}")
    if min(image.size) < SMALLEST_SIDE:
        return _Finding(
            "", (0, 0), f"is {image.width}x{image.height}; the smallest side must be {SMALLEST_SIDE} or more"
        )
    finding = _Finding(hashlib.sha256(content).hexdigest(), image.size, what)
    if isinstance(origin, Path):
        # only what is good: the limit on the pixels of a file may be raised, a file be given rights
        index.add(origin, state, [finding.digest, *finding.size, what])
    return finding
