"""What made the results of a folder: a small file beside it, so that no other settings pass for done."""

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

SUFFIX = ".fastllie.jsonl"
LONGEST = 255  # bytes of a name

logger = logging.getLogger("fastllie")


class Record:
    """The record of an output folder, one JSON object a line: settings, and files that were begun with them.

    It stands beside the folder, `.bright.fastllie.jsonl` beside `bright`, which then holds pictures alone.

        {"by": "5d0c...", "settings": {"method": "sci", ...}}
        {"file": "holiday/night.jpg", "by": "5d0c...", "over": null}

    A file is written down before it is made, with the time of what stood there: if that has not changed, the
    work was broken off, and what stands there is not of these settings. So a run may end at any moment, and
    nothing has to be taken back. Of several lines about a file the last one counts.

    Args:
        folder: Where the results are.
        settings: What they depend on, as plain values.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]):
        self._path = beside(folder)
        self._folder = folder
        self._settings = dict(settings)
        text = json.dumps(self._settings, sort_keys=True, default=str)
        self._by = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        self._known: dict[str, tuple[str, int | None]] = {}
        self._written: TextIO | None = None
        self._settings_known = False
        self._lost = False
        self._read()

    def made_by_others(self, target: Path) -> bool:
        """Whether what stands there was made with other settings; False also where nobody wrote that down."""
        entry = self._known.get(self._place(target))
        if entry is None:
            return False
        by, over = entry
        return by != self._by or (over is not None and _time_of(target) == over)

    def begin(self, target: Path) -> None:
        """Write down that a file is made with these settings, from now on; a warning where that cannot be."""
        if self._lost:
            return
        try:
            self._begin(target)
        except OSError as error:
            # the image itself may have more luck
            self._lost = True
            logger.warning("what made the results cannot be written down: %s", error)

    def _begin(self, target: Path) -> None:
        if self._written is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._written = self._path.open("a", encoding="utf-8")
            # what was cut off stays a line of its own
            self._written.write("\n" if self._path.stat().st_size else "")
        if not self._settings_known:
            self._settings_known = True
            self._add({"by": self._by, "settings": self._settings})
        entry = (self._by, _time_of(target))
        self._known[self._place(target)] = entry
        self._add({"file": self._place(target), "by": entry[0], "over": entry[1]})

    def close(self) -> None:
        if self._written is not None:
            self._written.close()

    def _add(self, line: Mapping[str, Any]) -> None:
        assert self._written is not None
        # whole lines at once: another process may write to the same folder. In ASCII, whatever a name holds
        self._written.write(json.dumps(line, default=str) + "\n")
        self._written.flush()

    def _place(self, target: Path) -> str:
        return target.relative_to(self._folder).as_posix()

    def _read(self) -> None:
        try:
            lines = self._path.read_text(encoding="utf-8").splitlines()
        except (FileNotFoundError, NotADirectoryError):
            return
        for line in lines:
            try:
                entry = json.loads(line)
                if "settings" in entry:
                    self._settings_known |= entry["by"] == self._by
                else:
                    self._known[entry["file"]] = (entry["by"], entry["over"])
            except (ValueError, KeyError, TypeError):
                # cut off where a machine stopped: its file had not been begun
                continue


def beside(folder: Path) -> Path:
    """Where the record of a folder stands; in it, where nothing may be written beside it."""
    folder = folder.absolute()
    if folder.parent.is_dir() and not os.access(folder.parent, os.W_OK):
        return folder / SUFFIX
    name = f".{folder.name}{SUFFIX}"
    if len(os.fsencode(name)) > LONGEST:
        # the folder's own name may be as long as names get
        name = f".{hashlib.blake2b(os.fsencode(folder.name), digest_size=16).hexdigest()}{SUFFIX}"
    return folder.parent / name


def _time_of(target: Path) -> int | None:
    try:
        return target.stat().st_mtime_ns
    except OSError:
        return None
