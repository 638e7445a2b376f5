"""Which files belong together: what the names of a dark photograph, its target and its results share."""

import re
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath

LOW, HIGH = ("low", "input"), ("high", "normal", "gt", "target")
_WORDS = "|".join((*LOW, *HIGH))
_SIDE_WORD = re.compile(rf"^({_WORDS})[-_ ]*(?=\d)|^({_WORDS})[-_ ]+|[-_ ]+({_WORDS})$", re.IGNORECASE)

Key = Callable[[str], str | None]


def naming(sides: Sequence[Sequence[str]], rule: str | None = None) -> Key:
    """What gives of a name what its partners share with it, by the way of naming that pairs most.

    Names as they are come first ("normal_1" may be the name of a scene), then names without the words of
    the sides: "low00690" and "normal00690", "a_input" and "a_gt". Suffixes never count.

    Args:
        sides: The names of each side, paths below its folder with slashes.
        rule: A regular expression instead: partners share its first group, or all that it finds. Names in
            which it finds nothing get None.

    Raises:
        ValueError: a rule that is no regular expression.
    """
    if rule is None:
        return max((_plain, _without_side), key=lambda key: len(_shared(sides, key)))
    try:
        pattern = re.compile(rule)
    except re.error as error:
        raise ValueError(f"the rule for names {rule!r} is no regular expression: {error}") from error

    def found(name: str) -> str | None:
        match = pattern.search(_plain(name))
        return match and match[min(1, pattern.groups)]

    return found


def _shared(sides: Sequence[Sequence[str]], key: Callable[[str], str]) -> set[str]:
    return set.intersection(*({key(name) for name in side} for side in sides))


def _plain(name: str) -> str:
    return PurePosixPath(name).with_suffix("").as_posix()


def _without_side(name: str) -> str:
    path = PurePosixPath(name).with_suffix("")
    return (path.parent / _SIDE_WORD.sub("", path.name)).as_posix()
