"""`enhance`, `load` and `Enhancer`: any image in, the same kind out, with models that are loaded once."""

import math
import os
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastllie import checkpoint, methods
from fastllie.images.batches import (
    CHANNELS,
    TENSOR_FLOATS,
    Source,
    from_batch,
    from_bytes,
    mean_luma,
    through_floats,
    to_batch,
)
from fastllie.inference.cuda_graphs import Graphs
from fastllie.inference.tiles import Grid, Network, blended, check_tile, in_place, most_pixels, on_grid, tiled
from fastllie.ops.backend import choose

CACHED_MODELS = 8
# Pixels over which tiles fade into each other where they can only be approximate
OVERLAP = 128
# While one image is written, the next is enhanced and one more decoded: all at work, and memory is bounded
AHEAD = 2
Weights = str | os.PathLike[str] | None
Device = str | torch.device | None


def load(
    method: str,
    weights: Weights = None,
    *,
    device: Device = None,
    dtype: torch.dtype | None = None,
    **options: Any,
) -> nn.Module:
    """Load a network of your own, in eval mode: images `[B, 3, H, W]` in [0, 1] to images of the same shape.

    Args:
        method: One of `list_methods()`.
        weights: None (the default variant), a variant's name, or a path to .safetensors, .pth or .pt, in our
            layout or in that of the published repository.
        device: Where the network shall be; None is the CPU.
        dtype: float16, bfloat16, float32 or float64; None is float32.
        **options: The method's own, e.g. `scale=12` for "zerodce++"; see `info(method)`.

    Raises:
        TypeError: an argument of the wrong type, or an option that the method does not have.
        ValueError: an unknown method or variant, a weight file that does not fit, a device that is not there.
        FileNotFoundError: no such weight file.
    """
    path = checkpoint.find(method, weights)
    model = checkpoint.build(method, path, methods.options_of(method, options))
    return model.to(device=_device(device), dtype=_dtype(dtype))


def enhance(
    image: Any,
    method: str = "zerodce",
    *,
    weights: Weights = None,
    device: Device = None,
    dtype: torch.dtype | None = None,
    strength: float = 1.0,
    tile: int | str | None = "auto",
    channels: str = "rgb",
    **options: Any,
) -> Any:
    """Brighten an image, or a batch of them; what comes back is of the same kind.

    - `torch.Tensor`, (3,H,W) or (B,3,H,W), floats in [0, 1] or uint8: same shape, dtype, device and memory
      format, outside of autograd (for gradients, call the network that `load` returns).
    - `numpy.ndarray`, (H,W,3) or (B,H,W,3), uint8, uint16, or floats in [0, 1]: same shape and dtype.
    - `PIL.Image.Image` of any mode, or the path of an image file: a PIL image, upright, with its EXIF and ICC
      data; grey stays grey, alpha is kept as it is, palettes become RGB or RGBA.

    Integers are rounded half up. Floats that leave [0, 1] by at most 0.001 are clamped; anything further, NaN
    and infinity are errors.

    Args:
        image: The image.
        method: One of `list_methods()`.
        weights: None (the default variant), a variant's name, or a path to .safetensors, .pth or .pt.
        device: Where to compute; None is the tensor's own device, and for other kinds CUDA if there is one,
            else the CPU. The result comes back to where the image was.
        dtype: What to compute in; None is float32, whatever the image's dtype.
        strength: From 0 (the image as it came) to 1 (the full enhancement).
        tile: Side in pixels of the tiles that the image is enhanced in; "auto" chooses one, None uses none.
            Tiles change memory and speed, not the result; but with `align_corners=True` or `halve_wide=True`
            EnlightenGAN is approximate where "auto" takes tiles, which then fade into each other.
        channels: "rgb", or "bgr" for the arrays and tensors of OpenCV.
        **options: The method's own, e.g. `scale=12` for "zerodce++"; see `info(method)`.

    Raises:
        TypeError: an image or argument of the wrong type, or an option that the method does not have.
        ValueError: an image of wrong shape, channel count or range, without pixels, damaged, or with NaN; an
            unknown method or variant; a weight file that does not fit.
        FileNotFoundError: no such image or weight file.
    """
    enhancer = Enhancer(
        method,
        weights=weights,
        device=device,
        dtype=dtype,
        tile=tile,
        strength=strength,
        channels=channels,
        **options,
    )
    return enhancer(image)


