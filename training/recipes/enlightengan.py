"""The recipes of EnlightenGAN."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from fastllie.training.recipes.loop import Adversarial
from fastllie.training.recipes.scenes import LIT_IN_PARTS, PairWeights


@dataclass(frozen=True, kw_only=True)
class EnlightenGANRecipe(Adversarial):
    """Everything that decides a training run of EnlightenGAN but the photographs and the seed.

    Args:
        width, align_corners, in_logits, sees_logits: As for `fastllie.models.EnlightenGAN`.
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
        dark_share: Share of the dark crops that the generator sees darker still, while their features are
            compared undarkened.
        darkening: Range of the factor that divides those.
        decay: Of the learning rate: "passes" keeps it for the share `hold` of the passes and then lowers it
            after each by the same amount; "halving" halves it after each of these; "schedule" is `schedule`.
    """

    decays: ClassVar[tuple[str, ...]] = ("passes", "halving", "schedule")

    method: str = "enlightengan"
    width: int = 32
    align_corners: bool = False
    in_logits: bool = False
    sees_logits: bool = False
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
    dark_share: float = 0.5
    darkening: tuple[float, float] = (2.0, 4.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("width", "discriminator_width", "patch", "patches"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.size < self.patch:
            raise ValueError(f"patches of {self.patch} do not fit into crops of {self.size}")
        if not self.residual > 0:
            raise ValueError(f"residual must be positive, got {self.residual}")
        if not 0 <= self.dark_share <= 1:
            raise ValueError(f"dark_share must be in [0, 1], got {self.dark_share}")
        if not 1 <= self.darkening[0] <= self.darkening[1]:
            raise ValueError(f"darkening must be a range of factors from 1 on, got {self.darkening}")

    def sides(self) -> dict[str, Any]:
        return {**super().sides(), "dark_share": self.dark_share, "darkening": self.darkening}


# scripts/script.py of VITA-Group/EnlightenGAN @b034984, with its randint(200, 400) and niter of 100;
# but for B, which is drawn at random
ENLIGHTENGAN_PUBLISHED = EnlightenGANRecipe(
    batch=32, epochs=200, hold=0.5, betas=(0.5, 0.999), learning_rate=1e-4
)

# Ours: the published form, narrow and short, for two cores and an hour and a quarter. Pairs of synthetic
# scenes teach what the adversarial losses need ten times longer for; those have the last word, at a weight
# that leaves the pairs in charge. As a sum the residual of a very dark image is haze, or too small: behind
# a meter no image is very dark, and what is left to add is mostly the noise, taken away. Flat scenes, in
# which noise stands alone, teach that: without them more of it was left, and hues were further from the
# input's. They are lit by one light, many are without noise, which would hide a faint rim, and no light or
# lifted shadow of the other scenes runs over edges: a rim that a target has, or that a glow asks for, is
# one that the network makes. The local contrast keeps bright ground from drifting beside what is dark,
# which the coarse levels lift; it needs crops as high as a scene, for the network sees 137 pixels far, and
# in crops of 128 no place is that far from the padding: with those tones drifted more. Without the loss of
# flatness rims grew again, the longer the network learned from photographs.
ENLIGHTENGAN = replace(
    ENLIGHTENGAN_PUBLISHED,
    width=16,
    meter=0.5,
    stored_as="float16",
    discriminator_width=32,
    discriminator_rate=0.5,
    size=192,
    patches=3,
    batch=4,
    epochs=None,
    steps=14000,
    betas=(0.9, 0.99),
    decay="schedule",
    schedule="cosine",
    warmup=100,
    average=0.999,
    hold=0.2,
    clip=1.0,
    learning_rate=1e-3,
    precision="bfloat16",
    features=0.02,
    dark_share=0.0,
    pairs=PairWeights(
        difference=1.5,
        matched_difference=0.6,
        structure=0.8,
        chroma=0.8,
        overshoot=1.5,
        mean=0.7,
        local_contrast=12.0,
        flatness=400.0,
    ),
    judged_from=0.96,
    # no flat scene is lit in parts, so that more of the photographs are
    synthesis=replace(
        LIT_IN_PARTS,
        mixed_share=0.35,
        backlit_share=0.2,
        shadow_edge=0.001,
        light_edge=0.006,
        flat_share=0.4,
        flat_clean_share=0.6,
    ),
    meter_after=0.575,
)
