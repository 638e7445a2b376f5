"""The recipes: the published numbers with their sources, and those of our own weights."""

from dataclasses import replace

from fastllie.training.recipes.dawn import DAWN, DawnLossWeights, DawnRecipe
from fastllie.training.recipes.enlightengan import (
    ENLIGHTENGAN,
    ENLIGHTENGAN_PUBLISHED,
    EnlightenGANRecipe,
)
from fastllie.training.recipes.loop import (
    OPTIMIZERS,
    PRECISIONS,
    SCHEDULES,
    WIDE,
    Adversarial,
    Loop,
    Synthesis,
)
from fastllie.training.recipes.nerco import (
    CLIP_PREPROCESSES,
    COORDINATES,
    EDGES,
    GAN_MODES,
    NERCO,
    NERCO_LOGITS,
    NERCO_PUBLISHED,
    TEXT_LOSSES,
    NeRCoLossWeights,
    NeRCoRecipe,
)
from fastllie.training.recipes.scenes import PairWeights, Scenes
from fastllie.training.recipes.sci import (
    SCI_FINETUNE,
    SCI_METERED,
    SCI_MILD,
    SCI_OFFICIAL,
    SCI_RELEASED,
    SCI_STRONG,
    SCILossWeights,
    SCIRecipe,
)
from fastllie.training.recipes.zerodce import (
    ZERODCE,
    ZERODCE_METERED,
    ZERODCE_PUBLISHED,
    ZERODCEPP,
    ZERODCEPP_METERED,
    ZERODCEPP_PUBLISHED,
    LossWeights,
    Recipe,
)

__all__ = [
    "CLIP_PREPROCESSES",
    "COORDINATES",
    "DAWN",
    "EDGES",
    "ENLIGHTENGAN",
    "ENLIGHTENGAN_PUBLISHED",
    "FINETUNES",
    "GAN_MODES",
    "NERCO",
    "NERCO_LOGITS",
    "NERCO_PUBLISHED",
    "OFFICIAL",
    "OPTIMIZERS",
    "PRECISIONS",
    "RECIPES",
    "SCHEDULES",
    "SCI_FINETUNE",
    "SCI_METERED",
    "SCI_MILD",
    "SCI_OFFICIAL",
    "SCI_RELEASED",
    "SCI_STRONG",
    "SHIPPED",
    "TEXT_LOSSES",
    "WIDE",
    "ZERODCE",
    "ZERODCEPP",
    "ZERODCEPP_METERED",
    "ZERODCEPP_PUBLISHED",
    "ZERODCE_METERED",
    "ZERODCE_PUBLISHED",
    "Adversarial",
    "AnyRecipe",
    "DawnLossWeights",
    "DawnRecipe",
    "EnlightenGANRecipe",
    "Loop",
    "LossWeights",
    "NeRCoLossWeights",
    "NeRCoRecipe",
    "PairWeights",
    "Recipe",
    "SCILossWeights",
    "SCIRecipe",
    "Scenes",
    "Synthesis",
]

AnyRecipe = Recipe | SCIRecipe | EnlightenGANRecipe | NeRCoRecipe | DawnRecipe
OFFICIAL = "official"
# method -> the name of a variant in fastllie.info(method) -> how its weights were made; the default first
SHIPPED: dict[str, dict[str, AnyRecipe]] = {
    "zerodce": {"fastllie": ZERODCE, "metered": ZERODCE_METERED},
    "zerodce++": {"fastllie": ZERODCEPP, "metered": ZERODCEPP_METERED},
    "sci": {"strong": SCI_STRONG, "mild": SCI_MILD, "metered": SCI_METERED},
    "enlightengan": {"fastllie": ENLIGHTENGAN},
    "nerco": {"fastllie": NERCO, "logits": NERCO_LOGITS},
    "dawn": {"fastllie": DAWN},
}
# method -> the name of a recipe -> the recipe
RECIPES: dict[str, dict[str, AnyRecipe]] = {
    "zerodce": {OFFICIAL: ZERODCE_PUBLISHED, **SHIPPED["zerodce"]},
    "zerodce++": {OFFICIAL: ZERODCEPP_PUBLISHED, **SHIPPED["zerodce++"]},
    "sci": {OFFICIAL: SCI_OFFICIAL, "released": SCI_RELEASED, **SHIPPED["sci"]},
    "enlightengan": {OFFICIAL: ENLIGHTENGAN_PUBLISHED, **SHIPPED["enlightengan"]},
    "nerco": {OFFICIAL: NERCO_PUBLISHED, **SHIPPED["nerco"]},
    "dawn": {OFFICIAL: DAWN, **SHIPPED["dawn"]},
}
# likewise for going on from given weights; Zero-DCE's code loads them into its training unchanged
FINETUNES: dict[str, dict[str, AnyRecipe]] = {
    "zerodce": RECIPES["zerodce"],
    "zerodce++": RECIPES["zerodce++"],
    "sci": {OFFICIAL: SCI_FINETUNE},
    "enlightengan": RECIPES["enlightengan"],
    "nerco": RECIPES["nerco"],
    "dawn": {OFFICIAL: replace(DAWN, steps=1000, learning_rate=3e-4)},
}
