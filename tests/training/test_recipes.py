"""The recipes: the published numbers, what they refuse, other values, and files of settings."""

from dataclasses import replace

import pytest
from helpers import refused
from test_trainer import TINY

import fastllie
from fastllie.training import recipes
from fastllie.training.recipes import LossWeights, SCIRecipe, Synthesis
from fastllie.training.recipes.config import read_config, write_config
from fastllie.training.recipes.overrides import field_names, nested, override, value_of


def test_published_recipes_keep_the_published_numbers():
    for method, weight, size, epochs, init in (
        ("zerodce", 200, 256, 200, 0.02),
        ("zerodce++", 1600, 512, 100, None),
    ):
        recipe = recipes.RECIPES[method]["official"]
        assert (recipe.size, recipe.epochs, recipe.normal_init, recipe.batch) == (size, epochs, init, 8)
        assert recipe.losses == LossWeights(weight, 1, 5, 10)
        assert (recipe.learning_rate, recipe.weight_decay, recipe.clip) == (1e-4, 1e-4, 0.1)
        assert (recipe.padding, recipe.schedule, recipe.average, recipe.synthesis) == (
            "zeros",
            "constant",
            0.0,
            None,
        )


def test_every_variant_that_ships_has_its_recipe():
    for method in fastllie.list_methods():
        names = [variant.name for variant in fastllie.info(method).weights]
        assert list(recipes.SHIPPED[method]) == names
        assert set(recipes.RECIPES[method]) >= {"official", *names}
        assert "official" in recipes.FINETUNES[method]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"precision": "half"}, "precision must be one of"),
        ({"optimizer": "sgd"}, "optimizer must be one of"),
        ({"schedule": "step"}, "schedule must be one of"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"accumulate": 0}, "accumulate must be at least 1"),
        ({"clip": 0.0}, "clip must be positive"),
        ({"average": 1.0}, "average must be in"),
        ({"hold": 1.5}, "hold in"),
        ({"betas": (0.9,)}, "betas must be two numbers"),
        ({"learning_rate": -1.0}, "learning_rate must be at least 0"),
    ],
)
def test_recipes_refuse_values_that_no_run_can_have(changes, told):
    with pytest.raises(ValueError, match=told):
        replace(TINY, **changes)


def test_published_numbers_of_sci():
    official, released = recipes.RECIPES["sci"]["official"], recipes.RECIPES["sci"]["released"]
    assert (official.stages, official.batch, official.epochs, official.size) == (3, 1, 1000, None)
    assert (official.learning_rate, official.weight_decay, official.clip) == (3e-4, 3e-4, 5.0)
    assert (official.losses.fidelity, official.losses.smoothness) == (1.5, 1.0)
    assert (official.color, official.norm, official.sigma) == ("memory", "pixel", 10.0)
    assert official.freeze_bn_after is None
    assert replace(official, color="rgb", norm="scalar", freeze_bn_after=1) == released
    tuning = recipes.FINETUNES["sci"]["official"]
    assert (tuning.stages, tuning.epochs, tuning.learning_rate) == (1, 100, 5e-4)
    assert (tuning.freeze_bn_after_steps, tuning.losses) == (10, official.losses)


def test_override_goes_into_parts():
    recipe = override(SCIRecipe(), {"losses": {"exposure": 3}, "learning_rate": 1, "synthesis": {"zoom": 2}})
    assert (recipe.losses.exposure, recipe.losses.fidelity) == (3.0, 1.5)
    assert isinstance(recipe.learning_rate, float)
    assert recipe.synthesis == Synthesis(zoom=2.0)
    assert override(recipe, {"synthesis": None}).synthesis is None
    assert override(Synthesis(), {"lift": [-1, -2]}).lift == (-1, -2)


def test_flags_are_the_fields():
    names = field_names()
    assert {"learning_rate", "losses.exposure", "losses.map_smoothness", "synthesis.zoom", "stages"} <= set(
        names
    )
    assert "method" not in names
    assert nested({"a.b": 1, "a.c": 2, "d": 3}) == {"a": {"b": 1, "c": 2}, "d": 3}
    texts = {"1e-4": 1e-4, "3": 3, "none": None, "False": False, "(-1, 2)": (-1, 2), "memory": "memory"}
    assert {text: value_of(text) for text in texts} == texts


def test_a_config_is_read_as_it_was_written(tmp_path):
    settings = {
        "method": "sci",
        "data": 'a "folder" ünder\nC:\\x',
        "size": None,
        "compile": False,
        "learning_rate": 1e-4,
        "betas": (0.9, 0.999),
        "losses": {"exposure": 3.0, "fidelity": 0},
        "steps": 7,
    }
    write_config(tmp_path / "c.toml", settings)
    assert read_config(tmp_path / "c.toml") == {**settings, "betas": [0.9, 0.999]}
    (tmp_path / "c.toml").write_text("steps = = 3")
    with refused(ValueError, "c.toml is not TOML", "line 1"):
        read_config(tmp_path / "c.toml")


def test_recipes_behind_a_meter_train_on_whole_scenes():
    behind = {
        "zerodce": "metered",
        "zerodce++": "metered",
        "sci": "metered",
        "enlightengan": "fastllie",
    }
    for method, variant in behind.items():
        recipe = recipes.SHIPPED[method][variant]
        assert 0 < recipe.meter < 1
        assert isinstance(recipe.synthesis, recipes.Scenes)
        others = {name: other for name, other in recipes.RECIPES[method].items() if name != variant}
        assert all(other.meter is None for other in others.values())
        assert fastllie.load(method, weights=variant).meter == (recipe.meter_after or recipe.meter)
