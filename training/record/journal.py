"""What a run says while it goes on: logs that survive any stop, a progress bar, TensorBoard, pictures.

In the run's folder:

    log.csv           one row each time that losses are logged
    log.jsonl         the same; the values below "values"
    validation.jsonl  one line a validation: step, scores, whether they are the best so far, time
    log.txt           notes with their times: files that were left out, resumes, stops
    pictures/         contact sheets, step-0000200.jpg
    tensorboard/      event files, where they were asked for

Numbers that are not finite are the strings "NaN", "Infinity" and "-Infinity" in JSON, which has none such;
`float()` reads them.
"""

import csv
import io
import json
import math
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fastllie.images.files import replacing
from fastllie.images.photograph import Photograph
from fastllie.terminal import SPEAK, Bar, Say, on_terminal, spell_seconds

TABLE, LOG, VALIDATION, NOTES = "log.csv", "log.jsonl", "validation.jsonl", "log.txt"
PICTURES, EVENTS = "pictures", "tensorboard"
PICTURE = re.compile(r"step-(\d{7,})\.jpg")
NOT_LOSSES = ("gradient", "learning_rate")  # among the values of a log line
SHOW = 1.0  # seconds between two states of the bar that are not logged
NEWEST = 0.2  # weight of the last window in the moving average of the seconds a step takes


