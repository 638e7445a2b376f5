"""Batches of photographs: as they are, in pairs, beside others, or as dark noisy frames with targets."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from fastllie.models.metered import gain_of, taught
from fastllie.training.data import synthesis as synthetic
from fastllie.training.recipes import WIDE, Synthesis

# streams of random numbers beside those of the order and of the crops
_FLIPS, _NORMAL, _NORMAL_ORDER, _UPSIDE, _DARKER = 1, 2, 3, 4, 5


class Batch(NamedTuple):
    """Images on the device, float32 `[B, 3, S, S]` in [0, 1] in channels-last memory.

    Attributes:
        x: What the network sees.
        target: What it should become; the same tensor where nothing is known.
        normal: Images of normal light, drawn independently of `x`; None but for unpaired photographs.
        undarkened: `x` as the photographs have it, where the source has made it darker; None elsewhere.
        clean: `x` without noise, where the source has added some to whole scenes; None elsewhere.
    """

    x: Tensor
    target: Tensor
    normal: Tensor | None = None
    undarkened: Tensor | None = None
    clean: Tensor | None = None


class Source(Protocol):
    """Where batches come from: a function of the seed and the step alone, so that resuming needs no state."""

    @property
    def steps_per_epoch(self) -> int: ...
    @property
    def photographs(self) -> int: ...

    def batch(self, step: int, part: int = 0, parts: int = 1) -> Batch:
        """Slice `part` of `parts` of the batch of a step; slices may differ in length, and be empty.

        One after the other they are the whole batch, bit for bit.
        """
        ...

    def size(self, step: int) -> int:
        """Images in the whole batch of a step; the last of a pass may be smaller."""
        ...

    def names(self, step: int) -> list[str]:
        """The photographs of the whole batch of a step."""
        ...


class Passes:
    """Which photographs a step shows: each once a pass, in an order shuffled anew for each."""

    def __init__(self, count: int, batch: int, seed: int, *stream: int):
        self._count = count
        self._batch = batch
        self._seed = seed
        self._stream = stream
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))
        self.steps_per_epoch = -(-count // batch)

    def place(self, step: int) -> tuple[int, int]:
        """The pass of a step, and its number in that."""
        return divmod(step, self.steps_per_epoch)

    def chosen(self, step: int) -> list[int]:
        epoch, place = self.place(step)
        return self._of(epoch)[place * self._batch : (place + 1) * self._batch].tolist()

    def beside(self, step: int, count: int) -> list[int]:
        """As many for a batch whose size other photographs decide, going through passes of one's own."""
        chosen = []
        for position in range(step * self._batch, step * self._batch + count):
            epoch, place = divmod(position, self._count)
            chosen.append(int(self._of(epoch)[place]))
        return chosen

    def _of(self, epoch: int) -> np.ndarray:
        # one tuple: a thread that prepares batches ahead may ask for another pass meanwhile
        known, order = self._order
        if known != epoch:
            order = np.random.default_rng((self._seed, epoch, *self._stream)).permutation(self._count)
            self._order = (epoch, order)
        return order


class _Shuffled:
    """What `Squares` and `Photographs` share: each photograph once a pass, whose last batch may be smaller.

    Args:
        photographs: `[H, W, 3]` of uint8.
        target: What each should become, of the same sizes; None where that is not known.
        normal: Photographs of normal light that have nothing to do with the others.
        flips: Whether half the images are mirrored, with their targets.
        meter: The level that the photographs, as wholes, are brought to before they are shown, see
            `fastllie.models.Metered`; None: they are not. Targets and photographs of normal light stay.
        names: Of the photographs; their numbers by default.
        device: Where the batches shall be.
    """

    def __init__(
        self,
        photographs: Sequence[Tensor],
        batch: int,
        seed: int,
        *,
        target: Sequence[Tensor] | None = None,
        normal: Sequence[Tensor] | None = None,
        flips: bool = False,
        meter: float | None = None,
        names: Sequence[str] | None = None,
        device: torch.device | None = None,
    ):
        self._low = photographs
        self._target = target
        self._normal = normal
        self._seed = seed
        self._flips = flips
        self._meter = meter
        self._gains: dict[int, Tensor] = {}
        self._names = names
        self._device = device or torch.device("cpu")
        self._passes = Passes(len(photographs), batch, seed)
        self._beside = None if normal is None else Passes(len(normal), batch, seed, 0, _NORMAL_ORDER)
        self.photographs = len(photographs)
        self.steps_per_epoch = self._passes.steps_per_epoch

    def size(self, step: int) -> int:
        return len(self._passes.chosen(step))

    def names(self, step: int) -> list[str]:
        chosen = self._passes.chosen(step)
        return [str(index) if self._names is None else self._names[index] for index in chosen]

    def batch(self, step: int, part: int = 0, parts: int = 1) -> Batch:
        chosen = self._passes.chosen(step)
        mine = share_of(len(chosen), part, parts)
        x = self._images(self._low, chosen, step, 0, mine)
        target = x if self._target is None else self._images(self._target, chosen, step, 0, mine)
        if self._normal is None or self._beside is None:
            return Batch(x, target)
        others = self._beside.beside(step, len(chosen))
        return Batch(x, target, self._images(self._normal, others, step, _NORMAL, mine))

    def _images(
        self, photographs: Sequence[Tensor], chosen: list[int], step: int, stream: int, mine: slice
    ) -> Tensor:
        """Those of the slice; what is random is drawn for the whole batch, alike in streams of one number."""
        windows = self._windows([photographs[index] for index in chosen], step, stream)
        flipped = [False] * len(chosen)
        if self._flips:
            random = np.random.default_rng((self._seed, step, stream, _FLIPS))
            flipped = (random.random(len(chosen)) < 0.5).tolist()
        frames = [
            window.flip(1) if flip else window
            for window, flip in zip(windows[mine], flipped[mine], strict=True)
        ]
        pixels = torch.stack(frames) if frames else windows[0].new_empty((0, *windows[0].shape))
        images = _placed(pixels, self._device).float().div_(255).permute(0, 3, 1, 2)
        if self._meter is None or photographs is not self._low or not len(images):
            return images
        gains = torch.cat([self._gain(index, self._meter) for index in chosen[mine]])
        return taught(images, gains.to(images.device))

    def _gain(self, index: int, level: float) -> Tensor:
        """By which a photograph is metered, of all of it."""
        if index not in self._gains:
            self._gains[index] = gain_of(self._low[index].permute(2, 0, 1)[None], level)
        return self._gains[index]

    def _windows(self, photographs: list[Tensor], step: int, stream: int) -> list[Tensor]:
        """What is shown of the photographs of a batch: all of each."""
        return photographs


