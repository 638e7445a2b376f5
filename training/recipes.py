"""The recipes: the published numbers with their sources, and those of our own weights."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Synthesis:
    """How dark, noisy frames are made of a photograph; see `fastllie.training.data`.

    Args:
        exposures: Range of the exposure of the dark frames, in stops, uniform.
        bright_exposures: Range of the exposure of the well-exposed frames, which stay as they are, uniform.
        bright_share: Share of the well-exposed frames.
        read_noise: Range of the standard deviation of the read noise, of the linear full scale, log-uniform.
        shot_noise: Range of the variance of the shot noise per unit of linear signal, log-uniform.
        grain: Largest standard deviation in pixels of the blur that correlates the noise of half the frames.
        jpeg_share: Share of the frames that pass through JPEG.
        jpeg_quality: Range of its quality.
        mixed_share: Share of the dark frames that are brighter in patches: dark next to bright.
        lift: Exposures in stops at which a pixel stays as it is, and at which it is lifted to the photograph;
            linear between.
        target_mean: Photographs darker than this mean are exposed up to it before anything else.
        target_ceiling: Highlights of the target are compressed to stay under this linear value.
        zoom: Largest side of a crop in units of the training size; each is reduced to the training size.
    """

    exposures: tuple[float, float] = (-6.6, -2.2)
    bright_exposures: tuple[float, float] = (-0.7, 0.7)
    bright_share: float = 0.2
    mixed_share: float = 0.5
    lift: tuple[float, float] = (-1.5, -2.9)
    read_noise: tuple[float, float] = (1e-4, 1e-3)
    shot_noise: tuple[float, float] = (1e-5, 3e-4)
    grain: float = 1.0
    jpeg_share: float = 0.5
    jpeg_quality: tuple[int, int] = (70, 98)
    target_mean: float = 0.5
    target_ceiling: float = 0.9
    zoom: float = 3.75


@dataclass(frozen=True)
class LossWeights:
    """The weight of each loss in `fastllie.training.losses`; a zero leaves it out."""

    map_smoothness: float = 0.0
    spatial_consistency: float = 0.0
    colour_constancy: float = 0.0
    exposure: float = 0.0
    reconstruction: float = 0.0
    scaled_reconstruction: float = 0.0
    dissimilarity: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training run but the photographs and the seed.

    Args:
        method: "zerodce" or "zerodce++".
        padding: As for the networks.
        scales: Factors at which Zero-DCE++ sees the batches, one drawn for each.
        normal_init: Standard deviation of the convolution weights at the start; None keeps PyTorch's default.
        size: Side of the square training images.
        batch: Images a step.
        epochs: Passes over the photographs; None where `steps` counts.
        steps: Optimizer steps; None where `epochs` counts.
        learning_rate: Of Adam.
        warmup: Steps over which the learning rate rises from zero.
        cosine: Whether it then falls to zero by half a cosine.
        weight_decay: Added to the gradient as L2, after the clipping.
        clip: Largest norm of the gradient over all parameters.
        average: Decay of the moving average of the weights that is the result; 0 keeps the last weights.
        exposure_level: `level` of the exposure loss.
        weights: The losses.
        synthesis: How training frames are made; None takes the photographs as they are, squeezed to squares.
    """

    method: str
    padding: str
    size: int
    batch: int
    epochs: int | None
    steps: int | None
    learning_rate: float
    weights: LossWeights
    scales: tuple[int, ...] = (1,)
    normal_init: float | None = None
    warmup: int = 0
    cosine: bool = False
    weight_decay: float = 0.0
    clip: float = 0.1
    average: float = 0.0
    exposure_level: float = 0.6
    synthesis: Synthesis | None = field(default_factory=Synthesis)


# lowlight_train.py and model.py of Li-Chongyi/Zero-DCE @e0f4adc; the loss weights are the code's, which its
# author calls authoritative (issue 19), not the paper's. The released file is the 100th of the 200 epochs.
ZERODCE_PUBLISHED = Recipe(
    method="zerodce",
    padding="zeros",
    size=256,
    batch=8,
    epochs=200,
    steps=None,
    learning_rate=1e-4,
    weight_decay=1e-4,
    clip=0.1,
    normal_init=0.02,
    weights=LossWeights(map_smoothness=200, spatial_consistency=1, colour_constancy=5, exposure=10),
    synthesis=None,
)

# lowlight_train.py of Li-Chongyi/Zero-DCE_extension @09f202b: its call of the initialisation is commented out
ZERODCEPP_PUBLISHED = Recipe(
    method="zerodce++",
    padding="zeros",
    size=512,
    batch=8,
    epochs=100,
    steps=None,
    learning_rate=1e-4,
    weight_decay=1e-4,
    clip=0.1,
    weights=LossWeights(map_smoothness=1600, spatial_consistency=1, colour_constancy=5, exposure=10),
    synthesis=None,
)

ZERODCE = Recipe(
    method="zerodce",
    padding="replicate",
    size=64,
    batch=8,
    epochs=None,
    steps=2400,
    learning_rate=2e-3,
    warmup=50,
    cosine=True,
    average=0.99,
    clip=1.0,
    weights=LossWeights(reconstruction=1, scaled_reconstruction=1, dissimilarity=1),
)

ZERODCEPP = Recipe(
    method="zerodce++",
    padding="replicate",
    size=64,
    batch=8,
    epochs=None,
    steps=3000,
    learning_rate=5e-3,
    warmup=50,
    cosine=True,
    average=0.99,
    clip=1.0,
    weights=LossWeights(reconstruction=1, scaled_reconstruction=1, dissimilarity=1),
    synthesis=Synthesis(exposures=(-6.8, -2.2), lift=(-1.2, -2.6)),
)

PUBLISHED = {"zerodce": ZERODCE_PUBLISHED, "zerodce++": ZERODCEPP_PUBLISHED}
SHIPPED = {"zerodce": ZERODCE, "zerodce++": ZERODCEPP}