class Journal:
    """The logs of one run, for one process: rank 0.

    Each line is written at once: a kill loses the one being written at most. A `with` block closes it.

    Args:
        folder: The run's folder; made where it is absent.
        total_steps: Where the run ends.
        done: The step that a resumed run goes on from. Lines and pictures of later steps, which a killed run
            left behind, are dropped, and lines that cannot be read, such as a half-written last one. 0 starts
            new logs.
        progress: Called with each line; where a bar is shown, the lines of losses are its own.
        bar: Whether a bar is drawn on stderr; None draws one on a terminal and in a notebook.
        tensorboard: Whether event files are written too.

    Raises:
        ImportError: TensorBoard was asked for and cannot be imported. The logs stay as they were.
    """

    def __init__(
        self,
        folder: Path,
        *,
        total_steps: int,
        done: int = 0,
        progress: Say | None = None,
        bar: bool | None = None,
        tensorboard: bool = False,
    ):
        writer = _event_writer() if tensorboard else None
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        kept = self._start(done)
        self._columns = list(dict.fromkeys(name for line in kept for name in line["values"]))
        self._write_table(kept)
        # TensorBoard passes over what an earlier file holds of the purged steps
        self._events = writer and writer(str(self.folder / EVENTS), purge_step=done + 1 if done else 0)
        self._total = total_steps
        self._progress = progress
        self._bar = Bar() if (on_terminal() if bar is None else bar) else None
        self._step = done
        self._pace: float | None = None  # seconds a step
        self._logged = self._began = time.monotonic()
        self._before = kept[-1]["elapsed"] if kept else 0.0
        self._spoken = -math.inf
        if self._bar is not None:
            self._bar.draw([self._place(done), "begins"], done / total_steps)

    @property
    def due(self) -> bool:
        """Whether it is time to `show` a step: the first one, then once a second, or a line every few."""
        if self._bar is None and self._progress is None:
            return False
        return time.monotonic() - self._spoken >= (SPEAK if self._bar is None else SHOW)

    def show(self, step: int, values: Mapping[str, float], *, images: int, seconds: float) -> None:
        """Say what `log` would, of the steps since the last line of the logs, and write nothing down."""
        pace = seconds / max(step - self._step, 1) if self._pace is None else self._pace
        self._speak(step, values, images / max(seconds, 1e-9), pace)

    def log(self, step: int, values: Mapping[str, float], *, images: int, seconds: float) -> None:
        """Write down the means of a window of steps that ends with `step`.

        Args:
            values: "total", each loss, "gradient" and "learning_rate".
            images: How many the window's steps have seen.
            seconds: What they took.
        """
        now = time.monotonic()
        speed = images / max(seconds, 1e-9)
        # the time between two calls holds validation too; before the first call stand all preparations
        spent = seconds if self._pace is None else now - self._logged
        pace = spent / max(step - self._step, 1)
        self._pace = pace if self._pace is None else self._pace + NEWEST * (pace - self._pace)
        self._step, self._logged = step, now
        line = {
            "step": step,
            "values": {name: _plain(value) for name, value in values.items()},
            "images_per_second": _plain(float(f"{speed:.6g}")),
            "elapsed": round(self._before + now - self._began, 3),
            "time": _clock(),
        }
        _append(self.folder / LOG, json.dumps(line, allow_nan=False))
        new = [name for name in values if name not in self._columns]
        self._columns += new
        if new:
            self._write_table(read_lines(self.folder / LOG))
        else:
            _append(self.folder / TABLE, _row(self._cells(line)))
        self._scalars(
            step,
            {
                **{
                    f"train/{name}" if name in NOT_LOSSES else f"loss/{name}": v for name, v in values.items()
                },
                "train/images_per_second": speed,
            },
        )
        self._speak(step, values, speed, self._pace)

    def _place(self, step: int) -> str:
        return f"{step:>{len(str(self._total))}}/{self._total}"

    def _speak(self, step: int, values: Mapping[str, float], speed: float, pace: float) -> None:
        self._spoken = time.monotonic()
        left = f"{spell_seconds(pace * (self._total - step))} left"
        rate = f"{speed:.1f} images/s"
        if self._bar is not None:
            losses = {name: value for name, value in values.items() if name not in NOT_LOSSES}
            self._bar.draw([self._place(step), left, rate, *_spelled(losses)], step / self._total)
        elif self._progress is not None:
            self._progress("  ".join([f"step {self._place(step).strip()}", *_spelled(values), rate, left]))

    def validated(self, step: int, scores: Mapping[str, float], best: bool) -> None:
        """Write down the scores of a validation, and whether they are the best so far."""
        line = {
            "step": step,
            "scores": {name: _plain(value) for name, value in scores.items()},
            "best": bool(best),
            "time": _clock(),
        }
        _append(self.folder / VALIDATION, json.dumps(line, allow_nan=False))
        self._scalars(step, {f"validation/{name}": value for name, value in scores.items()})
        self.note("  ".join([f"validation at step {step}", *_spelled(scores), *(["best so far"] * best)]))

    def note(self, line: str) -> None:
        """Say a line, and keep it in log.txt."""
        _append(self.folder / NOTES, f"{_clock()}  {line}")
        if self._bar is not None:
            self._bar.clear()
        if self._progress is not None:
            self._progress(line)
        elif self._bar is not None:
            print(line, file=sys.stderr, flush=True)
        if self._bar is not None:
            self._bar.redraw()

    def picture(self, step: int, name: str, sheet: Image.Image) -> Path:
        """Save the contact sheet of a step, TensorBoard's under `name`; returns its path.

        One sheet a step: another of the same step takes its place.
        """
        path = self.folder / PICTURES / f"step-{step:07d}.jpg"
        path.parent.mkdir(exist_ok=True)
        Photograph.of(sheet.convert("RGB")).save(path)
        if self._events is not None:
            self._events.add_image(name, np.asarray(sheet.convert("RGB")), step, dataformats="HWC")
            self._events.flush()
        return path

    def close(self) -> None:
        """Leave the bar as it stands, and close TensorBoard's file."""
        if self._bar is not None:
            self._bar.leave()
        if self._events is not None:
            self._events.close()
        self._events = self._bar = None

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self, done: int) -> list[dict[str, Any]]:
        """Drop what later steps have left behind; returns the lines of the log that stay."""
        for path in (self.folder / PICTURES).glob("step-*.jpg"):
            match = PICTURE.fullmatch(path.name)
            if match and (not done or int(match[1]) > done):
                path.unlink()
        if not done:
            for name in (LOG, VALIDATION, NOTES):
                (self.folder / name).unlink(missing_ok=True)
            return []
        notes = self.folder / NOTES
        if notes.exists() and not notes.read_bytes().endswith(b"\n"):
            _append(notes, "")
        for name in (VALIDATION, LOG):
            kept = [line for line in read_lines(self.folder / name) if line["step"] <= done]
            text = "".join(json.dumps(line) + "\n" for line in kept)
            _write(self.folder / name, text)
        return kept

    def _write_table(self, lines: Sequence[dict[str, Any]]) -> None:
        header = ["step", *self._columns, "images_per_second", "elapsed", "time"]
        rows = [self._cells(line) for line in lines]
        _write(self.folder / TABLE, "".join(_row(cells) + "\n" for cells in [header, *rows]))

    def _cells(self, line: Mapping[str, Any]) -> list[Any]:
        values = [line["values"].get(name, "") for name in self._columns]
        return [line["step"], *values, line["images_per_second"], line["elapsed"], line["time"]]

    def _scalars(self, step: int, values: Mapping[str, float]) -> None:
        if self._events is None:
            return
        for name, value in values.items():
            self._events.add_scalar(name, value, step)
        self._events.flush()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a log of one JSON object a line; an absent file has none.

    Lines that are no whole object with a step are passed over: a kill can leave the last one half-written.
    """
    if not path.exists():
        return []
    found = []
    for text in path.read_bytes().splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and isinstance(line.get("step"), int):
            found.append(line)
    return found


def spell_value(value: float) -> str:
    """A number with four digits or so."""
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.2e}"


def _spelled(values: Mapping[str, float]) -> list[str]:
    return [f"{name} {spell_value(value)}" for name, value in values.items()]


def _plain(value: float) -> float | str:
    """What JSON can hold of a number."""
    value = float(value)
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _clock() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


def _row(cells: Sequence[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue()


def _append(path: Path, line: str) -> None:
    # backslashreplace: names of files may hold bytes that are no text
    with open(path, "a", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
        file.write(line + "\n")


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def _event_writer() -> Callable[..., Any]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except Exception as error:  # a broken installation raises whatever it likes
        raise ImportError(
            f"TensorBoard cannot be imported ({type(error).__name__}: {error}); it comes with the extra"
            " `train`: pip install 'fastllie[train]'"
        ) from error
    return SummaryWriter
