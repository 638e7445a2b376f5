"""The recipes of `dawn`, our own."""

from dataclasses import dataclass, field
from typing import Any

from fastllie.training.recipes.loop import Loop


@dataclass(frozen=True)
class Scenes:
    """How whole scenes are made of photographs; see `fastllie.training.scenes` and `...camera`.

    Args:
        size: Height and width of a scene.
        bright_share: Share of the frames that are well exposed, and to be left alone.
        bright_exposures: Range of their exposure in stops.
        over_share: Share of those that are exposed too long.
        over_exposures: Range of their exposure in stops.
        exposures: Range of the exposure of the dark frames in stops.
        lift: Exposures in stops at which a frame stays as it is, and at which it is lifted to the photograph.
        range_share: Share of the dark frames whose highlights get back what the photograph's tone curve took.
        ranges: Range of how much of white that is: white was 1 / (1 - this) times as bright.
        mixed_share: Share of the dark frames that are lit in parts.
        ground_share: Share of those whose unlit part stays darker in the target too.
        curved_share: Share of the dark frames whose light is raised to a power.
        curves: Range of that power.
        lamp, lamp_share: Deviation in stops of the colours of coloured light that stays, and its share.
        cast, cast_share: Likewise of casts that are to be taken out.
        clean_share: Share of the frames without noise.
        shot_noise: Range of the variance of green's shot noise per unit of linear signal, log-uniform; the
            read noise follows from it.
        rows_share: Share of the noisy frames with noise that whole rows share.
        black: Largest deviation of the black level of a colour, of the linear full scale.
        jpeg_share, jpeg_quality: Share of the frames that pass through JPEG, and its quality.
    """

    size: tuple[int, int] = (192, 288)
    bright_share: float = 0.17
    bright_exposures: tuple[float, float] = (-0.4, 0.3)
    over_share: float = 0.06
    over_exposures: tuple[float, float] = (0.5, 2.0)
    exposures: tuple[float, float] = (-7.8, -0.5)
    lift: tuple[float, float] = (-0.4, -1.2)
    range_share: float = 0.5
    ranges: tuple[float, float] = (0.3, 0.96)
    mixed_share: float = 0.4
    ground_share: float = 0.1
    curved_share: float = 0.2
    curves: tuple[float, float] = (1.3, 2.5)
    lamp: float = 0.25
    lamp_share: float = 0.25
    cast: float = 0.1
    cast_share: float = 0.2
    clean_share: float = 0.2
    shot_noise: tuple[float, float] = (5e-6, 2e-3)
    rows_share: float = 0.25
    black: float = 1e-3
    jpeg_share: float = 0.25
    jpeg_quality: tuple[int, int] = (60, 98)


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
            ("compile", False),
            ("cuda_graph", False),
        ):
            if getattr(self, name) != only:
                raise ValueError(f"{name} is not for dawn, got {getattr(self, name)!r}")

    def kept(self) -> dict[str, Any]:
        return {"long_side": self.long_side}


DAWN = DawnRecipe(
    batch=8,
    steps=6000,
    learning_rate=1.5e-3,
    betas=(0.9, 0.99),
    warmup=100,
    schedule="cosine",
    average=0.999,
    clip=1.0,
    precision="float32",
)
