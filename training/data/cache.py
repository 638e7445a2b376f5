"""Photographs decoded once: 8-bit pixels in memory-mapped shards, found again by the content of files."""

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fastllie.images.files import replacing
from fastllie.terminal import Count
from fastllie.training.data.pixels import Pixels, Preparation

MAGIC = b"fastllie-shard-2"  # the number changes with the format, with the way of reading and of resizing
SHARD_COUNT, SHARD_BYTES = 256, 256 * 2**20
ALIGNMENT = 64
RESIDENT_SHARE = 0.4  # of a device's free memory; the rest is the training's
ABANDONED = 3600.0  # seconds after which an unfinished shard belongs to nobody
THREADS = 8

T = TypeVar("T")
R = TypeVar("R")


class Item(Protocol):
    """A photograph that can be decoded."""

    @property
    def name(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def size(self) -> tuple[int, int]: ...
    def image(self) -> Image.Image: ...


def spread(function: Callable[[T], R], work: Iterable[T], threads: int | None = None) -> Iterator[R]:
    """The results of a function in order, computed by threads; those not begun are dropped at an error."""
    pool = ThreadPoolExecutor(threads or min(THREADS, os.cpu_count() or 1))
    try:
        yield from pool.map(function, work)
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Report a full disk or a folder that cannot be written by the cache's name."""
    try:
        yield
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot write the cache of photographs in {folder}: {error.strerror or error};"
            " make room there or choose another folder",
        ) from error


class Index:
    """What is known of files by path, size and time of change, so that they are not read at every start.

    Args:
        folder: Where it is kept; None remembers nothing.
    """

    def __init__(self, folder: Path | None):
        self._path = None if folder is None else folder / "index-2.json"
        self._known: dict[str, list[Any]] = self._read()
        self._new: dict[str, list[Any]] = {}

    def _read(self) -> dict[str, list[Any]]:
        if self._path is None:
            return {}
        try:
            known = json.loads(self._path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError, ValueError):
            # a lost or damaged index costs a reading of the files, nothing else
            return {}
        return known if isinstance(known, dict) else {}

    def find(self, path: Path) -> list[Any] | None:
        """What was added for the file as it is now."""
        entry = self._known.get(os.path.abspath(path))
        return entry[2:] if entry is not None and entry[:2] == self.state(path) else None

    def add(self, path: Path, state: list[int], facts: Sequence[Any]) -> None:
        """Remember facts of the file as it was when `state` was taken."""
        self._new[os.path.abspath(path)] = [*state, *facts]

    @staticmethod
    def state(path: Path) -> list[int]:
        """What changes with a file's content; to be taken before it is read."""
        status = path.stat()
        return [status.st_size, status.st_mtime_ns]

    def save(self) -> None:
        """Write what was added, beside what other processes have written meanwhile.

        Raises:
            OSError: a folder that cannot be written.
        """
        if self._path is None or not self._new:
            return
        self._known = {**self._read(), **self._new}
        self._new = {}
        with _writing(self._path.parent):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self._path) as temporary:
                temporary.write_text(json.dumps(self._known), encoding="utf-8")


class Cache(Sequence[Tensor]):
    """Photographs `[H, W, 3]` of uint8, views of mapped files or, after `to`, in a device's memory."""

    def __init__(self, photographs: Sequence[Tensor]):
        self._photographs = photographs

    def __len__(self) -> int:
        return len(self._photographs)

    def __getitem__(self, index: Any) -> Any:
        return self._photographs[index]

    def to(self, device: torch.device, free: int | None = None) -> "Cache":
        """A copy on an accelerator where that takes at most 40 % of the free memory there; itself otherwise.

        Args:
            free: Bytes; None asks the device.
        """
        if device.type == "cpu":
            return self
        if free is None:
            free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
        if sum(photo.numel() for photo in self) > RESIDENT_SHARE * free:
            return self
        return Cache([photo.to(device) for photo in self])