class Squares(_Shuffled):
    """Batches of whole photographs squeezed to squares of one size: the published way of Zero-DCE."""


class Photographs(_Shuffled):
    """Batches of photographs as they are, of any sizes: the published way of SCI.

    Args:
        size: Side of a square crop at a random place; no photograph may be smaller. None takes whole
            photographs, one a batch.
    """

    def __init__(
        self, photographs: Sequence[Tensor], batch: int, seed: int, *, size: int | None = None, **more: Any
    ):
        super().__init__(photographs, batch, seed, **more)
        self._size = size

    def _windows(self, photographs: list[Tensor], step: int, stream: int) -> list[Tensor]:
        size = self._size
        if size is None:
            return photographs
        seed = (self._seed, *self._passes.place(step))
        random = np.random.default_rng((*seed, stream) if stream else seed)
        windows = []
        for photo in photographs:
            top, left = (int(random.integers(side - size + 1)) for side in photo.shape[:2])
            windows.append(photo[top : top + size, left : left + size])
        return windows


class Unpaired(Photographs):
    """Crops of dark photographs beside crops of others in normal light: the published way of EnlightenGAN.

    A pass shows as many pairs as the larger side has photographs. Each crop is mirrored by itself, pairs are
    turned upside down together; a share of the dark ones is darkened further.

    Args:
        upside: Whether half of the pairs are turned upside down; where nothing is mirrored none are.
        by_index: The i-th of the one side goes with the i-th of the other; False draws the normal ones.
        dark_share: Share of the dark crops that are divided by a factor from `darkening`, in hundredths.
    """

    def __init__(
        self,
        photographs: Sequence[Tensor],
        batch: int,
        seed: int,
        *,
        normal: Sequence[Tensor],
        size: int,
        upside: bool = True,
        by_index: bool = False,
        dark_share: float = 0.0,
        darkening: tuple[float, float] = (2.0, 4.0),
        **more: Any,
    ):
        super().__init__(photographs, batch, seed, size=size, normal=normal, **more)
        self._others = normal
        self._upside = upside and self._flips
        self._by_index = by_index
        self._dark_share = dark_share
        self._darkening = darkening
        self._passes = Passes(max(len(photographs), len(normal)), batch, seed)
        self.photographs = len(photographs) + len(normal)
        self.steps_per_epoch = self._passes.steps_per_epoch

    def names(self, step: int) -> list[str]:
        chosen = [index % len(self._low) for index in self._passes.chosen(step)]
        return [str(index) if self._names is None else self._names[index] for index in chosen]

    def batch(self, step: int, part: int = 0, parts: int = 1) -> Batch:
        chosen = self._passes.chosen(step)
        mine = share_of(len(chosen), part, parts)
        if self._by_index or self._beside is None:
            others = [index % len(self._others) for index in chosen]
        else:
            others = self._beside.beside(step, len(chosen))
        x = self._images(self._low, [index % len(self._low) for index in chosen], step, 0, mine)
        normal = self._images(self._others, others, step, _NORMAL, mine)
        if self._upside:
            random = np.random.default_rng((self._seed, step, _UPSIDE))
            upside = torch.from_numpy(random.random(len(chosen)) < 0.5)[mine].to(x.device)
            x, normal = (
                torch.where(upside[:, None, None, None], images.flip(2), images) for images in (x, normal)
            )
        random = np.random.default_rng((self._seed, step, _DARKER))
        darker = random.random(len(chosen)) < self._dark_share
        low, high = (round(100 * bound) for bound in self._darkening)
        factors = np.where(darker, random.integers(low, high + 1, len(chosen)) / 100, 1.0)
        if not darker[mine].any():
            return Batch(x, x, normal)
        divisors = torch.from_numpy(factors).float()[mine].to(x.device)[:, None, None, None]
        dark = x / divisors
        return Batch(dark, dark, normal, x)


