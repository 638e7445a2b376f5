"""`enhance`, `load` and `Enhancer`: any image in, the same kind out, with models that are loaded once."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import IO, Any, TypeAlias, TypeVar, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from fastllie import methods
from fastllie.checks import check_flag, check_share
from fastllie.images.batches import CHANNELS, Source, from_batch, to_batch
from fastllie.images.photograph import Photograph
from fastllie.images.reading import check_white
from fastllie.inference import frames, loading
from fastllie.inference.levels import mean_luma
from fastllie.inference.loading import Device, Weights
from fastllie.inference.overlapping import AHEAD as AHEAD
from fastllie.inference.overlapping import overlapped
from fastllie.inference.runner import Runner
from fastllie.methods import Method as Method

# what comes back as it came, and what becomes a PIL image
Kind = TypeVar("Kind", bound="Tensor | np.ndarray[Any, Any] | Photograph")
Picture: TypeAlias = "Image.Image | str | os.PathLike[str] | bytes | IO[bytes]"


def load(
    method: Method,
    weights: Weights = None,
    *,
    device: Device = None,
    dtype: torch.dtype | None = None,
    **options: Any,
) -> nn.Module:
    """Load a network of your own, in eval mode: images `[B, 3, H, W]` in [0, 1] to images of the same shape.

    Weights that you change and whatever you put on or in place of its layers count from the next call on.

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
    return loading.open_network(method, weights, device, dtype, options)


@overload
def enhance(
    image: Kind, method: Method = ..., *, weights: Weights = ..., device: Device = ...,
    dtype: torch.dtype | None = ..., strength: float = ..., tile: int | str | None = ..., channels: str = ...,
    white_level: int | str | None = ..., max_pixels: int | None = ..., **options: Any,
) -> Kind: ...  # fmt: skip


@overload
def enhance(
    image: Picture, method: Method = ..., *, weights: Weights = ..., device: Device = ...,
    dtype: torch.dtype | None = ..., strength: float = ..., tile: int | str | None = ..., channels: str = ...,
    white_level: int | str | None = ..., max_pixels: int | None = ..., **options: Any,
) -> Image.Image: ...  # fmt: skip


