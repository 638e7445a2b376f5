"""How much of a video's flicker and noise each method lets through: alone, with averaged maps, with `smooth`.

Flicker is the mean absolute second difference of the frames' mean brightness, in thousandths; noise the mean
deviation of a pixel over time in steady light, where nothing moves, in levels of 8 bits. The clips are
made of a CC0 photograph with sensor noise, by seed: the numbers are the same on every machine, to rounding.

    python benchmarks/flicker.py    # writes benchmarks/results/flicker.json
    python benchmarks/page.py       # puts it on docs/video.md
"""

from collections.abc import Callable, Iterable

import numpy as np
import record
import torch
from PIL import Image
from torch import Tensor

import fastllie
from fastllie.ops import apply_curve, divide_illumination
from fastllie.video import Steady, TemporalFilter

PHOTO = record.ROOT / "docs" / "photos" / "nyc-2nd-ave.jpg"
FRAMES, SIDE, NOISE, SMOOTH = 48, 320, 0.02, 0.8
METHODS = ("zerodce", "zerodce++", "sci", "dawn")
SETTLED = 16  # frames, after which the averages have been filled


def clips() -> dict[str, list[Tensor]]:
    """Frames `[1, 3, H, W]`, rounded to bytes as a camera does."""
    with Image.open(PHOTO) as image:
        image.thumbnail((SIDE, SIDE))
        still = np.asarray(image.convert("RGB"), np.float32) / 255
    random = np.random.default_rng(0)
    gains = {
        "lamp, 8 % at random": 1 + 0.08 * random.standard_normal(FRAMES),
        "beat, 10 % in 12 frames": 1 + 0.1 * np.sin(np.arange(FRAMES) / 2),
        "steady light": np.ones(FRAMES),
    }
    return {name: [frame(still * gain, random) for gain in values] for name, values in gains.items()}


def frame(image: np.ndarray, random: np.random.Generator) -> Tensor:
    noisy = image + NOISE * random.standard_normal(image.shape)
    rounded = np.round(255 * np.clip(noisy, 0, 1)) / 255
    return torch.from_numpy(rounded.astype(np.float32)).permute(2, 0, 1)[None]


def averaged_maps(method: str) -> Callable[[Tensor], Tensor]:
    """The obvious way: an exponential moving average of what the network estimates."""
    network = fastllie.load(method)
    state: list[Tensor] = []

    def run(x: Tensor) -> Tensor:
        if method == "dawn":
            sight = network.look(x)
            state[:] = [SMOOTH * state[0] + (1 - SMOOTH) * sight.grid if state else sight.grid]
            return network(x, *sight._replace(grid=state[0]))
        now = network.stage(x, x)[0] if method == "sci" else network.maps(x)[0]
        state[:] = [SMOOTH * state[0] + (1 - SMOOTH) * now if state else now]
        return divide_illumination(x, state[0]) if method == "sci" else apply_curve(x, state[0], tanh=True)

    return run


def steadied(method: str) -> Callable[[Tensor], Tensor]:
    network, steady = fastllie.load(method), Steady(SMOOTH)
    quiet = TemporalFilter(SMOOTH if fastllie.methods.info(method).denoises else 0)
    return lambda x: network(quiet.follow(steady.follow(x)))


def measure(frames: Iterable[Tensor]) -> dict[str, float]:
    """The flicker in thousandths, the mean brightness, and the deviation of pixels over time."""
    clip = torch.cat(list(frames))
    means = clip.mean((1, 2, 3)).double().numpy()
    flicker = 1000 * np.abs(np.diff(means, 2)).mean()
    noise = 255 * float(clip[SETTLED:].std(0).mean())
    return {
        "flicker": round(float(flicker), 2),
        "mean": round(float(means.mean()), 3),
        "noise": round(noise, 2),
    }


def main() -> None:
    found: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    with torch.inference_mode():
        for name, clip in clips().items():
            found[name] = {}
            for method in METHODS:
                ways = {
                    "alone": fastllie.load(method),
                    "maps averaged": averaged_maps(method),
                    "smooth": steadied(method),
                }
                row = {"input": measure(clip)} | {way: measure(map(run, clip)) for way, run in ways.items()}
                found[name][method] = row
                print(name, method, row, flush=True)
    record.write(record.path_of("flicker"), {"smooth": SMOOTH, "clips": found})


if __name__ == "__main__":
    main()
