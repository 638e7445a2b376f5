"""What users get wrong: a type checker finds it in each line that says so, and in no other."""

from torch import Tensor

import fastllie


def brighten(x: Tensor) -> None:
    fastllie.enhance(x, "zerodec")  # wrong
    fastllie.enhance(x, device=0)  # wrong
    fastllie.Enhancer("sci2")  # wrong
    fastllie.load("enlighten")  # wrong
    fastllie.Enhancer("sci", strength="full")  # wrong
    fastllie.enhance_folder("photos", "bright", "dusk")  # wrong
    fastllie.train("dusk", "photos", output="run")  # wrong
    fastllie.enhence(x)  # wrong
    array: list[int] = fastllie.enhance(x)  # wrong
    picture: Tensor = fastllie.enhance("night.jpg")  # wrong
    print(array, picture, fastllie.enhance(x))
