"""A Ray cluster (the extra `ray`): folders spread over its workers, and a callable for Ray Data.

Nothing here imports Ray before it is needed, and `EnhanceBatch` never does: Ray Data calls it.
"""

import logging
import os
import pickle
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from functools import lru_cache
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from fastllie.api import Enhancer
from fastllie.checks import check_within, is_number
from fastllie.defaults import PNG_LEVEL
from fastllie.folders.jobs import Job, PathLike
from fastllie.folders.work import (
    FolderResult,
    OfArrays,
    Outcomes,
    Progress,
    Work,
    bare,
    carry_out,
    quiet_pillow,
)
from fastllie.images.files import remove_remains_of
from fastllie.methods import Method, info

# A file that ends its worker this often is named, and not tried again
ATTEMPTS = 3
# Seconds that the workers get to clean up after Ctrl-C
PATIENCE = 10.0


class LazyEnhancer:
    """An `Enhancer` that is loaded where it is first called; it pickles without the network.

    The arguments are checked at once, all but the presence of a CUDA device. A relative path of weights is
    that of the process where it was made.

    Args:
        method, **settings: As for `Enhancer`.

    Raises:
        TypeError, ValueError, FileNotFoundError: as `Enhancer`.
    """

    def __init__(self, method: Method = "dawn", **settings: Any):
        device, weights = settings.get("device"), settings.get("weights")
        self._on_cuda = str(device).split(":")[0] == "cuda"
        first = Enhancer(method, **{**settings, "device": None if self._on_cuda else device})
        self._made_by = first.made_by
        self._settings = {"method": method, **settings}
        if weights is not None and weights not in [variant.name for variant in info(method).weights]:
            self._settings["weights"] = os.path.abspath(weights)
        self._enhancer: Enhancer | None = None

    def __repr__(self) -> str:
        return f"LazyEnhancer({', '.join(f'{name}={value!r}' for name, value in self._settings.items())})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_enhancer": None}

    def __call__(self, image: Any) -> Any:
        """As an `Enhancer`."""
        return self._loaded()(image)

    def batch(self, images: Sequence[Any]) -> list[Any]:
        """As of an `Enhancer`."""
        return self._loaded().batch(images)

    @property
    def made_by(self) -> dict[str, Any]:
        """As of an `Enhancer`."""
        return self._made_by

    @property
    def needs_no_gpu(self) -> bool:
        """Whether its `device` is a given one that is not CUDA."""
        return self._settings.get("device") is not None and not self._on_cuda

    def _loaded(self) -> Enhancer:
        if self._enhancer is None:
            self._enhancer = Enhancer(**self._settings)
        return self._enhancer


