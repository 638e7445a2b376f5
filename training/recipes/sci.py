"""The recipes of SCI."""

from dataclasses import dataclass, field, replace
from typing import Any

from fastllie.training.recipes.loop import Loop, Synthesis
from fastllie.training.recipes.scenes import LIT_IN_PARTS


@dataclass(frozen=True)
class SCILossWeights:
    """The weight of each loss of a stage of SCI; a zero leaves it out.

    The first two are the published ones: the mean squared difference of illumination and input, and the
    smoothness of the illumination. They know no target for the brightness, which depends on their balance, on
    the batch norm's mode and on the number of steps. The others are ours and give it one: `exposure` pulls
    patches of the result to `exposure_level`, the rest compare the result with the target of a synthetic dark
    frame, and `grey_illumination` keeps the colours; see `fastllie.training.losses`.
    """

    fidelity: float = 1.5
    smoothness: float = 1.0
    grey_illumination: float = 0.0
    exposure: float = 0.0
    reconstruction: float = 0.0
    scaled_reconstruction: float = 0.0
    dissimilarity: float = 0.0


@dataclass(frozen=True, kw_only=True)
class SCIRecipe(Loop):
    """Everything that decides a training run of SCI but the photographs and the seed.

    Args:
        block, blocks, channels: As for `fastllie.models.SCI`.
        stages: Stages of the cascade.
        calibrate_last: Calibrate the last stage too, as published: it moves unread statistics only.
        normal_init: Of the convolution and batch norm weights, the biases being zero.
        size: Side of the square crops, one from each photograph; None takes whole photographs.
        long_side: Larger photographs are reduced to this long side; None leaves them as they are.
        batch: More than one only with a `size`.
        losses: Their weights, the same at each stage.
        sigma, color, norm: Of the smoothness, as for `fastllie.ops.smoothness_loss`.
        exposure_level: `level` of the exposure loss.
        freeze_bn_after: Passes over the photographs after which batch norm stays in eval mode; None never.
        freeze_bn_after_steps: The same in steps.
        precision: float32 by default: three channels gain nothing from narrower ones.
        synthesis: In squares of `size`.
    """

    method: str = "sci"
    block: str = "basic"
    blocks: int = 1
    channels: int = 3
    stages: int = 3
    calibrate_last: bool = False
    normal_init: float | None = 0.02
    size: int | None = None
    long_side: int | None = None
    batch: int = 1
    learning_rate: float = 3e-4
    weight_decay: float = 3e-4
    clip: float | None = 5.0
    precision: str = "float32"
    losses: SCILossWeights = field(default_factory=SCILossWeights)
    sigma: float = 10.0
    color: str = "memory"
    norm: str = "pixel"
    exposure_level: float = 0.6
    freeze_bn_after: int | None = None
    freeze_bn_after_steps: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.freeze_bn_after is not None and self.freeze_bn_after_steps is not None:
            raise ValueError("give freeze_bn_after or freeze_bn_after_steps, not both")

    def kept(self) -> dict[str, Any]:
        if self.synthesis is not None:
            return super().kept()
        if self.batch > 1 and self.size is None:
            raise ValueError(
                f"whole photographs go one a batch, got batch={self.batch}: give a size to crop to"
            )
        return {"long_side": self.long_side, "least": self.size}


# train.py, model.py and loss.py of vis-opt-group/SCI @9d28a3f
SCI_OFFICIAL = SCIRecipe(epochs=1000)

# What the history of that repository and the released files themselves say of their making, in April 2022:
# the loss before its change of June (colours unconverted, a scalar norm), and a loop that left batch norm in
# eval mode from the second pass on (the files' counters stand at three times the number of photographs).
SCI_RELEASED = replace(SCI_OFFICIAL, color="rgb", norm="scalar", freeze_bn_after=1)

# finetune.py @9d28a3f: one stage; its first preview, after ten steps, leaves batch norm in eval mode for good
SCI_FINETUNE = SCIRecipe(stages=1, normal_init=None, epochs=100, learning_rate=5e-4, freeze_bn_after_steps=10)

# Ours: supervised by synthetic dark frames. One stage, because the target says what a cascade would have to
# find out; a curve that rises everywhere, because few frames are to be left as they are; colours kept by a
# grey illumination and by casts that the photographs do not have.
SCI_STRONG = SCIRecipe(
    padding="reflect",
    stages=1,
    normal_init=None,
    size=64,
    batch=8,
    steps=2500,
    learning_rate=5e-3,
    warmup=50,
    schedule="cosine",
    weight_decay=0.0,
    clip=1.0,
    average=0.99,
    flips=True,
    losses=SCILossWeights(
        fidelity=0,
        smoothness=0,
        grey_illumination=15,
        reconstruction=3,
        scaled_reconstruction=1,
        dissimilarity=1,
    ),
    synthesis=Synthesis(
        exposures=(-8.0, -1.6), lift=(-0.2, -1.8), bright_share=0.08, mixed_share=0.15, cast=1.0
    ),
)

# the same for frames that are less dark: photographs at dusk more than at night
SCI_MILD = replace(
    SCI_STRONG,
    synthesis=Synthesis(
        exposures=(-4.5, -0.8), lift=(0.0, -1.6), bright_share=0.15, mixed_share=0.15, cast=1.0
    ),
)

# Behind a meter little is left to lift, and what is well exposed is not to be: illuminations near one, where
# a large step ends at a clamp that has no slope. The meter keeps hues, so that the illumination may be less
# grey.
SCI_METERED = replace(
    SCI_STRONG,
    flips=False,
    steps=1300,
    learning_rate=2e-3,
    meter=0.45,
    losses=replace(SCI_STRONG.losses, grey_illumination=4),
    synthesis=LIT_IN_PARTS,
)
