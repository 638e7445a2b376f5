"""Enhance one photograph by every method: python examples/enhance_photo.py night.jpg OUT"""

import sys
from pathlib import Path

import fastllie


def main(photograph: str, folder: str) -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    for method in fastllie.list_methods():
        brighter = fastllie.enhance(photograph, method)
        path = Path(folder) / f"{Path(photograph).stem}-{method}.png"
        brighter.save(path)
        print(f"{fastllie.info(method).title}: {path}")


if __name__ == "__main__":
    main(*sys.argv[1:])