class EnhanceBatch:
    """Brightens one column of the batches of Ray Data: `ds.map_batches(EnhanceBatch("sci"))`.

    Or as a class, `ds.map_batches(EnhanceBatch, fn_constructor_kwargs={"method": "sci"}, concurrency=4)`,
    which keeps its workers. It takes what `batch_format="numpy"` (the default) gives, and knows nothing of
    Ray. The arguments are checked where it is made, all but the presence of a CUDA device; the network is
    loaded where the first batch comes. A path of weights is that of the machine where it was made.

    Args:
        method: One of `list_methods()`.
        column: Where the images are.
        **settings: As for `Enhancer`.

    Raises:
        TypeError, ValueError, FileNotFoundError: as `Enhancer`.
    """

    def __init__(self, method: Method = "dawn", *, column: str = "image", **settings: Any):
        if not isinstance(column, str):
            raise TypeError(f"column must be a name, got {column!r}")
        self._column = column
        self._enhancer = LazyEnhancer(method, **settings)

    def __repr__(self) -> str:
        return f"EnhanceBatch({self._enhancer!r}, column={self._column!r})"

    def __call__(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Brighten the images of a batch.

        Args:
            batch: Columns of equal length. The images are uint8, uint16 or floats in [0, 1], `(B, H, W, 3)`;
                or, where sizes differ, an array of B objects, each an array `(H, W, 3)`.

        Returns:
            The same columns, the images anew with the shapes and dtypes that came; the batch is left alone.

        Raises:
            TypeError: no batch of arrays, or numbers of another dtype.
            ValueError: no such column, or images that `Enhancer` refuses; the message has the index.
        """
        if not isinstance(batch, Mapping):
            raise TypeError(
                f"the batch is a {type(batch).__name__}; wanted a dict of arrays: map_batches with"
                " batch_format='numpy'"
            )
        if self._column not in batch:
            there = ", ".join(map(repr, batch)) or "none"
            raise ValueError(f"the batch has no column {self._column!r}; its columns: {there}")
        images = batch[self._column]
        if not isinstance(images, np.ndarray):
            raise TypeError(
                f"column {self._column!r} is a {type(images).__name__}; wanted an array of images"
            )
        return {**batch, self._column: self._brightened(images)}

    def _brightened(self, images: np.ndarray) -> np.ndarray:
        if len(images) == 0:
            return images
        try:
            if images.dtype != object:
                if images.ndim != 4:
                    raise ValueError(f"it has the shape {images.shape}; wanted (B,H,W,3)")
                return self._enhancer(images)
            results = np.empty(len(images), object)
            # one by one: an assignment of equal shapes as a whole would make axes of them
            for place, result in enumerate(self._enhancer.batch(list(images))):
                results[place] = result
        except (TypeError, ValueError) as error:
            raise type(error)(f"column {self._column!r}: {error}") from error
        return results


def enhance_folder(
    inputs: PathLike | Sequence[PathLike],
    output: PathLike,
    method: Method | Callable[[Any], Any] = "dawn",
    *,
    address: str | None = None,
    workers: int | None = None,
    gpus: float | None = None,
    compare: bool = False,
    overwrite: bool = False,
    quality: int | None = None,
    png_level: int = PNG_LEVEL,
    progress: Progress | None = None,
    others: Mapping[str, Callable[[Path, Path], None]] | None = None,
    format: str = "",
    follow: bool = True,
    hidden: bool = False,
    max_pixels: int | None = None,
    **settings: Any,
) -> FolderResult:
    """`fastllie.enhance_folder` with the files spread over the workers of a Ray cluster.

    Each file is a task of one CPU, which reads, enhances and writes it. A file whose worker died is given to
    another one; after `ATTEMPTS` of them it is a failure with a name. All machines must see the same files
    under the same paths, the working directory included, and have fastllie installed. Results come in the
    order in which they are ready.

    Args:
        inputs, output, compare, overwrite, quality, png_level, progress, format, follow, hidden,
            max_pixels: As there.
        method: As there. A callable is pickled; see `LazyEnhancer`.
        address: Of a cluster: "auto", "host:6379", "ray://host:10001". None takes the Ray that this process
            has initialized, or else what `ray.init()` finds (RAY_ADDRESS, a cluster on this machine), or else
            starts one here, which ends with the call.
        workers: How many files at once; None is as many as the cluster has CPUs.
        gpus: What a worker takes of them, such as 0.25: four share one. None is 1 where the cluster has any
            and `device` is not "cpu", else 0.
        others: As there; the writers run in the workers.
        **settings: As for `Enhancer`; `device` is one of the workers'.

    Raises:
        ImportError: Ray is not installed.
        ConnectionError: no Ray at this address.
        TypeError, ValueError, FileNotFoundError, KeyboardInterrupt: as there.
    """
    ray = _ray()
    if workers is not None:
        check_within("workers", workers, 1, 65536)
    _check_gpus(gpus)
    if address is not None and ray.is_initialized():
        raise ValueError(f"this process has a Ray already: leave address {address!r} out, or shut it down")
    if not isinstance(method, str) and settings:
        raise TypeError(f"{', '.join(settings)}: settings go with the name of a method, not with a callable")
    enhance = LazyEnhancer(method, **settings) if isinstance(method, str) else method
    if gpus is None and isinstance(enhance, LazyEnhancer) and enhance.needs_no_gpu:
        gpus = 0
    takes_photographs = isinstance(enhance, (Enhancer, LazyEnhancer))
    work = Work(
        enhance if takes_photographs else OfArrays(enhance), others or {}, compare, quality, png_level
    )
    try:
        packed = ray.cloudpickle.dumps((os.getcwd(), work))
    except Exception as error:
        # whatever the parts raise that refuse to be pickled
        raise TypeError(f"the method or the writers of others do not pickle: {error}") from error
    return carry_out(
        inputs,
        output,
        lambda jobs: _outcomes(ray, jobs, packed, address, workers, gpus),
        work,
        overwrite=overwrite,
        progress=progress,
        format=format,
        follow=follow,
        hidden=hidden,
    )


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ImportError(f'a cluster needs Ray: pip install "fastllie[ray]" ({error})') from error
    return ray


def _outcomes(
    ray: Any,
    jobs: Iterator[Job],
    packed: bytes,
    address: str | None,
    workers: int | None,
    gpus: float | None,
) -> Outcomes:
    """Do the jobs as tasks of Ray, `workers` at once; each as it ends, with its error or None."""
    first = next(jobs, None)
    if first is None:
        # nothing to do needs no cluster
        return
    again: deque[Job] = deque([first])
    died: Counter[Job] = Counter()
    running: dict[Any, Job] = {}
    with _connected(ray, address):
        there = ray.cluster_resources()
        if gpus is None:
            gpus = 1 if there.get("GPU", 0) >= 1 else 0
        if gpus > there.get("GPU", 0):
            raise ValueError(f"a worker should take {gpus} GPUs, and the cluster has {there.get('GPU', 0):g}")
        most = workers or max(1, int(there.get("CPU", 1)))
        # no retries of Ray's own, which have no bound where memory ran out; and no end of a worker with a GPU
        # after each task
        task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0, max_calls=0)(_task)
        shipped = ray.put(packed)
        try:
            while True:
                while len(running) < most:
                    following = again.popleft() if again else next(jobs, None)
                    if following is None:
                        break
                    running[task.remote(shipped, *map(os.fspath, following))] = following
                if not running:
                    return
                ended = ray.wait(list(running), num_returns=1)[0][0]
                job = running.pop(ended)
                try:
                    error, said, left_out = ray.get(ended)
                except ray.exceptions.RayTaskError as failure:
                    # no error of the file's, which would have been returned
                    yield job, RuntimeError(f"a worker could not begin: {failure.cause or failure}"), ()
                except ray.exceptions.RayError as death:
                    # nobody writes to it any more
                    remove_remains_of(job[1])
                    died[job] += 1
                    if died[job] < ATTEMPTS:
                        again.append(job)
                    else:
                        reason = str(death).strip().splitlines()[0]
                        yield (
                            job,
                            RuntimeError(f"its worker died {ATTEMPTS} times; the last time: {reason}"),
                            (),
                        )
                else:
                    if said:
                        print(said, end="", file=sys.stderr)
                    yield job, error, left_out
        finally:
            _abandon(ray, running)


def _abandon(ray: Any, running: Mapping[Any, Job]) -> None:
    """Stop tasks, each so that it takes back what it has begun to write; or with its worker."""
    left = list(running)
    for force in (False, True):
        for task in left:
            ray.cancel(task, force=force)
        if left:
            left = ray.wait(left, num_returns=len(left), timeout=PATIENCE)[1]
    for _, target in running.values():
        remove_remains_of(target)


@contextmanager
def _connected(ray: Any, address: str | None) -> Iterator[None]:
    """The Ray of this process; one that is begun here ends here."""
    if ray.is_initialized():
        yield
        return
    try:
        ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
    except (ConnectionError, RuntimeError, ValueError) as error:
        place = "here" if address is None else f"at {address!r}"
        raise ConnectionError(f"no Ray {place}: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _task(packed: bytes, source: str, target: str) -> tuple[Exception | None, str, tuple[str, ...]]:
    """Do one file, in a worker: the error that ended it, what was said on stderr, and what was left out."""
    said = StringIO()
    with redirect_stderr(said), quiet_pillow():
        try:
            directory, work = _unpacked(packed)
            with _working_in(directory):
                left_out = tuple(work(Path(source), Path(target)))
        except Exception as error:
            # of any kind, as in a folder without a cluster
            return _portable(error), said.getvalue(), ()
    return None, said.getvalue(), left_out


@lru_cache(maxsize=1)
def _unpacked(packed: bytes) -> tuple[str, Work]:
    return pickle.loads(packed)


@contextmanager
def _working_in(directory: str) -> Iterator[None]:
    """Relative paths mean what they mean to the caller; the process may have other tasks later."""
    before = os.getcwd()
    try:
        os.chdir(directory)
    except OSError as error:
        raise FileNotFoundError(
            f"this machine of the cluster has no {directory!r}, the working directory of the caller: {error}"
        ) from error
    try:
        yield
    finally:
        os.chdir(before)


def _portable(error: Exception) -> Exception:
    """The error, or what it says where it cannot travel to another process."""
    bare(error)
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        # an error's own way of pickling may do anything
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _check_gpus(gpus: float | None) -> None:
    if gpus is None:
        return
    if not is_number(gpus):
        raise TypeError(f"gpus must be a number, got {gpus!r}")
    if not (0 <= gpus <= 1 or (gpus > 1 and gpus == int(gpus))):
        raise ValueError(f"gpus must be a share of one in [0, 1], or a whole number of them, got {gpus}")
