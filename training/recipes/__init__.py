"""The recipes: the published numbers with their sources, and those of our own weights."""

from dataclasses import dataclass, field, replace

PRECISIONS = ("auto", "float32", "bfloat16", "float16")
OPTIMIZERS = ("adam", "adamw")
SCHEDULES = ("constant", "cosine", "linear")


# how many times wider the frames of a wide step are
WIDE = 2


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
        curved_share: Share of the other dark frames whose light is raised to a power: deep shadows below
            highlights that stay. Their exposure, in stops, is a quarter of what is drawn.
        curves: Range of that power.
        lift: Exposures in stops at which a pixel stays as it is, and at which it is lifted to the photograph;
            linear between.
        target_mean: Photographs darker than this mean are exposed up to it before anything else.
        target_ceiling: Highlights of the target are compressed to stay under this linear value.
        zoom: Largest side of a crop in units of the training size; each is reduced to the training size.
        wide_steps: Whether every second step shows frames of twice the size, a quarter as many: the middle of
            theirs is far from the network's padding, as most of a large photograph is.
        cast: Standard deviation in stops of the gain of each colour, in the frame and in its target alike:
            saturated colours, which the photographs have few of, are to be kept as they are.
    """

    exposures: tuple[float, float] = (-6.6, -2.2)
    bright_exposures: tuple[float, float] = (-0.7, 0.7)
    bright_share: float = 0.2
    mixed_share: float = 0.5
    curved_share: float = 0.0
    curves: tuple[float, float] = (1.5, 3.5)
    lift: tuple[float, float] = (-1.5, -2.9)
    read_noise: tuple[float, float] = (1e-4, 1e-3)
    shot_noise: tuple[float, float] = (1e-5, 3e-4)
    grain: float = 1.0
    jpeg_share: float = 0.5
    jpeg_quality: tuple[int, int] = (70, 98)
    target_mean: float = 0.5
    target_ceiling: float = 0.9
    zoom: float = 3.75
    wide_steps: bool = False
    cast: float = 0.0

    def __post_init__(self) -> None:
        if self.wide_steps and self.zoom < WIDE:
            raise ValueError(f"wide_steps needs a zoom of at least {WIDE}, got {self.zoom}")


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
class Loop:
    """What every recipe says of the loop; the rest is the method's own.

    Args:
        method: One of `fastllie.list_methods()`.
        padding: As for the networks.
        normal_init: Standard deviation of the convolution weights at the start; None keeps PyTorch's default.
        batch: Images a step, over all processes and parts: a run means the same on one GPU and on many.
        accumulate: Parts that a process takes its share of a batch in, one after the other: less memory, the
            same gradient (a batch norm sees each part by itself).
        epochs: Passes over the photographs; None where `steps` counts.
        steps: Optimizer steps; None where `epochs` counts.
        optimizer: "adam" (weight decay as L2) or "adamw" (decoupled).
        betas: Of the optimizer.
        learning_rate: Of the optimizer.
        warmup: Steps over which the learning rate rises from zero.
        schedule: "constant"; "cosine" falls to zero by half a cosine; "linear" stays until the share
            `hold` of the steps and then falls to zero in a line.
        hold: See `schedule`.
        weight_decay: For "adam" added to the gradient, after the clipping.
        clip: Largest norm of the gradient over all parameters; None does not clip.
        average: Decay of the moving average of the weights that is the result; 0 keeps the last weights.
        precision: Of the network's layers: "float32", "bfloat16", "float16" (gradients are scaled against
            underflow), or "auto": bfloat16 where the device computes in it, float32 elsewhere. Losses,
            curves, weights and optimizer are float32 in all of them.
        compile: Pass the losses and their network through `torch.compile`.
        cuda_graph: Record the step once and replay it; for CUDA and batches of one size.
        flips: Mirror half of the images, drawn at random.
        synthesis: How training frames are made; None takes the photographs as they are.

    Raises:
        ValueError: a value that no run can have.
    """

    method: str
    padding: str = "zeros"
    normal_init: float | None = None
    batch: int = 8
    accumulate: int = 1
    epochs: int | None = None
    steps: int | None = None
    optimizer: str = "adam"
    betas: tuple[float, float] = (0.9, 0.999)
    learning_rate: float = 1e-4
    warmup: int = 0
    schedule: str = "constant"
    hold: float = 0.5
    weight_decay: float = 0.0
    clip: float | None = None
    average: float = 0.0
    precision: str = "auto"
    compile: bool = False
    cuda_graph: bool = False
    flips: bool = False
    synthesis: Synthesis | None = None

    def __post_init__(self) -> None:
        for name, allowed in (
            ("precision", PRECISIONS),
            ("optimizer", OPTIMIZERS),
            ("schedule", SCHEDULES),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, got {getattr(self, name)!r}")
        for name in ("batch", "accumulate", "epochs", "steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        for name in ("learning_rate", "weight_decay", "warmup"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"clip must be positive, or None for none, got {self.clip}")
        if not 0 <= self.average < 1 or not 0 <= self.hold <= 1:
            raise ValueError(f"average must be in [0, 1) and hold in [0, 1], got {self.average}, {self.hold}")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be two numbers in [0, 1), got {self.betas}")


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


@dataclass(frozen=True)
class SCILossWeights:
    """The weight of each loss of a stage of SCI; a zero leaves it out.

    The first two are the published ones: the mean squared difference of illumination and input, and the
    smoothness of the illumination. They know no target for the brightness, which hangs on their balance, on
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


