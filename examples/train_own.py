"""Train SCI on a folder of your photographs and use the result: python examples/train_own.py PHOTOS RUN STEPS

Repeated, it goes on where it stopped. RUN/report.html shows how it went.
"""

import sys
from pathlib import Path

import fastllie


def main(photographs: str, run: str, steps: str) -> None:
    result = fastllie.train("sci", photographs, output=run, recipe="strong", steps=int(steps))
    some = next(path for path in sorted(Path(photographs).iterdir()) if path.suffix in (".jpg", ".png"))
    brighter = fastllie.enhance(some, "sci", weights=result.weights)
    brighter.save(Path(run) / f"{some.stem}-brighter.png")
    print(f"{result.weights}; {some.name} enhanced with it is in {run}")


if __name__ == "__main__":
    main(*sys.argv[1:])
