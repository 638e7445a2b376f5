"""What every recipe says of the loop and of synthetic dark frames."""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from fastllie.checks import check_level
from fastllie.training.recipes.scenes import PairWeights, Scenes

PRECISIONS = ("auto", "float32", "bfloat16", "float16")
OPTIMIZERS = ("adam", "adamw")
SCHEDULES = ("constant", "cosine", "linear")
STORED = ("float32", "float16")
# how many times wider the frames of a wide step are
WIDE = 2
# long side that photographs are reduced to before scenes are made of them
SCENE_SIDE = 1024
_NO_PAIRS = PairWeights()


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
        synthesis: How training frames are made; None takes the photographs as they are. By `Scenes` a frame
            is a square of the training size, cut of a whole scene.
        meter: The level of the exposure meter that the network is trained behind, and is to be used behind,
            as for `fastllie.models.Metered`; None: without. It reads whole photographs or `Scenes`, which are
            to be brightened to about this level.
        meter_after: The level of the meter once the network has learned; None: `meter`. A little more makes
            all pictures brighter, and leaves the network less to do.

    Attributes:
        unpaired: Whether the method learns from two sides that are no pairs.

    Raises:
        ValueError: a value that no run can have.
    """

    unpaired: ClassVar[bool] = False

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
    synthesis: Synthesis | Scenes | None = None
    meter: float | None = None
    meter_after: float | None = None

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
        if self.meter is not None:
            check_level("meter", self.meter)
            if isinstance(self.synthesis, Synthesis):
                raise ValueError(
                    f"meter={self.meter} needs whole scenes, and synthesis=Synthesis(...) makes squares: give"
                    " synthesis=Scenes(...), or None for photographs as they are"
                )
        if self.meter_after is not None:
            if self.meter is None:
                raise ValueError("meter_after needs meter, the level that the network learns behind")
            check_level("meter_after", self.meter_after)
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"clip must be positive, or None for none, got {self.clip}")
        if not 0 <= self.average < 1 or not 0 <= self.hold <= 1:
            raise ValueError(f"average must be in [0, 1) and hold in [0, 1], got {self.average}, {self.hold}")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be two numbers in [0, 1), got {self.betas}")

    def kept(self) -> dict[str, Any]:
        """The size at which photographs are kept, as keywords of `fastllie.training.data.Preparation`.

        Raises:
            ValueError: a recipe whose photographs would be of no use.
        """
        size = getattr(self, "size", None)
        if self.synthesis is None:
            return {"square": size}
        if size is None:
            raise ValueError("synthetic exposures need a size")
        if isinstance(self.synthesis, Scenes):
            if size > min(self.synthesis.size):
                raise ValueError(
                    f"squares of {size} do not fit into scenes of"
                    f" {self.synthesis.size[0]}x{self.synthesis.size[1]}"
                )
            return {"long_side": SCENE_SIDE}
        return {"short_side": round(size * self.synthesis.zoom)}


@dataclass(frozen=True, kw_only=True)
class Adversarial(Loop):
    """What the recipes of networks that learn from discriminators, and from two sides, have in common.

    Args:
        discriminator_width: Channels of the discriminators' first layer.
        discriminator_rate: Their learning rate in units of the generators'.
        size: Side of the square crops.
        stored_as: Type of the numbers in the result: "float32" or "float16".
        by_index: Show dark photograph i beside normal photograph i, in every pass; False draws the normal
            ones at random.
        decay: Of the learning rate: "passes" lowers it pass by pass, as published; "schedule" is `schedule`.
        synthesis: Make the dark side of photographs, see `fastllie.training.data.open_source`. By `Scenes`
            the normal side of a frame is the target of another one of its batch.
        pairs: Weights of the losses of the result and the target of a synthetic frame, which the published
            methods do not know; all zero: none.
        judged_from: The share of the steps after which the adversarial losses and all others of the method's
            own begin; before that the pairs alone teach.
    """

    unpaired: ClassVar[bool] = True
    decays: ClassVar[tuple[str, ...]] = ("passes", "schedule")

    discriminator_width: int = 64
    discriminator_rate: float = 1.0
    size: int
    stored_as: str = "float32"
    by_index: bool = False
    decay: str = "passes"
    flips: bool = True
    pairs: PairWeights = _NO_PAIRS
    judged_from: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        # steps that go backward in pieces are not compiled; how these networks pad and begin is set
        for name, only in (("compile", False), ("padding", "zeros"), ("normal_init", None)):
            if getattr(self, name) != only:
                raise ValueError(f"{name} is not for {self.method}, got {getattr(self, name)!r}")
        if any(asdict(self.pairs).values()):
            if self.synthesis is None:
                raise ValueError("pairs need a synthesis, which knows what a dark frame should become")
        elif self.judged_from:
            raise ValueError(f"judged_from={self.judged_from} leaves steps without a loss: give pairs")
        if not 0 <= self.judged_from <= 1:
            raise ValueError(f"judged_from must be in [0, 1], got {self.judged_from}")
        for name, allowed in (("decay", self.decays), ("stored_as", STORED)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, got {getattr(self, name)!r}")
        if not self.discriminator_rate > 0:
            raise ValueError(f"discriminator_rate must be positive, got {self.discriminator_rate}")

    def kept(self) -> dict[str, Any]:
        return super().kept() if self.synthesis is not None else {"least": self.size}

    def sides(self) -> dict[str, Any]:
        """How the two sides are shown, as keywords of `fastllie.training.data.source.Unpaired`."""
        return {"size": self.size, "flips": self.flips, "by_index": self.by_index}
