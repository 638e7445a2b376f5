"""Time a folder of photographs through SCI on the CPU: `fastllie.enhance_folder` beside a plain loop.

    python benchmarks/folders.py               # 200 photographs of 1600x1067
    python benchmarks/folders.py --count 20    # a quick look

The plain loop is what a user writes: PIL opens, three convolutions in eager PyTorch on a float tensor, PIL
saves, one photograph after another. Both write JPEG at quality 95, with the same weights. The folder is cut
into parts and the contenders take turns on each. A third one only decodes and encodes, through the same
function: its processor time is the files' share of the whole. All run with an allocator that keeps freed
memory.
"""

import argparse
import importlib.util
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import record

PHOTOS = record.ROOT / "docs" / "photos"
SIZE = (1600, 1067)
PARTS = 10
QUALITY = 95


def photographs(folder: Path, count: int) -> list[Path]:
    """Dark JPEGs with a photograph's detail: crops of those in docs/photos, mirrored, with some noise."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    sources = [Image.open(path).convert("RGB") for path in sorted(PHOTOS.glob("*.jpg"))]
    paths = []
    for place in range(count):
        image = sources[place % len(sources)]
        share = random.uniform(0.7, 1)
        width, height = (side * share for side in image.size)
        left, top = random.uniform(0, image.width - width), random.uniform(0, image.height - height)
        image = image.resize(SIZE, Image.Resampling.LANCZOS, (left, top, left + width, top + height))
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        noisy = np.asarray(image) + random.normal(0, 2, (SIZE[1], SIZE[0], 3))
        paths.append(folder / f"{place:04}.jpg")
        Image.fromarray(np.rint(noisy.clip(0, 255)).astype(np.uint8)).save(paths[-1], quality=92)
    return paths


def plain_loop(module: Callable) -> Callable:
    import numpy as np
    import torch
    from PIL import Image

    def run(paths: list[Path], output: Path) -> None:
        for path in paths:
            array = np.array(Image.open(path).convert("RGB"))
            x = torch.from_numpy(array).permute(2, 0, 1).unsqueeze(0).float() / 255
            with torch.no_grad():
                y = module(x)
            array = (y[0].permute(1, 2, 0) * 255).round().byte().numpy()
            Image.fromarray(array).save(output / path.name, quality=QUALITY)

    return run


def contenders(workers: int | None) -> dict[str, Callable]:
    import published

    import fastllie

    network = fastllie.load("sci")
    enhancer = fastllie.Enhancer("sci", device="cpu")

    def through(function: Callable) -> Callable:
        def run(paths: list[Path], output: Path) -> None:
            result = fastllie.enhance_folder(
                paths, output, function, overwrite=True, workers=workers, quality=QUALITY
            )
            assert len(result.done) == len(paths), result.failed

        return run

    return {
        "plain loop": plain_loop(published.SCINetwork(*(part.detach() for part in network.enhance.folded()))),
        "fastllie": through(enhancer),
        "files alone": through(lambda image: image),
    }


def differs(first: Path, second: Path) -> float:
    """Levels between two results on the average; their borders are padded differently, and JPEG rounds."""
    import numpy as np
    from PIL import Image

    return float(np.abs(np.asarray(Image.open(first), np.int16) - np.asarray(Image.open(second))).mean())


def measure(count: int, workers: int | None) -> dict:
    import torch

    spent: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "in")
        folder.mkdir()
        paths = photographs(folder, count)
        calls = contenders(workers)
        for name, call in calls.items():
            Path(place, name).mkdir()
            # the first call loads and compiles
            call(paths[:3], Path(place, name))
            spent[name] = {"seconds": 0.0, "processor": 0.0}
        parts = min(PARTS, max(1, count // 10))
        for part in range(parts):
            mine = paths[part::parts]
            for name, call in calls.items():
                wall, processor = time.perf_counter(), time.process_time()
                call(mine, Path(place, name))
                spent[name]["seconds"] += time.perf_counter() - wall
                spent[name]["processor"] += time.process_time() - processor
        error = differs(Path(place, "plain loop", paths[0].name), Path(place, "fastllie", paths[0].name))
        size = sum(path.stat().st_size for path in paths) / count
    if error > 1:
        raise SystemExit(f"the results differ by {error:.2f} levels on the average")
    rates = {name: count / times["seconds"] for name, times in spent.items()}
    return {
        "photographs": count,
        "size": "x".join(map(str, SIZE)),
        "bytes each": round(size),
        "threads": torch.get_num_threads(),
        "extra fast": importlib.util.find_spec("simplejpeg") is not None,
        "images a second": {name: round(rate, 2) for name, rate in rates.items()},
        "processor seconds an image": {
            name: round(times["processor"] / count, 4) for name, times in spent.items()
        },
        "times the plain loop": round(rates["fastllie"] / rates["plain loop"], 2),
        "share of the files": round(spent["files alone"]["processor"] / spent["fastllie"]["processor"], 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200, help="photographs (default: 200)")
    parser.add_argument("--workers", type=int, help="threads that decode and encode (default: one a core)")
    options = parser.parse_args()
    record.keep_heap()
    about = record.machine("cpu")
    result = {"machine": about} | measure(options.count, options.workers)
    path = record.path_of("folders", about["device"])
    record.write(path, result)
    print(json.dumps(result, indent=1))
    print(f"written: {path.relative_to(record.ROOT)}; python benchmarks/page.py makes the page of it")


if __name__ == "__main__":
    main()
