"""What a terminal shows of a count: at once and to the end, on a bar or in lines."""

import io
import sys
import time

import pytest

from fastllie.terminal import Counting, on_terminal


@pytest.fixture
def clock(monkeypatch):
    """The time, which the test moves."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_a_count_is_said_at_once_and_then_every_few_seconds(clock, capsys):
    lines = []
    with Counting("reading photographs", bar=False, say=lines.append) as count:
        clock[0] += 30  # the search for files is not the pace
        for done in range(21):
            count(done, 20)
            clock[0] += 1
    assert lines == [
        "reading photographs 0/20",
        "reading photographs 5/20  15 s left",
        "reading photographs 10/20  10 s left",
        "reading photographs 15/20  5 s left",
    ]
    assert capsys.readouterr() == ("", "")


def test_short_work_says_nothing_where_that_was_asked(clock):
    lines = []
    with Counting("preparing photographs", bar=False, say=lines.append, after=1.0) as count:
        count(0, 3)
        clock[0] += 0.9
        count(1, 3)
        clock[0] += 0.2
        count(2, 3)
    assert lines == ["preparing photographs 2/3  1 s left"]
    with Counting("evaluating images", bar=False) as count:
        count(0, 3)


class Stream(io.StringIO):
    def isatty(self):
        return True


# as Jupyter's kernels call the module of their streams
Notebook = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})


def test_a_bar_is_drawn_at_once_and_taken_away(clock, monkeypatch):
    stream = Stream()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("COLUMNS", "80")
    lines = []
    with Counting("reading photographs", bar=on_terminal(), say=lines.append) as count:
        count(0, 4)
        assert stream.getvalue().endswith("] reading photographs 0/4")
        clock[0] += 3
        count(3, 4)
        assert stream.getvalue().rstrip().endswith("] reading photographs 3/4  1 s left")
    assert stream.getvalue().endswith("\r")
    assert lines == []


def test_bars_are_for_terminals_and_notebooks(monkeypatch):
    for stream, seen in ((Stream(), True), (Notebook(), True), (io.StringIO(), False), (None, False)):
        monkeypatch.setattr(sys, "stderr", stream)
        assert on_terminal() is seen
