"""The logs of a run, what they hold after any stop, and what a terminal shows meanwhile."""

import csv
import io
import json
import math
import os
import re
import subprocess
import sys
import time
from types import ModuleType

import pytest
from helpers import refused
from PIL import Image
from serving import HOME

from fastllie.terminal import compose, spell_seconds
from fastllie.training.record import journal as module
from fastllie.training.record.journal import LOG, NOTES, TABLE, VALIDATION, Journal, read_lines

PARTS = {"total": 1.5, "exposure": 0.5, "gradient": 0.25, "learning_rate": 1e-4}


def strictly(text):
    """As any reader of JSON reads it: NaN and Infinity are none."""

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def table(folder):
    with open(folder / TABLE, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def log_steps(journal, steps, **values):
    for step in steps:
        journal.log(step, {**PARTS, "total": 1 / step, **values}, images=80, seconds=2.0)


class Clock:
    """A clock that the test moves."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


class Terminal(io.StringIO):
    """Stands in for stderr; in the test itself, as pytest sets its own between a fixture and its test."""

    def __init__(self, monkeypatch, columns=100):
        super().__init__()
        monkeypatch.setattr(sys, "stderr", self)
        monkeypatch.setenv("COLUMNS", str(columns))

    def isatty(self):
        return True

    def rows(self, width):
        """What stands on a screen of this width, row by row; nothing may run into its right edge."""
        rows, place = [[]], 0
        for character in self.getvalue():
            if character == "\r":
                place = 0
            elif character == "\n":
                rows.append([])
                place = 0
            else:
                assert place < width - 1, "a line wraps"
                rows[-1][place : place + 1] = character
                place += 1
        return ["".join(row).rstrip() for row in rows]


# --- the logs


def test_logs_hold_what_they_were_told(tmp_path):
    with Journal(tmp_path / "new" / "run", total_steps=20) as journal:
        log_steps(journal, [10, 20])
        journal.validated(20, {"psnr": 18.5}, best=True)
        journal.note("photo <1>.jpg is damaged")
    lines = strictly((tmp_path / "new" / "run" / LOG).read_text())
    assert [line["step"] for line in lines] == [10, 20]
    assert lines[0]["values"] == {**PARTS, "total": 0.1}
    assert lines[0]["images_per_second"] == 40
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d", lines[0]["time"])
    rows = table(tmp_path / "new" / "run")
    assert list(rows[0]) == ["step", *PARTS, "images_per_second", "elapsed", "time"]
    assert [(row["step"], row["total"], row["learning_rate"]) for row in rows] == [
        ("10", "0.1", "0.0001"),
        ("20", "0.05", "0.0001"),
    ]
    (score,) = strictly((tmp_path / "new" / "run" / VALIDATION).read_text())
    assert (score["step"], score["scores"], score["best"]) == (20, {"psnr": 18.5}, True)
    notes = (tmp_path / "new" / "run" / NOTES).read_text().splitlines()
    assert notes[0].endswith("  validation at step 20  psnr 18.5000  best so far")
    assert notes[1].endswith("  photo <1>.jpg is damaged")


def test_numbers_that_are_not_finite_are_json(tmp_path):
    values = {"total": math.nan, "gradient": math.inf, "exposure": -math.inf}
    with Journal(tmp_path, total_steps=1) as journal:
        journal.log(1, values, images=1, seconds=0.0)
        journal.validated(1, {"psnr": math.inf}, best=False)
    (line,) = strictly((tmp_path / LOG).read_text())
    assert line["values"] == {"total": "NaN", "gradient": "Infinity", "exposure": "-Infinity"}
    assert float(line["values"]["exposure"]) == -math.inf
    assert table(tmp_path)[0]["gradient"] == "Infinity"
    assert strictly((tmp_path / VALIDATION).read_text())[0]["scores"] == {"psnr": "Infinity"}


def test_loss_that_appears_later_has_its_column(tmp_path):
    with Journal(tmp_path, total_steps=4) as journal:
        log_steps(journal, [1, 2])
        log_steps(journal, [3], late=7.0)
        log_steps(journal, [4])
    assert [row["late"] for row in table(tmp_path)] == ["", "", "7.0", ""]
    assert [row["total"] for row in table(tmp_path)] == [str(1 / step) for step in (1, 2, 3, 4)]
    # and a resumed run knows it
    with Journal(tmp_path, total_steps=5, done=4) as journal:
        log_steps(journal, [5])
    assert [row["late"] for row in table(tmp_path)] == ["", "", "7.0", "", ""]


def test_names_that_are_no_text_do_not_stop_a_run(tmp_path):
    with Journal(tmp_path, total_steps=1) as journal:
        journal.note(f"{os.fsdecode(b'caf' + bytes([0xE9]))}.jpg is damaged")
    assert "jpg is damaged" in (tmp_path / NOTES).read_text(encoding="utf-8")


# --- stops and resumes


def without_times(lines):
    return [{key: line[key] for key in line if key not in ("time", "elapsed")} for line in lines]


def test_resumed_logs_go_on_as_if_unbroken(tmp_path, monkeypatch):
    clock = Clock(monkeypatch)
    for name, parts in (("whole", [(0, range(1, 7))]), ("broken", [(0, range(1, 6)), (3, range(4, 7))])):
        for done, steps in parts:
            with Journal(tmp_path / name, total_steps=6, done=done) as journal:
                for step in steps:
                    clock.now += 5
                    log_steps(journal, [step])
                    journal.validated(step, {"psnr": float(step)}, best=True)
                journal.picture(steps[-1], "photographs", Image.new("RGB", (4, 4)))
            # what a kill leaves behind
            for file in (LOG, TABLE, VALIDATION, NOTES):
                with open(tmp_path / name / file, "a") as torn:
                    torn.write('{"step": 3, "val')
    for file in (LOG, VALIDATION):
        whole, broken = (read_lines(tmp_path / name / file) for name in ("whole", "broken"))
        assert without_times(whole) == without_times(broken)
        assert [line["step"] for line in broken] == [1, 2, 3, 4, 5, 6]
    assert [line["elapsed"] for line in read_lines(tmp_path / "broken" / LOG)] == [5, 10, 15, 20, 25, 30]
    # what stood after the third step is gone, the half lines are too
    with Journal(tmp_path / "broken", total_steps=6, done=3):
        pass
    assert [line["step"] for line in strictly((tmp_path / "broken" / LOG).read_text())] == [1, 2, 3]
    assert [row["step"] for row in table(tmp_path / "broken")] == ["1", "2", "3"]
    assert not list((tmp_path / "broken" / "pictures").iterdir())
    notes = (tmp_path / "broken" / NOTES).read_text()
    assert notes.count("validation at step 5") == 2  # a diary: it keeps what was done in vain
    assert notes.endswith('"val\n')


def test_new_run_starts_new_logs(tmp_path):
    with Journal(tmp_path, total_steps=2) as journal:
        log_steps(journal, [1, 2])
        journal.validated(2, {"psnr": 1.0}, best=True)
        journal.note("old")
        journal.picture(2, "photographs", Image.new("RGB", (4, 4)))
    (tmp_path / "pictures" / "mine.jpg").write_bytes(b"kept")
    with Journal(tmp_path, total_steps=2) as journal:
        log_steps(journal, [1], other=1.0)
    assert [line["step"] for line in read_lines(tmp_path / LOG)] == [1]
    assert "other" in table(tmp_path)[0]
    assert not (tmp_path / VALIDATION).exists()
    assert not (tmp_path / NOTES).exists()
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["mine.jpg"]


def test_killed_writer_leaves_logs_that_go_on(tmp_path):
    code = (
        "import sys; from pathlib import Path; from fastllie.training.record.journal import Journal\n"
        "journal = Journal(Path(sys.argv[1]), total_steps=10**9)\n"
        "for step in range(1, 10**9): journal.log(step, {'total': 1 / step}, images=1, seconds=1)"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=HOME)
    try:
        until = time.monotonic() + 60
        while not (tmp_path / LOG).exists() or (tmp_path / LOG).stat().st_size < 20_000:
            assert writer.poll() is None, "the writer ended"
            assert time.monotonic() < until, "the writer is stuck"
            time.sleep(0.01)
    finally:
        writer.kill()
        writer.wait()
    with Journal(tmp_path, total_steps=200, done=100) as journal:
        log_steps(journal, [101])
    assert [line["step"] for line in strictly((tmp_path / LOG).read_text())] == list(range(1, 102))
    assert [int(row["step"]) for row in table(tmp_path)] == list(range(1, 102))


# --- what a terminal shows


def test_bar_stays_in_its_line_and_notes_stand_above_it(tmp_path, monkeypatch):
    clock, terminal = Clock(monkeypatch), Terminal(monkeypatch)
    with Journal(tmp_path, total_steps=100) as journal:
        for step in (10, 20, 30):
            clock.now += 2
            log_steps(journal, [step])
            if step == 20:
                journal.note("resumed at step 20")
    rows = terminal.rows(100)
    assert rows[0] == "resumed at step 20"
    assert rows[1].startswith("[")
    assert "]  30/100" in rows[1]
    assert "14 s left  40.0 images/s  total 0.0333  exposure 0.5000" in rows[1]
    assert "gradient" not in rows[1]
    assert rows[2:] == [""]


def test_shorter_line_leaves_nothing_of_the_longer_one(tmp_path, monkeypatch):
    terminal = Terminal(monkeypatch)
    clock = Clock(monkeypatch)
    with Journal(tmp_path, total_steps=100) as journal:
        log_steps(journal, [10], a_loss_of_a_name=3.0)
        clock.now += 1
        journal.log(20, {"total": 0.5}, images=1, seconds=1.0)
    assert terminal.rows(100)[0].endswith("images/s  total 0.5000")


@pytest.mark.parametrize("columns", [1, 7, 20, 40, 80, 300])
def test_bar_fits_the_terminal(tmp_path, monkeypatch, columns):
    terminal = Terminal(monkeypatch, columns)
    with Journal(tmp_path, total_steps=100, bar=True) as journal:
        log_steps(journal, [10, 100], a_loss_of_a_long_name=3.0)
    rows = terminal.rows(max(columns, 2))
    assert rows[0].strip(), "nothing is shown"
    if columns >= 20:
        assert "100/100" in rows[0]
    assert ("a_loss_of_a_long_name 3.0000" in rows[0]) == (columns == 300)


def test_bar_is_drawn_ten_times_a_second_at_most(tmp_path, monkeypatch):
    clock, terminal = Clock(monkeypatch), Terminal(monkeypatch)
    with Journal(tmp_path, total_steps=1000) as journal:
        for step in range(1, 1001):
            clock.now += 0.001
            log_steps(journal, [step])
        drawn = terminal.getvalue().count("\r")
    assert 8 <= drawn <= 12
    assert "1000/1000" in terminal.rows(100)[0], "the last step is always shown"


def test_bar_begins_at_step_0_and_shows_steps_that_are_not_logged(tmp_path, monkeypatch):
    clock, terminal = Clock(monkeypatch), Terminal(monkeypatch)
    with Journal(tmp_path, total_steps=100) as journal:
        assert "]   0/100  begins" in terminal.rows(100)[0]
        assert journal.due
        clock.now += 1
        journal.show(1, {"total": 0.5, "gradient": 2.0}, images=8, seconds=1.0)
        assert "]   1/100  2 min left  8.0 images/s  total 0.5000" in terminal.rows(100)[0]
        assert not journal.due
        clock.now += 1
        assert journal.due
    assert not (tmp_path / LOG).exists()


def test_lines_come_at_the_first_step_and_every_few_seconds(tmp_path, monkeypatch):
    clock, lines = Clock(monkeypatch), []
    with Journal(tmp_path, total_steps=100, progress=lines.append) as journal:
        for step in range(1, 31):
            clock.now += 1
            if journal.due:
                journal.show(step, {"total": 0.5}, images=8, seconds=1.0 * step)
    assert [line.split("  ")[0] for line in lines] == [f"step {step}/100" for step in (1, 6, 11, 16, 21, 26)]
    assert lines[1] == "step 6/100  total 0.5000  1.3 images/s  2 min left"
    with Journal(tmp_path, total_steps=100) as journal:
        assert not journal.due, "nobody listens"


def test_plain_lines_where_there_is_no_terminal(tmp_path, capsys):
    lines = []
    with Journal(tmp_path, total_steps=40, progress=lines.append) as journal:
        log_steps(journal, [10])
        journal.validated(10, {"psnr": 18.5}, best=False)
        journal.note("stopped by SIGTERM at step 10")
    assert lines == [
        "step 10/40  total 0.1000  exposure 0.5000  gradient 0.2500  learning_rate 1.00e-04"
        "  40.0 images/s  6 s left",
        "validation at step 10  psnr 18.5000",
        "stopped by SIGTERM at step 10",
    ]
    assert capsys.readouterr() == ("", "")


def test_bar_leaves_notes_to_progress_and_can_be_forced_off(tmp_path, monkeypatch):
    terminal, lines = Terminal(monkeypatch), []
    with Journal(tmp_path, total_steps=40, progress=lines.append) as journal:
        log_steps(journal, [10])
        journal.note("a note")
    assert lines == ["a note"]
    assert "a note" not in terminal.getvalue()
    shown = terminal.getvalue()
    with Journal(tmp_path, total_steps=40, bar=False) as journal:
        log_steps(journal, [10])
        journal.note("a note")
    assert terminal.getvalue() == shown


def test_time_left_follows_the_pace(tmp_path, monkeypatch):
    clock = Clock(monkeypatch)
    lines = []
    with Journal(tmp_path, total_steps=1000, done=100, progress=lines.append) as journal:
        clock.now += 500  # preparations are not the pace
        journal.log(110, {}, images=1, seconds=10.0)
        for step in range(120, 400, 10):
            clock.now += 20  # with validation, of which `seconds` does not tell
            journal.log(step, {}, images=1, seconds=10.0)
    assert lines[0].endswith("15 min left")  # 890 steps at 1 s
    assert lines[-1].endswith("20 min left")  # 610 steps at 2 s


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (3569, "59 min"),
        (3599, "1 h 0 min"),
        (90061, "25 h 1 min"),
    ],
)
def test_durations(seconds, text):
    assert spell_seconds(seconds) == text


def test_bar_grows_with_its_fraction():
    bars = [compose(["1/2"], fraction, 60) for fraction in (0, 0.5, 1, 1.5)]
    assert [bar.count("#") for bar in bars] == [0, 12, 24, 24]
    assert {len(bar) for bar in bars} == {len("[] 1/2") + 24}


# --- pictures and TensorBoard


def test_picture_is_saved_by_step(tmp_path):
    with Journal(tmp_path, total_steps=1) as journal:
        path = journal.picture(200, "photographs", Image.new("RGBA", (8, 6), (10, 200, 10)))
    assert path == tmp_path / "pictures" / "step-0000200.jpg"
    with Image.open(path) as image:
        assert (image.size, image.mode) == ((8, 6), "RGB")
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


class Broken(ModuleType):
    def __getattr__(self, name):
        raise TypeError("Descriptors cannot be created directly")


@pytest.mark.parametrize(
    ("stand_in", "reason"), [(None, "Module"), (Broken("tensorboard"), "Descriptors cannot be")]
)
def test_tensorboard_that_cannot_be_imported_names_the_extra(tmp_path, monkeypatch, stand_in, reason):
    with Journal(tmp_path, total_steps=1) as journal:
        log_steps(journal, [1])
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", stand_in)
    with refused(ImportError, "fastllie[train]", reason):
        Journal(tmp_path, total_steps=1, tensorboard=True)
    assert read_lines(tmp_path / LOG), "the logs of before are lost"


def test_tensorboard_holds_the_scalars(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with Journal(tmp_path, total_steps=3, tensorboard=True) as journal:
        log_steps(journal, [1, 2, 3])
        journal.validated(2, {"psnr": 18.5}, best=True)
        journal.picture(2, "photographs", Image.new("RGB", (8, 6)))
    with Journal(tmp_path, total_steps=3, done=2, tensorboard=True) as journal:
        log_steps(journal, [3], exposure=9.0)
    events = EventAccumulator(str(tmp_path / module.EVENTS)).Reload()
    assert set(events.Tags()["scalars"]) == {
        "loss/total",
        "loss/exposure",
        "train/gradient",
        "train/learning_rate",
        "train/images_per_second",
        "validation/psnr",
    }
    assert [(event.step, event.value) for event in events.Scalars("loss/exposure")] == [
        (1, 0.5),
        (2, 0.5),
        (3, 9.0),
    ]
    assert events.Scalars("validation/psnr")[0].value == 18.5
    assert events.Images("photographs")[0].width == 8
