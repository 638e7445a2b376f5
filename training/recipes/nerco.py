"""The recipes of NeRCo."""

from dataclasses import dataclass, field, replace
from typing import Any

from fastllie.training.recipes.loop import Adversarial, Synthesis
from fastllie.training.recipes.scenes import LIT_IN_PARTS, PairWeights

EDGES = ("central", "sobel", "laplacian4", "laplacian8")
COORDINATES = ("published", "absolute")
GAN_MODES = ("lsgan", "vanilla", "wgangp")
TEXT_LOSSES = ("official", "clip")
CLIP_PREPROCESSES = ("clip", "official")
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
class NeRCoRecipe(Adversarial):
    """Everything that decides a training run of NeRCo but the photographs and the seed.

    Args:
        width, blocks, pre_blocks, mask_blocks, hidden, coordinates, in_logits: As for
            `fastllie.models.NeRCo`; the darkening generator has `width`, `blocks` and `in_logits` too.
        keep_cast: Likewise, of the trained network: it draws what the losses see as published.
        discriminator_layers: As for `fastllie.models.nerco.Discriminator`.
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
        decay: Of the learning rate: "passes" keeps it for the share `hold` of the passes, less one, and
            lowers it before each of the others by the same amount, to zero in the last, as published;
            "schedule" is `schedule`.
    """

    method: str = "nerco"
    width: int = 64
    blocks: int = 9
    pre_blocks: int | None = 9
    mask_blocks: int = 3
    hidden: int | None = None
    coordinates: str = "published"
    in_logits: bool = False
    keep_cast: bool = False
    discriminator_layers: int = 3
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

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, allowed in (
            ("coordinates", COORDINATES),
            ("gan", GAN_MODES),
            ("edge", EDGES),
            ("text_loss", (None, *TEXT_LOSSES)),
            ("clip_preprocess", CLIP_PREPROCESSES),
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

    def kept(self) -> dict[str, Any]:
        if self.synthesis is None and self.squeeze is not None:
            return {"square": self.squeeze, "bicubic": True}
        return super().kept()

    def sides(self) -> dict[str, Any]:
        return {**super().sides(), "upside": False}


# options/ and models/ of Ysz2022/NeRCo @6b0e111, but for the colours of the edges, which it draws at random
# (`official_random_color`), and for its text loss, which trains nothing
NERCO_PUBLISHED = NeRCoRecipe(epochs=300, hold=1 / 3)

# Ours, of the published losses: narrow and short, for a few cores. Images that are drawn anew are blurred and
# chequered for longer than that; a change of logits keeps details from the start. With the published weights
# of cycle and identity both generators would stay there, at no change.
NERCO_LOGITS = replace(
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

# The published form, which draws the image anew. Its instance norms take every exposure for the same one, so
# that it gives all scenes a brightness of their own where a change of logits adds to what is there; and what
# it draws has no noise. They lose the colour of the light with the exposure, which it gets back afterwards.
# Pairs teach it nearly all: of the adversarial losses alone it would know neither after ten times as long.
NERCO = replace(
    NERCO_LOGITS,
    in_logits=False,
    keep_cast=True,
    size=128,
    steps=5000,
    betas=(0.9, 0.99),
    schedule="cosine",
    hold=0.2,
    warmup=100,
    average=0.998,
    clip=1.0,
    learning_rate=1e-3,
    precision="bfloat16",
    pairs=PairWeights(
        difference=1.5,
        matched_difference=0.6,
        structure=0.5,
        chroma=0.8,
        overshoot=1.0,
        mean=0.7,
    ),
    judged_from=0.95,
    synthesis=replace(LIT_IN_PARTS, size=(128, 192)),
)