def open_cache(
    items: Sequence[Item],
    preparation: Preparation,
    folder: Path,
    *,
    threads: int | None = None,
    progress: Count | None = None,
) -> Cache:
    """The photographs at their size, in order; those that `folder` does not hold yet are decoded into it.

    Several processes may do this at the same time; one that is stopped loses at most the shard that it was
    writing. A damaged shard is made anew.

    Args:
        threads: That decode; None takes as many as there are processors, at most 8.
        progress: Called with how many photographs are ready, and how many there are.

    Raises:
        OSError: a full disk, or a folder that cannot be written.
        ValueError: a photograph that has changed since it was collected, by its name.
    """
    folder = folder / preparation.name
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
    found: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.shard")):
        found.update(_open_shard(path, preparation))
    missing = list({item.digest: item for item in items if item.digest not in found}.values())
    groups = list(_groups(missing, preparation))
    needed = sum(_bytes(item, preparation) for item in missing)
    free = shutil.disk_usage(folder).free
    if needed > free:
        with _writing(folder):
            raise OSError(errno.ENOSPC, f"needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free")
    ready = len(items) - len(missing)

    def count(more: int) -> None:
        nonlocal ready
        ready += more
        if progress is not None:
            progress(ready, len(items))

    count(0)
    # processes that begin together begin at different places, and find each other's shards
    turn = os.getpid() % max(1, len(groups))
    for group in groups[turn:] + groups[:turn]:
        path = folder / f"{_shard_name([item.digest for item in group], preparation)}.shard"
        photographs = _open_shard(path, preparation) if path.exists() else {}
        if photographs:
            count(len(group))
        else:
            _write_shard(path, group, preparation, threads, count)
            photographs = _open_shard(path, preparation)
        found.update(photographs)
    return Cache([found[item.digest] for item in items])


def _sweep(folder: Path) -> None:
    """Remove what a killed process has left unfinished."""
    for path in folder.glob(".*.part"):
        try:
            if time.time() - path.stat().st_mtime > ABANDONED:
                path.unlink()
        except FileNotFoundError:
            continue  # another process has removed or finished it


def _bytes(item: Item, preparation: Preparation) -> int:
    width, height = preparation.size(*item.size)
    return 3 * width * height


def _groups(items: Sequence[Item], preparation: Preparation) -> Iterator[list[Item]]:
    group: list[Item] = []
    size = 0
    for item in items:
        more = _bytes(item, preparation)
        if group and (len(group) == SHARD_COUNT or size + more > SHARD_BYTES):
            yield group
            group, size = [], 0
        group.append(item)
        size += more
    if group:
        yield group


def _shard_name(digests: Sequence[str], preparation: Preparation) -> str:
    return hashlib.sha256(" ".join([preparation.name, *digests]).encode()).hexdigest()[:32]


def _write_shard(
    path: Path,
    items: Sequence[Item],
    preparation: Preparation,
    threads: int | None,
    count: Callable[[int], None],
) -> None:
    """MAGIC, the length of the header (8 bytes), the header in JSON, zeros up to ALIGNMENT, the pixels."""

    def decoded(item: Item) -> Pixels:
        return preparation.apply(item.image())

    pixels = []
    for photo in spread(decoded, items, threads):
        pixels.append(photo)
        count(1)
    facts = {"digests": [item.digest for item in items], "shapes": [photo.shape[:2] for photo in pixels]}
    header = json.dumps(facts).encode()
    start = MAGIC + len(header).to_bytes(8, "little") + header
    with _writing(path.parent), replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(start + bytes(-len(start) % ALIGNMENT))
        for photo in pixels:
            file.write(np.ascontiguousarray(photo).data)
        # the name must never be there before the pixels are
        file.flush()
        os.fsync(file.fileno())


def _open_shard(path: Path, preparation: Preparation) -> dict[str, Tensor]:
    """The photographs of a shard by their digests; a damaged shard is removed and holds none."""
    try:
        with open(path, "rb") as file:
            before = file.read(len(MAGIC) + 8)
            length = int.from_bytes(before[len(MAGIC) :], "little")
            size = os.fstat(file.fileno()).st_size
            facts = json.loads(file.read(length)) if before[: len(MAGIC)] == MAGIC and length < size else {}
        digests, shapes = facts["digests"], facts["shapes"]
        start = len(before) + length
        start += -start % ALIGNMENT
        whole = size == start + sum(3 * height * width for height, width in shapes)
        if not whole or path.stem != _shard_name(digests, preparation):
            raise ValueError
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError):
        path.unlink(missing_ok=True)
        return {}
    # torch's mapping keeps no file descriptor open, numpy's does; private, so nothing is written back
    mapped = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
    photographs = {}
    for digest, (height, width) in zip(digests, shapes, strict=True):
        stop = start + 3 * height * width
        photographs[digest] = mapped[start:stop].view(height, width, 3)
        start = stop
    return photographs