class SyntheticExposures:
    """Batches of dark and of well-exposed frames made of photographs; see `fastllie.training.data.synthesis`.

    Args:
        photographs: `[H, W, 3]` of uint8, with both sides at least `size`.
        size: Side of the frames.
        names: Of the photographs; their numbers by default.
        device: Where the frames are made, and the batches shall be.
    """

    def __init__(
        self,
        photographs: Sequence[Tensor],
        synthesis: Synthesis,
        size: int,
        batch: int,
        seed: int,
        *,
        names: Sequence[str] | None = None,
        device: torch.device | None = None,
    ):
        self._pixels = photographs
        self._synthesis = synthesis
        self._size = size
        self._batch = batch
        self._seed = seed
        self._names = names
        self._device = device or torch.device("cpu")
        self._gains: dict[int, float] = {}
        self.photographs = len(photographs)
        self.steps_per_epoch = -(-len(photographs) // batch)

    def size(self, step: int) -> int:
        return max(1, self._batch // WIDE**2) if self._wide(step) else self._batch

    def names(self, step: int) -> list[str]:
        chosen = self._chosen(self._draw(step, slice(None)))
        return [str(index) if self._names is None else self._names[index] for index in chosen]

    def batch(self, step: int, part: int = 0, parts: int = 1) -> Batch:
        drawn = self._draw(step, share_of(self.size(step), part, parts))
        chosen = self._chosen(drawn)
        crops = self._crops([self._pixels[index] for index in chosen], step, drawn)
        return Batch(
            *synthetic.expose(
                _placed(crops, self._device), self._brightenings(chosen), drawn, self._synthesis
            )
        )

    def _wide(self, step: int) -> bool:
        return self._synthesis.wide_steps and step % 2 == 1

    def _crops(self, photographs: list[Tensor], step: int, drawn: synthetic.Draw) -> Tensor:
        size, zoom = self._size, self._synthesis.zoom
        if self._wide(step):
            size, zoom = WIDE * size, zoom / WIDE
        return synthetic.crop(photographs, size, zoom, drawn.chances)

    def _draw(self, step: int, part: slice, *stream: int) -> synthetic.Draw:
        seed = np.random.SeedSequence((self._seed, step, *stream)).generate_state(1, np.uint64)[0]
        return synthetic.draw(self.size(step), int(seed) >> 1, part.start, part.stop)

    def _chosen(self, drawn: synthetic.Draw) -> list[int]:
        return (drawn.chances.photograph * len(self._pixels)).long().tolist()

    def _brightenings(self, chosen: list[int]) -> Tensor:
        """The factors of photographs, found out when one is first shown: all at once would take a pass."""
        unknown = [index for index in dict.fromkeys(chosen) if index not in self._gains]
        if unknown:
            found = synthetic.brightening([self._pixels[index] for index in unknown], self._synthesis)
            self._gains.update(zip(unknown, found.tolist(), strict=True))
        return torch.tensor([self._gains[index] for index in chosen])


class UnpairedExposures(SyntheticExposures):
    """Batches of dark frames made of some photographs, beside crops of others in their own light.

    Args:
        normal: Photographs of normal light, cropped and reduced as the dark ones are.
    """

    def __init__(
        self,
        photographs: Sequence[Tensor],
        synthesis: Synthesis,
        size: int,
        batch: int,
        seed: int,
        *,
        normal: Sequence[Tensor],
        names: Sequence[str] | None = None,
        device: torch.device | None = None,
    ):
        super().__init__(photographs, synthesis, size, batch, seed, names=names, device=device)
        self._normal = normal
        self.photographs = len(photographs) + len(normal)

    def batch(self, step: int, part: int = 0, parts: int = 1) -> Batch:
        frames = super().batch(step, part, parts)
        drawn = self._draw(step, share_of(self.size(step), part, parts), _NORMAL)
        chosen = (drawn.chances.photograph * len(self._normal)).long().tolist()
        crops = self._crops([self._normal[index] for index in chosen], step, drawn)
        normal = _placed(crops, self._device).float().div_(255)
        return frames._replace(normal=normal.contiguous(memory_format=torch.channels_last))


def share_of(count: int, part: int, parts: int) -> slice:
    """Which of `count` things are part `part` of `parts`."""
    return slice(count * part // parts, count * (part + 1) // parts)


def _placed(pixels: Tensor, device: torch.device) -> Tensor:
    if device.type == "cuda" and pixels.device.type == "cpu":
        return pixels.pin_memory().to(device, non_blocking=True)
    return pixels.to(device)
