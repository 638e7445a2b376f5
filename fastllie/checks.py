"""What is checked of numbers at the door, each with one wording; free of PyTorch."""

from typing import Any


def is_int(value: Any, least: int | None = None) -> bool:
    """Whether `value` is an integer, no bool, and not below `least`."""
    return isinstance(value, int) and not isinstance(value, bool) and (least is None or value >= least)


def is_number(value: Any) -> bool:
    """Whether `value` is an integer or a float, no bool."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def check_int(name: str, value: Any, wanted: str = "an integer") -> int:
    """Return `value`, or raise a TypeError unless it is an integer; `wanted` says what else may be given."""
    if not is_int(value):
        raise TypeError(f"{name} must be {wanted}, got {value!r}")
    return value


def check_positive(name: str, value: Any) -> int:
    """Return `value`, or raise a TypeError or ValueError unless it is an integer of at least 1."""
    if check_int(name, value) < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return value


def check_within(name: str, value: Any, low: int, high: int) -> int:
    """Return `value`, or raise a TypeError or ValueError unless it is an integer in `low`..`high`."""
    if not low <= check_int(name, value) <= high:
        raise ValueError(f"{name} must lie in {low}..{high}, got {value}")
    return value


def check_number(name: str, value: Any) -> None:
    """Raise a TypeError unless `value` is an integer or a float."""
    if not is_number(value):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")


def check_share(name: str, value: Any) -> float:
    """Return `value` as a float, or raise a TypeError or ValueError unless it is a number in [0, 1]."""
    check_number(name, value)
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must lie in [0, 1], got {value}")
    return float(value)


def check_level(name: str, value: Any) -> float:
    """Return `value` as a float, or raise a TypeError or ValueError unless it is a number in (0, 1)."""
    check_number(name, value)
    if not 0 < value < 1:
        raise ValueError(f"{name} must lie between 0 and 1, got {value}")
    return float(value)


def check_flag(name: str, value: Any) -> None:
    """Raise a TypeError unless `value` is a bool."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")