class Enhancer:
    """`enhance` with its arguments given once, for many images.

    Safe to call from several threads. It pickles by its arguments: worker processes, spawned or forked,
    load the network themselves: a variant's name then means the installation there. A forked process enhances
    with one thread, as PyTorch's own loops would wait for threads that only the parent has.

    Args:
        method: One of `list_methods()`.
        weights, device, dtype, tile, strength, channels, **options: As for `enhance`.
        skip_bright: Images whose mean luma (0.299 R + 0.587 G + 0.114 B, in [0, 1]) is above this come back
            as with `strength=0`: the same pixels. In a batch each image is judged alone. None enhances all.
        compile: Run the network through `torch.compile`: slow at the first image, faster for many. What
            cannot be compiled is an error.
        cuda_graph: On a GPU, record what Zero-DCE and Zero-DCE++ launch as a CUDA graph when an image of at
            most 2^21 pixels has the shape of one before, and replay it from then on. Up to eight shapes stay
            recorded, and with them the memory that the largest one is computed in. The other methods, and
            compiled code, are never recorded.
    """

    def __init__(
        self,
        method: str = "zerodce",
        *,
        weights: Weights = None,
        device: Device = None,
        dtype: torch.dtype | None = None,
        tile: int | str | None = "auto",
        strength: float = 1.0,
        channels: str = "rgb",
        skip_bright: float | None = None,
        compile: bool = False,
        cuda_graph: bool = True,
        **options: Any,
    ):
        self._arguments = {
            "method": method,
            "weights": weights,
            "device": device,
            "dtype": dtype,
            "tile": tile,
            "strength": strength,
            "channels": channels,
            "skip_bright": skip_bright,
            "compile": compile,
            "cuda_graph": cuda_graph,
            **options,
        }
        self._method = method
        self._options = methods.options_of(method, options)
        self._path = checkpoint.find(method, weights)
        self._device = None if device is None else _device(device)
        self._dtype = _dtype(dtype)
        self._strength = _share("strength", strength)
        self._skip_bright = None if skip_bright is None else _share("skip_bright", skip_bright)
        if channels not in CHANNELS:
            raise ValueError(f"channels must be one of {CHANNELS}, got {channels!r}")
        self._channels = channels
        for name, value in (("compile", compile), ("cuda_graph", cuda_graph)):
            if not isinstance(value, bool):
                raise TypeError(f"{name} must be True or False, got {value!r}")
        self._compile = compile
        self._compiled: dict[torch.device, Any] = {}
        # now, so that a weight file that does not fit is reported here and not at the first image
        first_device = self._device or torch.device("cpu")
        model: Any = _cached(method, self._path, first_device, self._dtype, self._options)
        # the network's own: a deeper one than the default sees further
        self._halo: int | None = model.halo if methods.tiles_exact(method, self._options) else None
        check_tile(tile, self._halo)
        self._tile = tile
        self._crops: bool = self._halo is not None and getattr(model, "crops", False)
        self._streams: bool = getattr(model, "streams", False)
        # looks at the whole picture first: then tiles are exact
        self._observes = hasattr(model, "observe")
        self._grid: Grid | None = None
        if hasattr(model, "pixel_bytes"):
            taken = model.pixel_bytes * self._dtype.itemsize / 4
            self._grid = Grid(model.multiple, model.completed, taken)
        # one pass over the image needs no tiles, and takes a camera's bytes as they are
        self._takes_bytes = self._streams and self._strength == 1 and self._dtype == torch.float32
        # one kernel is one launch as it is, and a network that completes images waits for its tiles' places
        whole = self._streams or self._observes or self._grid is not None
        recorded = cuda_graph and not compile and not whole
        self._graphs = Graphs() if recorded else None

    def __repr__(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in self._options.items())
        return f"Enhancer({self._method!r}{options}, weights={os.fspath(self._path)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), **self._arguments), ()

    def __call__(self, image: Any) -> Any:
        """Brighten one image (or one batch in a tensor or array), as `enhance` does."""
        return self._finish(lambda: self._prepare(image))

    def batch(self, images: Sequence[Any]) -> list[Any]:
        """Brighten several images of any kinds and sizes; those of one size go through the network together.

        Returns:
            The results, in the order of the images, each of its own kind.

        Raises:
            TypeError, ValueError, OSError: as `enhance`, with the index of the image.
        """
        if isinstance(images, (str, os.PathLike)) or not isinstance(images, Iterable):
            raise TypeError(f"batch wants a list of images, got {type(images).__name__}")
        prepared = []
        for place, image in enumerate(images):
            try:
                prepared.append(self._prepare(image))
            except (TypeError, ValueError, OSError) as error:
                raise type(error)(f"images[{place}]: {error}") from error
        results: list[Any] = [None] * len(prepared)
        groups: dict[Any, list[int]] = {}
        for place, (x, source) in enumerate(prepared):
            bright = self._bright(x)
            if bright.any():
                results[place] = self._without_bright(x, source, bright)
            else:
                groups.setdefault((x.shape[-2:], x.device, x.dtype), []).append(place)
        for places in groups.values():
            together = self._enhanced(torch.cat([prepared[place][0] for place in places]))
            sizes = [len(prepared[place][0]) for place in places]
            for place, y in zip(places, together.split(sizes), strict=True):
                results[place] = from_batch(y, prepared[place][1])
        return results

    def stream(self, images: Iterable[Any]) -> Iterator[Any]:
        """Brighten images one after another, while others are read and decoded and the caller does its own.

        `images` is iterated and decoded in a second thread, and enhanced in a third, so that a loop that
        writes the results has all three overlapped; two images ahead at most. An error of the iterable or
        of an image is raised where its result would have come.
        """
        source = iter(images)
        end = object()

        def following(queue: Any) -> Any:
            image = next(source, end)
            if image is end:
                return end
            with torch.cuda.stream(queue):
                # a copy: the producer may write its next image into the same memory
                if isinstance(image, Tensor):
                    image = image.detach().clone()
                elif isinstance(image, np.ndarray):
                    image = image.copy()
                return self._prepare(image)

        def enhanced(read: Future[Any], queue: Any) -> Any:
            with torch.cuda.stream(queue):
                return end if read.result() is end else self._finish(read.result)

        def run() -> Iterator[Any]:
            reader = ThreadPoolExecutor(1, thread_name_prefix="fastllie-read")
            worker = ThreadPoolExecutor(1, thread_name_prefix="fastllie-enhance")
            # the caller's own: a thread begins with the default one, which would not wait for it
            queue = torch.cuda.current_stream() if torch.cuda.is_initialized() else None

            def begun() -> Future[Any]:
                return worker.submit(enhanced, reader.submit(following, queue), queue)

            try:
                waiting = deque(begun() for _ in range(AHEAD))
                while True:
                    result = waiting.popleft().result()
                    if result is end:
                        return
                    waiting.append(begun())
                    yield result
            finally:
                for pool in (reader, worker):
                    pool.shutdown(wait=False, cancel_futures=True)

        return run()

    def preprocess(self, frame: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
        """Brighten frames of bytes into a buffer that is used again: for loops over a camera or a video.

        Computes what `enhancer(frame)` does. The colours are in the order of `channels`: "bgr" for OpenCV's
        frames. With an `out`, SCI at full strength in float32 on the CPU allocates nothing of a frame's size
        (`skip_bright` sums in bands); the rest works in tiles, and makes no float image of the whole.

        Args:
            frame: uint8, `(H, W, 3)` or `(B, H, W, 3)`, any strides (a copy is made where one is negative).
            out: Where the result goes: uint8, of the shape of `frame`, with positive strides, and apart from
                it, because a pixel's neighbours are read after it is written. None makes a new array.

        Returns:
            `out`, or the new array.

        Raises:
            TypeError: something else than arrays of uint8.
            ValueError: another shape, no pixels, an `out` that does not fit or shares memory with `frame`.
        """
        _check_frames("frame", frame)
        _one_thread_after_a_fork()
        if out is None:
            out = np.empty(frame.shape, np.uint8)
        _check_frames("out", out)
        if out.shape != frame.shape:
            raise ValueError(f"out must have the shape of frame, {frame.shape}, got {out.shape}")
        if not out.flags.writeable or min(out.strides) < 0:
            raise ValueError("out must be writeable and have positive strides")
        if np.shares_memory(frame, out):
            raise ValueError("out shares memory with frame; wanted a buffer of its own")
        usable = frame.flags.writeable and min(frame.strides) >= 0
        bgr = self._channels == "bgr"
        device = self._device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        x = _planes(frame if usable else frame.copy()).to(device)
        result = _planes(out)
        bright = self._bright(x, bgr).tolist()
        if not any(bright):
            self._fill(x, result, bgr)
            return out
        for place, skipped in enumerate(bright):
            one = slice(place, place + 1)
            if skipped:
                result[one].copy_(x[one])
            else:
                self._fill(x[one], result[one], bgr)
        return out

    def _prepare(self, image: Any) -> tuple[Tensor, Source]:
        _one_thread_after_a_fork()
        device = self._device
        if device is None and not isinstance(image, Tensor):
            device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        # bytes become floats where they are computed with, tile by tile
        dtype = torch.float64 if self._dtype == torch.float64 else torch.uint8
        x, source = to_batch(image, channels=self._channels, device=device, dtype=dtype)
        return x if x.dtype == torch.uint8 else x.to(self._dtype), source

    def _bright(self, x: Tensor, bgr: bool = False) -> Tensor:
        """Which images of a batch come back as they are, `[B]`."""
        if self._strength == 0:
            return torch.ones(len(x), dtype=torch.bool)
        if self._skip_bright is None:
            return torch.zeros(len(x), dtype=torch.bool)
        return mean_luma(x, bgr) > self._skip_bright

    def _finish(self, prepared: Callable[[], tuple[Tensor, Source]]) -> Any:
        x, source = prepared()
        bright = self._bright(x)
        if bright.any():
            return self._without_bright(x, source, bright)
        y = self._enhanced(x)
        # a photograph of 16 bits is one large float image now, and its result is another
        del x
        return from_batch(y, source)

    def _without_bright(self, x: Tensor, source: Source, bright: Tensor) -> Any:
        """The result of a batch with images that come back as they are."""
        if bright.all():
            return source.unchanged()
        # several images: an array or a tensor
        y = x.clone()
        dark = (~bright).nonzero()[:, 0].to(x.device)
        y[dark] = self._enhanced(x[dark])
        result, unchanged = from_batch(y, source), source.unchanged()
        for place in bright.nonzero()[:, 0].tolist():
            result[place] = unchanged[place]
        return result

    def _fill(self, x: Tensor, out: Tensor, bgr: bool) -> None:
        if x.device == out.device:
            self._enhanced(x, out, bgr)
        else:
            out.copy_(self._enhanced(x, bgr=bgr))

    def _enhanced(self, x: Tensor, out: Tensor | None = None, bgr: bool = False) -> Tensor:
        # what is made here may not enter the user's own training; from_batch copies it to an ordinary tensor.
        # Compiled code is made once more for tensors of inference mode, and tiles are, small images are not
        with torch.no_grad() if self._compile else torch.inference_mode():
            model = self._model(x.device)
            as_it_is = self._strength == 1 and (x.dtype != torch.uint8 or self._takes_bytes)
            # plain PyTorch goes layer by layer, and wants tiles as any network does
            in_one_pass = self._streams and as_it_is and choose("auto", x) != "torch"
            tile = None if in_one_pass and self._tile == "auto" else self._tile
            if tile == "auto" and not self._compile and choose("auto", x) == "cpu":
                tile = getattr(model, "cpu_tile", None) or tile
            if tile is None and self._takes_bytes and out is not None and not self._compile:
                return model.enhance_into(x, out, bgr=bgr)
            run: Network = partial(_mixed, model, self._strength)
            if self._observes:
                return self._in_place(run, x, tile, out, bgr)
            if self._grid is not None and self._halo is None and tile == "auto":
                tile, run = self._faded(run, x, self._grid)
            cropping: Network | None = None
            if self._crops:
                cropping = partial(_mixed, model, self._strength, cropped=True)
            if x.dtype == torch.uint8 and not self._takes_bytes:
                run = through_floats(run, self._dtype)
                cropping = through_floats(cropping, self._dtype) if cropping else None
            if bgr:
                run = partial(_flipped, run)
                cropping = partial(_flipped, cropping) if cropping else None
            if self._graphs is not None and _can_record(x):
                # everything that a recording rests on and its image does not show
                kind = id(model), bgr, choose("auto", x), torch.backends.cudnn.allow_tf32
                run = partial(self._graphs, run, (*kind, "whole"))
                cropping = partial(self._graphs, cropping, (*kind, "cropped")) if cropping else None
            if self._grid is not None and self._halo is not None:
                return on_grid(run, x, tile, self._halo, self._grid, out=out)
            return tiled(run, x, tile, self._halo, cropping=cropping, out=out)

    def _in_place(
        self, run: Network, x: Tensor, tile: int | str | None, out: Tensor | None, bgr: bool
    ) -> Tensor:
        """For a network that looks at the whole picture before its parts."""
        # not the compiled one, which is a function
        network: Any = _cached(self._method, self._path, x.device, self._dtype, self._options)
        observe = network.observe
        side: int | None = network.tile if isinstance(tile, str) else tile
        if x.dtype == torch.uint8:
            run, observe = through_floats(run, self._dtype), from_bytes(observe, self._dtype)
        if bgr:
            run, observe = partial(_flipped, run), partial(_seen_flipped, observe)
        return in_place(run, observe, x, side, network.halo, network.multiple, out=out)

    def _faded(self, run: Network, x: Tensor, grid: Grid) -> tuple[int, Network]:
        """For a network whose result hangs on the whole image: how many pixels square go at once, and how."""
        height, width = x.shape[-2:]
        model: Any = _cached(self._method, self._path, x.device, self._dtype, self._options)
        how = model.of_whole(width)
        side = math.isqrt(most_pixels(x.device, grid.pixel_bytes))
        if how["wide"]:
            side *= 2
        if height * width <= side**2:
            return side, run
        side = side // grid.multiple * grid.multiple
        return side, partial(blended, partial(run, **how), tile=side, overlap=min(OVERLAP, side // 2))

    def _model(self, device: torch.device) -> Any:
        model = _cached(self._method, self._path, device, self._dtype, self._options)
        if not self._compile:
            return model
        with _lock:
            if device not in self._compiled:
                # fullgraph: otherwise what it cannot compile would run uncompiled, and nobody would know
                self._compiled[device] = torch.compile(_alone(model), dynamic=True, fullgraph=True)
            return self._compiled[device]


def _alone(model: nn.Module) -> Callable[..., Tensor]:
    """The model as a function of its own: torch.compile counts the versions of all networks of one class."""

    def network(x: Tensor, **how: Any) -> Tensor:
        return model(x, **how)

    network.__code__ = network.__code__.replace()
    return network


def _can_record(x: Tensor) -> bool:
    """Whether a network may be recorded on the device of `x`: not while the caller records, or autocasts."""
    return (
        x.is_cuda and not torch.cuda.is_current_stream_capturing() and not torch.is_autocast_enabled("cuda")
    )


def _mixed(model: Any, strength: float, x: Tensor, **how: Any) -> Tensor:
    """The model's result, mixed with the image itself where that is asked for."""
    y = model(x, **how)
    if strength == 1:
        return y
    margin = (x.shape[-1] - y.shape[-1]) // 2
    return torch.lerp(x[..., margin : x.shape[-2] - margin, margin : x.shape[-1] - margin], y, strength)


def _flipped(model: Callable[..., Tensor], x: Tensor, **how: Any) -> Tensor:
    return model(x.flip(1), **how).flip(1)


def _seen_flipped(look: Callable[[Tensor], Any], x: Tensor) -> Any:
    return look(x.flip(1))


def _check_frames(name: str, frames: Any) -> None:
    if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8:
        given = f"an array of {frames.dtype}" if isinstance(frames, np.ndarray) else type(frames).__name__
        raise TypeError(f"{name} must be a numpy.ndarray of uint8, got {given}")
    if frames.ndim not in (3, 4) or frames.shape[-1] != 3 or 0 in frames.shape:
        raise ValueError(f"{name} must be (H, W, 3) or (B, H, W, 3), not empty, got shape {frames.shape}")


def _planes(frames: np.ndarray) -> Tensor:
    """A view of frames as a batch `[B, 3, H, W]`."""
    x = torch.from_numpy(frames)
    return (x if x.dim() == 4 else x.unsqueeze(0)).permute(0, 3, 1, 2)


# of the cache, and of what is compiled
_lock = threading.Lock()
_forked = False


def _after_a_fork() -> None:
    """In the child: a lock that another thread held would be held for ever."""
    global _lock, _forked
    _lock = threading.Lock()
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_a_fork)


def _one_thread_after_a_fork() -> None:
    # GNU OpenMP waits for its threads, which a fork does not copy: PyTorch's convolutions would hang
    if _forked and torch.get_num_threads() > 1:
        torch.set_num_threads(1)


_models: OrderedDict[Any, nn.Module] = OrderedDict()


def _cached(
    method: str, path: Path, device: torch.device, dtype: torch.dtype, options: dict[str, Any]
) -> nn.Module:
    """The network for these settings, loaded once; the file's time and size are part of the key."""
    state = path.stat()
    key = (method, path.resolve(), state.st_mtime_ns, state.st_size, device, dtype, tuple(options.items()))
    with _lock:
        if key in _models:
            _models.move_to_end(key)
            return _models[key]
        # a tensor made in inference mode would count no changes, and what is packed of it could not be kept
        with torch.inference_mode(False):
            model = checkpoint.build(method, path, options).requires_grad_(False)
            model = model.to(device=device, dtype=dtype)
            if device.type == "cpu":
                # see tiles.CPU_TILE
                model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        _models[key] = model
        while len(_models) > CACHED_MODELS:
            _models.popitem(last=False)
        return model


def _device(device: Device) -> torch.device:
    if device is None:
        return torch.device("cpu")
    if not isinstance(device, (str, torch.device)):
        raise TypeError(f"device must be a string, a torch.device or None, got {type(device).__name__}")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"unknown device {device!r}; wanted 'cpu', 'cuda', 'cuda:0', ...") from error
    if found.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (found.index or 0) >= count:
            raise ValueError(f"device {device!r} is not there: torch sees {count} CUDA devices")
        return torch.device("cuda", torch.cuda.current_device() if found.index is None else found.index)
    return found


def _dtype(dtype: torch.dtype | None) -> torch.dtype:
    if dtype is None:
        return torch.float32
    if dtype not in TENSOR_FLOATS:
        raise TypeError(f"dtype must be one of {TENSOR_FLOATS} or None, got {dtype!r}")
    return dtype


def _share(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must lie in [0, 1], got {value}")
    return float(value)
