"""Large images in pieces: exactly the untiled result, in less memory, and on a CPU in less time."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from fastllie.checks import check_int
from fastllie.models.contract import Grid, Window

# benchmarks/tiles.py, 1920x1080, 2 cores of an AMD EPYC: Zero-DCE takes 2.1 CPU s and 68 MB in these tiles,
# 5.5 s and 2.8 GB whole (3.6 s channels last); Zero-DCE++ 0.9 s and 83 MB, whole 7.8 s and 3.2 GB.
# Sides of 128 to 256 are within 20 %; 384 takes 1.4 to 2.8 times as long: the features leave the cache
CPU_TILE = 192
# Of an accelerator with memory to spare; halos add less than 3 %
ACCELERATOR_TILE = 2048
# Zero-DCE in float32: 6 GB for a tile of 2048 x 2048
BYTES_A_PIXEL = 1400
# What a tile of a network with halos of more than a hundred pixels may take of a CPU's memory: the more, the
# less is computed twice. 2 GB with the image of 12 megapixels, its result, and what convolutions keep
CPU_BYTES = 1_400_000_000
# Such a network's tile is at least this many halos wide, whatever the memory: half of it is then new
LEAST_HALOS = 4

# images, and keywords with what the network has observed, to enhanced images
Model = Callable[..., Tensor]
# what a model is given with a piece: of which images, and where it lies in them
Told = Callable[[slice, Window], Mapping[str, Any]]


def check_tile(tile: int | str | None, halo: int | None) -> None:
    """Raise unless `tile` is "auto", None, or (only where there is a halo) a positive integer."""
    if tile is None or tile == "auto":
        return
    if check_int("tile", tile, "'auto', None or an integer") < 1:
        raise ValueError(f"tile must be at least 1 pixel, got {tile}")
    if halo is None:
        raise ValueError(
            f"tile must be 'auto' or None, got {tile}: with these options a pixel depends on the whole image"
        )


def auto_tile(device: torch.device) -> int:
    """The side of a tile that `tile="auto"` takes: what fits a CPU's cache, or half of what is free there."""
    if device.type == "cpu":
        return CPU_TILE
    if device.type != "cuda":
        return ACCELERATOR_TILE
    return max(CPU_TILE, min(ACCELERATOR_TILE, math.isqrt(_free(device) // 2 // BYTES_A_PIXEL)))


def most_pixels(device: torch.device, pixel_bytes: float) -> int:
    """How many pixels at a time are within CPU_BYTES, or within half of what an accelerator has free."""
    if device.type == "cpu":
        most = CPU_BYTES
    elif device.type == "cuda":
        most = _free(device) // 2
    else:
        return ACCELERATOR_TILE**2
    return max(1, int(most / pixel_bytes))


def _free(device: torch.device) -> int:
    free = torch.cuda.mem_get_info(device)[0]
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def tiled(
    model: Model,
    x: Tensor,
    tile: int | str | None,
    halo: int | None,
    *,
    cropping: Model | None = None,
    told: Told | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Run the model in square tiles, each with a halo of real pixels.

    Equal to `model(x)` up to float rounding when an output pixel depends on `halo` pixels around it. Images
    smaller than a tile go through the model together, as many as have a tile's pixels.

    Args:
        model: Images `[B, 3, h, w]` to images of the same shape and dtype.
        x: The batch, `[B, 3, H, W]`.
        tile: Longest side of a tile in pixels; "auto" is `auto_tile` of the device; None runs the model once.
        halo: Pixels around a tile that it is given and that are cut away again; None keeps images whole.
        cropping: The same model for tiles, where it need not pad: from images that bring `halo` pixels on
            each side to images without them. Outside the image it finds the nearest pixel, so a model that
            pads with something else has none. Without it, halos are clipped at the image's border.
        told: What a model that has observed the batch is given with each tile.
        out: Where the result goes, of the shape and dtype of `x` and apart from it; None makes a new tensor.
    """
    if tile is None:
        return model(x) if out is None else out.copy_(model(x))
    side = tile if isinstance(tile, int) else auto_tile(x.device)
    # what a CPU's convolutions take fastest, see CPU_TILE
    layout = torch.channels_last if x.device.type == "cpu" else torch.contiguous_format
    if out is None:
        out = torch.empty_like(x, memory_format=layout)
    height, width = x.shape[-2:]
    together = max(1, side * side // (height * width))
    for place, images, results in _parts(x, out, together):
        if halo is None or (side >= height and side >= width):
            results.copy_(model(images.contiguous(memory_format=layout)))
            continue
        for top, bottom in _spans(height, side):
            for left, right in _spans(width, side):
                result = results[..., top:bottom, left:right]
                if cropping is not None:
                    how = told(place, Window(top - halo, left - halo, height, width)) if told else {}
                    piece = _surrounded(images, (top, bottom), (left, right), halo)
                    result.copy_(cropping(piece.contiguous(memory_format=layout), **how))
                    continue
                first, last = _window(top, bottom, height, halo)
                start, end = _window(left, right, width, halo)
                how = told(place, Window(first, start, height, width)) if told else {}
                y = model(images[..., first:last, start:end].contiguous(memory_format=layout), **how)
                result.copy_(y[..., top - first : bottom - first, left - start : right - start])
    return out


def _parts(x: Tensor, out: Tensor, count: int) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """So many images of a batch at a time: which, and views of them and of their results."""
    for first in range(0, len(x), count):
        images = slice(first, min(first + count, len(x)))
        yield images, x[images], out[images]


def aligned(
    model: Model,
    x: Tensor,
    tile: int | str | None,
    halo: int,
    multiple: int,
    *,
    told: Told | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """`tiled` for a network whose pieces have to begin at multiples of something.

    Args:
        model, x, told, out: As for `tiled`.
        tile: As for `tiled`; "auto" is at least LEAST_HALOS halos. Rounded up to the multiple, as the halo.
        multiple: What the places of pieces are multiples of.
    """
    if tile is None:
        return model(x) if out is None else out.copy_(model(x))
    wanted = tile if isinstance(tile, int) else max(auto_tile(x.device), LEAST_HALOS * halo)
    if out is None:
        out = torch.empty_like(x)
    height, width = x.shape[-2:]
    side, halo = (-(-length // multiple) * multiple for length in (wanted, halo))
    together = max(1, side * side // (height * width))
    for first in range(0, len(x), together):
        images = slice(first, min(first + together, len(x)))
        for top in range(0, height, side):
            upper, lower = max(0, top - halo), min(height, top + side + halo)
            for left in range(0, width, side):
                near, far = max(0, left - halo), min(width, left + side + halo)
                how = told(images, Window(upper, near, height, width)) if told else {}
                y = model(x[images, :, upper:lower, near:far], **how)
                place = out[images, :, top : top + side, left : left + side]
                place.copy_(y[..., top - upper :, left - near :][..., : place.shape[-2], : place.shape[-1]])
    return out


def on_grid(
    model: Model,
    x: Tensor,
    tile: int | str | None,
    halo: int,
    grid: Grid,
    *,
    told: Told | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """`tiled` for a network that completes the image to whole cells: exactly the untiled result again.

    Tiles are cut from the completed image, on its grid: there they need no completion of their own, and at
    its border their padding is that of the whole. The halo is wide, so as few and as equal tiles are taken
    as memory allows.

    Args:
        model, x, told, out: As for `tiled`.
        tile: Longest side of what a tile adds, rounded up to the grid; "auto" is the division that computes
            least twice within `most_pixels`; None runs the model once.
        halo: Pixels around an output pixel that its value depends on, a multiple of the grid's.
        grid: How the network completes.
    """
    if tile is None:
        return model(x) if out is None else out.copy_(model(x))
    layout = torch.channels_last if x.device.type == "cpu" else torch.contiguous_format
    if out is None:
        out = torch.empty_like(x, memory_format=layout)
    height, width = x.shape[-2:]
    rows, columns = grid.completed(height), grid.completed(width)
    length, breadth = rows.shape[0], columns.shape[0]
    most = max(most_pixels(x.device, grid.pixel_bytes), (LEAST_HALOS * halo) ** 2)
    if isinstance(tile, int):
        side = -(-tile // grid.multiple) * grid.multiple
        bands, lanes = (_count(total, side, halo) for total in (length, breadth))
    else:
        bands, lanes = _least(length, breadth, most, halo, grid.multiple)
    above, before = (length - height) // 2, (breadth - width) // 2
    together = max(1, most // (length * breadth))
    for part, images, results in _parts(x, out, together):
        if bands == lanes == 1:
            results.copy_(model(images.contiguous(memory_format=layout)))
            continue
        for first, last, top, bottom in _windows(length, bands, halo, grid.multiple):
            band = _taken(images, 2, rows[first:last])
            for start, end, left, right in _windows(breadth, lanes, halo, grid.multiple):
                how = told(part, Window(first - above, start - before, height, width)) if told else {}
                y = model(_taken(band, 3, columns[start:end]).contiguous(memory_format=layout), **how)
                # of what the tile adds, what lies in the image
                upper, lower = max(top, above), min(bottom, above + height)
                near, far = max(left, before), min(right, before + width)
                place = results[..., upper - above : lower - above, near - before : far - before]
                place.copy_(y[..., upper - first : lower - first, near - start : far - start])
    return out


def _taken(x: Tensor, dim: int, index: Tensor) -> Tensor:
    """The pixels of an index along one axis; a view where they follow one another."""
    first, count = int(index[0]), index.shape[0]
    if torch.equal(index, torch.arange(first, first + count)):
        return x.narrow(dim, first, count)
    return x.index_select(dim, index.to(x.device))


def _count(length: int, side: int, halo: int) -> int:
    """How many tiles an axis takes when each adds `side`; the outer ones add their spare halo too."""
    return max(1, math.ceil((length - 2 * halo) / side))


def _window_of(length: int, count: int, halo: int, multiple: int) -> int:
    """The side of `count` equal tiles with their halos that cover an axis."""
    return min(length, math.ceil((length + 2 * halo * (count - 1)) / count / multiple) * multiple)


def _least(length: int, breadth: int, most: int, halo: int, multiple: int) -> tuple[int, int]:
    """The division into equal tiles of at most so many pixels that has the fewest of them in all."""
    best = math.inf
    found = 1, 1
    for bands in range(1, _count(length, multiple, halo) + 1):
        height = _window_of(length, bands, halo, multiple)
        widest = most // height // multiple * multiple
        if widest < breadth and widest <= 2 * halo:
            continue
        lanes = 1 if widest >= breadth else _count(breadth, widest - 2 * halo, halo)
        total = bands * lanes * height * _window_of(breadth, lanes, halo, multiple)
        if total < best:
            best, found = total, (bands, lanes)
    return found


def _windows(length: int, count: int, halo: int, multiple: int) -> Iterator[tuple[int, int, int, int]]:
    """Of each tile along one axis: from where to where it reaches with its halo, and what of that it adds."""
    window = _window_of(length, count, halo, multiple)
    steps = (length - window) // multiple
    firsts = [steps * place // max(1, count - 1) * multiple for place in range(count)]
    # a tile begins to count where the one before has its halo left
    starts = [0, *(first + halo for first in firsts[1:]), length]
    for place, first in enumerate(firsts):
        yield first, first + window, starts[place], starts[place + 1]


def blended(model: Model, x: Tensor, tile: int, overlap: int, *, told: Told | None = None) -> Tensor:
    """Run a model whose every output pixel depends on the whole image, in overlapping tiles that fade over.

    For what does not fit in memory whole: unlike `tiled` this is an approximation. Each tile is enhanced for
    itself, so a statistic of the whole image, say its mean, is one of the tile; the fade hides the seams and
    leaves the differences. The larger the tiles, the closer to `model(x)`; equal to it where one is enough.

    Args:
        model: Images `[B, 3, h, w]` to images of the same shape.
        x: The batch, `[B, 3, H, W]`, floats.
        tile: Side of a tile in pixels.
        overlap: Pixels that neighbours share at least, less than `tile`; weights rise and fall over them.
        told: As for `tiled`.

    Raises:
        ValueError: an overlap that leaves no step between tiles.
    """
    if not 0 < overlap < tile:
        raise ValueError(f"overlap must lie between 0 and tile, got {overlap} with tiles of {tile}")
    height, width = x.shape[-2:]
    if tile >= height and tile >= width:
        return model(x)
    out = torch.zeros_like(x)
    total = x.new_zeros((height, width))
    for top, bottom in _overlapping(height, tile, overlap):
        for left, right in _overlapping(width, tile, overlap):
            weight = torch.outer(_ramp(bottom - top, overlap, x), _ramp(right - left, overlap, x))
            how = told(slice(0, len(x)), Window(top, left, height, width)) if told else {}
            out[..., top:bottom, left:right] += weight * model(x[..., top:bottom, left:right], **how)
            total[top:bottom, left:right] += weight
    return out.div_(total)


def _overlapping(length: int, side: int, overlap: int) -> Iterator[tuple[int, int]]:
    side = min(side, length)
    count = 1 + math.ceil((length - side) / max(1, side - overlap))
    for place in range(count):
        start = (length - side) * place // max(1, count - 1)
        yield start, start + side


def _ramp(length: int, overlap: int, x: Tensor) -> Tensor:
    """Weights of a tile's pixels along one axis: up to 1 over the overlap, and down again."""
    rising = torch.arange(1, length + 1, device=x.device, dtype=x.dtype)
    return torch.minimum(rising, rising.flip(0)).clamp_(max=overlap) / overlap


def _spans(length: int, side: int) -> Iterator[tuple[int, int]]:
    """Start and end of each tile along one axis.

    All are equally long, the last ones overlap: convolutions prepare themselves once for each new shape.
    """
    count = math.ceil(length / side)
    step = math.ceil(length / count)
    for place in range(count):
        start = min(place * step, length - step)
        yield start, start + step


def _window(start: int, end: int, length: int, halo: int) -> tuple[int, int]:
    """A tile with its halo; at a border it reaches further inside, again for the sake of one shape."""
    window = min(length, end - start + 2 * halo)
    first = min(max(start - halo, 0), length - window)
    return first, first + window


def _surrounded(x: Tensor, rows: tuple[int, int], columns: tuple[int, int], halo: int) -> Tensor:
    """A tile with its halo, the nearest pixel where that leaves the image."""
    outside = []
    for dim, (start, end) in ((2, rows), (3, columns)):
        length = x.shape[dim]
        first, last = max(start - halo, 0), min(end + halo, length)
        x = x.narrow(dim, first, last - first)
        if (first, last) != (start - halo, end + halo):
            outside.append((dim, torch.arange(start - halo, end + halo).clamp_(0, length - 1) - first))
    for dim, index in outside:
        x = x.index_select(dim, index.to(x.device))
    return x
