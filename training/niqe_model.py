"""Fit the pristine model of NIQE that ships, from a folder of photographs, and write its card.

    python -m fastllie.training.niqe_model --photos PHOTOS -o OUT

writes OUT/niqe.safetensors and OUT/niqe.md. Nothing in it is drawn by chance.
"""

import argparse
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from fastllie.images.files import replacing
from fastllie.metrics import fit_niqe_model, niqe_features
from fastllie.training.data import list_photographs
from fastllie.training.record.card import write_photographs

CARD = """# NIQE: `{file}`

The pristine model of `fastllie.metrics.niqe`: mean and covariance of 36 features, fitted by this project; no
published model took part. Values of NIQE compare only under the same model, so these do not compare with
published ones.

## Licence
Apache-2.0, as the rest of fastllie. The photographs keep their own licences; none of them is part of the
model or of this repository.

## How it was made
```
python -m fastllie.training.niqe_model --photos PHOTOS -o OUT
```
As Mittal et al. 2013 do: the features of all whole 96x96 blocks of each photograph at the size it has, BT.601
grey; of each photograph those blocks that are sharper than 0.75 of its sharpest. {blocks} blocks of
{photographs} photographs, PyTorch {torch}. The same photographs give the same model, to rounding.

## Limits
Daylight photographs of at most 1600 pixels, reduced from larger ones and stored as JPEG of quality 92. Smooth
areas, fog and shallow focus count as unnatural, and some noise as natural: NIQE says little about one image
and something about the mean of many.

## Photographs
{photographs} photographs: [with authors and licences]({listed}).
"""


def reproduce(photos: Path, output: Path) -> Path:
    """Fit the model on the photographs of a folder; returns the path, `output/niqe.safetensors`.

    Photographs under CC0 (by the folder's photos.csv) are held out, as from the training of the networks.

    Raises:
        ValueError: no photographs, or one that cannot be read or is too small, by its name.
    """
    photographs = list_photographs(photos)
    features = [_features(photos / photo.file) for photo in photographs]
    model = fit_niqe_model(features, "fastllie")
    output.mkdir(parents=True, exist_ok=True)
    path = output / "niqe.safetensors"
    blocks = sum(map(len, features))
    facts = {
        "format": "fastllie",
        "metric": "niqe",
        "photographs": str(len(photographs)),
        "blocks": str(blocks),
    }
    with replacing(path) as temporary:
        save_file({"mean": model.mean, "covariance": model.covariance.contiguous()}, temporary, facts)
    with replacing(path.with_suffix(".md")) as temporary:
        card = CARD.format(
            file=path.name,
            blocks=blocks,
            photographs=len(photographs),
            torch=torch.__version__,
            listed=write_photographs(output, photographs, path.stem),
        )
        temporary.write_text(card, encoding="utf-8")
    return path


def _features(path: Path) -> torch.Tensor:
    try:
        return niqe_features(path)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m fastllie.training.niqe_model", description=__doc__.split("\n")[0]
    )
    parser.add_argument(
        "--photos", type=Path, required=True, help="a folder of photographs, with photos.csv if any"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="the folder to write to")
    options = parser.parse_args(arguments)
    try:
        path = reproduce(options.photos, options.output)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {path} and {path.with_suffix('.md').name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