# train.py, model.py and loss.py of vis-opt-group/SCI @9d28a3f
SCI_OFFICIAL = SCIRecipe(epochs=1000)

# What the history of that repository and the released files themselves tell of their making, in April 2022:
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


def _refuse_foreign(recipe: Loop) -> None:
    """Raise for fields of the loop that would do nothing here."""
    # steps that go backward in pieces are not compiled; how these networks pad and begin is set
    for name, only in (("compile", False), ("padding", "zeros"), ("normal_init", None)):
        if getattr(recipe, name) != only:
            raise ValueError(f"{name} is not for {recipe.method}, got {getattr(recipe, name)!r}")


DECAYS = ("passes", "halving", "schedule")


@dataclass(frozen=True, kw_only=True)
class EnlightenGANRecipe(Loop):
    """Everything that decides a training run of EnlightenGAN but the photographs and the seed.

    Args:
        width, align_corners, in_logits: As for `fastllie.models.EnlightenGAN`.
        discriminator_width: Channels of the discriminators' first layer.
        discriminator_rate: Their learning rate in units of the generator's.
        size: Side of the square crops.
        patch, patches: Side and number of the local discriminator's patches.
        features: Weight of the self feature preserving loss, of the images and of the patches alike.
        chroma, contrast: Weights of `chroma_consistency` and `contrast_consistency` of image and input; zero
            leaves them out, as published.
        overshoot: Weight of `overshoot` of image and input.
        dimness: Weight of `dimness` of the image.
        identity: Weight of the mean absolute change of the normal photographs, which then go through the
            generator beside the dark ones, and share the statistics of batch norm; zero: they do not.
        vgg: Weights of VGG-16, see `fastllie.training.losses.vgg.load_vgg`.
        residual: Factor on the trained residual in the result; below 1 makes it milder, as `strength` does.
        stored_as: Type of the numbers in the result: "float32" or "float16".
        dark_share: Share of the dark crops that the generator sees darker still, while their features are
            compared undarkened.
        darkening: Range of the factor that divides those.
        by_index: Show dark photograph i beside normal photograph i, in every pass, as the published loader
            does; False draws the normal ones at random.
        decay: Of the learning rate: "passes" keeps it for the share `hold` of the passes and then lowers it
            after each by the same amount; "halving" halves it after each of these; "schedule" is `schedule`.
        synthesis: Make the dark side of photographs, see `fastllie.training.data.open_source`.
    """

    method: str = "enlightengan"
    width: int = 32
    align_corners: bool = False
    in_logits: bool = False
    discriminator_width: int = 64
    discriminator_rate: float = 1.0
    size: int = 320
    patch: int = 32
    patches: int = 6
    features: float = 1.0
    chroma: float = 0.0
    contrast: float = 0.0
    overshoot: float = 0.0
    dimness: float = 0.0
    identity: float = 0.0
    vgg: str | None = None
    residual: float = 1.0
    stored_as: str = "float32"
    dark_share: float = 0.5
    darkening: tuple[float, float] = (2.0, 4.0)
    by_index: bool = False
    decay: str = "passes"
    flips: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_foreign(self)
        if self.decay not in DECAYS:
            raise ValueError(f"decay must be one of {DECAYS}, got {self.decay!r}")
        for name in ("width", "discriminator_width", "patch", "patches"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.size < self.patch:
            raise ValueError(f"patches of {self.patch} do not fit into crops of {self.size}")
        for name in ("discriminator_rate", "residual"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.stored_as not in ("float32", "float16"):
            raise ValueError(f"stored_as must be 'float32' or 'float16', got {self.stored_as!r}")
        if not 0 <= self.dark_share <= 1:
            raise ValueError(f"dark_share must be in [0, 1], got {self.dark_share}")
        if not 1 <= self.darkening[0] <= self.darkening[1]:
            raise ValueError(f"darkening must be a range of factors from 1 on, got {self.darkening}")


# scripts/script.py of VITA-Group/EnlightenGAN @b034984, with its randint(200, 400) and niter of 100;
# but for B, which is drawn at random
ENLIGHTENGAN_PUBLISHED = EnlightenGANRecipe(
    batch=32, epochs=200, hold=0.5, betas=(0.5, 0.999), learning_rate=1e-4
)

# Ours: narrow and short, for two cores and an hour. At the published weight the features' gradient, which is
# fine noise, outweighs the discriminators' a hundredfold, and brightening takes ten times longer; at a fifth,
# haze and casts come first, which the losses of our own keep out. Normal photographs are to stay as they are.
# Crops of 96 never showed the network a place far from their padding, and it brightened the middle of large
# images too much: hence wide steps. As a sum the residual of a very dark image is haze, or too small; added
# to its logits it is a gain.
ENLIGHTENGAN = replace(
    ENLIGHTENGAN_PUBLISHED,
    width=16,
    in_logits=True,
    stored_as="float16",
    discriminator_width=32,
    discriminator_rate=0.5,
    size=160,
    patches=3,
    batch=4,
    epochs=None,
    steps=2000,
    decay="schedule",
    schedule="linear",
    warmup=20,
    average=0.997,
    hold=0.2,
    learning_rate=7e-4,
    precision="bfloat16",
    features=0.2,
    chroma=60.0,
    contrast=10.0,
    overshoot=20.0,
    dimness=10.0,
    identity=0.5,
    dark_share=0.0,
    # no gap between dark and normal, and both in one frame: else the network decides by regions, which shows
    synthesis=Synthesis(
        exposures=(-6.5, -0.7), bright_share=0.1, mixed_share=0.1, curved_share=0.5, wide_steps=True
    ),
)

EDGES = ("central", "sobel", "laplacian4", "laplacian8")
COORDINATES = ("published", "absolute")
GAN_MODES = ("lsgan", "vanilla", "wgangp")
TEXT_LOSSES = ("official", "clip")
CLIP_PREPROCESSES = ("clip", "official")
NERCO_DECAYS = ("passes", "schedule")
# what the generators take, and what leaves the discriminators one value at least
NERCO_MULTIPLE, NERCO_LEAST = 4, 24


@dataclass(frozen=True)
class NeRCoLossWeights:
    """The weight of each loss of NeRCo, for dark and normal images alike; a zero leaves it out.

    `adversarial`: enhanced, darkened and represented images before their discriminators. `edge`: enhanced
    and darkened ones before those of edges. `cycle`: there and back. `identity`: images that are as they
    should be stay so. `representation`: Pre's image is close to its input. `adversarial_representation`: and
    once more before the discriminator of dark images. `residual`: all six terms of the residual that the mask
    extractor gives. `text`: what CLIP reads in the images. Ours, of the enhanced image and its input, none of
    them in the paper: `chroma`, `contrast`, `overshoot`, `dimness` and `gain_smoothness`, see
    `fastllie.training.losses`.
    """

    adversarial: float = 1.0
    edge: float = 0.5
    cycle: float = 10.0
    identity: float = 5.0
    representation: float = 40.0
    adversarial_representation: float = 1.0
    residual: float = 0.5
    text: float = 0.5
    chroma: float = 0.0
    contrast: float = 0.0
    overshoot: float = 0.0
    dimness: float = 0.0
    gain_smoothness: float = 0.0


@dataclass(frozen=True, kw_only=True)
class NeRCoRecipe(Loop):
    """Everything that decides a training run of NeRCo but the photographs and the seed.

    Args:
        width, blocks, pre_blocks, mask_blocks, hidden, coordinates, in_logits: As for
            `fastllie.models.NeRCo`; the darkening generator has `width`, `blocks` and `in_logits` too.
        discriminator_width, discriminator_layers: As for `fastllie.models.nerco.Discriminator`.
        discriminator_rate: Their learning rate in units of the generators'.
        size: Side of the square images, a multiple of 4.
        squeeze: Photographs are first squeezed to squares of this side, of which crops of `size` are taken;
            None crops them as they are.
        gan: What the discriminators' losses compare: "lsgan" squares, "vanilla" logits, "wgangp" means (as
            published, without the penalty that its name speaks of).
        edge: What their edges are, see `fastllie.models.nerco.edge_map`.
        official_random_color: Colour the edges at random, anew for each map, as published; False: not at all.
        pool: Images that a discriminator remembers of each kind; 0 shows it the new ones alone.
        text_loss: What CLIP is asked: None, nothing; "official", for a value that trains nothing, as
            published; "clip", for gradients.
        clip_weights, prompts, text_features: See `fastllie.training.losses.clip.load_reader`; the features
            are a path.
        clip_preprocess: "clip" gives it images as it was trained on, "official" as the published code.
        losses: Their weights.
        stored_as: Type of the numbers in the result: "float32" or "float16".
        by_index: Show dark photograph i beside normal photograph i; False draws the normal ones.
        decay: Of the learning rate: "passes" keeps it for the share `hold` of the passes, less one, and
            lowers it before each of the others by the same amount, to zero in the last, as published;
            "schedule" is `schedule`.
        synthesis: Make the dark side of photographs, see `fastllie.training.data.open_source`.
    """

    method: str = "nerco"
    width: int = 64
    blocks: int = 9
    pre_blocks: int | None = 9
    mask_blocks: int = 3
    hidden: int | None = None
    coordinates: str = "published"
    in_logits: bool = False
    discriminator_width: int = 64
    discriminator_layers: int = 3
    discriminator_rate: float = 1.0
    size: int = 512
    squeeze: int | None = 512
    batch: int = 1
    betas: tuple[float, float] = (0.5, 0.999)
    learning_rate: float = 2e-4
    gan: str = "lsgan"
    edge: str = "central"
    official_random_color: bool = False
    pool: int = 50
    text_loss: str | None = None
    clip_weights: str | None = None
    clip_preprocess: str = "clip"
    prompts: tuple[str, str] = ("low light image", "high light image")
    text_features: str | None = None
    losses: NeRCoLossWeights = field(default_factory=NeRCoLossWeights)
    stored_as: str = "float32"
    by_index: bool = False
    decay: str = "passes"
    flips: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, allowed in (
            ("coordinates", COORDINATES),
            ("gan", GAN_MODES),
            ("edge", EDGES),
            ("text_loss", (None, *TEXT_LOSSES)),
            ("clip_preprocess", CLIP_PREPROCESSES),
            ("decay", NERCO_DECAYS),
            ("stored_as", ("float32", "float16")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, got {getattr(self, name)!r}")
        if self.size < NERCO_LEAST or self.size % NERCO_MULTIPLE:
            raise ValueError(
                f"size must be a multiple of {NERCO_MULTIPLE} and at least {NERCO_LEAST}, got {self.size}"
            )
        if self.squeeze is not None and self.squeeze < self.size:
            raise ValueError(f"crops of {self.size} do not fit into squares of {self.squeeze}")
        if self.pool < 0:
            raise ValueError(f"pool must be at least 0, got {self.pool}")
        if not self.discriminator_rate > 0:
            raise ValueError(f"discriminator_rate must be positive, got {self.discriminator_rate}")
        _refuse_foreign(self)


# options/ and models/ of Ysz2022/NeRCo @6b0e111, but for the colours of the edges, which it draws at random
# (`official_random_color`), and for its text loss, which trains nothing
NERCO_PUBLISHED = NeRCoRecipe(epochs=300, hold=1 / 3)

# Ours: narrow and short, for a few cores. Images that are drawn anew are blurred and chequered for longer
# than that; a change of logits keeps details from the start. With the published weights of cycle and identity
# both generators would stay there, at no change.
NERCO = replace(
    NERCO_PUBLISHED,
    width=16,
    blocks=6,
    pre_blocks=3,
    mask_blocks=2,
    in_logits=True,
    stored_as="float16",
    discriminator_width=32,
    discriminator_rate=0.5,
    size=96,
    squeeze=None,
    batch=4,
    epochs=None,
    steps=1500,
    decay="schedule",
    schedule="linear",
    hold=0.5,
    warmup=20,
    average=0.995,
    learning_rate=7e-4,
    losses=NeRCoLossWeights(
        cycle=1.0,
        identity=1.0,
        chroma=60.0,
        contrast=10.0,
        overshoot=20.0,
        dimness=30.0,
        gain_smoothness=10.0,
    ),
    synthesis=Synthesis(exposures=(-6.5, -0.7), bright_share=0.1, mixed_share=0.1, curved_share=0.5),
)


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

# Then on from there: more scenes that are dark all over, of which the first hold few, and colours that count
# for more
DAWN_REFINED = replace(
    DAWN,
    steps=5000,
    learning_rate=1e-3,
    warmup=50,
    scenes=replace(
        DAWN.scenes,
        bright_share=0.15,
        mixed_share=0.3,
        curved_share=0.12,
        range_share=0.4,
        cast_share=0.15,
    ),
    losses=replace(DAWN.losses, chroma=1.3),
)

AnyRecipe = Recipe | SCIRecipe | EnlightenGANRecipe | NeRCoRecipe | DawnRecipe
UNPAIRED = (EnlightenGANRecipe, NeRCoRecipe)  # those that learn from two sides that are no pairs
OFFICIAL = "official"
# method -> the name of a variant in fastllie.info(method) -> how its weights were made; the default first
SHIPPED: dict[str, dict[str, AnyRecipe]] = {
    "zerodce": {"fastllie": ZERODCE},
    "zerodce++": {"fastllie": ZERODCEPP},
    "sci": {"strong": SCI_STRONG, "mild": SCI_MILD},
    "enlightengan": {"fastllie": ENLIGHTENGAN},
    "nerco": {"fastllie": NERCO},
    "dawn": {"fastllie": DAWN_REFINED},
}
# likewise the recipe of the weights that those went on from, where they did not begin from scratch
BEGUN: dict[str, dict[str, AnyRecipe]] = {"dawn": {"fastllie": DAWN}}
# method -> the name of a recipe -> the recipe
RECIPES: dict[str, dict[str, AnyRecipe]] = {
    "zerodce": {OFFICIAL: ZERODCE_PUBLISHED, **SHIPPED["zerodce"]},
    "zerodce++": {OFFICIAL: ZERODCEPP_PUBLISHED, **SHIPPED["zerodce++"]},
    "sci": {OFFICIAL: SCI_OFFICIAL, "released": SCI_RELEASED, **SHIPPED["sci"]},
    "enlightengan": {OFFICIAL: ENLIGHTENGAN_PUBLISHED, **SHIPPED["enlightengan"]},
    "nerco": {OFFICIAL: NERCO_PUBLISHED, **SHIPPED["nerco"]},
    "dawn": {OFFICIAL: DAWN, **BEGUN["dawn"]},
}
# likewise for going on from given weights; Zero-DCE's code loads them into its training unchanged
FINETUNES: dict[str, dict[str, AnyRecipe]] = {
    "zerodce": RECIPES["zerodce"],
    "zerodce++": RECIPES["zerodce++"],
    "sci": {OFFICIAL: SCI_FINETUNE},
    "enlightengan": RECIPES["enlightengan"],
    "nerco": RECIPES["nerco"],
    "dawn": {OFFICIAL: replace(DAWN_REFINED, steps=1000, learning_rate=3e-4), "fastllie": DAWN_REFINED},
}