def enhance(
    image: Any,
    method: Method = "dawn",
    *,
    weights: Weights = None,
    device: Device = None,
    dtype: torch.dtype | None = None,
    strength: float = 1.0,
    tile: int | str | None = "auto",
    channels: str = "rgb",
    white_level: int | str | None = None,
    max_pixels: int | None = None,
    **options: Any,
) -> Any:
    """Brighten an image, or a batch of them; what comes back is of the same kind.

    - `torch.Tensor`, (3,H,W) or (B,3,H,W), floats in [0, 1], uint8 or uint16: same shape, dtype, device and
      memory format, outside of autograd (for gradients, call the network that `load` returns).
    - `numpy.ndarray`, (H,W,3) or (B,H,W,3), uint8, uint16, or floats in [0, 1]: same shape and dtype.
    - `PIL.Image.Image` of any mode, or an image file (path, bytes, or open): a PIL image, upright, with its
      metadata; grey stays grey, alpha is kept as it is, palettes become RGB or RGBA. Of a file of several
      pictures it is the first; `enhance_folder` keeps all.

    Integers are rounded half up. Floats that leave [0, 1] by at most 0.001 are clamped; anything further, NaN
    and infinity are errors.

    Args:
        image: The image.
        method: One of `list_methods()`. The default, "dawn", is our own and takes the noise out too; the
            published networks brighten it.
        weights: None (the default variant), a variant's name, or a path to .safetensors, .pth or .pt.
        device: Where to compute; None is the tensor's own device, and for other kinds CUDA if there is one,
            else the CPU. The result comes back to where the image was.
        dtype: What to compute in; None is float32, whatever the image's dtype.
        strength: From 0 (the image as it came) to 1 (the full enhancement).
        tile: Side in pixels of the tiles that the image is enhanced in; "auto" chooses one, None uses none.
            Tiles change memory and speed, not the result; but with `align_corners=True` or `halve_wide=True`
            EnlightenGAN is approximate where "auto" takes tiles, which then fade into each other.
        channels: "rgb", or "bgr" for the arrays and tensors of OpenCV.
        white_level: The value of white of 16-bit integers, such as 4095 of a camera's 12 bits, or "auto": the
            least of 10, 12, 14 or 16 bits that holds all values. None is 65535, or what a file says.
        max_pixels: Of an image file; None is 220 million.
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
        white_level=white_level,
        max_pixels=max_pixels,
        **options,
    )
    return enhancer(image)


class Enhancer:
    """`enhance` with its arguments given once, for many images.

    Safe to call from several threads. It pickles by its arguments: worker processes, spawned or forked,
    load the network themselves: a variant's name then means the installation there. A forked process enhances
    with one thread, as PyTorch's own loops would wait for threads that only the parent has. Arguments that
    are not told here are those of `enhance`.

    Args:
        method: One of `list_methods()`.
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
        method: Method = "dawn",
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
        white_level: int | str | None = None,
        max_pixels: int | None = None,
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
            "white_level": white_level,
            "max_pixels": max_pixels,
            **options,
        }
        if channels not in CHANNELS:
            raise ValueError(f"channels must be one of {CHANNELS}, got {channels!r}")
        for name, value in (("compile", compile), ("cuda_graph", cuda_graph)):
            check_flag(name, value)
        self._method, self._options = method, methods.options_of(method, options)
        self._device, self._dtype = loading.device_of(device), loading.dtype_of(dtype)
        self._strength = check_share("strength", strength)
        self._skip_bright = None if skip_bright is None else check_share("skip_bright", skip_bright)
        self._bgr = channels == "bgr"
        check_white(white_level)
        self._white_level, self._max_pixels = white_level, max_pixels
        self._run = Runner(
            method,
            weights,
            self._options,
            # now, so that a weight file that does not fit is reported here and not at the first image
            device=self._device or torch.device("cpu"),
            dtype=self._dtype,
            tile=tile,
            strength=self._strength,
            compile=compile,
            cuda_graph=cuda_graph,
        )

    def __repr__(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in self._options.items())
        return f"Enhancer({self._method!r}{options}, weights={os.fspath(self._run.path)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), **self._arguments), ()

    @property
    def made_by(self) -> dict[str, Any]:
        """What its results depend on, in plain values: what the record of a folder keeps."""
        path = self._run.path
        return {
            "method": self._method,
            "weights": path.name,
            # by what is in it: another machine has it elsewhere, and a training writes over its own
            "digest": hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest(),
            "options": dict(self._options),
            "strength": self._strength,
            "skip_bright": self._skip_bright,
            "white_level": self._white_level,
            "dtype": str(self._dtype).removeprefix("torch."),
        }

    @overload
    def __call__(self, image: Kind) -> Kind: ...

    @overload
    def __call__(self, image: Picture) -> Image.Image: ...

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
            together = self._run(torch.cat([prepared[place][0] for place in places]))
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

        def read(image: Any) -> tuple[Tensor, Source]:
            # a copy: the producer may write its next image into the same memory
            if isinstance(image, Tensor):
                image = image.detach().clone()
            elif isinstance(image, np.ndarray):
                image = image.copy()
            return self._prepare(image)

        return overlapped(images, read, self._finish)

    def preprocess(self, frame: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
        """Brighten frames of bytes into a buffer that is used again: for loops over a camera or a video.

        Computes what `enhancer(frame)` does. The colours are in the order of `channels`: "bgr" for OpenCV's
        frames. With an `out`, SCI at full strength on the CPU, in float32 or bfloat16, allocates nothing of a
        frame's size (`skip_bright` sums in bands); the rest works in tiles, and makes no float image of the
        whole.

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
        frames.check_frames("frame", frame)
        loading.one_thread_after_a_fork()
        out = frames.buffer_for(frame, out)
        device = self._device or loading.default_device()
        x, result = frames.planes(frame).to(device), frames.planes(out)
        bright = self._bright(x, self._bgr).tolist()
        if not any(bright):
            self._fill(x, result)
            return out
        for place, skipped in enumerate(bright):
            one = slice(place, place + 1)
            if skipped:
                result[one].copy_(x[one])
            else:
                self._fill(x[one], result[one])
        return out

    def _prepare(self, image: Any) -> tuple[Tensor, Source]:
        loading.one_thread_after_a_fork()
        device = self._device
        if device is None and not isinstance(image, Tensor):
            device = loading.default_device()
        # bytes become floats where they are computed with, tile by tile
        dtype = torch.float64 if self._dtype == torch.float64 else torch.uint8
        channels = "bgr" if self._bgr else "rgb"
        x, source = to_batch(
            image,
            channels=channels,
            device=device,
            dtype=dtype,
            white_level=self._white_level,
            max_pixels=self._max_pixels,
        )
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
        y = self._run(x)
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
        y[dark] = self._run(x[dark])
        result, unchanged = from_batch(y, source), source.unchanged()
        for place in bright.nonzero()[:, 0].tolist():
            result[place] = unchanged[place]
        return result

    def _fill(self, x: Tensor, out: Tensor) -> None:
        if x.device == out.device:
            self._run(x, out, bgr=self._bgr)
        else:
            out.copy_(self._run(x, bgr=self._bgr))
