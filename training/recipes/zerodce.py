"""The recipes of Zero-DCE and Zero-DCE++."""

from dataclasses import dataclass, replace

from fastllie.training.recipes.loop import Loop, Synthesis
from fastllie.training.recipes.scenes import LIT_IN_PARTS


@dataclass(frozen=True)
class LossWeights:
    """The weight of each loss of a curve network, see `fastllie.training.losses`; a zero leaves it out."""

    map_smoothness: float = 0.0
    spatial_consistency: float = 0.0
    colour_constancy: float = 0.0
    exposure: float = 0.0
    reconstruction: float = 0.0
    scaled_reconstruction: float = 0.0
    dissimilarity: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Recipe(Loop):
    """Everything that decides a training run of a curve network but the photographs and the seed.

    Args:
        method: "zerodce" or "zerodce++".
        size: Side of the square training images.
        scales: Factors at which Zero-DCE++ sees the batches, one after the other.
        exposure_level: `level` of the exposure loss.
        losses: Their weights.
    """

    size: int
    losses: LossWeights
    scales: tuple[int, ...] = (1,)
    exposure_level: float = 0.6


# lowlight_train.py and model.py of Li-Chongyi/Zero-DCE @e0f4adc; the loss weights are the code's, which its
# author calls authoritative (issue 19), not the paper's. The released file is the 100th of the 200 epochs.
ZERODCE_PUBLISHED = Recipe(
    method="zerodce",
    padding="zeros",
    size=256,
    batch=8,
    epochs=200,
    learning_rate=1e-4,
    weight_decay=1e-4,
    clip=0.1,
    normal_init=0.02,
    losses=LossWeights(map_smoothness=200, spatial_consistency=1, colour_constancy=5, exposure=10),
)

# lowlight_train.py of Li-Chongyi/Zero-DCE_extension @09f202b: its call of the initialisation is commented out
ZERODCEPP_PUBLISHED = Recipe(
    method="zerodce++",
    padding="zeros",
    size=512,
    batch=8,
    epochs=100,
    learning_rate=1e-4,
    weight_decay=1e-4,
    clip=0.1,
    losses=LossWeights(map_smoothness=1600, spatial_consistency=1, colour_constancy=5, exposure=10),
)

ZERODCE = Recipe(
    method="zerodce",
    padding="replicate",
    size=64,
    batch=8,
    steps=2400,
    learning_rate=2e-3,
    warmup=50,
    schedule="cosine",
    average=0.99,
    clip=1.0,
    precision="float32",
    flips=True,
    losses=LossWeights(reconstruction=1, scaled_reconstruction=1, dissimilarity=1),
    synthesis=Synthesis(),
)

ZERODCEPP = Recipe(
    method="zerodce++",
    padding="replicate",
    size=64,
    batch=8,
    steps=3000,
    learning_rate=5e-3,
    warmup=50,
    schedule="cosine",
    average=0.99,
    clip=1.0,
    precision="float32",
    flips=True,
    losses=LossWeights(reconstruction=1, scaled_reconstruction=1, dissimilarity=1),
    synthesis=Synthesis(exposures=(-6.8, -2.2), lift=(-1.2, -2.6)),
)

# The meter is set a little higher once they have learned: trained so high from the beginning, Zero-DCE++ made
# colours more vivid and shifted hues more. The more noise it had seen, the more it darkened noise, which it
# cannot take out: to black, in long runs without smooth maps or on noise of thrice the deviation
ZERODCE_METERED = replace(ZERODCE, flips=False, meter=0.55, meter_after=0.58, synthesis=LIT_IN_PARTS)
ZERODCEPP_METERED = replace(
    ZERODCEPP,
    flips=False,
    steps=2400,
    meter=0.55,
    meter_after=0.58,
    losses=replace(ZERODCEPP.losses, map_smoothness=0.2),
    synthesis=replace(LIT_IN_PARTS, shot_noise=(5e-6, 6e-4)),
)
