"""`dawn`: a brain that looks at the whole picture, a denoiser, and a grid of curves."""

from fastllie.models.dawn.network import Dawn as Dawn
from fastllie.models.dawn.network import Sight as Sight
