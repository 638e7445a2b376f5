"""NeRCo (Yang et al., ICCV 2023): its networks, what its edge discriminators see, and its inference."""

from fastllie.models.nerco.edges import edge_map
from fastllie.models.nerco.model import NeRCo
from fastllie.models.nerco.networks import Discriminator, Generator, MaskExtractor, Representation

__all__ = ["Discriminator", "Generator", "MaskExtractor", "NeRCo", "Representation", "edge_map"]
