"""The recipes of `dawn`, our own."""

from dataclasses import dataclass, field
from typing import Any

from fastllie.training.recipes.loop import Loop
from fastllie.training.recipes.scenes import Scenes


@dataclass(frozen=True)
class DawnLossWeights:
    """The weight of each loss of `dawn`, see `fastllie.training.scene_losses`; a zero leaves it out.

    All but the first compare the brightened picture with its target; the first is the denoiser's, which
    learns from nothing else.
    """

    noise: float = 0.1
    difference: float = 1.5
    matched_difference: float = 0.6
    structure: float = 0.3
    chroma: float = 0.8
    overshoot: float = 1.5
    mean: float = 0.7
    roughness: float = 0.02


@dataclass(frozen=True, kw_only=True)
class DawnRecipe(Loop):
    """Everything that decides a training run of `dawn` but the photographs and the seed.

    Args:
        crop: Side of the square, a multiple of 16, that the losses of native pixels are computed on; the
            brain sees the whole scene, and is judged by its thumbnail too.
        crops: Scenes of a batch that such a square is cut of.
        long_side: Photographs are reduced to this long side first.
        scenes: How the scenes are made.
        losses: Their weights.
    """

    method: str = "dawn"
    padding: str = "replicate"
    crop: int = 128
    crops: int = 2
    long_side: int = 1024
    scenes: Scenes = field(default_factory=Scenes)
    losses: DawnLossWeights = field(default_factory=DawnLossWeights)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.crop % 16 or not 32 <= self.crop <= min(self.scenes.size):
            raise ValueError(
                f"crop must be a multiple of 16 from 32 to {min(self.scenes.size)}, the scenes' shorter side,"
                f" got {self.crop}"
            )
        # how the network pads and begins is set, and each step's crops lie elsewhere
        for name, only in (
            ("padding", "replicate"),
            ("normal_init", None),
            ("synthesis", None),
            ("meter", None),
            ("compile", False),
            ("cuda_graph", False),
        ):
            if getattr(self, name) != only:
                raise ValueError(f"{name} is not for dawn, got {getattr(self, name)!r}")

    def kept(self) -> dict[str, Any]:
        return {"long_side": self.long_side}


DAWN = DawnRecipe(
    batch=8,
    steps=8000,
    learning_rate=1.5e-3,
    betas=(0.9, 0.99),
    warmup=100,
    schedule="cosine",
    average=0.999,
    clip=1.0,
    precision="float32",
    scenes=Scenes(
        mixed_share=0.3, backlit_share=0.15, shadow_lift=0.6, dark_saturation=0.8, dark_neutral=0.2
    ),
)
