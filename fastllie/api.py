"""`enhance`, `load` and `Enhancer`: any image in, the same kind out, with models that are loaded once."""

import os
import threading
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastllie import checkpoint, methods
from fastllie.image import CHANNELS, TENSOR_FLOATS, Source, from_batch, to_batch
from fastllie.tiles import check_tile, tiled

CACHED_MODELS = 8
# Two decoded images wait while one is enhanced: enough to hide the decoding, and bounded
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
            Tiles change memory and speed, not the result.
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
    """`enhance` with its arguments given once; safe to call from several threads.

    Args:
        method: One of `list_methods()`.
        weights, device, dtype, tile, strength, channels, **options: As for `enhance`.
        compile: Run the network through `torch.compile`: slow at the first image, faster for many.
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
        compile: bool = False,
        **options: Any,
    ):
        self._method = method
        self._options = methods.options_of(method, options)
        self._path = checkpoint.find(method, weights)
        self._device = None if device is None else _device(device)
        self._dtype = _dtype(dtype)
        self._strength = _strength(strength)
        if channels not in CHANNELS:
            raise ValueError(f"channels must be one of {CHANNELS}, got {channels!r}")
        self._channels = channels
        self._compile = compile
        self._compiled: dict[torch.device, Any] = {}
        self._lock = threading.Lock()
        # now, so that a weight file that does not fit is reported here and not at the first image
        first_device = self._device or torch.device("cpu")
        model: Any = _cached(method, self._path, first_device, self._dtype, self._options)
        # the network's own: a deeper one than the default sees further
        self._halo: int | None = model.halo if methods.tiles_exact(method, self._options) else None
        check_tile(tile, self._halo)
        self._tile = tile
        # one pass over the image needs no tiles, and takes a camera's bytes as they are
        self._streams: bool = getattr(model, "streams", False)

    def __repr__(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in self._options.items())
        return f"Enhancer({self._method!r}{options}, weights={os.fspath(self._path)!r})"

    def __call__(self, image: Any) -> Any:
        """Brighten one image (or one batch in a tensor or array), as `enhance` does."""
        x, source = self._prepare(image)
        return self._finish(x, source)

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
        groups: dict[Any, list[int]] = {}
        for place, (x, _) in enumerate(prepared):
            groups.setdefault((x.shape[-2:], x.device, x.dtype), []).append(place)
        results: list[Any] = [None] * len(prepared)
        for places in groups.values():
            together = self._enhanced(torch.cat([prepared[place][0] for place in places]))
            sizes = [len(prepared[place][0]) for place in places]
            for place, y in zip(places, together.split(sizes), strict=True):
                results[place] = self._result(y, prepared[place][1])
        return results

    def stream(self, images: Iterable[Any]) -> Iterator[Any]:
        """Brighten images one after another, reading and decoding the next ones meanwhile.

        `images` is iterated in another thread, two ahead at most. An error of the iterable or of an image is
        raised where its result would have come.
        """
        source = iter(images)
        end = object()

        def following() -> Any:
            image = next(source, end)
            if image is end:
                return end
            x, description = self._prepare(image)
            # a copy: the producer may write its next image into the same memory
            return x.clone(), description

        def run() -> Iterator[Any]:
            worker = ThreadPoolExecutor(1, thread_name_prefix="fastllie-stream")
            try:
                waiting: deque[Future[Any]] = deque(worker.submit(following) for _ in range(AHEAD))
                while True:
                    ready = waiting.popleft().result()
                    if ready is end:
                        return
                    waiting.append(worker.submit(following))
                    yield self._finish(*ready)
            finally:
                worker.shutdown(wait=False, cancel_futures=True)

        return run()

    def _prepare(self, image: Any) -> tuple[Tensor, Source]:
        device = self._device
        if device is None and not isinstance(image, Tensor):
            device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        as_bytes = self._streams and self._strength == 1 and self._dtype == torch.float32
        dtype = torch.uint8 if as_bytes else self._dtype
        return to_batch(image, channels=self._channels, device=device, dtype=dtype)

    def _finish(self, x: Tensor, source: Source) -> Any:
        return self._result(x if self._strength == 0 else self._enhanced(x), source)

    def _result(self, y: Tensor, source: Source) -> Any:
        return source.unchanged() if self._strength == 0 else from_batch(y, source)

    def _enhanced(self, x: Tensor) -> Tensor:
        # what is made here may not enter the user's own training; from_batch copies it to an ordinary tensor
        with torch.inference_mode():
            tile = None if self._streams and self._tile == "auto" else self._tile
            y = tiled(self._model(x.device), x, tile, self._halo)
            return y if self._strength == 1 else torch.lerp(x, y, self._strength)

    def _model(self, device: torch.device) -> Any:
        model = _cached(self._method, self._path, device, self._dtype, self._options)
        if not self._compile:
            return model
        with self._lock:
            if device not in self._compiled:
                self._compiled[device] = torch.compile(model, dynamic=True)
            return self._compiled[device]


_models: OrderedDict[Any, nn.Module] = OrderedDict()
_models_lock = threading.Lock()


def _cached(
    method: str, path: Path, device: torch.device, dtype: torch.dtype, options: dict[str, Any]
) -> nn.Module:
    """The network for these settings, loaded once; the file's time and size are part of the key."""
    state = path.stat()
    key = (method, path.resolve(), state.st_mtime_ns, state.st_size, device, dtype, tuple(options.items()))
    with _models_lock:
        if key in _models:
            _models.move_to_end(key)
            return _models[key]
        # a tensor made in inference mode would count no changes, see EnhanceNetwork.folded
        with torch.inference_mode(False):
            model = (
                checkpoint.build(method, path, options).requires_grad_(False).to(device=device, dtype=dtype)
            )
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


def _strength(strength: float) -> float:
    if isinstance(strength, bool) or not isinstance(strength, (int, float)):
        raise TypeError(f"strength must be a number, got {type(strength).__name__}")
    if not 0 <= strength <= 1:
        raise ValueError(f"strength must lie in [0, 1], got {strength}")
    return float(strength)
